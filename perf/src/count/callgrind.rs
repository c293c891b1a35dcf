//! Run this very program under callgrind, and read what callgrind writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::inside::COUNTED;
use super::{Count, CountError};

/// Stages of the pipeline: functions that are never inlined, so that callgrind sees them.
const STAGES: &[(&str, &str)] = &[
    ("::Parse::parse", "1 parse"),
    ("::Steer::steer", "2 steer"),
    ("pipeline::lookup::lookup", "3 lookup"),
    ("forward::forward_quiet", "4 forward"),
    ("::Forward::forward_others", "4 forward"),
    ("Admit>::plan", "5 plan"),
    ("::Admit::admit", "6 admit"),
    ("::Dispatch<F>::dispatch", "7 dispatch"),
];

/// Count what a scenario takes.
pub fn count(scenario: &str) -> Result<Count, CountError> {
    let file = format!("sluice-perf-{}-{scenario}.callgrind", std::process::id());
    let path = std::env::temp_dir().join(file);
    let program = std::env::current_exe().map_err(CountError::Valgrind)?;
    let missing = |what| CountError::Output { scenario: scenario.to_owned(), what };
    let (directory, name) =
        program.parent().zip(program.file_name()).ok_or_else(|| missing("program"))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--error-exitcode=0"])
        // Names in full, no source lines: easily read.
        .args(["--compress-strings=no", "--compress-pos=no", "--dump-line=no"])
        // The same caches everywhere, whatever the machine's own are; of so many ways that it hardly
        // matters which lines share a set.
        .args(["--cache-sim=yes", "--I1=32768,8,64", "--D1=32768,64,64", "--LL=65536,64,64"])
        .args(["--collect-atstart=no", &format!("--toggle-collect={COUNTED}")])
        .arg(format!("--callgrind-out-file={}", path.display()))
        .arg(Path::new(".").join(name))
        .args(["count", "--inside", scenario])
        // The stack begins behind the environment and the program's name, and what lies where decides
        // which lines share a set.
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .current_dir(directory)
        .output()
        .map_err(CountError::Valgrind)?;
    let written = fs::read_to_string(&path);
    let _ = fs::remove_file(&path);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(CountError::Failed {
            scenario: scenario.to_owned(),
            status: output.status,
            said,
        });
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let counted = said.trim().split_once(' ').and_then(|(n, unit)| Some((n.parse().ok()?, unit)));
    let (operations, unit): (f64, &str) = counted.ok_or_else(|| missing("number of operations"))?;
    let profile = Profile::parse(&written.unwrap_or_default());
    let per = |events: u64| (events as f64 / operations * 100.0).round() / 100.0;
    let own = *profile.by_object.get("sluice-perf").ok_or_else(|| missing("instructions"))?;
    let all: u64 = profile.by_object.values().sum();
    let [lines, far_lines] = profile.misses;
    let stages = profile.stages.iter().map(|(name, events)| ((*name).to_owned(), per(*events)));
    Ok(Count {
        per: unit.to_owned(),
        instructions: per(own),
        in_libraries: per(all - own),
        lines: per(lines),
        far_lines: per(far_lines),
        stages: stages.collect(),
    })
}

/// What a profile says.
#[derive(Debug, Default)]
struct Profile {
    /// Instructions by object: the program and its shared libraries, by their files' names.
    by_object: BTreeMap<String, u64>,
    /// Accesses to data that missed in the first level, and in the last.
    misses: [u64; 2],
    /// Instructions by stage, with what it calls.
    stages: BTreeMap<&'static str, u64>,
}

impl Profile {
    /// Read callgrind's format, as written with the flags above: blocks of `ob=`, `fn=`, then lines
    /// of costs; a line of costs after `calls=` is what the called function took in all.
    fn parse(text: &str) -> Self {
        let mut profile = Profile::default();
        let (mut object, mut stage, mut is_call) = (String::new(), None, false);
        let mut events: Vec<&str> = Vec::new();
        for line in text.lines() {
            if let Some(names) = line.strip_prefix("events:") {
                events = names.split_whitespace().collect();
            } else if let Some(path) = line.strip_prefix("ob=") {
                object = path.rsplit('/').next().unwrap_or_default().to_owned();
            } else if let Some(name) = line.strip_prefix("fn=") {
                stage = STAGES.iter().find(|(f, _)| name.ends_with(f)).map(|(_, stage)| *stage);
            } else if line.starts_with("calls=") {
                is_call = true;
            } else if line.starts_with(|c: char| c.is_ascii_digit()) {
                // The first number is the place; trailing zeros are left out.
                let costs: Vec<u64> =
                    line.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
                let instructions = costs.first().copied().unwrap_or_default();
                if let Some(stage) = stage {
                    *profile.stages.entry(stage).or_default() += instructions;
                }
                if !std::mem::take(&mut is_call) {
                    *profile.by_object.entry(object.clone()).or_default() += instructions;
                    for (event, cost) in events.iter().zip(&costs) {
                        match *event {
                            "D1mr" | "D1mw" => profile.misses[0] += cost,
                            "DLmr" | "DLmw" => profile.misses[1] += cost,
                            _ => {}
                        }
                    }
                }
            }
        }
        profile
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_costs_are_added_up_and_calls_belong_to_their_stage() {
        let text = "version: 1\nevents: Ir Dr Dw I1mr D1mr D1mw ILmr DLmr DLmw\n\n\
            ob=/somewhere/sluice-perf\nfl=x.rs\nfn=sluice_path::pipeline::parse::Parse::parse\n\
            0 100 5 5 0 3 1 0 2 1\ncfn=memcpy\ncob=/lib/libc.so.6\ncalls=4 0\n0 40 1 1\n\n\
            ob=/lib/libc.so.6\nfn=memcpy\n0 40 1 1\n\n\
            ob=/somewhere/sluice-perf\nfn=other\n0 7\n";
        let profile = Profile::parse(text);
        assert_eq!(profile.by_object["sluice-perf"], 107);
        assert_eq!(profile.by_object["libc.so.6"], 40);
        assert_eq!(profile.misses, [4, 3]);
        assert_eq!(profile.stages["1 parse"], 140);
    }
}
