//! The tests of the whole: the real router on both databases, a browser with cookies, and a clock that the test
//! sets. Each file mirrors one of `src` or shows a promise of the whole; `support` holds the harness.

mod support;

mod architecture;
mod attacks;
mod authorize;
mod cluster;
mod conformance;
mod keys;
mod login;
mod logout;
mod migrations;
mod openidconnect_crate;
mod process;
mod store;
mod token;
