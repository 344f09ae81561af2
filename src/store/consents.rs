//! What people have allowed apps.

use sqlx::any::AnyRow;

use super::events::{self, Event};
use super::{Result, Store, column, from_json, to_json};
use crate::protocol::ids::{ClientId, UserId};
use crate::protocol::interaction::{Allowed, Consent};
use crate::protocol::time::Timestamp;

const SELECT: &str = "SELECT allowed, given_at FROM consents WHERE user_id = $1 AND client_id = $2";

fn read(row: &AnyRow) -> Result<Consent> {
    Ok(Consent {
        allowed: from_json("consent", column(row, "allowed")?)?,
        given_at: Timestamp(column(row, "given_at")?),
    })
}

/// Of a row that has these columns empty where nothing was allowed yet.
pub(super) fn read_joined(row: &AnyRow) -> Result<Option<Consent>> {
    column::<Option<i64>>(row, "given_at")?.map(|_| read(row)).transpose()
}

impl Store {
    /// Remembers that a person allowed this now, besides all they allowed the client before.
    pub async fn remember_consent(
        &self,
        user_id: UserId,
        client_id: ClientId,
        allowed: Allowed,
        event: Event,
        now: Timestamp,
    ) -> Result<()> {
        self.db
            .write(move |conn| {
                Box::pin(async move {
                    let (user, client) = (user_id.as_str(), client_id.as_str());
                    // The row exists and is ours from here on, so of two pages at once none is forgotten.
                    sqlx::query(
                        "INSERT INTO consents (user_id, client_id, allowed, given_at) VALUES ($1, $2, '[]', $3)
                         ON CONFLICT (user_id, client_id) DO UPDATE SET given_at = excluded.given_at",
                    )
                    .bind(user)
                    .bind(client)
                    .bind(now.millis())
                    .execute(&mut *conn)
                    .await?;
                    let row = sqlx::query(SELECT).bind(user).bind(client).fetch_one(&mut *conn).await?;
                    let mut consent = read(&row)?;
                    consent.add(allowed, now);
                    sqlx::query("UPDATE consents SET allowed = $3 WHERE user_id = $1 AND client_id = $2")
                        .bind(user)
                        .bind(client)
                        .bind(to_json("consent", &consent.allowed)?)
                        .execute(&mut *conn)
                        .await?;
                    events::insert(conn, &event).await
                })
            })
            .await
    }
}
