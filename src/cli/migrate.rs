//! `keyward migrate`: brings the tables up to date, as `serve` does at start.

use serde_json::json;

use super::output::{self, Format};
use super::progress::during;
use crate::config::Config;
use crate::store::Store;

pub async fn run(config: Config, format: Format) -> anyhow::Result<()> {
    let opening = Store::open(&config.database.url, config.database.acquire_timeout.to_std());
    during("bringing the database up to date", opening).await?.close().await;
    output::object(format, &json!({ "database": "up to date" }));
    Ok(())
}
