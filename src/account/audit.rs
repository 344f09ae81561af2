//! Audit events with a fresh id and the time. The store writes each with the change that it tells of, and takes none
//! without; what happened without changing anything is recorded by itself.

use std::net::IpAddr;
use std::sync::Arc;

use crate::app::App;
use crate::protocol::ids::{ClientId, UserId};
use crate::store::Result;
use crate::store::events::{Author, By, Event, EventKind};

/// Whom and what an event is about.
#[derive(Clone, Debug, Default)]
pub struct About<'a> {
    pub user_id: Option<&'a UserId>,
    pub client_id: Option<&'a ClientId>,
    pub address: Option<IpAddr>,
    /// Further facts by name; never a secret.
    pub detail: &'a [(&'static str, &'a str)],
}

/// Records what no change was made by.
pub async fn record(app: &App, kind: EventKind, about: About<'_>) -> Result<()> {
    app.store.record_event(event(app, kind, about)).await
}

/// An event of which nobody needs to say who did it.
pub fn event(app: &App, kind: EventKind, about: About<'_>) -> Event {
    let event = Event::new(app.rng.as_ref(), kind, app.now()).from(about.address);
    let event = Event { user_id: about.user_id.cloned(), client_id: about.client_id.cloned(), ..event };
    about.detail.iter().fold(event, |event, (name, value)| event.with(name, *value))
}

fn author(app: &App, by: By) -> Author {
    Author::new(Arc::clone(&app.rng), by)
}

/// Somebody who does something with what is theirs.
pub fn person(app: &App, address: Option<IpAddr>) -> Author {
    author(app, By::Person).at(address)
}

/// Whoever holds a key, and may be anybody.
pub fn holder(app: &App, address: Option<IpAddr>) -> Author {
    author(app, By::Holder).at(address)
}

/// An app that proved who it is.
pub fn client(app: &App, id: &ClientId, address: Option<IpAddr>) -> Author {
    author(app, By::Client).as_client(id).at(address)
}

pub fn partner(app: &App, id: &ClientId, address: Option<IpAddr>) -> Author {
    author(app, By::Partner).as_client(id).at(address)
}

/// Whoever runs us, on the command line.
pub fn operator(app: &App) -> Author {
    author(app, By::Operator)
}

/// The configuration file.
pub fn declared(app: &App) -> Author {
    author(app, By::Declared)
}

pub fn import(app: &App) -> Author {
    author(app, By::Import)
}

/// Ourselves.
pub fn keyward(app: &App) -> Author {
    author(app, By::Keyward)
}
