//! Sluice's control process: it holds the desired state, takes changes over HTTP, checks the
//! health of backends and keeps the data plane in step. No packet ever passes through it.
//!
//! A change goes `http → model → store → world → compose → publish`: a request becomes a
//! [`model::resource::Change`], the model makes the next [`model::State`] of it or says everything that
//! is wrong, the [`store`] makes it durable, the next [`world::World`] has it, and [`publish`] sends what
//! [`compose`] makes of that to the data plane. Health changes enter the same way, past the store: what
//! was observed is never stored.
#![forbid(unsafe_code)]

pub mod actor;
pub mod args;
pub mod compose;
pub mod config;
pub mod dataplane_file;
pub mod derived;
pub mod events;
pub mod health;
pub mod http;
pub mod manager;
pub mod model;
pub mod observed;
pub mod origin;
pub mod publish;
pub mod reload;
pub mod server;
pub mod states;
pub mod store;
pub mod watchdog;
pub mod world;
