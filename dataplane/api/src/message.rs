//! The conversation over the control socket: control asks, the data plane answers, in order.
//!
//! A frame is a big-endian `u32` length and as many bytes of JSON. Every frame carries the
//! protocol version, so that a mismatch is a clear error and never a misread message.

use std::io::{self, Read, Write};
use std::net::IpAddr;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::PROTOCOL_VERSION;
use crate::problems::Problem;
use crate::snapshot::Snapshot;
use crate::snapshot_change::SnapshotChange;
use crate::stats::{DataplaneEvent, DataplaneStatus, NeighbourStatus, Stats, UnreachableBackend};

/// Longest frame, in bytes: 400,000 backends as JSON with room to spare.
pub const MAX_FRAME: usize = 64 << 20;

/// What control asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// Who are you? Answered by [`Response::Status`].
    Status,
    /// Forward by this snapshot from now on. Answered by [`Response::Applied`] or
    /// [`Response::Rejected`].
    Apply {
        /// The whole desired state.
        snapshot: Snapshot,
    },
    /// Forward by the snapshot that this change makes of the one in force. Answered by
    /// [`Response::Applied`], [`Response::Rejected`] or [`Response::OtherBase`].
    Amend {
        /// What differs.
        change: SnapshotChange,
    },
    /// What do you forward by? Answered by [`Response::Snapshot`].
    GetSnapshot,
    /// Announce these VIPs and local addresses by gratuitous ARP (RFC 5227), three times, out of every
    /// port whose network holds them, or of all ports when none does, and go on with it.
    /// [`DataplaneStatus::announced`] says which of them have left. Answered by
    /// [`Response::Announced`].
    Announce {
        /// The addresses; those not in the snapshot are refused.
        addresses: Vec<IpAddr>,
    },
    /// All counters. Answered by [`Response::Stats`].
    Stats,
    /// All known next hops. Answered by [`Response::Neighbours`].
    Neighbours,
    /// Backends that new conns would not reach. Answered by [`Response::UnreachableBackends`].
    UnreachableBackends,
    /// Events with a sequence number above `since`. Answered by [`Response::Events`].
    Events {
        /// The last sequence number already seen; 0 for all that are kept.
        since: u64,
    },
}

/// What the data plane answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "kebab-case")]
pub enum Response {
    /// Who it is.
    Status(DataplaneStatus),
    /// The snapshot is in force: every worker forwards by it or takes it before its next burst.
    Applied {
        /// Its generation.
        generation: u64,
    },
    /// The snapshot was refused as a whole; the old one stays in force.
    Rejected {
        /// Why, field by field.
        problems: Vec<Problem>,
    },
    /// The change is one of a snapshot that is not in force: nothing was done. Send a whole one.
    OtherBase {
        /// Generation of the one in force; 0 before the first.
        generation: u64,
    },
    /// The snapshot in force; absent before the first.
    Snapshot {
        /// As it was applied.
        snapshot: Option<Snapshot>,
    },
    /// The addresses that are announced from now on.
    Announced {
        /// Those of the request that are in the snapshot.
        addresses: Vec<IpAddr>,
    },
    /// All counters.
    Stats(Stats),
    /// All known next hops.
    Neighbours {
        /// In order of address.
        neighbours: Vec<NeighbourStatus>,
    },
    /// Backends of the snapshot in force that the data plane cannot send to.
    UnreachableBackends {
        /// In order of address, each once, of however many services it is a backend.
        backends: Vec<UnreachableBackend>,
    },
    /// Events, oldest first.
    Events {
        /// At most the last 1,024 since start.
        events: Vec<DataplaneEvent>,
    },
    /// The request could not be answered: bad frame, wrong version.
    Error {
        /// Why.
        message: String,
    },
}

/// A message with the protocol version of its sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// [`PROTOCOL_VERSION`] of the sender.
    pub version: u32,
    /// The message.
    pub message: T,
}

/// Only the version, so that it can be read from a message of any version.
#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer is gone or too slow.
    #[error("control socket: {0}")]
    Io(#[from] io::Error),
    /// The peer announced more than [`MAX_FRAME`] bytes.
    #[error("control socket: frame of {0} bytes, at most {MAX_FRAME} are accepted")]
    TooLong(usize),
    /// The peer speaks another version.
    #[error(
        "control socket: peer speaks protocol version {theirs}, this program speaks {PROTOCOL_VERSION}: \
         install the same version of sluice-dataplane and sluice-control"
    )]
    Version {
        /// The peer's version.
        theirs: u32,
    },
    /// Not JSON, or not a message that this version knows.
    #[error("control socket: unreadable message: {0}")]
    Json(#[from] serde_json::Error),
}

/// A frame's bytes: length and JSON.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    #[derive(Serialize)]
    struct Borrowed<'a, T> {
        version: u32,
        message: &'a T,
    }
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, &Borrowed { version: PROTOCOL_VERSION, message })?;
    let len = frame.len() - 4;
    if len > MAX_FRAME {
        return Err(FrameError::TooLong(len));
    }
    frame[..4].copy_from_slice(&(len as u32).to_be_bytes());
    Ok(frame)
}

/// The length that a frame's first four bytes announce, checked against [`MAX_FRAME`].
pub fn frame_len(header: [u8; 4]) -> Result<usize, FrameError> {
    let len = u32::from_be_bytes(header) as usize;
    if len > MAX_FRAME { Err(FrameError::TooLong(len)) } else { Ok(len) }
}

/// The message in a frame's JSON, if its sender speaks our version.
pub fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, FrameError> {
    let VersionOnly { version } = serde_json::from_slice(json)?;
    if version != PROTOCOL_VERSION {
        return Err(FrameError::Version { theirs: version });
    }
    Ok(serde_json::from_slice::<Envelope<T>>(json)?.message)
}

/// Write one frame to a blocking stream.
pub fn write_frame<T: Serialize>(stream: &mut impl Write, message: &T) -> Result<(), FrameError> {
    stream.write_all(&encode(message)?)?;
    Ok(stream.flush()?)
}

/// Read one frame from a blocking stream.
pub fn read_frame<T: DeserializeOwned>(stream: &mut impl Read) -> Result<T, FrameError> {
    let mut header = [0; 4];
    stream.read_exact(&mut header)?;
    let mut json = vec![0; frame_len(header)?];
    stream.read_exact(&mut json)?;
    decode(&json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip_and_name_the_version() {
        let mut wire = Vec::new();
        write_frame(&mut wire, &Request::Events { since: 7 }).unwrap();
        assert_eq!(
            read_frame::<Request>(&mut wire.as_slice()).unwrap(),
            Request::Events { since: 7 }
        );

        let json = br#"{"version":99,"message":{"request":"from-the-future"}}"#;
        let error = decode::<Request>(json).unwrap_err();
        assert!(error.to_string().contains("version 99"), "{error}");
    }

    #[test]
    fn a_lying_length_is_refused_before_memory_is_taken() {
        let mut wire: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0];
        assert!(matches!(read_frame::<Request>(&mut wire), Err(FrameError::TooLong(_))));
        let mut short: &[u8] = &[0, 0, 0, 9, b'{'];
        assert!(matches!(read_frame::<Request>(&mut short), Err(FrameError::Io(_))));
    }
}
