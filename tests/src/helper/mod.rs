//! What `sluice-lab` becomes inside a namespace: clients that make load, servers that answer it.
//!
//! A client prints each [`record::Record`] as a line of JSON while it goes, so that its driver in
//! another namespace sees what happens as it happens. It ends when its work is done or its stdin
//! is closed.

pub mod content;
pub mod echo;
pub mod http_load;
pub mod pace;
pub mod record;
pub mod udp_flood;
pub mod udp_load;
