//! Sealed tickets that are too large for a URL.

use super::{Result, Store, column};
use crate::protocol::time::Timestamp;

impl Store {
    /// Keeps a sealed ticket under `id`.
    pub async fn park_ticket(&self, id: String, sealed: String, expires_at: Timestamp) -> Result<()> {
        let sql = "INSERT INTO pushed_requests (id, sealed, expires_at) VALUES ($1, $2, $3)";
        let statement = move || sqlx::query(sql).bind(id.clone()).bind(sealed.clone()).bind(expires_at.millis());
        self.db.execute(statement).await?;
        Ok(())
    }

    pub async fn parked_ticket(&self, id: &str, now: Timestamp) -> Result<Option<String>> {
        // A difference, so that the index by expiry does not offer itself.
        let sql = "SELECT sealed FROM pushed_requests WHERE id = $1 AND expires_at - $2 > 0";
        let row = self.db.row(|| sqlx::query(sql).bind(id.to_owned()).bind(now.millis())).await?;
        row.as_ref().map(|row| column(row, "sealed")).transpose()
    }
}
