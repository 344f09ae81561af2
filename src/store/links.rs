//! Links that are good once, by the hash of the secret in them.

use super::db::Conn;
use super::users::{read, user_columns};
use super::{Result, Store};
use crate::protocol::client::wire_enum;
use crate::protocol::ids::UserId;
use crate::protocol::time::Timestamp;
use crate::protocol::user::User;

wire_enum! {
    /// What a link is for.
    pub enum LinkKind {
        /// A partner hands a browser over.
        HandOff = "handoff",
    }
}

/// A link to give out.
#[derive(Clone, Debug)]
pub struct NewLink {
    pub token_hash: [u8; 32],
    pub kind: LinkKind,
    pub user_id: UserId,
    pub expires_at: Timestamp,
}

impl Store {
    pub async fn create_link(&self, link: NewLink) -> Result<()> {
        let sql = "INSERT INTO links (token_hash, kind, user_id, expires_at) VALUES ($1, $2, $3, $4)";
        let statement = move || {
            let statement = sqlx::query(sql).bind(link.token_hash.to_vec()).bind(link.kind.as_str());
            statement.bind(link.user_id.as_str().to_owned()).bind(link.expires_at.millis())
        };
        self.db.execute(statement).await?;
        Ok(())
    }

    /// Whom a link is about that is still good; looking does not use it up.
    pub async fn link(&self, token_hash: [u8; 32], kind: LinkKind, now: Timestamp) -> Result<Option<User>> {
        // A difference, so that the index by expiry does not offer itself; so below.
        let sql = concat!(
            "SELECT ",
            user_columns!(),
            " FROM links l JOIN users u ON u.id = l.user_id
              WHERE l.token_hash = $1 AND l.kind = $2 AND l.used_at IS NULL AND l.expires_at - $3 > 0
              AND u.disabled_at IS NULL"
        );
        let statement = || sqlx::query(sql).bind(token_hash.to_vec()).bind(kind.as_str()).bind(now.millis());
        self.db.row(statement).await?.as_ref().map(read).transpose()
    }
}

/// Uses a person's link up; `false` where it was used, or is too old.
pub(super) async fn redeem(
    conn: &mut Conn,
    token_hash: [u8; 32],
    kind: LinkKind,
    user_id: &UserId,
    now: Timestamp,
) -> Result<bool> {
    let done = sqlx::query(
        "UPDATE links SET used_at = $4
         WHERE token_hash = $1 AND kind = $2 AND user_id = $3 AND used_at IS NULL AND expires_at - $4 > 0",
    )
    .bind(token_hash.to_vec())
    .bind(kind.as_str())
    .bind(user_id.as_str())
    .bind(now.millis())
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}
