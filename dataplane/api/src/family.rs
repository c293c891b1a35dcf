//! Which family of addresses is forwarded: what is read and what is validated must agree.

use std::net::{IpAddr, Ipv4Addr};

/// What is expected instead of an address of a family that is not forwarded.
pub const NOT_YET: &str = "an IPv4 address, as IPv6 is not supported yet";

/// An address of the family that is forwarded: IPv4. The one place that tells.
///
/// # Errors
/// What to expect instead.
pub fn supported(address: IpAddr) -> Result<Ipv4Addr, &'static str> {
    match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => Err(NOT_YET),
    }
}
