//! Peers that take their time.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::body::Body;
use futures_util::StreamExt as _;

use super::*;
use crate::support::process::wait_for;
use crate::support::{Backend, Provider};

/// Slow enough that nothing else than what is tested runs out.
fn limits() -> Limits {
    let long = Duration::from_secs(300);
    Limits { head: long, body: long, idle: long, write: long, ..Limits::default() }
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let service = Service::with(Limits { head: SHORT, ..limits() }, plain_routes()).await;
    let opened = Instant::now();
    assert_eq!(until_closed(&mut service.connect().await).await, b"");
    assert!(opened.elapsed() >= SHORT, "it had its time");
    // A pause that is shorter is nobody's business.
    let mut stream = service.connect().await;
    tokio::time::sleep(SHORT / 4).await;
    assert_eq!(ask(&mut stream, GET).await.status, 200);
}

#[tokio::test]
async fn a_head_that_drips_is_closed() {
    let service = Service::with(Limits { head: SHORT, ..limits() }, plain_routes()).await;
    // Not one byte is missing for long; it is the whole that takes too long. The second drips after a good request.
    for first in ["", GET] {
        let mut stream = service.connect().await;
        if !first.is_empty() {
            assert_eq!(ask(&mut stream, first).await.status, 200);
        }
        let (mut reader, mut writer) = stream.split();
        let endless = b"GET /ok HTTP/1.1\r\nX-Drip: ".iter().copied().chain(std::iter::repeat_n(b'a', 10_000));
        let closed = tokio::select! {
            closed = until_closed(&mut reader) => closed,
            () = drip(&mut writer, endless) => until_closed(&mut reader).await,
        };
        assert_eq!(closed, b"", "after {first:?}");
    }
    // In pieces, but in time.
    let mut stream = service.connect().await;
    let (one, other) = GET.split_at(20);
    stream.write_all(one.as_bytes()).await.expect("written");
    tokio::time::sleep(SHORT / 4).await;
    assert_eq!(ask(&mut stream, other).await.status, 200);
}

#[tokio::test]
async fn a_connection_without_requests_is_closed() {
    let service = Service::with(Limits { idle: SHORT, ..limits() }, plain_routes()).await;
    let mut stream = service.connect().await;
    for _ in 0..3 {
        assert_eq!(ask(&mut stream, GET).await.status, 200);
        tokio::time::sleep(SHORT / 4).await;
    }
    let asked = Instant::now();
    assert_eq!(ask(&mut stream, GET).await.status, 200);
    assert_eq!(until_closed(&mut stream).await, b"");
    assert!(asked.elapsed() >= SHORT, "it had its time");
}

#[tokio::test]
async fn our_own_time_is_not_the_peers() {
    let gate = Gate::closed();
    let limits = Limits { head: SHORT, idle: SHORT, write: SHORT, ..limits() };
    let service = Service::with(limits, routes(&gate)).await;
    let mut stream = service.connect().await;
    stream.write_all(GET.replace("/ok", "/held").as_bytes()).await.expect("written");
    gate.waiting.notified().await;
    tokio::time::sleep(SHORT * 3).await;
    assert!(is_open(&stream));
    gate.open.add_permits(1);
    assert_eq!(answer(&mut stream).await.body, "held");
}

/// What the provider says to a body that drips.
#[tokio::test]
async fn a_body_that_drips_is_answered_and_closed() {
    let provider = Provider::start(Backend::Sqlite).await;
    let service = Service::with(Limits { body: SHORT, ..limits() }, provider.router.clone()).await;
    for (path, accept, expected) in [
        ("/token", "application/json", "the body did not come in time"),
        ("/login", "text/html", "didn’t arrive in time"),
    ] {
        let mut stream = service.connect().await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: id.test\r\nAccept: {accept}\r\nSec-Fetch-Site: same-origin\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 10000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("written");
        let (mut reader, mut writer) = stream.split();
        let refused = tokio::select! {
            refused = answer(&mut reader) => refused,
            () = drip(&mut writer, std::iter::repeat_n(b'a', 10_000)) => answer(&mut reader).await,
        };
        assert_eq!(refused.status, 408, "{refused:?}");
        assert!(refused.body.contains(expected) && refused.head.contains("x-request-id"), "{refused:?}");
        assert!(refused.head.contains("connection: close"), "{refused:?}");
        assert_eq!(until_closed(&mut reader).await, b"");
    }
    // In two pieces, but in time.
    let mut stream = service.connect().await;
    let body = "grant_type=client_credentials&client_id=machine&client_secret=machine-secret";
    let head = "POST /token HTTP/1.1\r\nHost: id.test\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let (one, other) = body.split_at(9);
    stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{one}", body.len()).as_bytes()).await.expect("written");
    tokio::time::sleep(SHORT / 4).await;
    assert_eq!(ask(&mut stream, other).await.status, 200);
}

/// Whoever sends too much learns so, even while still sending.
#[tokio::test]
async fn a_body_that_is_too_large_is_refused_at_once() {
    let provider = Provider::start(Backend::Sqlite).await;
    let service = Service::with(limits(), provider.router.clone()).await;
    let head = "POST /token HTTP/1.1\r\nHost: id.test\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let chunk = format!("{:x}\r\n{}\r\n", 50_000, "a".repeat(50_000));
    for (what, sent) in [
        ("announced, nothing sent", format!("{head}Content-Length: 65537\r\n\r\n")),
        (
            "announced, and waiting for a word",
            format!("{head}Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n"),
        ),
        ("announced and sent", format!("{head}Content-Length: 3000000\r\n\r\n{}", "a".repeat(3_000_000))),
        ("not announced", format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}")),
        ("not announced, much", format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(60))),
    ] {
        let mut stream = service.connect().await;
        let (mut reader, mut writer) = stream.split();
        // Written whole, while the answer is there long before.
        let (_, refused) = tokio::join!(writer.write_all(sent.as_bytes()), answer(&mut reader));
        assert_eq!(refused.status, 413, "{what}: {refused:?}");
        assert!(refused.body.contains("the body is too large"), "{what}: {refused:?}");
    }
    let body = format!(
        "grant_type=client_credentials&client_id=machine&client_secret=machine-secret&x={}",
        "a".repeat(60_000)
    );
    let answer =
        ask(&mut service.connect().await, &format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await;
    assert_eq!(answer.status, 200, "what is large but not too large");
}

/// An answer that somebody still has to take.
struct Live(Arc<AtomicUsize>);

impl Live {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// `/ok` whose answer does not end.
fn endless(live: &Arc<AtomicUsize>) -> Router {
    let live = Arc::clone(live);
    let answer = get(move || async move {
        let live = Live::new(&live);
        let chunks = futures_util::stream::repeat(Bytes::from(vec![b'a'; 64 * 1024]));
        Body::from_stream(chunks.map(move |chunk| {
            let _live = &live;
            Ok::<_, Infallible>(chunk)
        }))
    });
    Router::new().route("/ok", answer)
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_cut_off() {
    let live = Arc::default();
    let service = Service::with(Limits { write: SHORT, ..limits() }, endless(&live)).await;
    let count = || live.load(Ordering::SeqCst);
    let given_up = async || {
        wait_for("the answer to begin", async || (count() == 1).then_some(())).await;
        wait_for("the answer to be given up", async || (count() == 0).then_some(())).await;
    };
    let mut stream = service.connect().await;
    stream.write_all(GET.as_bytes()).await.expect("written");
    given_up().await;
    // A window is the peer's promise to read.
    let mut client = h2::Client::open(service.connect().await, u32::MAX / 2).await;
    client.request(1, "/ok").await;
    given_up().await;
    // One who reads slowly, but reads, gets more than all buffers hold.
    let mut stream = service.connect().await;
    stream.write_all(GET.as_bytes()).await.expect("written");
    let mut part = vec![0; 1 << 20];
    for _ in 0..30 {
        stream.read_exact(&mut part).await.expect("more");
        tokio::time::sleep(SHORT / 8).await;
    }
}

/// Over HTTP/2 a peer can hold an answer back without filling the socket: it grants no window.
#[tokio::test]
async fn a_peer_that_grants_no_window_is_cut_off() {
    let live = Arc::default();
    let limits = Limits { idle: SHORT, farewell: SHORT, ..limits() };
    let service = Service::with(limits, endless(&live)).await;
    let mut client = h2::Client::open(service.connect().await, 0).await;
    client.request(1, "/ok").await;
    until_closed(&mut client.stream).await;
    wait_for("the answer to be given up", async || (live.load(Ordering::SeqCst) == 0).then_some(())).await;
}

#[tokio::test]
async fn frames_without_requests_do_not_keep_a_connection() {
    let limits = Limits { idle: SHORT, farewell: SHORT, ..limits() };
    let service = Service::with(limits, plain_routes()).await;
    let mut client = h2::Client::open(service.connect().await, 65_535).await;
    assert_eq!(client.get(1, "/ok").await, "ok");
    // Pings, for as long as it takes them.
    let (mut reader, mut writer) = client.stream.split();
    let pings = async {
        loop {
            if writer.write_all(&h2::frame(h2::PING, 0, 0, &[0; 8])).await.is_err() {
                return;
            }
            tokio::time::sleep(SHORT / 8).await;
        }
    };
    let all = tokio::select! {
        all = until_closed(&mut reader) => all,
        () = pings => until_closed(&mut reader).await,
    };
    assert!(h2::frames(&all).iter().any(|frame| frame.kind == h2::GOAWAY), "it was told");
}

#[tokio::test]
async fn a_connection_that_never_asks_anything_over_http_2_is_closed() {
    let service = Service::with(Limits { head: SHORT, ..limits() }, plain_routes()).await;
    let mut client = h2::Client::open(service.connect().await, 65_535).await;
    until_closed(&mut client.stream).await;
    let mut client = h2::Client::open(service.connect().await, 65_535).await;
    assert_eq!(client.get(1, "/ok").await, "ok");
    tokio::time::sleep(SHORT * 2).await;
    assert_eq!(client.get(3, "/ok").await, "ok", "it is idle now, and that is another limit");
}
