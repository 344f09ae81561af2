//! What handlers take from a request. Each extractor owns its refusal, so that no answer is in a framework's words.

pub mod client;
pub mod cookie;
pub mod csrf;
pub mod params;
pub mod peer;
pub mod session;
