//! What partners do with their people: whoever is somebody else's is not there for them.

pub mod handoff;
pub mod idempotency;
pub mod imports;
pub mod onboarding;
pub mod people;
pub mod register;

use std::net::IpAddr;

use super::audit::{self, About};
use crate::app::App;
use crate::protocol::ids::{ClientId, UserId};
use crate::store::events::{Event, EventKind};

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
    /// Something that it did to one of its people.
    fn event(&self, app: &App, kind: EventKind, user_id: &UserId, detail: &[(&'static str, &str)]) -> Event {
        let about = About { user_id: Some(user_id), client_id: Some(&self.id), address: self.address, detail };
        audit::event(app, kind, about)
    }
}
