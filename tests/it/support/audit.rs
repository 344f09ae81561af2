//! The audit trail, for tests that look into it, and for those that call the store by themselves.

use std::sync::Arc;

use keyward::ambient::{SharedRng, SystemRng};
use keyward::protocol::time::Timestamp;
use keyward::store::events::{Author, By, Event, EventKind};

pub fn rng() -> SharedRng {
    Arc::new(SystemRng)
}

/// Somebody at a command line.
pub fn an_operator() -> Author {
    Author::new(rng(), By::Operator)
}

/// An event for a verb of the store whose event nobody looks at.
pub fn told() -> Event {
    an_operator().event(EventKind::UserChanged, Timestamp(1_800_000_000_000))
}
