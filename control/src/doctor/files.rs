//! The two configuration files: readable, and valid by the programs' own rules.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::finding::Finding;
use super::wanted::Wanted;
use crate::config::Config;
use crate::model;
use crate::model::reach::{Reach, doubts};

/// The name of the data plane's program.
const DATAPLANE: &str = "sluice-dataplane";

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
    let output = Command::new(program)
        .args([OsStr::new("--check"), OsStr::new("--config"), file.as_os_str()])
        .stdin(Stdio::null())
        .output();
    let finding = match output {
        Ok(output) if output.status.success() => Finding::ok(CHECK, format!("{shown} is valid")),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Finding::wrong(CHECK, said, format!("edit {shown}"))
        }
        Err(error) => {
            Finding::unknown(CHECK, format!("{} cannot be run: {error}", program.display()))
        }
    };
    (finding, Some(wanted))
}

/// The data plane's program: beside this one, or in `PATH`.
pub fn dataplane_program() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = beside.into_iter().chain(std::env::split_paths(&path));
    // Where daemons are, also for a user without it in PATH.
    let folders = folders.chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(DATAPLANE)).find(|program| program.is_file())
}

/// Control's file, and what in it cannot work with a data plane whose ports lead where `reach` says.
pub fn control(file: &Path, reach: &Reach) -> Vec<Finding> {
    const CHECK: &str = "control-file";
    let shown = file.display();
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => {
            let fix = format!("edit {shown}, or name another with --control-file");
            return vec![Finding::wrong(CHECK, error.to_string(), fix)];
        }
    };
    let (services, pools) = (config.services.len(), config.pools.len());
    let message = format!("{shown} is valid: {services} services, {pools} pools");
    let state = model::State { version: 0, services: config.services, pools: config.pools };
    let doubts = doubts(&state, reach).into_iter();
    let warnings = doubts.map(|doubt| Finding::warning(CHECK, doubt, format!("edit {shown}")));
    [Finding::ok(CHECK, message)].into_iter().chain(warnings).collect()
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

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

        // Stands in for the real program, which the end-to-end tests run.
        let program = dir.path().join("judge");
        fs::write(
            &program,
            "#!/bin/sh\ngrep -q 64 \"$3\" && exit 0\necho \"port is absent\" >&2; exit 1\n",
        )
        .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(dataplane(&file, Some(&program)).0.state, State::Ok);
        fs::write(&file, "").unwrap();
        let (wrong, _) = dataplane(&file, Some(&program));
        assert_eq!((wrong.state, wrong.message.as_str()), (State::Wrong, "port is absent"));
        let (unknown, _) = dataplane(&file, Some(&dir.path().join("none")));
        assert_eq!(unknown.state, State::Unknown);
    }

    #[test]
    fn controls_file_is_judged_by_its_own_rules() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("control.toml");
        let look = |reach: &Reach| control(&file, reach);
        assert_eq!(look(&Reach::default())[0].state, State::Wrong);
        fs::write(&file, "[[pool]]\nname = \"p\"\naddresses = [\"10.0.0.1\"]\n").unwrap();
        let found = look(&Reach::default());
        assert_eq!(found.len(), 1);
        assert!(found[0].message.ends_with("is valid: 0 services, 1 pools"));
        let elsewhere = Reach { networks: vec![([10, 1, 0, 1].into(), 24)], routes: vec![] };
        let found = look(&elsewhere);
        assert_eq!((found.len(), found[1].state), (2, State::Warning));
        assert!(
            found[1].message.starts_with("pool p: its addresses are in no network"),
            "{found:?}"
        );
        fs::write(&file, "[control]\napi_listen = \"x\"\n").unwrap();
        assert!(look(&elsewhere)[0].message.contains("control.api_listen"));
    }
}
