//! The audit trail: what happened, to whom, by whom and from where; never a secret. The event of a change is written in
//! the transaction of that change, so there is neither the one without the other. How events are found again is
//! `list.rs`.

mod list;
mod of_client;

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::db::{self, Conn, Statement};
use super::{Result, Store, rows, to_json};
use crate::ambient::{Rng, SharedRng};
use crate::protocol::client::wire_enum;
use crate::protocol::ids::{ClientId, UserId, random_id};
use crate::protocol::time::Timestamp;

pub use list::{Filter, ListedEvent, Position};
pub(super) use of_client::changes as changes_of_client;

wire_enum! {
    /// Kinds of events; `docs/audit.md` tells when each is written.
    pub enum EventKind {
        SignedIn = "signed_in",
        SignedUp = "signed_up",
        SignInFailed = "sign_in_failed",
        SignInThrottled = "sign_in_throttled",
        SignedOut = "signed_out",
        PasswordChanged = "password_changed",
        ConsentGiven = "consent_given",
        ConsentDenied = "consent_denied",
        GrantRevoked = "grant_revoked",
        AccessTokenRevoked = "access_token_revoked",
        ApiKeyCreated = "api_key_created",
        ApiKeyRotated = "api_key_rotated",
        ApiKeyRevoked = "api_key_revoked",
        UserCreated = "user_created",
        UserChanged = "user_changed",
        UserDisabled = "user_disabled",
        UserEnabled = "user_enabled",
        UserDeleted = "user_deleted",
        ClientCreated = "client_created",
        ClientChanged = "client_changed",
        ClientSecretRotated = "client_secret_rotated",
        ClientDisabled = "client_disabled",
        ClientEnabled = "client_enabled",
        ClientDeleted = "client_deleted",
        SigningKeyCreated = "signing_key_created",
        SigningKeyRotated = "signing_key_rotated",
        SigningKeyImported = "signing_key_imported",
        SigningKeyRetired = "signing_key_retired",
        MasterKeyChanged = "master_key_changed",
    }
}

wire_enum! {
    /// Who did it: `by` in an event's detail.
    pub enum By {
        /// Whom it is about.
        Person = "person",
        /// On the command line.
        Operator = "operator",
        /// The event's client.
        Partner = "partner",
        /// The event's client.
        Client = "client",
        /// Whoever had the key in hand.
        Holder = "holder",
        /// The configuration file, at a start.
        Declared = "declared",
        /// `keyward user import`.
        Import = "import",
        /// Keyward itself, because it was due.
        Keyward = "keyward",
    }
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// From [`random_id`].
    pub id: String,
    pub at: Timestamp,
    pub kind: EventKind,
    pub user_id: Option<UserId>,
    pub client_id: Option<ClientId>,
    /// IP address of the peer.
    pub address: Option<String>,
    pub detail: Map<String, Value>,
}

impl Event {
    pub fn new(rng: &dyn Rng, kind: EventKind, at: Timestamp) -> Self {
        let (user_id, client_id, address) = (None, None, None);
        Self { id: random_id(rng.id()), at, kind, user_id, client_id, address, detail: Map::new() }
    }

    pub fn of_user(self, id: &UserId) -> Self {
        Self { user_id: Some(id.clone()), ..self }
    }

    pub fn of_client(self, id: &ClientId) -> Self {
        Self { client_id: Some(id.clone()), ..self }
    }

    pub fn from(self, address: Option<IpAddr>) -> Self {
        Self { address: address.map(|address| address.to_string()), ..self }
    }

    /// With a further fact; never a secret.
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.detail.insert(name.to_owned(), value.into());
        self
    }
}

/// Who does something, and from where: what all events of one act have in common.
#[derive(Clone)]
pub struct Author {
    rng: SharedRng,
    pub by: By,
    /// The partner or app that does it.
    pub client_id: Option<ClientId>,
    pub address: Option<IpAddr>,
}

impl Author {
    pub fn new(rng: SharedRng, by: By) -> Self {
        Self { rng, by, client_id: None, address: None }
    }

    pub fn at(self, address: Option<IpAddr>) -> Self {
        Self { address, ..self }
    }

    pub fn as_client(self, id: &ClientId) -> Self {
        Self { client_id: Some(id.clone()), ..self }
    }

    pub fn event(&self, kind: EventKind, at: Timestamp) -> Event {
        let event = Event::new(self.rng(), kind, at).from(self.address).with("by", self.by.as_str());
        Event { client_id: self.client_id.clone(), ..event }
    }

    pub fn rng(&self) -> &dyn Rng {
        self.rng.as_ref()
    }
}

impl Store {
    /// Writes an event that tells of no change.
    pub async fn record_event(&self, event: Event) -> Result<()> {
        let (kind, detail) = (event.kind, to_json("event", &event.detail)?);
        self.db.execute(move || bind(sqlx::query(INSERT), &event, detail.clone())).await?;
        db::committed(&[kind.as_str()]);
        Ok(())
    }
}

const INSERT: &str = "INSERT INTO events (id, at, kind, user_id, client_id, address, detail)
                      VALUES ($1, $2, $3, $4, $5, $6, $7)";
const COLUMNS: usize = 7;
/// Events in one statement.
const AT_A_TIME: usize = 100;

/// Writes an event with the change that it tells of.
pub(super) async fn insert(conn: &mut Conn, event: &Event) -> Result<()> {
    bind(sqlx::query(INSERT), event, to_json("event", &event.detail)?).execute(conn).await?;
    db::wrote(event.kind.as_str());
    Ok(())
}

/// The same for several, in as few statements as may be.
pub(super) async fn insert_all(conn: &mut Conn, events: &[Event]) -> Result<()> {
    for events in events.chunks(AT_A_TIME) {
        let sql = format!(
            "INSERT INTO events (id, at, kind, user_id, client_id, address, detail) VALUES {}",
            rows(0, COLUMNS, events.len())
        );
        let mut statement = sqlx::query(sqlx::AssertSqlSafe(sql));
        for event in events {
            statement = bind(statement, event, to_json("event", &event.detail)?);
        }
        statement.execute(&mut *conn).await?;
        events.iter().for_each(|event| db::wrote(event.kind.as_str()));
    }
    Ok(())
}

fn bind(statement: Statement<'static>, event: &Event, detail: String) -> Statement<'static> {
    statement
        .bind(event.id.clone())
        .bind(event.at.millis())
        .bind(event.kind.as_str())
        .bind(event.user_id.as_ref().map(|id| id.as_str().to_owned()))
        .bind(event.client_id.as_ref().map(|id| id.as_str().to_owned()))
        .bind(event.address.clone())
        .bind(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first cells of the table below a heading.
    fn listed(heading: &str) -> Vec<String> {
        let page = include_str!("../../../docs/audit.md");
        let (_, below) = page.split_once(heading).expect("the heading");
        let table = below.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
        let cells = table.skip(2).map(|row| row.split('|').nth(1).unwrap_or_default().trim());
        cells.map(|cell| cell.trim_matches('`').to_owned()).collect()
    }

    #[test]
    fn the_page_about_the_trail_lists_every_kind_and_everybody() {
        let kinds: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(listed("## Kinds"), kinds);
        let by: Vec<&str> = By::ALL.iter().map(|by| by.as_str()).collect();
        assert_eq!(listed("`detail.by` says"), by);
    }
}
