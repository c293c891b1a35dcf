//! What the end-to-end tests share.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use sluice_tests::lab::sluice::Binaries;
use sluice_tests::lab::topology::Wire;
use sluice_tests::lab::{Lab, LabOptions, check_machine};

/// Tests of one run wait for each other: a machine has room for one lab at a time.
const PATIENCE: Duration = Duration::from_secs(300);

/// The programs under test: in `SLUICE_BIN_DIR`, or else a release build of this workspace.
pub fn binaries() -> Binaries {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    Binaries::in_dir(&target.join("release"))
}

/// A lab with its servers, without Sluice.
pub fn lab(prefix: &str, wire: Wire, worker_cpus: Vec<u16>) -> Lab {
    check_machine().unwrap();
    let options = LabOptions {
        prefix: prefix.to_owned(),
        wire,
        worker_cpus,
        helper: PathBuf::from(env!("CARGO_BIN_EXE_sluice-lab")),
        patience: PATIENCE,
    };
    Lab::build(options, binaries()).unwrap()
}

/// A lab with Sluice running, the services `web`, `web-dr` and `echo`, and all backends healthy.
pub fn lab_with_sluice(prefix: &str, wire: Wire, worker_cpus: Vec<u16>) -> Lab {
    let mut lab = lab(prefix, wire, worker_cpus);
    lab.binaries().check().unwrap();
    lab.open_services(Duration::from_secs(20)).unwrap_or_else(|error| panic!("{error}"));
    lab
}
