//! Which events a write has written: counted once it is committed, and not at all where it is not.

use std::cell::RefCell;

use crate::telemetry::metrics;

tokio::task_local! {
    static WRITTEN: RefCell<Vec<&'static str>>;
}

/// Runs a write; what it came to, and the events that it wrote.
pub(super) async fn tallied<T>(write: impl Future<Output = T>) -> (T, Vec<&'static str>) {
    let work = async {
        let outcome = write.await;
        (outcome, WRITTEN.with(RefCell::take))
    };
    WRITTEN.scope(RefCell::default(), work).await
}

/// Notes an event of the write that runs.
pub(in crate::store) fn wrote(event: &'static str) {
    // Outside of one there is nothing that could be committed.
    let _ = WRITTEN.try_with(|written| written.borrow_mut().push(event));
}

/// Counts events that are there to stay.
pub(in crate::store) fn committed(events: &[&'static str]) {
    events.iter().for_each(|event| metrics::audit_event(event));
}
