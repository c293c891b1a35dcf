//! What the backends serve: the backend's name, then bytes that anyone can compute again, so that
//! a client can tell who answered and that nothing was lost, added or changed on the way.

/// Bytes of the small page behind its first line.
const PAGE_BYTES: usize = 1_024;
/// Bytes of the large file behind its first line.
const BIG_BYTES: usize = 3 << 20;

/// The small page of a backend, at `/`.
pub fn page(backend: &str) -> Vec<u8> {
    content(backend, PAGE_BYTES)
}

/// The large file of a backend, at `/big`.
pub fn big(backend: &str) -> Vec<u8> {
    content(backend, BIG_BYTES)
}

/// The name of the backend that wrote `body`, if `body` is intact from its first to its last byte.
pub fn backend_of(body: &[u8], large: bool) -> Result<String, String> {
    let line = body.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let name = std::str::from_utf8(line)
        .ok()
        .and_then(|line| line.strip_prefix("backend "))
        .ok_or_else(|| "the body does not begin with a backend's name".to_owned())?;
    let expected = if large { big(name) } else { page(name) };
    if body.len() != expected.len() {
        return Err(format!("{} bytes instead of {}", body.len(), expected.len()));
    }
    match body.iter().zip(&expected).position(|(is, should)| is != should) {
        Some(offset) => Err(format!("the body was changed at byte {offset}")),
        None => Ok(name.to_owned()),
    }
}

/// A first line, then letters from a xorshift generator that the name seeds.
fn content(backend: &str, bytes: usize) -> Vec<u8> {
    let mut body = format!("backend {backend}\n").into_bytes();
    let mut state = backend.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    body.extend((0..bytes).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b'a' + (state % 26) as u8
    }));
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intact_body_names_its_backend() {
        assert_eq!(backend_of(&page("b1"), false), Ok("b1".to_owned()));
        assert_eq!(backend_of(&big("b2"), true), Ok("b2".to_owned()));
    }

    #[test]
    fn a_short_a_changed_and_a_foreign_body_are_told_apart() {
        let mut body = page("b1");
        body[700] ^= 1;
        assert!(backend_of(&body, false).unwrap_err().contains("byte 700"));
        assert!(backend_of(&page("b1")[..500], false).unwrap_err().contains("500 bytes"));
        assert!(backend_of(b"<html>502</html>", false).is_err());
        assert_ne!(page("b1")[20..], page("b2")[20..]);
    }
}
