//! The audit trail: what happened, to whom, from where; never a secret.

use serde_json::{Map, Value};

use super::db::Statements;
use super::{Result, Store, to_json};
use crate::protocol::client::wire_enum;
use crate::protocol::ids::{ClientId, UserId};
use crate::protocol::time::Timestamp;

wire_enum! {
    /// Kinds of events.
    pub enum EventKind {
        SignedIn = "signed_in",
        SignInFailed = "sign_in_failed",
        SignInThrottled = "sign_in_throttled",
        SignedOut = "signed_out",
        ConsentGiven = "consent_given",
        ConsentDenied = "consent_denied",
        GrantRevoked = "grant_revoked",
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
        self.db
            .write(Statements::One, move |conn| {
                Box::pin(async move {
                    sqlx::query(
                        "INSERT INTO events (id, at, kind, user_id, client_id, address, detail)
                         VALUES ($1, $2, $3, $4, $5, $6, $7)",
                    )
                    .bind(event.id)
                    .bind(event.at.millis())
                    .bind(event.kind.as_str())
                    .bind(event.user_id.as_ref().map(UserId::as_str))
                    .bind(event.client_id.as_ref().map(ClientId::as_str))
                    .bind(event.address)
                    .bind(to_json("event", &event.detail)?)
                    .execute(conn)
                    .await?;
                    Ok(())
                })
            })
            .await
    }
}
