//! IPv4 that only the kernel could take: to it, when it is for one of the ports' own addresses.

use crate::burst::{Burst, Class, Mask, Verdict};
use crate::snapshot::{Address, Compiled};

/// The stage.
pub fn decide<F>(burst: &mut Burst<F>, which: Mask, config: &Compiled) {
    burst.filter(which, |_, meta| {
        let Class::Other(reason) = meta.class else { return false };
        meta.verdict = match config.address(meta.key().dst) {
            Some(Address::Port(_)) => Verdict::Kernel { port: meta.in_port },
            _ => Verdict::Drop(reason),
        };
        true
    });
}
