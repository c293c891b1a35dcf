//! The two configuration files: readable, and valid by the programs' own rules.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sluice_api::EXIT_WRONG_FILE;

use super::finding::Finding;
use super::wanted::Wanted;

/// The name of the data plane's program.
const DATAPLANE: &str = "sluice-dataplane";
/// The name of control's program.
const CONTROL: &str = "sluice-control";
/// A file that says nothing.
const NOTHING: &str = "/dev/null";

/// The programs that judge the files, as far as they are here.
pub struct Programs {
    /// `sluice-dataplane`.
    pub dataplane: Option<PathBuf>,
    /// `sluice-control`.
    pub control: Option<PathBuf>,
}

impl Programs {
    /// Those beside this one, or in `PATH`.
    pub fn find() -> Programs {
        Programs { dataplane: program(DATAPLANE), control: program(CONTROL) }
    }
}

fn program(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = beside.into_iter().chain(std::env::split_paths(&path));
    // Where daemons are, also for a user without it in PATH.
    let folders = folders.chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Have a program judge a file.
fn judge(program: &Path, file: &Path, more: &[&OsStr]) -> Result<Output, String> {
    Command::new(program)
        .args([OsStr::new("--check"), OsStr::new("--config"), file.as_os_str()])
        .args(more)
        // What is wrong there is not wrong with the file.
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{} cannot be run: {error}", program.display()))
}

/// Read the data plane's file, and have its own program judge it when there is one.
pub fn dataplane(file: &Path, program: Option<&Path>) -> (Finding, Option<Wanted>) {
    const CHECK: &str = "dataplane-file";
    let shown = file.display();
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            let fix = "write one (examples: /usr/share/doc/sluice/examples), or name it with \
                       --dataplane-file; what follows goes by the defaults";
            return (Finding::wrong(CHECK, format!("{shown}: {error}"), fix), None);
        }
    };
    let wanted = match text.parse::<toml::Table>() {
        Ok(table) => Wanted::read(&table),
        Err(error) => {
            let message = format!("{shown} is not TOML: {}", error.message());
            return (Finding::wrong(CHECK, message, format!("edit {shown}")), None);
        }
    };
    let Some(program) = program else {
        let message = format!("{shown} is TOML; {DATAPLANE} is not here to check the rest");
        return (Finding::unknown(CHECK, message), Some(wanted));
    };
    let finding = match judge(program, file, &[]) {
        Ok(output) if output.status.success() => Finding::ok(CHECK, format!("{shown} is valid")),
        Ok(output) => Finding::wrong(CHECK, said(&output.stderr), format!("edit {shown}")),
        Err(why) => Finding::unknown(CHECK, why),
    };
    (finding, Some(wanted))
}

/// Control's file as its own program judges it, what in it cannot work with the ports and routes of the
/// data plane's file, when that can be read, and what is wrong with the state beside it.
pub fn control(file: &Path, dataplane_file: Option<&Path>, program: Option<&Path>) -> Vec<Finding> {
    const CHECK: &str = "control-file";
    let shown = file.display();
    let Some(program) = program else {
        return vec![alone(CHECK, file)];
    };
    let ports = dataplane_file.map_or(OsStr::new(NOTHING), Path::as_os_str);
    let output = match judge(program, file, &[OsStr::new("--dataplane-file"), ports]) {
        Ok(output) => output,
        Err(why) => return vec![Finding::unknown(CHECK, why)],
    };
    let (report, complaint) = (said(&output.stdout), said(&output.stderr));
    let complaint = complaint.strip_prefix("sluice-control: ").unwrap_or(&complaint);
    let refused = output.status.code() == Some(EXIT_WRONG_FILE.into());
    let mut lines = report.lines();
    // It is said before the state is looked at, so what is wrong without it is wrong with the file.
    let Some(counts) = lines.next().and_then(|line| line.strip_prefix("OK: ")) else {
        let fix = format!("edit {shown}, or name another with --control-file");
        let wrong = || Finding::wrong(CHECK, complaint, fix);
        return vec![if refused { wrong() } else { Finding::unknown(CHECK, complaint) }];
    };
    let mut findings = vec![Finding::ok(CHECK, format!("{shown} is valid: {counts}"))];
    let doubts = lines.filter_map(|line| line.strip_prefix("warning: "));
    findings.extend(doubts.map(|doubt| Finding::warning(CHECK, doubt, format!("edit {shown}"))));
    if !output.status.success() {
        findings.push(state(complaint, refused, file));
    }
    findings
}

/// Control's file without the program that knows its rules.
fn alone(check: &'static str, file: &Path) -> Finding {
    let shown = file.display();
    match std::fs::read_to_string(file).map(|text| text.parse::<toml::Table>()) {
        Ok(Ok(_)) => {
            let message = format!("{shown} is TOML; {CONTROL} is not here to check the rest");
            Finding::unknown(check, message)
        }
        Ok(Err(error)) => {
            let message = format!("{shown} is not TOML: {}", error.message());
            Finding::wrong(check, message, format!("edit {shown}"))
        }
        Err(error) => {
            let fix = "write one, or name it with --control-file";
            Finding::wrong(check, format!("{shown}: {error}"), fix)
        }
    }
}

/// The state that control would start with, when there is something to say of it.
fn state(complaint: &str, refused: bool, file: &Path) -> Finding {
    const CHECK: &str = "control-state";
    if refused {
        return Finding::wrong(CHECK, complaint, format!("edit {}", file.display()));
    }
    // It may be only who asks that cannot read it.
    Finding::unknown(CHECK, complaint)
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;
    use std::fs;

    /// Stands in for a real program, which the end-to-end tests run.
    fn stand_in(dir: &Path, script: &str) -> PathBuf {
        let (text, program) = (dir.join("judge.sh"), dir.join("judge"));
        fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        // Not written by this process, which starts others meanwhile: they would hold it open.
        let mut install = Command::new("install");
        assert!(install.args(["-m", "755"]).args([&text, &program]).status().unwrap().success());
        program
    }

    #[test]
    fn files_are_missing_broken_wrong_or_right() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("dataplane.toml");
        let (missing, wanted) = dataplane(&file, None);
        assert_eq!((missing.state, wanted), (State::Wrong, None));
        assert!(missing.message.contains("No such file"), "{missing:?}");
        fs::write(&file, "[runtime\n").unwrap();
        let (broken, wanted) = dataplane(&file, None);
        assert_eq!((broken.state, wanted), (State::Wrong, None));
        fs::write(&file, "[runtime]\nmemory_mb = 64\n").unwrap();
        let (alone, wanted) = dataplane(&file, None);
        assert_eq!((alone.state, wanted.unwrap().memory_mb), (State::Unknown, 64));

        let program = stand_in(
            dir.path(),
            "grep -q 64 \"$3\" && exit 0\necho \"port is absent\" >&2; exit 1",
        );
        assert_eq!(dataplane(&file, Some(&program)).0.state, State::Ok);
        fs::write(&file, "").unwrap();
        let (wrong, _) = dataplane(&file, Some(&program));
        assert_eq!((wrong.state, wrong.message.as_str()), (State::Wrong, "port is absent"));
        let (unknown, _) = dataplane(&file, Some(&dir.path().join("none")));
        assert_eq!(unknown.state, State::Unknown);
    }

    #[test]
    fn controls_file_is_judged_by_its_own_program() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("control.toml");
        assert_eq!(control(&file, None, Some(&dir.path().join("none")))[0].state, State::Unknown);

        let look = |script: &str| {
            let program = stand_in(dir.path(), script);
            control(&file, Some("/etc/ports".as_ref()), Some(&program))
        };
        let found = look("echo \"OK: 0 services, 1 pools\"");
        assert_eq!((found.len(), found[0].state), (1, State::Ok));
        assert!(found[0].message.ends_with("control.toml is valid: 0 services, 1 pools"));
        let found = look(
            "echo \"OK: 0 services, 1 pools\"\necho \"pool p: created\"\n\
             echo \"warning: $*\"",
        );
        assert_eq!((found.len(), found[1].state), (2, State::Warning));
        let asked = format!("--check --config {} --dataplane-file /etc/ports", file.display());
        assert_eq!(found[1].message, asked);
        let found = look("echo \"sluice-control: control.api_listen is 7\" >&2; exit 78");
        assert_eq!((found.len(), found[0].state), (1, State::Wrong));
        assert_eq!(found[0].message, "control.api_listen is 7");
        let found = look("echo \"sluice-control: no log\" >&2; exit 1");
        assert_eq!((found.len(), found[0].state), (1, State::Unknown));
        assert_eq!(found[0].message, "no log");
    }

    #[test]
    fn the_state_is_told_apart_from_controls_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("control.toml");
        let cases = [(1, State::Unknown, false), (78, State::Wrong, true)];
        for (code, state, mends) in cases {
            let script = format!(
                "echo \"OK: 0 services, 1 pools\"\necho \"warning: far\"\n\
                 echo \"sluice-control: state file: no\" >&2; exit {code}"
            );
            let found = control(&file, None, Some(&stand_in(dir.path(), &script)));
            let told = |at: usize| (found[at].check, found[at].state, found[at].message.as_str());
            let valid = format!("{} is valid: 0 services, 1 pools", file.display());
            assert_eq!(told(0), ("control-file", State::Ok, valid.as_str()));
            assert_eq!(told(1), ("control-file", State::Warning, "far"));
            assert_eq!(told(2), ("control-state", state, "state file: no"));
            assert_eq!((found.len(), found[2].fix.is_some()), (3, mends));
        }
    }

    #[test]
    fn without_its_program_controls_file_is_read_as_far_as_that_goes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("control.toml");
        let told = || {
            let found = control(&file, None, None);
            assert_eq!(found.len(), 1);
            (found[0].state, found[0].message.clone())
        };
        assert_eq!(told().0, State::Wrong);
        assert!(told().1.contains("No such file"), "{:?}", told());
        fs::write(&file, "[control\n").unwrap();
        assert_eq!(told().0, State::Wrong);
        assert!(told().1.contains("is not TOML"), "{:?}", told());
        fs::write(&file, "[control]\n").unwrap();
        assert_eq!(told().0, State::Unknown);
        assert!(told().1.ends_with("is TOML; sluice-control is not here to check the rest"));
    }
}
