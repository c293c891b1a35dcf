//! Why a command failed: what is printed, and the exit code.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sluice_api::problems::and_more;
use sluice_api::{Problem, Problems};

/// A refusal as the API sends it, RFC 9457.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Refusal {
    /// What kind of problem, as a word or URL for programs.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) title: String,
    pub(crate) status: u16,
    pub(crate) detail: String,
    /// Every field that is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) problems: Vec<Problem>,
    /// How many there are beside those.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) more_problems: usize,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// A file or an argument that the command line's grammar cannot judge.
    #[error("{0}")]
    Usage(String),
    /// A file whose fields are wrong, all of them.
    #[error("{}", lines(.file, .problems))]
    File { file: String, problems: Problems },
    /// Nothing answers at the API's address, or not in time.
    #[error(
        "the API at {api} cannot be reached: {reason}\nIs sluice-control running? --api or SLUICE_API names its address."
    )]
    Unreachable { api: String, reason: String },
    /// The API said no.
    #[error("{0}")]
    Refused(Refusal),
    /// A change is on disk, and packets are not treated by it.
    #[error(
        "stored, but not applied: {0}\nIt is applied as soon as it can be; --wait waits longer."
    )]
    NotApplied(String),
    /// A host that drains has conns left at the deadline.
    #[error("host {host} still has {conns} conns at the deadline; it goes on draining")]
    NotEmpty { host: IpAddr, conns: u64 },
    /// The API's answer makes no sense to this program.
    #[error("the answer to {request} is not one of this version of Sluice's API: {reason}")]
    Answer { request: String, reason: String },
    /// The async runtime did not start.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
    /// Standard output is gone.
    #[error("cannot print: {0}")]
    Output(io::Error),
}

impl CliError {
    /// The exit code, as `--help` lists them.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            // `sluice … | head` has got what it wanted.
            CliError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            CliError::Usage(_) | CliError::File { .. } => 2,
            CliError::Unreachable { .. } => 3,
            CliError::Refused(refusal) => match refusal.status {
                404 => 4,
                409 | 412 => 5,
                400..=499 => 1,
                _ => 6,
            },
            CliError::NotApplied(_) => 7,
            CliError::NotEmpty { .. } => 8,
            CliError::Answer { .. } | CliError::Runtime(_) | CliError::Output(_) => 6,
        }
    }

    /// Prints it on standard error: for people, or as one line of problem+json.
    pub(crate) fn report(&self, json: bool) {
        if self.exit_code() == 0 {
            return;
        }
        if !json {
            say(&format!("error: {self}"));
            return;
        }
        let refusal = match self {
            CliError::Refused(refusal) => refusal.clone(),
            other => Refusal {
                kind: "about:blank".to_owned(),
                title: other.title().to_owned(),
                detail: other.to_string(),
                problems: match other {
                    CliError::File { problems, .. } => problems.to_vec(),
                    _ => Vec::new(),
                },
                more_problems: match self {
                    CliError::File { problems, .. } => problems.more(),
                    _ => 0,
                },
                ..Refusal::default()
            },
        };
        match serde_json::to_string(&refusal) {
            Ok(line) => say(&line),
            Err(_) => say(&format!("error: {self}")),
        }
    }

    fn title(&self) -> &'static str {
        match self {
            CliError::Usage(_) => "usage",
            CliError::File { .. } => "file is wrong",
            CliError::Unreachable { .. } => "API unreachable",
            CliError::NotApplied(_) => "stored, not applied",
            CliError::NotEmpty { .. } => "conns are left",
            CliError::Answer { .. } => "answer not understood",
            _ => "internal error",
        }
    }
}

/// A line on standard error. Whether anybody hears it changes no exit code.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn lines(file: &str, problems: &Problems) -> String {
    problems.lines().fold(format!("{file} is wrong; nothing was applied"), |text, line| {
        format!("{text}\n  {line}")
    })
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.title.clone();
        let problems: Vec<String> = self.problems.iter().map(Problem::to_string).collect();
        // A detail that repeats one of the problems adds nothing.
        let repeats = problems.iter().any(|problem| self.detail.contains(problem));
        if !self.detail.is_empty() && !repeats {
            write!(text, "{}{}", if text.is_empty() { "" } else { ": " }, self.detail)?;
        }
        if text.is_empty() {
            write!(text, "HTTP {}", self.status)?;
        }
        for problem in problems.into_iter().chain(and_more(self.more_problems)) {
            write!(text, "\n  {problem}")?;
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16) -> CliError {
        CliError::Refused(Refusal { status, ..Refusal::default() })
    }

    #[test]
    fn exit_codes_are_as_documented() {
        let codes = [400, 404, 405, 409, 412, 413, 415, 422, 500, 502, 503];
        let codes = codes.map(|status| refused(status).exit_code());
        assert_eq!(codes, [1, 4, 1, 5, 5, 1, 1, 1, 6, 6, 6]);
        let unreachable = CliError::Unreachable { api: String::new(), reason: String::new() };
        assert_eq!(unreachable.exit_code(), 3);
        assert_eq!(CliError::Usage(String::new()).exit_code(), 2);
        assert_eq!(CliError::NotApplied(String::new()).exit_code(), 7);
        assert_eq!(CliError::Output(io::ErrorKind::BrokenPipe.into()).exit_code(), 0);
        assert_eq!(CliError::Output(io::ErrorKind::StorageFull.into()).exit_code(), 6);
    }

    #[test]
    fn a_refusal_names_each_problem_once() {
        let problem = Problem::new("services[web].port", 0, "1 to 65535");
        let mut refusal = Refusal {
            title: "invalid request".to_owned(),
            status: 422,
            detail: problem.to_string(),
            problems: vec![problem],
            ..Refusal::default()
        };
        let line = "services[web].port is 0: expected 1 to 65535";
        assert_eq!(refusal.to_string(), format!("invalid request\n  {line}"));
        refusal.detail = "1 problem".to_owned();
        assert_eq!(refusal.to_string(), format!("invalid request: 1 problem\n  {line}"));
        assert_eq!(Refusal { status: 500, ..Refusal::default() }.to_string(), "HTTP 500");
    }
}
