//! What systemd wants to hear (sd_notify(3)): that we are ready, that we are alive, that we stop. Without
//! `NOTIFY_SOCKET` nothing is said. Sockets that systemd opened are not taken over: no safe call turns them into
//! listeners.

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

/// Everything listens and the database is up to date. From here on the watchdog hears from us, if it wants to.
pub fn ready() {
    tell(NotifyState::Ready);
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else { return };
    tokio::spawn(async move {
        // Twice in each period, as systemd recommends, so that one that is late does not count.
        let mut ticks = interval(limit / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            tell(NotifyState::Watchdog);
        }
    });
}

pub fn stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(&state)) {
        tracing::warn!(%error, %state, "systemd could not be told");
    }
}
