//! Who wins, the TOML file or what the API changed: see `docs/adr/0003-file-and-api-state.md`.
//!
//! The file is the initial state. Whatever the API does to it stays, until the file itself says
//! something new: a resource whose definition in the file changed since the last start is taken
//! from the file, one that left the file is deleted, and all others stay as they are.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use sluice_api::{Pool, Service};

use crate::model::State;

/// What a TOML file held. The definitions themselves, not their hashes: a later version that knows
/// more fields reads old definitions with its defaults and does not take them for changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its services, backends included.
    pub services: Vec<Service>,
    /// Its pools.
    pub pools: Vec<Pool>,
}

/// A state, and in words what the file changed in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The state to go on with.
    pub state: State,
    /// One sentence per resource; empty when the file has nothing new to say.
    pub changes: Vec<String>,
}

/// The stored state with what is new in `file` since the start when it held `before`.
pub fn merge(stored: State, before: &FileRecord, file: &FileRecord) -> Merged {
    let mut merged = Merged { state: stored, changes: Vec::new() };
    let Merged { state, changes } = &mut merged;
    take("pool", &mut state.pools, &before.pools, &file.pools, |p| &p.name, changes);
    take("service", &mut state.services, &before.services, &file.services, |s| &s.name, changes);
    if !changes.is_empty() {
        state.version += 1;
    }
    merged
}

fn take<T: Clone + PartialEq>(
    kind: &str,
    held: &mut Vec<T>,
    before: &[T],
    file: &[T],
    name: impl Fn(&T) -> &str,
    changes: &mut Vec<String>,
) {
    let file_by_name: HashMap<&str, &T> = file.iter().map(|item| (name(item), item)).collect();
    let before: HashMap<&str, &T> = before.iter().map(|item| (name(item), item)).collect();
    held.retain(|item| {
        let name = name(item);
        let gone = before.contains_key(name) && !file_by_name.contains_key(name);
        if gone {
            changes.push(format!("{kind} {name} has left the file: deleted"));
        }
        !gone
    });
    for item in file {
        let name_in_file = name(item);
        if before.get(name_in_file) == Some(&item) {
            continue;
        }
        match held.iter_mut().find(|held| name(held) == name_in_file) {
            Some(same) if same == item => {}
            Some(old) => {
                *old = item.clone();
                changes.push(format!("{kind} {name_in_file} has changed in the file: replaced"));
            }
            None => {
                held.push(item.clone());
                changes.push(format!("{kind} {name_in_file} is new in the file: created"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str, last: u8) -> Pool {
        Pool::new(name, vec![[10, 0, 0, last].into()])
    }

    #[test]
    fn the_api_stays_until_the_file_says_something_new() {
        let file = |pools: &[Pool]| FileRecord { services: vec![], pools: pools.to_vec() };
        let before =
            file(&[pool("kept", 1), pool("edited", 2), pool("deleted-by-api", 3), pool("gone", 4)]);
        let stored = State {
            version: 9,
            services: vec![],
            pools: vec![pool("kept", 11), pool("edited", 2), pool("gone", 4), pool("api", 5)],
        };

        let same = merge(stored.clone(), &before, &before);
        assert_eq!(same, Merged { state: stored.clone(), changes: vec![] });

        let now =
            file(&[pool("kept", 1), pool("edited", 22), pool("deleted-by-api", 3), pool("new", 6)]);
        let changed = merge(stored, &before, &now);
        assert_eq!(changed.state.version, 10);
        assert_eq!(
            changed.state.pools,
            [pool("kept", 11), pool("edited", 22), pool("api", 5), pool("new", 6)]
        );
        assert_eq!(
            changed.changes,
            [
                "pool gone has left the file: deleted",
                "pool edited has changed in the file: replaced",
                "pool new is new in the file: created",
            ]
        );
    }
}
