//! The head of an HTTP answer, judged as curl judges it: what operators compare a check with. Pure.
//!
//! Parsers of libraries are made for conversations, and refuse what curl takes: `HTTP/2.0`, a lower
//! case `http/1.1`, a head that the server's closing ends, headers without end. A check wants the
//! status only, so lines are looked at one by one and forgotten.

/// Longest line of a head, in bytes, as in curl.
const MAX_LINE: usize = 100 << 10;
/// Longest head, in bytes, interim answers included, as in curl.
const MAX_HEAD: usize = 300 << 10;
/// What an answer begins with, in whatever case.
const NAME: &[u8] = b"HTTP/";

/// What is wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeadError {
    /// It does not begin as one.
    #[error("answer is not HTTP")]
    NotHttp,
    /// It does, and then goes wrong.
    #[error("answer is not HTTP: {0}")]
    Wrong(&'static str),
    /// It does not end.
    #[error("answer's headers exceed {MAX_HEAD} bytes, or one of them {MAX_LINE}")]
    TooLong,
    /// It ends before its status.
    #[error("connection closed without an answer")]
    Closed,
}

/// Takes an answer as it comes.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// Bytes of lines that have.
    taken: usize,
    /// Of the answer whose headers are being read.
    status: Option<u16>,
    /// Whether it had a header already, which a folded line continues.
    has_header: bool,
}

impl HeadReader {
    /// More of the answer. Returns the status once all of the head is there.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Result<Option<u16>, HeadError> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (rest_of_line, after) = bytes.split_at(end + 1);
            self.grow(rest_of_line)?;
            bytes = after;
            let line = std::mem::take(&mut self.line);
            self.taken += line.len();
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            if let Some(status) = self.take_line(line.strip_suffix(b"\r").unwrap_or(line))? {
                return Ok(Some(status));
            }
        }
        self.grow(bytes)?;
        if self.status.is_none() && !may_be_http(&self.line) {
            return Err(HeadError::NotHttp);
        }
        Ok(None)
    }

    /// The server has closed: its head is what came.
    pub(super) fn end(self) -> Result<u16, HeadError> {
        self.status.ok_or(HeadError::Closed)
    }

    fn grow(&mut self, bytes: &[u8]) -> Result<(), HeadError> {
        let line = self.line.len() + bytes.len();
        if line > MAX_LINE || self.taken + line > MAX_HEAD {
            return Err(HeadError::TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn take_line(&mut self, line: &[u8]) -> Result<Option<u16>, HeadError> {
        let Some(status) = self.status else {
            self.status = Some(status(line)?);
            return Ok(None);
        };
        if !line.is_empty() {
            check_header(line, self.has_header)?;
            self.has_header = true;
            return Ok(None);
        }
        // The answer comes after interim ones (RFC 9110, 15.2); but 101 is the last in HTTP.
        if (100..200).contains(&status) && status != 101 {
            (self.status, self.has_header) = (None, false);
            return Ok(None);
        }
        Ok(Some(status))
    }
}

/// Whether a first line may begin so.
fn may_be_http(begin: &[u8]) -> bool {
    let length = begin.len().min(NAME.len());
    begin[..length].eq_ignore_ascii_case(&NAME[..length])
}

/// The status of a status line (RFC 9112, 4): `HTTP/1.1 200 OK`, with or without a reason.
fn status(line: &[u8]) -> Result<u16, HeadError> {
    if line.len() < NAME.len() || !may_be_http(line) {
        return Err(HeadError::NotHttp);
    }
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let (version, rest) = line.split_at(end);
    if !matches!(&version[NAME.len()..], b"1.0" | b"1.1" | b"2" | b"2.0" | b"3") {
        return Err(HeadError::Wrong("unknown version"));
    }
    let code = rest.trim_ascii_start();
    let digits = code.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits != 3 || code[0] == b'0' {
        return Err(HeadError::Wrong("no status of three digits"));
    }
    Ok(code[..3].iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0')))
}

/// What curl finds weird in a header.
fn check_header(line: &[u8], may_be_folded: bool) -> Result<(), HeadError> {
    if line.contains(&0) {
        return Err(HeadError::Wrong("a header with a NUL"));
    }
    // RFC 9112, 5.2: obsolete, and still sent.
    if may_be_folded && matches!(line[0], b' ' | b'\t') {
        return Ok(());
    }
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        return Err(HeadError::Wrong("a header without a colon"));
    };
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    let begins_as_number = match value {
        [b'+', digit, ..] | [digit, ..] => digit.is_ascii_digit(),
        [] => false,
    };
    if name.eq_ignore_ascii_case(b"content-length") && !begins_as_number {
        return Err(HeadError::Wrong("a Content-Length that is no number"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status of a whole answer, with the server closing after it.
    fn read(answer: &[u8]) -> Result<u16, HeadError> {
        let mut reader = HeadReader::default();
        match reader.take(answer)? {
            Some(status) => Ok(status),
            None => reader.end(),
        }
    }

    /// As it is when its bytes come one by one.
    fn read_slowly(answer: &[u8]) -> Result<u16, HeadError> {
        let mut reader = HeadReader::default();
        for byte in answer {
            if let Some(status) = reader.take(std::slice::from_ref(byte))? {
                return Ok(status);
            }
        }
        reader.end()
    }

    /// What curl 7.88 said to each, with the two differences named.
    #[test]
    fn heads_are_judged_as_curl_does() {
        let wrong = |what| Err(HeadError::Wrong(what));
        let (version, code) = (wrong("unknown version"), wrong("no status of three digits"));
        let length = wrong("a Content-Length that is no number");
        let cases: [(&[u8], Result<u16, HeadError>); 37] = [
            (b"HTTP/1.1 200 OK\r\n\r\n", Ok(200)),
            (b"HTTP/1.0 404 Not Found\r\n\r\n", Ok(404)),
            (b"HTTP/1.1 200\r\n\r\n", Ok(200)),
            (b"HTTP/1.1 200 OK\n\nok", Ok(200)),
            (b"HTTP/1.1 200 Tr\xe8s\r\nX-Name: caf\xe9\r\n\r\n", Ok(200)),
            (b"HTTP/1.1  200 OK\r\n\r\n", Ok(200)),
            (b"HTTP/1.1 200OK\r\n\r\n", Ok(200)),
            (b"HTTP/1.1 999 OK\r\n\r\n", Ok(999)),
            (b"HTTP/2.0 200 OK\r\n\r\n", Ok(200)),
            (b"HTTP/2 200\r\n\r\n", Ok(200)),
            (b"http/1.1 200 ok\r\n\r\n", Ok(200)),
            // curl takes each status of these for 200.
            (b"http/1.1 500 sorry\r\n\r\n", Ok(500)),
            (b"HTTP/3.0 200 OK\r\n\r\n", version.clone()),
            (b"HTTP/1.2 200 OK\r\n\r\n", version.clone()),
            (b"HTTP/0.9 200 OK\r\n\r\n", version.clone()),
            (b"HTTP/1.1\t200 OK\r\n\r\n", version),
            (b"HTTP/1.1 20\r\n\r\n", code.clone()),
            (b"HTTP/1.1 2000 OK\r\n\r\n", code.clone()),
            (b"HTTP/1.1 099 OK\r\n\r\n", code.clone()),
            (b"HTTP/1.1 +20 OK\r\n\r\n", code),
            (b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Err(HeadError::NotHttp)),
            (b" HTTP/1.1 200 OK\r\n\r\n", Err(HeadError::NotHttp)),
            (b"ICY 200 OK\r\n\r\n", Err(HeadError::NotHttp)),
            (b"hello there\n", Err(HeadError::NotHttp)),
            // Nothing ends such a line but the end of the connection.
            (b"HTTP/1.1 200 OK", Err(HeadError::Closed)),
            (b"HTTP", Err(HeadError::Closed)),
            (b"HTTP/1.1 200 OK\r\nX: a", Ok(200)),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", Ok(204)),
            (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", Err(HeadError::Closed)),
            (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", Ok(101)),
            (b"HTTP/1.1 200 OK\r\nServer : a\r\nX Foo: b\r\n: v\r\nX-A:\r\n\r\n", Ok(200)),
            (b"HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\n\tc\r\n\r\n", Ok(200)),
            (b"HTTP/1.1 200 OK\r\n b\r\n\r\n", wrong("a header without a colon")),
            (b"HTTP/1.1 200 OK\r\njunk line\r\n\r\n", wrong("a header without a colon")),
            (b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", wrong("a header with a NUL")),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 12abc\r\n\r\n", Ok(200)),
            (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", length),
        ];
        for (answer, expected) in cases {
            let text = String::from_utf8_lossy(answer);
            assert_eq!(read(answer), expected, "{text:?}");
            assert_eq!(read_slowly(answer), expected, "byte by byte: {text:?}");
        }
    }

    #[test]
    fn heads_are_bounded_and_hundreds_of_headers_are_taken() {
        let with = |headers: Vec<u8>| [b"HTTP/1.1 200 OK\r\n", &headers[..], b"\r\n"].concat();
        assert_eq!(read(&with(b"X-H: v\r\n".repeat(5_000))), Ok(200));
        let long = |length| [b"X: ", &b"a".repeat(length)[..], b"\r\n"].concat();
        assert_eq!(read(&with(long(20_000))), Ok(200));
        assert_eq!(read(&with(long(120_000))), Err(HeadError::TooLong));
        assert_eq!(read(&with(b"X: y\r\n".repeat(70_000))), Err(HeadError::TooLong));
        assert_eq!(read(&with(long(90_000).repeat(4))), Err(HeadError::TooLong));
        // Interim answers without end.
        let interim = b"HTTP/1.1 102 Processing\r\n\r\n".repeat(20_000);
        assert_eq!(read(&interim), Err(HeadError::TooLong));
    }

    #[test]
    fn what_is_not_http_is_known_at_once() {
        let mut reader = HeadReader::default();
        assert_eq!(reader.take(b"ht"), Ok(None));
        assert_eq!(reader.take(b"ml"), Err(HeadError::NotHttp));
        assert_eq!(HeadReader::default().take(b"220 mail"), Err(HeadError::NotHttp));
    }
}
