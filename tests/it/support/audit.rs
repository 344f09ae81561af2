//! The audit trail, for tests that look into it, and for those that call the store by themselves.

use std::convert::Infallible;
use std::sync::Arc;

use keyward::ambient::{SharedRng, SystemRng};
use keyward::protocol::time::Timestamp;
use keyward::store::clients::ClientRecord;
use keyward::store::events::{Author, By, Event, EventKind};
use keyward::store::{self, Store};

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

/// Makes a client this one, whatever it is; `false` where there is none.
pub async fn put_client(store: &Store, record: ClientRecord, now: Timestamp) -> store::Result<bool> {
    let id = record.client.id.clone();
    let outcome = store.change_client(id, |_| Ok::<_, Infallible>(record), an_operator(), now).await?;
    Ok(outcome.is_some())
}
