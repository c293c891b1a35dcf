//! Names, addresses and numbers: each by itself.

use std::net::{IpAddr, Ipv4Addr};

use crate::family::supported;
use crate::problems::{Problem, Problems};

/// Whether a name is 1 to 63 of `a-z`, `0-9`, `-`, `.`, `_`: it goes into paths and metrics as it is.
pub fn is_name(name: &str) -> bool {
    let legal =
        |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.' | b'_');
    (1..=63).contains(&name.len())
        && name.bytes().all(legal)
        && name.bytes().any(|c| c.is_ascii_alphanumeric())
}

pub(super) fn check_name(problems: &mut Problems, field: &str, name: &str) {
    if !is_name(name) {
        problems.push(Problem::new(
            field,
            quoted(name),
            "1 to 63 of a-z, 0-9, '-', '.', '_', at least one a letter or digit",
        ));
    }
}

/// Whether an address can belong to a single host (RFC 6890).
pub fn is_host(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first != 127 && first < 224
}

/// Adds what is wrong with the address of a host.
pub(super) fn check_host(problems: &mut Problems, field: &str, address: IpAddr) {
    match supported(address) {
        Err(expected) => problems.push(Problem::new(field, address, expected)),
        Ok(address) if !is_host(address) => {
            problems.push(Problem::new(field, address, "a unicast address"));
        }
        Ok(_) => {}
    }
}

pub(super) fn is_prime(n: u32) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

/// A name as a part of a path: the beginning of one that is none.
pub(super) fn escaped(name: &str) -> String {
    name.chars().take(80).flat_map(char::escape_debug).collect()
}

pub(super) fn quoted(text: &str) -> String {
    format!("{text:?}")
}

pub(super) fn check_port(problems: &mut Problems, field: &str, port: u16) {
    if port == 0 {
        problems.push(Problem::new(field, port, "1 to 65535"));
    }
}
