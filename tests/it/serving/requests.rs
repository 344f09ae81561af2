//! Bytes that are no requests, and requests that mean two things at once.

use super::*;
use crate::support::process::{Running, Site};

/// What is sent, and the statuses that may come back; 0 is a connection that ends without an answer.
fn cases() -> Vec<(&'static str, Vec<u8>, &'static [u16])> {
    const REFUSED: &[u16] = &[0, 400];
    const ANSWERED: &[u16] = &[200];
    let head = |lines: &str| format!("GET /jwks HTTP/1.1\r\nHost: id\r\nConnection: close\r\n{lines}\r\n").into_bytes();
    let post = |lines: &str, body: &str| {
        format!("POST /token HTTP/1.1\r\nHost: id\r\nConnection: close\r\n{lines}\r\n{body}").into_bytes()
    };
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        ("a request", head(""), ANSWERED),
        ("another host", text("GET /jwks HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n"), ANSWERED),
        (
            "an absolute URI",
            text("GET http://evil.test/jwks HTTP/1.1\r\nHost: id\r\nConnection: close\r\n\r\n"),
            ANSWERED,
        ),
        ("HTTP/1.0", text("GET /jwks HTTP/1.0\r\n\r\n"), ANSWERED),
        ("bare line feeds", text("GET /jwks HTTP/1.1\nHost: id\nConnection: close\n\n"), &[200, 400]),
        ("no host", text("GET /jwks HTTP/1.1\r\nConnection: close\r\n\r\n"), &[400]),
        ("two hosts", head("Host: evil.test\r\n"), &[400]),
        ("HTTP/0.9", text("GET /jwks\r\n\r\n"), REFUSED),
        ("HTTP/3.0", text("GET /jwks HTTP/3.0\r\nHost: id\r\n\r\n"), REFUSED),
        ("no protocol at all", text("hello\r\n\r\n"), REFUSED),
        ("a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), REFUSED),
        ("noise", (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect(), REFUSED),
        ("zeros", vec![0; 4096], REFUSED),
        ("a NUL in the method", b"G\0T /jwks HTTP/1.1\r\nHost: id\r\n\r\n".to_vec(), REFUSED),
        ("a NUL in a header", b"GET /jwks HTTP/1.1\r\nHost: id\r\nX-A: a\0b\r\n\r\n".to_vec(), REFUSED),
        ("a space before the colon", head("X-A : b\r\n"), REFUSED),
        ("a folded header", head("X-A: b\r\n c\r\n"), REFUSED),
        ("a header without a name", head(": b\r\n"), REFUSED),
        ("a header of 100 kB", head(&format!("X-A: {}\r\n", "a".repeat(100_000))), &[431]),
        ("300 headers", head(&"X-A: b\r\n".repeat(300)), &[431]),
        (
            "a URI of 20 kB",
            format!("GET /{} HTTP/1.1\r\nHost: id\r\nConnection: close\r\n\r\n", "a".repeat(20_000)).into(),
            &[404],
        ),
        ("a URI of 100 kB", format!("GET /{} HTTP/1.1\r\nHost: id\r\n\r\n", "a".repeat(100_000)).into(), &[414, 431]),
        (
            "bytes that are no UTF-8",
            b"GET /%ff%00%0d%0a?a=%ff HTTP/1.1\r\nHost: id\r\nConnection: close\r\n\r\n".to_vec(),
            &[404],
        ),
        (
            "raw bytes in the path",
            b"GET /\xff\xfe HTTP/1.1\r\nHost: id\r\nConnection: close\r\n\r\n".to_vec(),
            &[0, 400, 404],
        ),
        ("a path that climbs", text("GET /../../etc/passwd HTTP/1.1\r\nHost: id\r\nConnection: close\r\n\r\n"), &[404]),
        (
            "a proxy request",
            text("CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\nConnection: close\r\n\r\n"),
            &[400, 404, 405],
        ),
        (
            "options of the server",
            text("OPTIONS * HTTP/1.1\r\nHost: id\r\nConnection: close\r\n\r\n"),
            &[200, 204, 400, 404, 405],
        ),
        ("an unknown method", text("BREW /jwks HTTP/1.1\r\nHost: id\r\nConnection: close\r\n\r\n"), &[405]),
        ("an upgrade", head("Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"), ANSWERED),
        ("an expectation of something else", head("Expect: miracles\r\n"), &[200, 417]),
        ("two lengths", post("Content-Length: 3\r\nContent-Length: 4\r\n", "a=bc"), &[400]),
        ("a list of lengths", post("Content-Length: 3, 4\r\n", "a=bc"), &[400]),
        ("a negative length", post("Content-Length: -1\r\n", "a=b"), &[400]),
        ("a length with a sign", post("Content-Length: +3\r\n", "a=b"), &[400]),
        ("a length in hex", post("Content-Length: 0x3\r\n", "a=b"), &[400]),
        ("a length beyond all numbers", post("Content-Length: 99999999999999999999999\r\n", ""), &[400, 413]),
        ("a coding that is not chunked", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), &[400]),
        ("chunked, but not last", post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"), &[400]),
        ("chunked in HTTP/1.0", text("POST /token HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), &[400]),
        ("a chunk of no size", post("Transfer-Encoding: chunked\r\n", "zz\r\na=b\r\n0\r\n\r\n"), &[0, 400]),
        ("a chunk of too many", post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\na"), &[0, 400, 413]),
        ("trailers", post("Transfer-Encoding: chunked\r\n", "3\r\na=b\r\n0\r\nX-A: b\r\n\r\n"), &[400, 401]),
        (
            "an HTTP/2 preface and noise",
            [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), vec![0xff; 4096]].concat(),
            &[0],
        ),
        ("half an HTTP/2 preface", text("PRI * HTTP/2.0\r\n\r\n"), &[0]),
    ]
}

/// The statuses in what came back.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    text.match_indices("HTTP/1.").filter_map(|(at, _)| text[at..].split(' ').nth(1)?.get(..3)?.parse().ok()).collect()
}

#[tokio::test]
async fn whatever_is_sent_is_answered_clearly_and_harms_nobody() {
    let site = Site::new("");
    let mut running: Running = site.serve().await;
    let mut wrong = Vec::new();
    for (what, bytes, expected) in cases() {
        let mut stream = TcpStream::connect(("127.0.0.1", site.port)).await.expect("a connection");
        let (mut reader, mut writer) = stream.split();
        let (_, got) = tokio::join!(writer.write_all(&bytes), until_closed(&mut reader));
        let got = statuses(&got);
        if got.len() > 1 || !expected.contains(got.first().unwrap_or(&0)) {
            wrong.push((what, got));
        }
        assert!(running.ended().is_none(), "{what} ended it");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let page = site.browser().get("/.well-known/openid-configuration").await;
    assert_eq!(page.json()["issuer"], site.issuer.as_str());
    let ran = running.terminate().await.ok();
    assert!(!ran.stderr.contains("panicked") && !ran.stderr.contains("ERROR"), "{}", ran.stderr);
    // Whoever looks for what a client or a proxy was refused for finds it.
    for (why, times) in [("exactly one Host", 2), ("head is too large", 2)] {
        let told = ran.stderr.lines().filter(|line| line.contains("request refused") && line.contains(why)).count();
        assert!(told >= times, "{why}: {}", ran.stderr);
    }
}

/// Whatever a request calls us, our addresses are those of the configuration.
#[tokio::test]
async fn a_foreign_host_is_not_repeated() {
    let site = Site::new("");
    let running = site.serve().await;
    for request in [
        "GET /.well-known/openid-configuration HTTP/1.1\r\nHost: evil.test\r\nX-Forwarded-Host: evil.test\r\n\r\n",
        "GET http://evil.test/.well-known/openid-configuration HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", site.port)).await.expect("a connection");
        let answer = ask(&mut stream, request).await;
        assert!(answer.status < 400, "{answer:?}");
        assert!(!answer.head.contains("evil") && !answer.body.contains("evil"), "{answer:?}");
    }
    running.terminate().await.ok();
}

/// Of a request that gives its length in two ways nothing is left to be taken for a second one (RFC 9112 §6.1).
#[tokio::test]
async fn a_request_cannot_hide_in_another() {
    let service = Service::with(Limits::default(), plain_routes()).await;
    let hidden = "GET /ok HTTP/1.1\r\nHost: id\r\n\r\n";
    let body = format!("0\r\n\r\n{hidden}");
    for lengths in [
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", body.len()),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {}\r\n", body.len()),
    ] {
        let mut stream = service.connect().await;
        let sent = format!("POST /echo HTTP/1.1\r\nHost: id\r\n{lengths}\r\n{body}");
        stream.write_all(sent.as_bytes()).await.expect("written");
        let got = until_closed(&mut stream).await;
        assert_eq!(statuses(&got).len(), 1, "{}", String::from_utf8_lossy(&got));
    }
    // Said openly, the second is a request like any other, and answers keep their order.
    let mut stream = service.connect().await;
    let echo = |body: &str| format!("POST /echo HTTP/1.1\r\nHost: id\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(format!("{}{hidden}{}", echo("one"), echo("three")).as_bytes()).await.expect("written");
    for expected in ["one", "ok", "three"] {
        assert_eq!(answer(&mut stream).await.body, expected);
    }
}
