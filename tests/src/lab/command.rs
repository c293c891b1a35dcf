//! Short commands, run to their end: `ip`, `ethtool`, `curl`, …

use std::io::Write;
use std::process::{Command, Stdio};

use super::error::{LabError, Result};

/// Run a command; its stdout if it succeeded.
pub fn run(argv: &[&str]) -> Result<String> {
    run_with_input(argv, "")
}

/// Run a command inside a namespace; its stdout if it succeeded.
pub fn run_in(netns: &str, argv: &[&str]) -> Result<String> {
    run(&in_netns(netns, argv))
}

/// Run a command that reads `input`; its stdout if it succeeded.
pub fn run_with_input(argv: &[&str], input: &str) -> Result<String> {
    let failed = |reason: String| LabError::Command { command: argv.join(" "), reason };
    let mut child = Command::new(argv[0])
        .args(&argv[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its input may close it: its exit code tells what matters.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(failed(format!("{}: {}", output.status, stderr.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command line that runs `argv` inside a namespace.
pub fn in_netns<'a>(netns: &'a str, argv: &[&'a str]) -> Vec<&'a str> {
    let mut full = vec!["ip", "netns", "exec", netns];
    full.extend_from_slice(argv);
    full
}
