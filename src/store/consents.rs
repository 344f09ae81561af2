//! What people have allowed apps.

use sqlx::any::AnyRow;

use super::db::Statements;
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

impl Store {
    pub async fn consent(&self, user_id: &UserId, client_id: &ClientId) -> Result<Option<Consent>> {
        let statement = || sqlx::query(SELECT).bind(user_id.as_str().to_owned()).bind(client_id.as_str().to_owned());
        self.db.row(statement).await?.as_ref().map(read).transpose()
    }

    /// Remembers that a person allowed this now, besides all they allowed the client before.
    pub async fn remember_consent(
        &self,
        user_id: UserId,
        client_id: ClientId,
        allowed: Allowed,
        now: Timestamp,
    ) -> Result<()> {
        self.db
            .write(Statements::Several, move |conn| {
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
                        .execute(conn)
                        .await?;
                    Ok(())
                })
            })
            .await
    }
}
