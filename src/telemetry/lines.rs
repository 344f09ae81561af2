//! The way of log lines out of the process. A line is appended to a buffer, and one thread writes what has gathered,
//! so that no request waits for whoever reads the log. When that one stops reading, lines are dropped and counted
//! once [`LIMIT`] bytes wait; they never make requests wait. What is lost at a SIGKILL is what came in the last few
//! milliseconds.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use super::metrics;

/// Bytes that may wait.
const LIMIT: usize = 4 << 20;
/// Memory that is kept between writes.
const KEEP: usize = 256 << 10;
/// Under load, lines of this long are written at once; the first after a pause goes out directly.
const GATHER: Duration = Duration::from_millis(5);

#[derive(Default)]
struct State {
    pending: Vec<u8>,
    dropped: u64,
    /// The thread waits to be woken.
    asleep: bool,
    ending: bool,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.ended {
            drop(state);
            // Whatever is still told at the very end has nobody to disturb.
            let _ = io::stderr().write_all(line);
            return;
        }
        if state.pending.len() + line.len() > LIMIT {
            state.dropped += 1;
            return;
        }
        state.pending.extend_from_slice(line);
        if std::mem::take(&mut state.asleep) {
            drop(state);
            self.changed.notify_all();
        }
    }

    /// What has gathered, and how many lines were dropped; waits until there is something.
    fn take(&self, into: &mut Vec<u8>) -> Option<u64> {
        let mut state = self.lock();
        while state.pending.is_empty() && state.dropped == 0 {
            if state.ending {
                state.ended = true;
                self.changed.notify_all();
                return None;
            }
            state.asleep = true;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.asleep = false;
        }
        std::mem::swap(&mut state.pending, into);
        Some(std::mem::take(&mut state.dropped))
    }

    /// Lets lines gather, unless it is time to end.
    fn gather(&self) {
        let state = self.lock();
        drop(self.changed.wait_timeout_while(state, GATHER, |state| !state.ending));
    }
}

/// Where log lines go. Clones share one buffer.
#[derive(Clone)]
pub struct Lines(Arc<Shared>);

impl Lines {
    /// Starts the thread that writes to `out`. `notice` makes the line that says how many were dropped.
    pub fn start(out: impl Write + Send + 'static, notice: fn(u64) -> String) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let writer = Arc::clone(&shared);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&writer, out, notice))?;
        Ok(Self(shared))
    }

    /// Waits until everything was written, but no longer than `patience`.
    pub fn finish(&self, patience: Duration) {
        let mut state = self.0.lock();
        state.ending = true;
        self.0.changed.notify_all();
        drop(self.0.changed.wait_timeout_while(state, patience, |state| !state.ended));
    }
}

fn write_all(shared: &Shared, mut out: impl Write, notice: fn(u64) -> String) {
    let mut batch = Vec::new();
    while let Some(dropped) = shared.take(&mut batch) {
        // There is nobody left to tell when this fails.
        let _ = out.write_all(&batch);
        if dropped > 0 {
            metrics::log_lines_dropped(dropped);
            let _ = out.write_all(notice(dropped).as_bytes());
        }
        let _ = out.flush();
        batch.clear();
        batch.shrink_to(KEEP);
        shared.gather();
    }
}

/// Takes one whole line.
pub struct Line<'a>(&'a Shared);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A reader that takes what is written only when the test asks for it.
    struct Slow(SyncSender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Lines, Receiver<Vec<u8>>) {
        let (sender, receiver) = sync_channel(0);
        let lines = Lines::start(Slow(sender), |dropped| format!("{dropped} dropped\n")).expect("a thread");
        (lines, receiver)
    }

    fn log(lines: &Lines, line: &str) {
        lines.make_writer().write_all(line.as_bytes()).expect("never fails");
    }

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let (lines, receiver) = slow();
        for n in 0..1000 {
            log(&lines, &format!("line {n}\n"));
        }
        let ending = lines.clone();
        let end = std::thread::spawn(move || ending.finish(PATIENCE));
        let all: Vec<u8> = receiver.iter().flatten().collect();
        end.join().expect("no panic");
        let expected: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        assert_eq!(String::from_utf8_lossy(&all), expected);
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_and_never_blocks() {
        let (lines, receiver) = slow();
        let line = format!("{}\n", "x".repeat(1023));
        let sent = 3 * LIMIT / line.len();
        for _ in 0..sent {
            log(&lines, &line);
        }
        // Nothing was read so far, and all were taken. Now somebody reads again.
        let ending = lines.clone();
        let end = std::thread::spawn(move || ending.finish(PATIENCE));
        let all: Vec<u8> = receiver.iter().flatten().collect();
        end.join().expect("no panic");
        let all = String::from_utf8(all).expect("text");
        let written = all.lines().filter(|line| line.len() == 1023).count();
        let notices = all.lines().filter_map(|line| line.strip_suffix(" dropped")?.parse::<usize>().ok());
        assert_eq!(written + notices.sum::<usize>(), sent);
        assert!(written < sent, "none was dropped, so nothing was tested");
    }

    #[test]
    fn a_reader_that_never_comes_back_does_not_keep_us_from_ending() {
        let (lines, receiver) = slow();
        log(&lines, "nobody reads this\n");
        lines.finish(Duration::from_millis(10));
        drop(receiver);
    }
}
