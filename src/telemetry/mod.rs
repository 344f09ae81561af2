//! What an operator can watch: metrics, log lines and traces. Lies below everything that tells it something, and
//! costs next to nothing where nobody watches. Which of it is switched on is for `cli` to say.

pub mod json;
pub mod lines;
pub mod metrics;
pub mod process;
pub mod traces;
