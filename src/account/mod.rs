//! What people do that has more than one door: pages today, JSON beside them.

pub mod audit;
pub mod declared;
pub mod import;
pub mod sign_in;
