//! The harness: a provider in this process, on a database of its own.

#![allow(clippy::disallowed_types)] // Tests make their own randomness and read real JSON.

pub mod audit;
mod browser;
pub mod certificate;
pub mod collector;
pub mod crowd;
pub mod database;
pub mod disk;
mod doors;
pub mod mail_server;
pub mod postgres;
pub mod process;
pub mod prometheus;
mod provider;
pub mod python;
pub mod trace;
pub mod wire;

pub use browser::{Browser, Page, form_fields, text_of};
pub use database::{Backend, open_store};
pub use doors::{Doors, at_once};
pub use provider::{
    BRIEF_SIGN_INS, CALLBACK, CONFIG, PASSWORDS, Provider, SPA_CALLBACK, TokenAnswer, VERIFIER, call, challenge,
    claims_of, header_of, json, spa_fields, spa_url, tables,
};

/// Runs each test on SQLite and on PostgreSQL, each time with a fresh provider.
#[macro_export]
macro_rules! on_both_databases {
    ($($(#[$meta:meta])* async fn $name:ident($provider:ident: Provider) $body:block)+) => {
        $(
            $(#[$meta])*
            mod $name {
                #[allow(unused_imports)] // A short case needs nothing of its file.
                use super::*;

                async fn case($provider: $crate::support::Provider) $body

                #[tokio::test]
                async fn sqlite() {
                    case($crate::support::Provider::start($crate::support::Backend::Sqlite).await).await;
                }

                #[tokio::test]
                async fn postgres() {
                    case($crate::support::Provider::start($crate::support::Backend::Postgres).await).await;
                }
            }
        )+
    };
}
