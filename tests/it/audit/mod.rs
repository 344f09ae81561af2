//! The audit trail: what is told of whatever happens, that nothing happens without being told, how it is found again,
//! and for how long.

mod acts;
mod listed;
mod process;
mod together;

use std::convert::Infallible;

use keyward::account::clients;
use keyward::app::App;
use keyward::protocol::time::Timestamp;
use keyward::store;
use keyward::store::clients::ClientRecord;
use keyward::store::events::{Filter, ListedEvent};
use serde_json::Value;

use crate::support::Provider;

/// Reads what was written since it last looked.
pub struct Trail<'a> {
    provider: &'a Provider,
    since: Timestamp,
}

impl<'a> Trail<'a> {
    pub fn of(provider: &'a Provider) -> Self {
        Self { provider, since: provider.app.now() }
    }

    /// In the order in which it happened.
    pub async fn events(&mut self) -> Vec<ListedEvent> {
        let filter = Filter { since: Some(self.since), ..Filter::default() };
        let mut events = self.provider.app.store.events(&filter, 1000).await.expect("events");
        self.since = self.provider.app.now();
        events.reverse();
        events
    }

    /// The same, each on one line.
    pub async fn lines(&mut self) -> Vec<String> {
        self.events().await.iter().map(line).collect()
    }
}

/// Makes an app this one, as the command line does; `false` where there is none.
async fn put(app: &App, record: ClientRecord) -> store::Result<bool> {
    let id = record.client.id.clone();
    Ok(clients::change(app, &id, |_| Ok::<_, Infallible>(record)).await?.is_some())
}

/// Ids that were drawn are another each time.
const DRAWN: [&str; 11] =
    ["sid", "key_id", "kid", "predecessor", "successor", "grant_id", "jti", "active_from", "ended", "from", "to"];

/// `kind person client @address by=… `, as far as there are any.
pub fn line(event: &ListedEvent) -> String {
    let mut words = vec![event.kind.clone()];
    if event.user_id.is_some() {
        words.push(event.username.clone().or(event.email.clone()).unwrap_or_else(|| "somebody".to_owned()));
    }
    words.extend(event.client_id.as_ref().map(|id| format!("<{id}>")));
    words.extend(event.address.as_ref().map(|address| format!("@{address}")));
    let known = event.detail.iter().filter(|(name, _)| !DRAWN.contains(&name.as_str()));
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    words.extend(known.map(|(name, value)| format!("{name}={}", text(value))));
    words.join(" ")
}
