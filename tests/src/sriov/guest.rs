//! The virtual machine's command channel: scripts go in over a virtio port, their output comes back
//! (`tests/sriov/agent`, the other end).

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::lab::error::{LabError, Result};
use crate::lab::process::wait_until;

/// What the host waits for an answer beyond a script's own limit: the guest is slow, and so may the
/// host be.
const GRACE: Duration = Duration::from_secs(20);

/// What a script did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit code; 124 when it took longer than it was given.
    pub code: i32,
    /// What it printed, on standard output and standard error.
    pub text: String,
}

/// The guest, by its command channel.
#[derive(Debug)]
pub struct Guest {
    to: UnixStream,
    from: BufReader<UnixStream>,
}

impl Guest {
    /// Connect to the channel at `socket`, which QEMU makes, and wait until the guest answers.
    ///
    /// # Errors
    /// There is no answer `within` this time.
    pub fn connect(socket: &Path, within: Duration) -> Result<Self> {
        let to = wait_until("QEMU's command channel is there", Duration::from_secs(10), || {
            Ok(UnixStream::connect(socket).ok())
        })?;
        let from = BufReader::new(to.try_clone().map_err(channel())?);
        let mut guest = Guest { to, from };
        guest.run("true", within)?;
        Ok(guest)
    }

    /// Run a script with bash; it is killed when it takes longer than `within`.
    ///
    /// # Errors
    /// The guest does not answer. A script that fails is none.
    pub fn run(&mut self, script: &str, within: Duration) -> Result<Output> {
        self.from.get_ref().set_read_timeout(Some(within + GRACE)).map_err(channel())?;
        let head = format!("{} {}\n", script.len(), within.as_secs().max(1));
        self.to.write_all((head + script).as_bytes()).map_err(channel())?;
        let mut answer = String::new();
        self.from.read_line(&mut answer).map_err(channel())?;
        let (code, len) = parse_answer(&answer).ok_or_else(|| LabError::Command {
            command: script.to_owned(),
            reason: format!("the guest answered {answer:?}: it has ended"),
        })?;
        let mut bytes = vec![0; len];
        self.from.read_exact(&mut bytes).map_err(channel())?;
        Ok(Output { code, text: String::from_utf8_lossy(&bytes).into_owned() })
    }

    /// Run a script that must succeed within 20 s; what it printed.
    ///
    /// # Errors
    /// It failed; the error has what it printed.
    pub fn expect(&mut self, script: &str) -> Result<String> {
        let Output { code, text } = self.run(script, Duration::from_secs(20))?;
        if code == 0 {
            return Ok(text);
        }
        let reason = format!("in the guest, exit code {code}: {}", text.trim());
        Err(LabError::Command { command: script.to_owned(), reason })
    }

    /// Write a file.
    ///
    /// # Errors
    /// As [`Guest::expect`].
    pub fn write_file(&mut self, path: &str, text: &str) -> Result<()> {
        let end = "END-OF-THE-FILE";
        self.expect(&format!("cat >'{path}' <<'{end}'\n{text}\n{end}\n")).map(drop)
    }
}

fn channel() -> impl FnOnce(std::io::Error) -> LabError {
    LabError::io("the guest's command channel")
}

/// Exit code and length of the output.
fn parse_answer(line: &str) -> Option<(i32, usize)> {
    let (code, len) = line.trim().split_once(' ')?;
    Some((code.parse().ok()?, len.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::process::{Command, Stdio};
    use std::thread;

    #[test]
    fn answers_are_a_code_and_a_length() {
        assert_eq!(parse_answer("0 12\n"), Some((0, 12)));
        assert_eq!(parse_answer("124 0\n"), Some((124, 0)));
        for bad in ["", "\n", "0\n", "x 1\n", "0 -1\n"] {
            assert_eq!(parse_answer(bad), None, "{bad:?}");
        }
    }

    /// A guest that does what the agent does, without the virtual machine around it.
    #[test]
    fn scripts_go_in_and_output_comes_back() {
        let dir = std::env::temp_dir().join(format!("sluice-guest-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (socket, file) = (dir.join("socket"), dir.join("file"));
        let listener = UnixListener::bind(&socket).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 0 {
                let (len, _limit) = line.trim().split_once(' ').unwrap();
                let mut script = vec![0; len.parse().unwrap()];
                reader.read_exact(&mut script).unwrap();
                let script = String::from_utf8(script).unwrap();
                let mut bash = Command::new("bash");
                let output = bash.args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
                let code = output.status.code().unwrap();
                writeln!(stream, "{code} {}", output.stdout.len()).unwrap();
                stream.write_all(&output.stdout).unwrap();
                line.clear();
            }
        });
        let mut guest = Guest::connect(&socket, Duration::from_secs(5)).unwrap();
        let output = guest.run("echo one\necho two; exit 3", Duration::from_secs(5)).unwrap();
        assert_eq!(output, Output { code: 3, text: "one\ntwo\n".to_owned() });
        guest.write_file(&file.display().to_string(), "a = \"$b\"\n").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "a = \"$b\"\n\n");
        let error = guest.expect("echo no; false").unwrap_err().to_string();
        assert!(error.contains("exit code 1: no"), "{error}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
