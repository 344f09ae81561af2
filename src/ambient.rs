//! The clock and the source of randomness, as values that `App` carries, so that tests can set the one and
//! repeat the other. This is the only file that may read the real ones; `clippy.toml` refuses them elsewhere.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRngCore as _;
use rand::rngs::OsRng;

use crate::protocol::time::Timestamp;

/// Wall-clock time. It may step backwards, so rules never assume that a later call returns a later time.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
}

/// Unpredictable bytes, fit for secrets.
pub trait Rng: Send + Sync + 'static {
    fn fill(&self, bytes: &mut [u8]);
}

pub type SharedClock = Arc<dyn Clock>;
pub type SharedRng = Arc<dyn Rng>;

/// The system's wall clock.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The operating system's generator.
pub struct SystemRng;

impl Rng for SystemRng {
    fn fill(&self, bytes: &mut [u8]) {
        // A kernel that cannot give randomness leaves nothing safe to do; getrandom fails only on kernels
        // that lack the call altogether.
        if OsRng.try_fill_bytes(bytes).is_err() {
            // Not through the log, which is written by a thread that would not come to it.
            eprintln!("keyward: the operating system gave no random bytes");
            std::process::abort();
        }
    }
}

/// `N` fresh random bytes.
pub fn random_bytes<const N: usize>(rng: &dyn Rng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill(&mut bytes);
    bytes
}

/// A fresh random text of `N` bytes in base64url: only `[A-Za-z0-9_-]`, so that nothing ever needs escaping.
pub fn random_token<const N: usize>(rng: &dyn Rng) -> String {
    URL_SAFE_NO_PAD.encode(random_bytes::<N>(rng))
}

/// Measures how long something took: for logs, and for our patience with a connection. What a token or a session is
/// worth is decided by the [`Clock`].
pub struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn elapsed_micros(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub fn elapsed_millis(&self) -> u64 {
        self.elapsed_micros() / 1000
    }
}
