//! Data structures of a worker: they know no packets and do no I/O. All are sized at start-up and
//! hold indices, never pointers.

pub mod conn;
pub mod local_port;
pub mod neighbour;
pub mod owner;
pub mod port_space;
pub mod route;
pub mod spread;
pub mod toeplitz;
