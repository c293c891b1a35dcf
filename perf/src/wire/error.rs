//! Why there is no comparison.

use std::io;
use std::path::PathBuf;

use sluice_api::message::FrameError;
use sluice_dataplane::dpdk::EalError;

use crate::generator::GenError;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A program is not there.
    #[error("{name} is not at {}: expected {expected}", path.display())]
    Missing {
        /// The program.
        name: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// What would help.
        expected: &'static str,
    },
    /// A flag's value cannot be.
    #[error("{flag} is {value}: expected {expected}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// No hugepages, and none could be made.
    #[error(
        "{wanted} hugepages of {page_kb} kB are needed and {free} are free; making more failed \
         ({reason}): expected root, and memory to spare; or make them with \
         `echo {total} > /proc/sys/vm/nr_hugepages`"
    )]
    Hugepages {
        /// Pages that are needed.
        wanted: u64,
        /// Size of a page in kB.
        page_kb: u64,
        /// Pages that nobody uses.
        free: u64,
        /// How many there should be in all.
        total: u64,
        /// Why there are not.
        reason: String,
    },
    /// Something about files and processes.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A process ended or was not ready in time.
    #[error("{name} {what}; its last words:\n{tail}")]
    Process {
        /// Its name.
        name: &'static str,
        /// What it did.
        what: String,
        /// The end of its output.
        tail: String,
    },
    /// The data plane does not answer as it should.
    #[error("sluice-dataplane: {0}")]
    Control(#[from] FrameError),
    /// The data plane answers something else.
    #[error("sluice-dataplane refused the service: {0}")]
    Refused(String),
    /// DPDK did not start.
    #[error(transparent)]
    Eal(#[from] EalError),
    /// The generator cannot run.
    #[error("{with}: {source}")]
    Generator {
        /// Against whom.
        with: &'static str,
        /// Why.
        source: Box<GenError>,
    },
    /// SIGINT came before there was anything to report.
    #[error("interrupted before anything was measured")]
    Interrupted,
}

impl WireError {
    /// For `map_err`: what was tried when it failed.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> WireError {
        let what = what.into();
        |source| WireError::Io { what, source }
    }

    /// For `map_err`: the generator, against somebody.
    pub fn generator(with: &'static str) -> impl FnOnce(GenError) -> WireError {
        move |source| match source {
            GenError::Interrupted => WireError::Interrupted,
            source => WireError::Generator { with, source: Box::new(source) },
        }
    }
}
