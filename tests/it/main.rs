//! The tests of the whole: the real router on both databases, a browser with cookies, and a clock that the test
//! sets. Each file mirrors one of `src`; `support` holds the harness.

mod support;

mod architecture;
mod authorize;
mod cli;
mod conformance;
mod deploy;
mod import;
mod key_life;
mod keys;
mod login;
mod logout;
mod observability;
mod openidconnect_crate;
mod process;
mod serving;
mod store;
mod token;
