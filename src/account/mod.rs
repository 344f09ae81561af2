//! Use cases that have more than one door: pages, commands, jobs.

pub mod api_keys;
pub mod audit;
pub mod declared;
pub mod import;
pub mod partner;
pub mod sign_in;
pub mod signing_keys;
