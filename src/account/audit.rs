//! Writes audit events with a fresh id and the time.

use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::ambient::random_token;
use crate::app::App;
use crate::protocol::ids::{ClientId, UserId};
use crate::store::Result;
use crate::store::events::{Event, EventKind};

/// Whom and what an event is about.
#[derive(Clone, Debug, Default)]
pub struct About<'a> {
    pub user_id: Option<&'a UserId>,
    pub client_id: Option<&'a ClientId>,
    pub address: Option<IpAddr>,
    /// Further facts by name; never a secret.
    pub detail: &'a [(&'static str, &'a str)],
}

pub async fn record(app: &App, kind: EventKind, about: About<'_>) -> Result<()> {
    app.store.record_event(event(app, kind, about)).await
}

/// The same where what was done is done, and nobody gains by being told that it was not: an event that cannot be written
/// is told to the log in its place.
pub async fn record_or_log(app: &App, event: Event) {
    let (kind, user_id) = (event.kind, event.user_id.clone());
    if let Err(error) = app.store.record_event(event).await {
        let user_id = user_id.as_ref().map(UserId::as_str);
        tracing::error!(%error, event = kind.as_str(), user_id, "an event was not recorded");
    }
}

/// An event to be written with the change that it tells of.
pub fn event(app: &App, kind: EventKind, about: About<'_>) -> Event {
    let detail = about.detail.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value)));
    Event {
        id: random_token::<16>(app.rng.as_ref()),
        at: app.now(),
        kind,
        user_id: about.user_id.cloned(),
        client_id: about.client_id.cloned(),
        address: about.address.map(|address| address.to_string()),
        detail: detail.collect::<Map<_, _>>(),
    }
}
