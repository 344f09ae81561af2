//! What handlers take from a request. Each extractor owns its refusal, so that no answer is in a framework's words.

pub mod authenticated;
pub mod bearer;
pub mod client;
pub mod cookie;
pub mod credential;
pub mod csrf;
pub mod json;
pub mod lines;
pub mod params;
pub mod path;
pub mod peer;
pub mod session;
