//! Keyward: an OpenID Connect provider. The modules stand in the order of their imports, lowest first; README.md
//! has the map and `tests/it/architecture.rs` keeps it true.

pub mod ambient;
pub mod crypto;
pub mod protocol;
pub mod telemetry;

pub mod config;
pub mod store;

pub mod keys;
pub mod limit;
pub mod mail;
pub mod passwords;

pub mod app;
pub mod issue;
pub mod live;

pub mod account;

pub mod http;
pub mod jobs;

pub mod cli;
