//! The audit trail: what happened, to whom, from where; never a secret.

use serde_json::{Map, Value};

use super::db::{Conn, Statement};
use super::{Result, Store, to_json};
use crate::protocol::client::wire_enum;
use crate::protocol::ids::{ClientId, UserId};
use crate::protocol::time::Timestamp;

wire_enum! {
    /// Kinds of events.
    pub enum EventKind {
        SignedIn = "signed_in",
        SignedUp = "signed_up",
        SignInFailed = "sign_in_failed",
        SignInThrottled = "sign_in_throttled",
        SignedOut = "signed_out",
        ConsentGiven = "consent_given",
        ConsentDenied = "consent_denied",
        GrantRevoked = "grant_revoked",
        ApiKeyCreated = "api_key_created",
        ApiKeyRotated = "api_key_rotated",
        ApiKeyRevoked = "api_key_revoked",
        UserCreated = "user_created",
        UserChanged = "user_changed",
        UserDisabled = "user_disabled",
        UserEnabled = "user_enabled",
        UserDeleted = "user_deleted",
    }
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// 128 random bits.
    pub id: String,
    pub at: Timestamp,
    pub kind: EventKind,
    pub user_id: Option<UserId>,
    pub client_id: Option<ClientId>,
    /// IP address of the peer.
    pub address: Option<String>,
    pub detail: Map<String, Value>,
}

impl Store {
    pub async fn record_event(&self, event: Event) -> Result<()> {
        let detail = to_json("event", &event.detail)?;
        self.db.execute(move || statement(&event, detail.clone())).await?;
        Ok(())
    }
}

/// Writes an event with the change that it tells of.
pub(super) async fn insert(conn: &mut Conn, event: &Event) -> Result<()> {
    statement(event, to_json("event", &event.detail)?).execute(conn).await?;
    Ok(())
}

fn statement(event: &Event, detail: String) -> Statement<'static> {
    let sql = "INSERT INTO events (id, at, kind, user_id, client_id, address, detail)
               VALUES ($1, $2, $3, $4, $5, $6, $7)";
    sqlx::query(sql)
        .bind(event.id.clone())
        .bind(event.at.millis())
        .bind(event.kind.as_str())
        .bind(event.user_id.as_ref().map(|id| id.as_str().to_owned()))
        .bind(event.client_id.as_ref().map(|id| id.as_str().to_owned()))
        .bind(event.address.clone())
        .bind(detail)
}
