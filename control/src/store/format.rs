//! What the file's bytes say, and whether they are what was written. Pure.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::State;
use crate::origin::FileRecord;

/// Version of the file's format.
pub(super) const FORMAT: u64 = 1;

/// What the state file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// The desired state.
    pub state: State,
    /// What the TOML file said when this was written.
    pub file: FileRecord,
    /// Generation of the last snapshot published when this was written.
    pub generation: u64,
    /// Nobody has said yet that this may take services away from a data plane: it comes from a first
    /// start or from an older copy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unconfirmed: bool,
}

#[derive(Serialize)]
struct Outer<'a> {
    sluice_state: u64,
    checksum: String,
    content: &'a RawValue,
}

/// What a file of any format has.
#[derive(Deserialize)]
struct AnyFormat {
    sluice_state: u64,
}

#[derive(Deserialize)]
struct OuterRead<'a> {
    #[serde(rename = "sluice_state")]
    _format: u64,
    checksum: String,
    #[serde(borrow)]
    content: &'a RawValue,
}

/// Why bytes are not a state.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// They are of a newer format; which.
    Newer(u64),
    /// They are not what was written; in which way.
    Damaged(String),
}

pub(super) fn encode(content: &Content) -> Result<Vec<u8>, serde_json::Error> {
    let content = serde_json::value::to_raw_value(content)?;
    let outer = Outer { sluice_state: FORMAT, checksum: checksum(&content), content: &content };
    let mut bytes = serde_json::to_vec(&outer)?;
    bytes.push(b'\n');
    Ok(bytes)
}

pub(super) fn decode(bytes: &[u8]) -> Result<Content, Unreadable> {
    let damaged = |reason| Err(Unreadable::Damaged(reason));
    match serde_json::from_slice(bytes) {
        Ok(AnyFormat { sluice_state: FORMAT }) => {}
        Ok(AnyFormat { sluice_state }) if sluice_state > FORMAT => {
            return Err(Unreadable::Newer(sluice_state));
        }
        Ok(AnyFormat { sluice_state }) => {
            return damaged(format!("it has format {sluice_state}, which there never was"));
        }
        Err(e) => return damaged(format!("it is no state file ({e})")),
    }
    let outer: OuterRead = match serde_json::from_slice(bytes) {
        Ok(outer) => outer,
        Err(e) => return damaged(format!("it is no state file ({e})")),
    };
    if outer.checksum != checksum(outer.content) {
        return damaged("its checksum does not match its content".to_owned());
    }
    serde_json::from_str(outer.content.get())
        .map_err(|e| Unreadable::Damaged(format!("its content cannot be read ({e})")))
}

fn checksum(content: &RawValue) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(content.get().as_bytes()))
}
