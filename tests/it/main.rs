//! The tests of the whole: the real router on both databases, a browser with cookies, and a clock that the test
//! sets. Each file mirrors one of `src` or shows a promise of the whole; `support` holds the harness.

mod support;

mod aisquare;
mod api_keys;
mod architecture;
mod attacks;
mod audit;
mod authorize;
mod cli;
mod cluster;
mod conformance;
mod deploy;
mod durability;
mod first_party;
mod gateway;
mod import;
mod inspir;
mod key_life;
mod key_process;
mod keys;
mod login;
mod logout;
mod mail;
mod migrations;
mod observability;
mod openidconnect_crate;
mod partner;
mod plans;
mod playsmart;
mod process;
mod serving;
mod sign_in_races;
mod store;
mod token;
