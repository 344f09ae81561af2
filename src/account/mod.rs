//! Use cases that have more than one door: pages, commands, jobs.

pub mod api_keys;
pub mod audit;
pub mod clients;
pub mod declared;
pub mod first_party;
pub mod import;
pub mod partner;
pub mod password;
pub mod people;
pub mod sessions;
pub mod signing_keys;
