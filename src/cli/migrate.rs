//! `keyward migrate`: brings the tables up to date, as `serve` does at start.

use crate::config::Config;
use crate::store::Store;

pub async fn run(config: Config) -> anyhow::Result<()> {
    Store::open(&config.database_url).await?.close().await;
    println!("the database is up to date");
    Ok(())
}
