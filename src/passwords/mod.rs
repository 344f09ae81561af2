//! Password hashing under load: on threads of its own, a few at a time, behind a short queue. A sign-in flood waits
//! or is turned away; it cannot take the threads, the memory and the processors that tokens need.

mod threads;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use threads::{Job, Threads};

use crate::ambient::Stopwatch;
use crate::config::Passwords;
use crate::crypto::password::{self, Cost, Memory};
use crate::crypto::secret::Secret;
use crate::protocol::time::Span;
use crate::telemetry::{metrics, traces};

/// How many wait for each hash that runs: about as many as can be done within two seconds.
const WAITERS_PER_PERMIT: usize = 64;

/// No hash could be started in time; nothing was decided about the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overloaded {
    pub retry_after: Span,
}

pub struct Hasher {
    cost: Cost,
    /// Hashes that run at once: all cores but one, each with its own memory.
    running: Arc<Semaphore>,
    most: usize,
    /// For a turn.
    patience: Duration,
    /// Those that run and those that wait.
    admitted: Arc<Semaphore>,
    /// Stands in for the hash of somebody who does not exist, so that both take as long.
    dummy: Secret<String>,
    threads: Threads,
}

impl Hasher {
    /// `random` is for the stand-in hash of today's cost.
    pub fn new(passwords: &Passwords, random: &[u8; 48]) -> Result<Self, password::PasswordError> {
        let cost = Cost { memory_kib: passwords.memory_kib, iterations: passwords.iterations };
        let permits = std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1));
        Ok(Self {
            cost,
            running: Arc::new(Semaphore::new(permits)),
            most: permits,
            patience: passwords.queue_timeout.to_std(),
            admitted: Arc::new(Semaphore::new(permits * (1 + WAITERS_PER_PERMIT))),
            dummy: Secret::new(password::stand_in(random, cost)?),
            threads: Threads::new(permits, cost.memory_kib),
        })
    }

    /// Whether `typed` is the password of `hash`; without a hash it is compared with the stand-in and is not.
    pub async fn verify(&self, typed: Secret<String>, hash: Option<Secret<String>>) -> Result<bool, Overloaded> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.dummy.clone());
        let matched = self.run(move |memory| password::verify_in(memory, typed.expose(), hash.expose())).await?;
        Ok(matched && known)
    }

    /// A PHC string of today's cost.
    pub async fn hash(
        &self,
        password: Secret<String>,
        salt: [u8; 16],
    ) -> Result<Result<Secret<String>, password::PasswordError>, Overloaded> {
        let cost = self.cost;
        self.run(move |memory| password::hash_in(memory, password.expose(), &salt, cost).map(Secret::new)).await
    }

    pub fn needs_rehash(&self, hash: &str) -> bool {
        password::needs_rehash(hash, self.cost)
    }

    /// How many hashes run, and how many wait for their turn.
    pub fn load(&self) -> (usize, usize) {
        let running = self.most - self.running.available_permits();
        let admitted = self.most * (1 + WAITERS_PER_PERMIT) - self.admitted.available_permits();
        (running, admitted.saturating_sub(running))
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Memory) -> T + Send + 'static,
    ) -> Result<T, Overloaded> {
        let _step = traces::step("password hash");
        let overloaded = Overloaded { retry_after: Span::from_secs(2) };
        let admitted = Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| overloaded)?;
        let running = tokio::time::timeout(self.patience, Arc::clone(&self.running).acquire_owned());
        let running = running.await.ok().and_then(Result::ok).ok_or(overloaded)?;
        let (answer, answered) = oneshot::channel();
        // The permits move into the closure: it goes on when the request is gone, and so does what it uses.
        let job: Job = Box::new(move |memory| {
            let watch = Stopwatch::start();
            let value = work(memory);
            metrics::password_hash(&watch);
            drop((running, admitted));
            // Whoever asked may be gone.
            let _ = answer.send(value);
        });
        self.threads.run(job).map_err(|_| overloaded)?;
        answered.await.map_err(|_| overloaded)
    }
}
