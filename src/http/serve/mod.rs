//! Listens and serves until told to stop. `bind.rs` opens an address, `accept.rs` takes connections from it,
//! `admission.rs` says who may stay when many come, `connection.rs` serves one of them over HTTP/1.1 or HTTP/2
//! (RFC 9112, RFC 9113), `activity.rs` knows whose turn it is there, `body.rs` waits for request bodies, `tls.rs`
//! keeps the certificate. What is served is `http/mod.rs`; the process around it (signals, readiness) is `cli/serve.rs`.

mod accept;
mod activity;
mod admission;
mod bind;
mod body;
mod burst;
mod connection;
mod limits;
mod stream;
pub mod tls;

use std::net::IpAddr;
use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use ipnet::IpNet;

use crate::config::Config;
use admission::Admission;
pub use bind::Bound;
pub use body::{BodyFate, BodyProblem};
pub use limits::Limits;
use tls::Tls;

/// What the listeners of one service share: limits, the connections counted against them, trusted peers, TLS.
pub struct Front {
    limits: Limits,
    trusted: Vec<IpNet>,
    /// For TCP; whoever reaches a unix socket is on this machine.
    tls: Option<Arc<Tls>>,
    admission: Arc<Admission>,
    http: Builder<TokioExecutor>,
}

impl Front {
    pub fn new(limits: Limits) -> Self {
        let admission = Admission::new(limits.connections, limits.connections_per_peer);
        Self { http: protocols(), limits, trusted: Vec::new(), tls: None, admission: Arc::new(admission) }
    }

    /// Peers in these networks are exempt from the limit of connections from one peer.
    pub fn trusting(self, trusted: &[IpNet]) -> Self {
        Self { trusted: trusted.to_vec(), ..self }
    }

    pub fn with_tls(self, tls: Arc<Tls>) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// The front of the provider. Needs a runtime: the certificate is looked after from here on.
    pub fn of(config: &Config) -> anyhow::Result<Arc<Self>> {
        let wanted = &config.limits;
        let limits = Limits {
            connections: wanted.connections as usize,
            connections_per_peer: wanted.connections_per_peer as usize,
            ..Limits::default()
        };
        let front = Self::new(limits.within_open_files()).trusting(&config.trusted_proxies);
        Ok(Arc::new(match &config.tls {
            Some(files) => front.with_tls(Tls::open(files)?),
            None => front,
        }))
    }

    fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|net| net.contains(&peer))
    }
}

/// HTTP/1.1 and HTTP/2. How long a peer may take is for `activity.rs` alone: hyper's own timer for heads would end
/// idle connections as early as slow ones, and does not run before the first byte.
fn protocols() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(limits::HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(limits::HEAD_BYTES as u32)
        .max_concurrent_streams(limits::STREAMS)
        .initial_stream_window_size(limits::STREAM_WINDOW)
        .initial_connection_window_size(limits::CONNECTION_WINDOW)
        .max_send_buf_size(limits::STREAM_BUFFER)
        .keep_alive_interval(limits::PING_INTERVAL)
        .keep_alive_timeout(limits::PING_TIMEOUT);
    builder
}
