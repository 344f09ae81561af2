//! The clock and the source of randomness, as values that `App` carries, so that tests can set the one and
//! repeat the other. This is the only file that may read the real ones; `clippy.toml` refuses them elsewhere.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
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

    /// Bytes for an identifier: no secret, but nobody guesses it either.
    fn id(&self) -> [u8; 16] {
        random_bytes(self)
    }
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

/// The operating system's generator. Its ids come in runs that begin alike, so that what is written together lies
/// together in an index: each id at a place of its own would be a page of its own to write, in a table of millions. What a
/// run has in common is random too: it tells that ids were made at about the same time, and no more. 104 bits are each id's
/// own.
pub struct SystemRng;

/// Ids in a run.
const RUN: u32 = 1024;
/// Bytes that they have in common: four characters of the text.
const IN_COMMON: usize = 3;
/// Ids that this process has made.
static MADE: AtomicU32 = AtomicU32::new(0);
/// How those of the present run begin.
static BEGINNING: AtomicU32 = AtomicU32::new(0);

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

    fn id(&self) -> [u8; 16] {
        let mut bytes: [u8; 16] = random_bytes(self);
        let mut beginning = [0; 4];
        // Whoever is overtaken while a run begins still belongs to the one before.
        if MADE.fetch_add(1, Ordering::Relaxed).is_multiple_of(RUN) {
            beginning[..IN_COMMON].copy_from_slice(&bytes[..IN_COMMON]);
            BEGINNING.store(u32::from_be_bytes(beginning), Ordering::Relaxed);
        } else {
            beginning = BEGINNING.load(Ordering::Relaxed).to_be_bytes();
            bytes[..IN_COMMON].copy_from_slice(&beginning[..IN_COMMON]);
        }
        bytes
    }
}

/// `N` fresh random bytes.
pub fn random_bytes<const N: usize>(rng: &(impl Rng + ?Sized)) -> [u8; N] {
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_neighbours_and_none_is_another() {
        let many = 20 * RUN as usize;
        let ids: Vec<[u8; 16]> = (0..many).map(|_| SystemRng.id()).collect();
        let count = |part: &dyn Fn(&[u8; 16]) -> Vec<u8>| ids.iter().map(part).collect::<HashSet<_>>().len();
        assert_eq!(count(&|id| id.to_vec()), many);
        assert_eq!(count(&|id| id[IN_COMMON..].to_vec()), many, "each has enough of its own");
        // Other tests may make some between.
        let beginnings = count(&|id| id[..IN_COMMON].to_vec());
        assert!((10..200).contains(&beginnings), "{beginnings}");
    }
}
