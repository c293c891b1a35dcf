//! Why a run cannot be, or ended early.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use sluice_dataplane::dpdk::{EalError, MempoolError, PortError};

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum GenError {
    /// A field's value cannot be.
    #[error("{field} is {value}: expected {expected}")]
    Field {
        /// Where it stands in a scenario; flags have the same name without the section.
        field: &'static str,
        /// What it is.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// A field is absent and has no default.
    #[error("{field} is absent: expected {expected}")]
    Absent {
        /// Where it stands in a scenario.
        field: &'static str,
        /// What would be accepted.
        expected: &'static str,
    },
    /// A frame size cannot be.
    #[error("traffic.sizes is {value:?}: expected {expected}")]
    FrameSize {
        /// What it is.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// More flows than there are addresses and ports for.
    #[error(
        "traffic.flows is {flows}: expected at most {most}, as there are {addresses} client \
         addresses with {ports} L4 ports each (client.count, client.ports)"
    )]
    TooManyFlows {
        /// Asked for.
        flows: u32,
        /// Client addresses.
        addresses: u32,
        /// L4 ports of each.
        ports: u32,
        /// The product.
        most: u64,
    },
    /// The scenario cannot be read.
    #[error("scenario {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The scenario is not TOML, or has a field that is unknown or of the wrong type.
    #[error("scenario {}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// The rate is a share of a line whose speed nobody knows.
    #[error(
        "run.rate is {rate}: expected packets per second, as \"1M\", because device {device} reports \
         no link speed"
    )]
    NoLinkSpeed {
        /// What was asked.
        rate: String,
        /// The device.
        device: String,
    },
    /// The link did not come up.
    #[error("device {device}: the link is still down after {seconds} s: is there a peer?")]
    LinkDown {
        /// The device.
        device: String,
        /// How long we waited.
        seconds: u64,
    },
    /// Nobody answers ARP.
    #[error(
        "no answer to ARP for {address} on device {device} within {seconds} s: expected a next hop \
         that answers, or client.gateway_mac"
    )]
    Unresolved {
        /// Who was asked for.
        address: Ipv4Addr,
        /// Where.
        device: String,
        /// How long.
        seconds: u64,
    },
    /// Not all connections could be opened.
    #[error(
        "{opened} of {flows} connections are open after {seconds} s: the others' handshakes were not \
         answered (run.open_seconds)"
    )]
    NotOpened {
        /// Complete.
        opened: u32,
        /// Asked for.
        flows: u32,
        /// How long.
        seconds: u64,
    },
    /// The run was interrupted before there was anything to report.
    #[error("interrupted before the first packet was sent")]
    Interrupted,
    /// DPDK did not start.
    #[error(transparent)]
    Eal(#[from] EalError),
    /// No memory for packets.
    #[error(transparent)]
    Mempool(#[from] MempoolError),
    /// No such device, or it cannot be used.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The result cannot be written.
    #[error("cannot write {what}: {source}")]
    Output {
        /// The file, or "standard output".
        what: String,
        /// Why.
        source: io::Error,
    },
    /// SIGINT cannot be caught.
    #[error("cannot watch for signals: {0}")]
    Signal(io::Error),
}

impl GenError {
    /// A field's value cannot be.
    pub fn field(
        field: &'static str,
        value: impl ToString,
        expected: impl Into<String>,
    ) -> GenError {
        GenError::Field { field, value: value.to_string(), expected: expected.into() }
    }
}
