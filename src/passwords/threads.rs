//! The threads that hashes are computed on. A hash takes a processor for as long as twenty signatures do, so whoever
//! answers others comes first: while there are processors to spare, hashes run where nobody else wants to. Where
//! everybody wants all of them that would be never, and then they are computed on threads like any other.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, SendError, Sender};

use crate::ambient::Stopwatch;
use crate::crypto::password::Memory;

/// One hash, to be computed in this memory.
pub type Job = Box<dyn FnOnce(&mut Memory) + Send>;

/// How long a thread keeps the memory of its last hash for the next one.
const MEMORY_RESTS: Duration = Duration::from_secs(5);
pub struct Threads {
    /// Of each kind.
    most: usize,
    /// What a thread keeps; larger ones are given back at once.
    memory_kib: u32,
    giving_way: OnceLock<Sender<Job>>,
    ordinary: OnceLock<Sender<Job>>,
    room: Arc<Room>,
}

impl Threads {
    /// They are started by the first hash.
    pub fn new(most: usize, memory_kib: u32) -> Self {
        let (giving_way, ordinary) = (OnceLock::new(), OnceLock::new());
        Self { most, memory_kib, giving_way, ordinary, room: Arc::default() }
    }

    /// # Errors
    /// Where no thread is left to do it.
    pub fn run(&self, job: Job) -> Result<(), SendError<Job>> {
        let gives_way = self.room.to_spare.load(Ordering::Relaxed);
        let threads = if gives_way { &self.giving_way } else { &self.ordinary };
        threads.get_or_init(|| self.start(gives_way)).send(job)
    }

    /// Starts as many as hashes may run; they end with their sender.
    fn start(&self, gives_way: bool) -> Sender<Job> {
        let (sender, jobs) = crossbeam_channel::unbounded::<Job>();
        for _ in 0..self.most {
            let (jobs, room, memory_kib) = (jobs.clone(), Arc::clone(&self.room), self.memory_kib);
            let thread = std::thread::Builder::new().name("password-hash".to_owned());
            let started = thread.spawn(move || {
                if gives_way {
                    give_way();
                }
                work(&jobs, &room, gives_way, memory_kib);
            });
            if let Err(error) = started {
                tracing::error!(%error, "a thread for password hashes could not be started");
            }
        }
        sender
    }
}

fn work(jobs: &Receiver<Job>, room: &Room, gives_way: bool, memory_kib: u32) {
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
        let (watch, before) = (Stopwatch::start(), processor_micros());
        // Whatever a hash does to its thread, the next one needs it.
        if std::panic::catch_unwind(AssertUnwindSafe(|| job(&mut memory))).is_err() {
            memory = Memory::default();
        }
        let computed = processor_micros().zip(before).map(|(after, before)| after.saturating_sub(before));
        room.note(gives_way, computed, watch.elapsed_micros());
        memory.keep_at_most(memory_kib);
    }
}

/// Whether there are processors to spare, as the last hash has found.
#[derive(Default)]
struct Room {
    to_spare: AtomicBool,
}

impl Room {
    /// How long a hash was computed, where that is known, of how long it took, in microseconds.
    fn note(&self, gave_way: bool, computed: Option<u64>, took: u64) {
        // Shorter than this it is the clock's grain that is seen.
        let Some(computed) = computed.filter(|_| took >= 1_000) else { return };
        if computed.saturating_mul(4) < took {
            self.to_spare.store(false, Ordering::Relaxed);
        } else if !gave_way && computed.saturating_mul(5) > took.saturating_mul(4) {
            // Whoever took turns with others and hardly ever waited.
            self.to_spare.store(true, Ordering::Relaxed);
        }
    }
}

/// Processor time of this thread, in microseconds, as the scheduler counts it (proc(5), `schedstat`).
fn processor_micros() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<u64>().ok()? / 1000)
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
    fn hashes_give_way_while_there_is_room_and_until_they_are_held_up() {
        let room = Room::default();
        for (gave_way, computed, took, expected) in [
            (false, None, 15_000, false),
            (false, Some(8_000), 15_000, false),
            (false, Some(14_000), 15_000, true),
            (true, Some(8_000), 15_000, true),
            (true, Some(15_000), 61_000, false),
            (true, Some(15_000), 15_000, false),
            (false, Some(15_000), 30_000, false),
            (false, Some(0), 900, false),
            (false, Some(15_000), 15_000, true),
        ] {
            room.note(gave_way, computed, took);
            assert_eq!(room.to_spare.load(Ordering::Relaxed), expected, "{gave_way} {computed:?} {took}");
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
