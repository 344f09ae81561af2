//! The threads that hashes are computed on. A hash takes a processor for as long as twenty signatures do, so whoever
//! answers others comes first: these threads run where nobody else wants to. Where everybody wants all processors for
//! long that would be never, and then hashes are computed on threads like any other.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, SendError, Sender};

use crate::ambient::Stopwatch;
use crate::crypto::password::Memory;

/// One hash, to be computed in this memory.
pub type Job = Box<dyn FnOnce(&mut Memory) + Send>;

/// How long a thread keeps the memory of its last hash for the next one.
const MEMORY_RESTS: Duration = Duration::from_secs(5);
/// A hash that takes so many times as long as one can was held up.
const HELD_UP: u64 = 16;
/// How long hashes do not give way after one was held up.
const PRESSED_MICROS: u64 = 10_000_000;

pub struct Threads {
    /// Of each kind.
    most: usize,
    /// What a thread keeps; larger ones are given back at once.
    memory_kib: u32,
    giving_way: OnceLock<Sender<Job>>,
    ordinary: OnceLock<Sender<Job>>,
    pace: Arc<Pace>,
}

impl Threads {
    /// They are started by the first hash.
    pub fn new(most: usize, memory_kib: u32) -> Self {
        let (giving_way, ordinary) = (OnceLock::new(), OnceLock::new());
        Self { most, memory_kib, giving_way, ordinary, pace: Arc::new(Pace::new()) }
    }

    /// # Errors
    /// Where no thread is left to do it.
    pub fn run(&self, job: Job) -> Result<(), SendError<Job>> {
        let gives_way = !self.pace.is_pressed();
        let threads = if gives_way { &self.giving_way } else { &self.ordinary };
        threads.get_or_init(|| self.start(gives_way)).send(job)
    }

    /// Starts as many as hashes may run; they end with their sender.
    fn start(&self, gives_way: bool) -> Sender<Job> {
        let (sender, jobs) = crossbeam_channel::unbounded::<Job>();
        for _ in 0..self.most {
            let (jobs, pace, memory_kib) = (jobs.clone(), Arc::clone(&self.pace), self.memory_kib);
            let thread = std::thread::Builder::new().name("password-hash".to_owned());
            let started = thread.spawn(move || {
                if gives_way {
                    give_way();
                }
                work(&jobs, &pace, memory_kib);
            });
            if let Err(error) = started {
                tracing::error!(%error, "a thread for password hashes could not be started");
            }
        }
        sender
    }
}

fn work(jobs: &Receiver<Job>, pace: &Pace, memory_kib: u32) {
    let mut memory = Memory::default();
    loop {
        let job = match jobs.recv_timeout(MEMORY_RESTS) {
            Ok(job) => job,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                memory = Memory::default();
                match jobs.recv() {
                    Ok(job) => job,
                    Err(_) => return,
                }
            }
        };
        let watch = Stopwatch::start();
        // Whatever a hash does to its thread, the next one needs it.
        if std::panic::catch_unwind(AssertUnwindSafe(|| job(&mut memory))).is_err() {
            memory = Memory::default();
        }
        pace.note(watch.elapsed_micros());
        memory.keep_at_most(memory_kib);
    }
}

/// How long hashes take, and whether they have been held up lately.
struct Pace {
    since: Stopwatch,
    /// The quickest so far, in microseconds.
    quickest: AtomicU64,
    /// In microseconds of `since`.
    pressed_until: AtomicU64,
}

impl Pace {
    fn new() -> Self {
        Self { since: Stopwatch::start(), quickest: AtomicU64::new(u64::MAX), pressed_until: AtomicU64::new(0) }
    }

    fn note(&self, micros: u64) {
        let quickest = self.quickest.fetch_min(micros, Ordering::Relaxed).min(micros);
        if micros > quickest.saturating_mul(HELD_UP) {
            self.pressed_until.store(self.since.elapsed_micros() + PRESSED_MICROS, Ordering::Relaxed);
        }
    }

    fn is_pressed(&self) -> bool {
        self.since.elapsed_micros() < self.pressed_until.load(Ordering::Relaxed)
    }
}

#[cfg(target_os = "linux")]
fn give_way() {
    use thread_priority::unix::{
        NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
    };

    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let done = set_thread_priority_and_policy(thread_native_id(), thread_priority::ThreadPriority::Min, idle);
    if let Err(error) = done {
        tracing::debug!(?error, "password hashes do not give way");
    }
}

#[cfg(not(target_os = "linux"))]
fn give_way() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_that_are_held_up_give_way_no_longer() {
        let pace = Pace::new();
        for (micros, pressed) in [(20_000, false), (15_000, false), (239_000, false), (241_000, true), (15_000, true)] {
            pace.note(micros);
            assert_eq!(pace.is_pressed(), pressed, "{micros}");
        }
    }

    #[test]
    fn a_hash_that_fails_leaves_its_thread_for_the_next() {
        let threads = Threads::new(1, 64);
        let (done, waits) = std::sync::mpsc::channel();
        threads.run(Box::new(|_| panic!("a hash that fails"))).expect("taken");
        threads.run(Box::new(move |_| done.send(()).expect("somebody waits"))).expect("taken");
        waits.recv_timeout(Duration::from_secs(10)).expect("done");
    }
}
