//! `sluice doctor`: looks at this host, and asks no API.

use std::process::ExitCode;

use serde_json::json;

use crate::args::DoctorArgs;
use crate::doctor::{Examination, Finding, State, examine, is_well};
use crate::error::CliError;
use crate::output::Output;

/// Looks, prints, and says by the exit code whether something must be mended.
pub(crate) fn run(args: DoctorArgs, json: bool) -> Result<ExitCode, CliError> {
    let DoctorArgs { dataplane_file, control_file } = args;
    let findings = examine(&Examination { dataplane_file, control_file });
    let output = Output::new(json);
    let well = is_well(&findings);
    if json {
        output.value(&json!({ "ok": well, "findings": findings }))?;
    } else {
        output.text(&readable(&findings))?;
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One line for each finding, below it what mends it, and how many there are of each kind.
fn readable(findings: &[Finding]) -> String {
    let width = findings.iter().map(|f| f.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { check, state, message, fix } in findings {
        text += &format!("{:11}  {check:width$}  {}\n", state.word(), message.replace('\n', "; "));
        if let Some(fix) = fix {
            text += &format!("{:11}  {:width$}  -> {fix}\n", "", "");
        }
    }
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    text + &format!(
        "{} wrong, {} warnings, {} cannot be told, {} ok",
        count(State::Wrong),
        count(State::Warning),
        count(State::Unknown),
        count(State::Ok)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_lines_with_what_mends_them() {
        let findings = [
            Finding::ok("clock", "fine"),
            Finding::wrong("hugepages", "too few", "echo 1 > x"),
            Finding::unknown("numa", "no node"),
        ];
        assert_eq!(
            readable(&findings),
            "ok           clock      fine\n\
             WRONG        hugepages  too few\n                        -> echo 1 > x\n\
             cannot tell  numa       no node\n\
             1 wrong, 0 warnings, 1 cannot be told, 1 ok"
        );
    }
}
