//! How much is taken from a peer and how long it is waited for. What an operator must turn is a setting
//! (`[limits]`); the rest stands here with its reason. The limit of request bodies is `layers::BODY_LIMIT`.

use std::time::Duration;

/// Request line and headers of one request, and so the buffers of an HTTP/1.1 connection. Our own tickets and cookies
/// take 6 kB of it at most; proxies commonly stop at 8 to 32 KiB.
pub const HEAD_BYTES: usize = 32 * 1024;
/// What is buffered of one answer over HTTP/2.
pub const STREAM_BUFFER: usize = 64 * 1024;
/// Requests at once on one HTTP/2 connection: the least that RFC 9113 §6.5.2 recommends.
pub const STREAMS: u32 = 100;
/// Body bytes of one request that a peer may send before we read them.
pub const STREAM_WINDOW: u32 = 64 * 1024;
/// The same for all requests of a connection together, so that a hundred of them cannot fill the memory.
pub const CONNECTION_WINDOW: u32 = 256 * 1024;
/// How often an HTTP/2 peer is asked whether it is there (RFC 9113 §6.7). Hosts that vanished end so.
pub const PING_INTERVAL: Duration = Duration::from_secs(30);
pub const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that are read and thrown away after the last answer, so that a peer which is still sending reads that
/// answer and no reset in its place (RFC 9112 §9.6).
pub const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// Files that the process opens besides connections: databases, log, keys, outbound calls.
const OTHER_FILES: usize = 128;

/// What one front grants. Tests make it small.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time on all listeners of the front.
    pub connections: usize,
    /// Connections at a time from one network that is not trusted.
    pub connections_per_peer: usize,
    /// For a TLS handshake: several round trips on a bad line.
    pub handshake: Duration,
    /// From the first byte of a head to its end, and from the accepted connection to the end of its first head.
    pub head: Duration,
    /// For a whole request body. Half of what a handler has.
    pub body: Duration,
    /// Between requests. Balancers and proxies keep theirs for 60 s; they have to be the ones who close, or a request
    /// of theirs meets our close on the way.
    pub idle: Duration,
    /// How long a peer may take none of an answer.
    pub write: Duration,
    /// What a peer has left once the connection ends: to complete the head of a request, and to take an answer.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_peer: 512,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            body: Duration::from_secs(15),
            idle: Duration::from_secs(75),
            write: Duration::from_secs(20),
            farewell: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// No more connections than the process may open files. Where that cannot be asked the setting stands.
    pub fn within_open_files(self) -> Self {
        let Some(files) = open_files() else { return self };
        let most = beside_other_files(files);
        if self.connections <= most {
            return self;
        }
        tracing::info!(
            connections = most,
            open_files = files,
            "fewer connections than `limits.connections`, because the process may open so few files; raise its limit \
             (LimitNOFILE, ulimit -n)"
        );
        Self { connections: most, ..self }
    }
}

fn beside_other_files(files: usize) -> usize {
    files - OTHER_FILES.min(files / 2)
}

/// The soft limit of open files, as Linux tells it. `None` elsewhere, or without limit.
fn open_files() -> Option<usize> {
    soft_limit(&std::fs::read_to_string("/proc/self/limits").ok()?)
}

fn soft_limit(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_other_files() {
        for (limits, soft, connections) in [
            ("Max open files            1024                 4096                 files", Some(1024), 896),
            ("Limit  Soft Limit\nMax open files            64    64    files\nMax x  1", Some(64), 32),
            ("Max open files            unlimited            unlimited            files", None, 0),
            ("Max processes 5 5", None, 0),
        ] {
            assert_eq!(soft_limit(limits), soft, "{limits}");
            assert_eq!(soft.map_or(0, beside_other_files), connections);
        }
    }
}
