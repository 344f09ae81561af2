//! Says once what happens a thousand times: whoever floods us must not fill the log too.

use super::activity::{Millis, now};

const QUIET: Millis = 30_000;

#[derive(Debug, Default)]
pub struct Burst {
    said: Millis,
    unsaid: u64,
}

impl Burst {
    /// `Some` where it is time to say it again, with how often it was not said since.
    pub fn say(&mut self) -> Option<u64> {
        if self.said != 0 && now() < self.said + QUIET {
            self.unsaid += 1;
            return None;
        }
        self.said = now();
        Some(std::mem::take(&mut self.unsaid))
    }
}
