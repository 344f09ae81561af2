//! Progress of whatever takes longer than a second, on standard error and only where that is a terminal. Results go
//! to standard output and know nothing of it.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;

/// What is done sooner needs no progress.
const PATIENCE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(120);

/// What a list does meanwhile.
pub const READING: &str = "reading";

/// Stands on the screen until it is dropped.
pub struct Progress {
    bar: ProgressBar,
    appearing: Option<JoinHandle<()>>,
}

impl Progress {
    /// For work whose end nobody knows.
    pub fn spinner(message: impl Into<String>) -> Self {
        Self::start(ProgressBar::hidden(), "{spinner} {msg} ({elapsed})", message.into())
    }

    /// For work on bytes, of which there are so many where that is known.
    pub fn bytes(total: Option<u64>, message: impl Into<String>) -> Self {
        let template = match total {
            Some(_) => "{msg} {wide_bar} {bytes}/{total_bytes} ({eta} left)",
            None => "{spinner} {msg} {bytes} ({elapsed})",
        };
        Self::start(ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden()), template, message.into())
    }

    fn start(bar: ProgressBar, template: &str, message: String) -> Self {
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(message);
        let shown = bar.clone();
        let appearing = std::io::stderr().is_terminal().then(|| {
            tokio::spawn(async move {
                tokio::time::sleep(PATIENCE).await;
                shown.set_draw_target(ProgressDrawTarget::stderr());
                shown.enable_steady_tick(TICK);
            })
        });
        Self { bar, appearing }
    }

    pub fn advance_to(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Writes a line to standard error without tearing the progress.
    pub fn note(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(appearing) = &self.appearing {
            appearing.abort();
        }
        self.bar.finish_and_clear();
    }
}

/// Waits for work with a spinner.
pub async fn during<T>(message: &'static str, work: impl Future<Output = T>) -> T {
    let _progress = Progress::spinner(message);
    work.await
}
