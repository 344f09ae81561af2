//! What people have allowed apps.

use super::db::Statements;
use super::{Result, Store, column, from_json, to_json};
use crate::protocol::ids::{ClientId, UserId};
use crate::protocol::interaction::Consent;
use crate::protocol::time::Timestamp;

impl Store {
    pub async fn consent(&self, user_id: &UserId, client_id: &ClientId) -> Result<Option<Consent>> {
        let sql = "SELECT scope, resources, given_at FROM consents WHERE user_id = $1 AND client_id = $2";
        let statement = || sqlx::query(sql).bind(user_id.as_str().to_owned()).bind(client_id.as_str().to_owned());
        let Some(row) = self.db.row(statement).await? else { return Ok(None) };
        Ok(Some(Consent {
            scope: from_json("consent", column(&row, "scope")?)?,
            resources: from_json("consent", column(&row, "resources")?)?,
            given_at: Timestamp(column(&row, "given_at")?),
        }))
    }

    /// Remembers that a person allowed these scopes, besides all they allowed the client before. The last of two
    /// pages submitted at once wins; either was allowed.
    pub async fn remember_consent(&self, user_id: UserId, client_id: ClientId, mut consent: Consent) -> Result<()> {
        if let Some(before) = self.consent(&user_id, &client_id).await? {
            consent.scope = before.scope.union(&consent.scope);
            let new = consent.resources.into_iter().filter(|uri| !before.resources.contains(uri));
            consent.resources = before.resources.iter().cloned().chain(new.collect::<Vec<_>>()).collect();
        }
        self.db
            .write(Statements::One, move |conn| {
                Box::pin(async move {
                    sqlx::query(
                        "INSERT INTO consents (user_id, client_id, scope, resources, given_at) VALUES ($1, $2, $3, $4, $5)
                         ON CONFLICT (user_id, client_id) DO UPDATE SET
                             scope = excluded.scope, resources = excluded.resources, given_at = excluded.given_at",
                    )
                    .bind(user_id.as_str())
                    .bind(client_id.as_str())
                    .bind(to_json("consent", &consent.scope)?)
                    .bind(to_json("consent", &consent.resources)?)
                    .bind(consent.given_at.millis())
                    .execute(conn)
                    .await?;
                    Ok(())
                })
            })
            .await
    }
}
