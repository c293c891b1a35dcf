//! Sluice's end-to-end lab: real clients and real servers in network namespaces, around the real
//! `sluice-dataplane` and `sluice-control`.
//!
//! [`lab`] builds the place and runs the programs in it; [`story`] is what `scripts/demo` shows and
//! `scripts/test` checks; [`sriov`] runs Sluice on virtual functions in a virtual machine; [`helper`] holds the clients and servers that the binary `sluice-lab`
//! becomes inside a namespace.
#![forbid(unsafe_code)]

pub mod helper;
pub mod lab;
pub mod sriov;
pub mod story;
