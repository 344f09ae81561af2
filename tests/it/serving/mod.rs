//! Serving on real sockets: by the built program, and where limits have to be short, in this process.

#![allow(clippy::disallowed_methods)] // Deadlines are real time.

mod crowds;
mod h2;
mod patience;
mod requests;
mod sockets;
mod stopping;
mod systemd;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use bytes::Bytes;
use keyward::config::Listen;
use keyward::http::serve::{Bound, Front, Limits};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// A limit that runs out during a test.
const SHORT: Duration = Duration::from_secs(1);

const GET: &str = "GET /ok HTTP/1.1\r\nHost: id.test\r\n\r\n";

/// Something served in this process.
struct Service {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    ended: JoinHandle<io::Result<()>>,
}

impl Service {
    async fn with(limits: Limits, routes: Router) -> Self {
        Self::behind(&Arc::new(Front::new(limits)), routes).await
    }

    async fn behind(front: &Arc<Front>, routes: Router) -> Self {
        let listen = Listen::Tcp("127.0.0.1:0".to_owned());
        let bound = Bound::bind(&listen).await.expect("a listener").behind(front);
        let address = bound.address().expect("an address");
        let (stop, stopped) = watch::channel(false);
        Self { address, stop, ended: tokio::spawn(bound.serve(routes, stopped)) }
    }

    async fn connect(&self) -> TcpStream {
        self.connect_from("127.0.0.1").await
    }

    /// Every address in 127.0.0.0/8 is ours on Linux.
    async fn connect_from(&self, source: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::new(source.parse().expect("an address"), 0)).expect("a source");
        socket.connect(self.address).await.expect("a connection")
    }

    /// A connection of its own is answered.
    #[track_caller]
    fn answers(&self) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let answer = ask(&mut self.connect().await, GET).await;
            assert_eq!(answer.status, 200, "at {caller}");
        }
    }
}

/// `/ok`, `/echo` that reads a body, `/held` that answers when the gate opens.
fn routes(gate: &Arc<Gate>) -> Router {
    let gate = Arc::clone(gate);
    let held = get(move || async move {
        gate.waiting.notify_one();
        let _permit = gate.open.acquire().await;
        "held"
    });
    let echo = post(|body: Result<Bytes, axum::extract::rejection::BytesRejection>| async move {
        body.unwrap_or_else(|_| Bytes::from_static(b"broke off"))
    });
    Router::new().route("/ok", get(|| async { "ok" })).route("/echo", echo).route("/held", held)
}

fn plain_routes() -> Router {
    routes(&Gate::closed())
}

/// What `/held` waits for.
struct Gate {
    /// Somebody waits.
    waiting: Notify,
    open: Semaphore,
}

impl Gate {
    fn closed() -> Arc<Self> {
        Arc::new(Self { waiting: Notify::new(), open: Semaphore::new(0) })
    }
}

#[derive(Clone, Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Sends this and reads one answer.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.expect("written");
    answer(stream).await
}

/// Reads one answer, by its `Content-Length`.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> Answer {
    let read = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap_or_else(|error| panic!("{error} after {head:?}")));
        }
        let head = String::from_utf8(head).expect("a head").to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
        stream.read_exact(&mut body).await.expect("a body");
        Answer { status, head, body: String::from_utf8(body).expect("text") }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("an answer in time")
}

/// Everything until the other side ends the connection, in whatever way.
async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    let _reset_or_not = ended.unwrap_or_else(|_| panic!("still open after {}", String::from_utf8_lossy(&all)));
    all
}

/// Whether the other side has kept the connection, as far as one can see.
fn is_open(stream: &TcpStream) -> bool {
    let mut byte = [0];
    matches!(stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Writes a byte now and then until nobody takes it any more.
async fn drip(stream: &mut (impl AsyncWrite + Unpin), bytes: impl Iterator<Item = u8>) {
    for byte in bytes {
        if stream.write_all(&[byte]).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}
