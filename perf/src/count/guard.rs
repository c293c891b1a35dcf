//! The guard: are the figures those that were recorded?

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use super::{CountError, Report};

/// Exit code when there is nothing to compare with: automake's for a test that was skipped.
pub const SKIPPED: u8 = 77;
/// Lines may get more by this many, whatever the tolerance. Which of them share a set of the small
/// first level depends on where things lie, and that changes with every build and machine.
const LINES: f64 = 0.3;
/// Far lines hardly know of that.
const FAR_LINES: f64 = 0.1;

/// Recorded figures.
pub fn read(path: &Path) -> Result<Report, CountError> {
    let baseline = |error| CountError::Baseline { path: path.to_owned(), error };
    let bytes = fs::read(path).map_err(baseline)?;
    serde_json::from_slice(&bytes).map_err(|error| baseline(io::Error::from(error)))
}

/// Why these figures are no measure for this build, if they are not.
pub fn cannot_compare(before: &Report) -> Option<String> {
    let (rustc, flags) = (env!("SLUICE_RUSTC"), env!("SLUICE_RUSTFLAGS"));
    let again = &before.record_with;
    if before.rustc != rustc {
        let recorded = &before.rustc;
        return Some(format!(
            "toolchain: recorded with {recorded}, built with {rustc}: record anew with: {again}"
        ));
    }
    if before.rustflags != flags {
        let recorded = &before.rustflags;
        return Some(format!("flags: recorded with {recorded:?}, built with {flags:?}"));
    }
    let valgrind = std::process::Command::new("valgrind").arg("--version").output();
    valgrind.err().map(|error| format!("valgrind: {error}: on Debian: apt-get install valgrind"))
}

/// How a figure stands to the recorded one.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    None,
    Worse,
    Better,
}

fn change(before: f64, after: f64, percent: u32, slack: f64) -> Change {
    let margin = (before * f64::from(percent) / 100.0).max(slack);
    match after - before {
        by if by > margin => Change::Worse,
        by if by < -margin => Change::Better,
        _ => Change::None,
    }
}

/// Say what has changed; failure when anything got worse by more than the tolerance.
pub fn check(before: &Report, after: &Report, percent: u32) -> ExitCode {
    let (mut worse, mut better) = (0, 0);
    for (name, after) in &after.scenarios {
        let Some(before) = before.scenarios.get(name) else {
            eprintln!("NEW: {name}: {:.1} instructions: not recorded yet", after.instructions);
            better += 1;
            continue;
        };
        let figures = [
            ("instructions", before.instructions, after.instructions, 0.5),
            ("lines", before.lines, after.lines, LINES),
            ("far lines", before.far_lines, after.far_lines, FAR_LINES),
        ];
        for (figure, was, is, slack) in figures {
            let by = (is / was - 1.0) * 100.0;
            let per = &after.per;
            match change(was, is, percent, slack) {
                Change::None => {}
                Change::Worse => {
                    worse += 1;
                    eprintln!(
                        "WORSE: {name}: {figure} per {per}: {was:.2} before, {is:.2} after \
                         ({by:+.1} %, allowed {percent} %)"
                    );
                }
                Change::Better => {
                    better += 1;
                    eprintln!(
                        "better: {name}: {figure} per {per}: {was:.2} before, {is:.2} after \
                         ({by:+.1} %)"
                    );
                }
            }
        }
    }
    let again = &before.record_with;
    if worse > 0 {
        eprintln!("{worse} figures got worse. If that is wanted, say why and record: {again}");
        return ExitCode::FAILURE;
    }
    if better > 0 {
        eprintln!("{better} figures got better or are new. Please hold on to them: {again}");
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::super::{Count, FILE};
    use super::*;

    #[test]
    fn a_change_counts_beyond_tolerance_and_slack() {
        assert_eq!(change(100.0, 103.0, 3, 0.0), Change::None);
        assert_eq!(change(100.0, 103.1, 3, 0.0), Change::Worse);
        assert_eq!(change(100.0, 96.0, 3, 0.0), Change::Better);
        assert_eq!(change(1.0, 1.1, 3, 0.2), Change::None);
        assert_eq!(change(0.0, 0.3, 3, 0.2), Change::Worse);
    }

    /// The recorded figures, which `--check` holds the code to, do not grow with the workers.
    #[test]
    fn a_packet_takes_the_same_whatever_the_number_of_workers() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("results").join(FILE);
        let report = read(&path).unwrap();
        let of = |name: &str| report.scenarios[name].clone();
        // New conns are checked against the owner's rule where there is more than one worker.
        let established = ["1-worker", "2-workers", "4-workers", "8-workers"];
        for (kind, workers) in
            [("rss-established", &established[..]), ("rss-new", &established[1..])]
        {
            let counts = workers.iter().map(|workers| of(&format!("{kind}-{workers}")));
            let counts: Vec<Count> = counts.collect();
            for count in &counts {
                let more = count.instructions - counts[0].instructions;
                assert!(more.abs() < 2.0, "{kind}: {counts:?}");
                // Not `lines`: which of them collide in the first level depends on where they lie.
                let more = count.far_lines - counts[0].far_lines;
                assert!(more.abs() < 0.1, "{kind}: {counts:?}");
            }
        }
        // A packet that is handed over is parsed twice; there is no third time.
        let alone = of("rss-established-1-worker").instructions;
        assert!(of("handover-8-workers").instructions < 2.0 * alone);
    }
}
