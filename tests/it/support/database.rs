//! A database for one test.

use std::path::Path;

use keyward::store::{self, Store};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::process::PATIENCE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    pub const BOTH: [Self; 2] = [Self::Sqlite, Self::Postgres];

    /// The URL of a new, empty database.
    pub async fn create(self, dir: &Path) -> String {
        match self {
            Self::Sqlite => format!("sqlite://{}", dir.join("keyward.db").display()),
            Self::Postgres => postgres_database().await,
        }
    }
}

/// A store on it, which waits for a connection for as long as a test waits for anything.
pub async fn open_store(url: &str) -> store::Result<Store> {
    Store::open(url, PATIENCE).await
}

/// A new database on the server that `tests/run` started.
pub async fn postgres_database() -> String {
    postgres_database_with("").await
}

/// The same, with options of `CREATE DATABASE`.
pub async fn postgres_database_with(options: &str) -> String {
    let server = std::env::var("KEYWARD_TEST_POSTGRES").expect(
        "KEYWARD_TEST_POSTGRES is not set: run the tests with `tests/run`, which starts a PostgreSQL for them, or set \
         it to the URL of one where databases may be made, without a database's name: postgres://user@host:port",
    );
    let mut random = [0_u8; 8];
    keyward::ambient::Rng::fill(&keyward::ambient::SystemRng, &mut random);
    let name = format!("keyward_{:016x}", u64::from_be_bytes(random));
    let mut conn = PgConnection::connect(&format!("{server}/postgres")).await.expect("the test PostgreSQL");
    let sql = format!("CREATE DATABASE {name} {options}");
    sqlx::query(AssertSqlSafe(sql)).execute(&mut conn).await.expect("a new database");
    conn.close().await.expect("closing");
    format!("{server}/{name}")
}
