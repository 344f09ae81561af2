pub mod ambient;
pub mod crypto;
pub mod protocol;
