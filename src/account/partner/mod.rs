//! What partners do with their people: whoever is somebody else's is not there for them.

pub mod handoff;
pub mod idempotency;
pub mod imports;
pub mod onboarding;
pub mod people;
pub mod register;

use std::net::IpAddr;

use super::audit;
use crate::app::App;
use crate::protocol::ids::{ClientId, UserId};
use crate::store::events::{Author, Event, EventKind};

/// A partner whose credential was good a moment ago.
#[derive(Clone, Debug)]
pub struct Partner {
    pub id: ClientId,
    /// What people know it by.
    pub name: String,
    /// Where its backend called from.
    pub address: Option<IpAddr>,
}

impl Partner {
    fn author(&self, app: &App) -> Author {
        audit::partner(app, &self.id, self.address)
    }

    /// Something that it did to one of its people.
    fn event(&self, app: &App, kind: EventKind, user_id: &UserId) -> Event {
        self.author(app).event(kind, app.now()).of_user(user_id)
    }
}
