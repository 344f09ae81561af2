//! What one connection is doing: whose turn it is, since when, and so until when it is waited for. Written by the
//! connection's own task and its requests, read by whoever looks for a connection that can go.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::limits::Limits;
use crate::ambient::Stopwatch;

/// Milliseconds since the process began to serve; 0 stands for "not".
pub type Millis = u64;

pub fn now() -> Millis {
    static START: LazyLock<Stopwatch> = LazyLock::new(Stopwatch::start);
    START.elapsed_millis() + 1
}

fn after(since: Millis, patience: Duration) -> Millis {
    since.saturating_add(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX))
}

/// Each field by itself is exact; two of them may be read a moment apart, which at worst ends a connection that
/// was about to be used.
#[derive(Debug, Default)]
pub struct Activity {
    /// When the peer's turn began: the connection was opened, a request came, its answer was ready.
    turned: AtomicU64,
    /// When the first byte after that came.
    heard: AtomicU64,
    /// Since when the peer takes nothing of what we write.
    blocked: AtomicU64,
    /// Requests without an answer.
    requests: AtomicUsize,
    /// Those of them that do not wait for their peer's body.
    working: AtomicIsize,
    /// There was a request.
    asked: AtomicBool,
    /// HTTP/2: bytes that come need not be the head of a request.
    multiplexed: AtomicBool,
    /// A request was answered before its body was read.
    unread: AtomicBool,
}

impl Activity {
    /// The peer may begin to speak HTTP.
    pub fn opened(&self) {
        self.turned.store(now(), Relaxed);
    }

    pub fn heard(&self) {
        if self.heard.load(Relaxed) == 0 {
            self.heard.store(now(), Relaxed);
        }
    }

    /// Whether the peer took something of what we write.
    pub fn wrote(&self, some: bool) {
        match (some, self.blocked.load(Relaxed)) {
            (true, 0) | (false, 1..) => {}
            (true, _) => self.blocked.store(0, Relaxed),
            (false, 0) => self.blocked.store(now(), Relaxed),
        }
    }

    /// A head is complete.
    pub fn request_came(&self, multiplexed: bool) {
        self.requests.fetch_add(1, Relaxed);
        self.working.fetch_add(1, Relaxed);
        self.asked.store(true, Relaxed);
        self.multiplexed.store(multiplexed, Relaxed);
        self.turn();
    }

    /// An answer is ready, or nobody waits for it any more.
    pub fn request_left(&self) {
        self.turn();
        self.working.fetch_sub(1, Relaxed);
        self.requests.fetch_sub(1, Relaxed);
    }

    fn turn(&self) {
        self.turned.store(now(), Relaxed);
        self.heard.store(0, Relaxed);
    }

    /// A request began or ceased to wait for its peer's body.
    pub fn waits_for_body(&self, waits: bool) {
        self.working.fetch_add(if waits { -1 } else { 1 }, Relaxed);
    }

    pub fn body_left_unread(&self) {
        self.unread.store(true, Relaxed);
    }

    pub fn has_unread_body(&self) -> bool {
        self.unread.load(Relaxed)
    }

    /// Since when nothing but the peer is waited for; `None` while we work for it.
    pub fn waiting_since(&self) -> Option<Millis> {
        (self.working.load(Relaxed) <= 0).then(|| self.turned.load(Relaxed))
    }

    /// Between two requests, with nothing under way in either direction.
    pub fn is_idle(&self) -> bool {
        let between = self.asked.load(Relaxed) && self.requests.load(Relaxed) == 0;
        let silent = self.multiplexed.load(Relaxed) || self.heard.load(Relaxed) == 0;
        between && silent && self.blocked.load(Relaxed) == 0
    }

    /// When patience ends, `None` while it is our turn. `closing` is when the end of the connection was announced.
    pub fn due(&self, limits: &Limits, closing: Option<Millis>) -> Option<Millis> {
        let (turned, heard) = (self.turned.load(Relaxed), self.heard.load(Relaxed));
        let blocked = match self.blocked.load(Relaxed) {
            0 => None,
            since => Some(after(since, limits.write)),
        };
        let turn = if self.working.load(Relaxed) > 0 {
            // Handlers have a limit of their own (`layers.rs`).
            None
        } else if self.requests.load(Relaxed) > 0 {
            // So have bodies (`body.rs`), also at the end: what was begun is finished.
            None
        } else if let Some(closing) = closing {
            Some(after(turned.max(closing), limits.farewell))
        } else if !self.asked.load(Relaxed) {
            Some(after(turned, limits.head))
        } else if heard != 0 && !self.multiplexed.load(Relaxed) {
            Some(after(heard, limits.head))
        } else {
            Some(after(turned, limits.idle))
        };
        match (blocked, turn) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        let [head, idle, write, farewell] = [100_000, 700_000, 20_000, 3_000].map(Duration::from_millis);
        Limits { head, idle, write, farewell, ..Limits::default() }
    }

    /// How long from now, to the second.
    fn left(activity: &Activity, closing: bool) -> Option<u64> {
        activity.due(&limits(), closing.then(now)).map(|due| (due - now()).div_ceil(1000))
    }

    #[test]
    fn patience_depends_on_whose_turn_it_is() {
        let activity = Activity::default();
        activity.opened();
        assert_eq!(left(&activity, false), Some(100), "the first head");
        activity.heard();
        assert_eq!(left(&activity, false), Some(100), "bytes do not prolong it");
        assert!(activity.waiting_since().is_some() && !activity.is_idle());
        activity.request_came(false);
        assert_eq!((left(&activity, false), left(&activity, true)), (None, None), "our turn");
        assert_eq!(activity.waiting_since(), None);
        activity.waits_for_body(true);
        assert!(activity.waiting_since().is_some(), "the peer's body is the peer's turn");
        assert_eq!((left(&activity, false), left(&activity, true)), (None, None), "which has a limit of its own");
        activity.waits_for_body(false);
        assert_eq!(activity.waiting_since(), None);
        activity.wrote(false);
        assert_eq!(left(&activity, false), Some(20), "it does not read");
        activity.wrote(true);
        activity.request_left();
        assert!(activity.is_idle());
        assert_eq!((left(&activity, false), left(&activity, true)), (Some(700), Some(3)), "between requests");
        activity.heard();
        assert!(!activity.is_idle());
        assert_eq!(left(&activity, false), Some(100), "the next head");
    }

    #[test]
    fn frames_between_requests_are_no_head() {
        let activity = Activity::default();
        activity.opened();
        activity.request_came(true);
        activity.request_left();
        activity.heard();
        assert!(activity.is_idle());
        assert_eq!(left(&activity, false), Some(700));
    }
}
