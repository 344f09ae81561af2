//! The end: what is under way is finished, nothing else is waited for.

use std::io::{Read as _, Write as _};

use super::*;
use crate::support::process::{SITE_SECRET, Site, wait_for};

async fn told_to_stop(service: &Service) {
    service.stop.send(true).expect("somebody listens");
    // Nobody is let in from now on.
    wait_for("the end of the listener", async || TcpStream::connect(service.address).await.err()).await;
}

async fn ended(service: Service) {
    let ended = tokio::time::timeout(PATIENCE, service.ended).await.expect("an end in time");
    ended.expect("no panic").expect("no error");
}

#[tokio::test]
async fn a_request_in_flight_is_answered_and_idle_connections_are_not_waited_for() {
    let gate = Gate::closed();
    let long = Duration::from_secs(300);
    let service = Service::with(Limits { head: long, idle: long, ..Limits::default() }, routes(&gate)).await;
    let mut idle = service.connect().await;
    assert_eq!(ask(&mut idle, GET).await.status, 200);
    let mut silent = service.connect().await;
    let mut busy = service.connect().await;
    busy.write_all(GET.replace("/ok", "/held").as_bytes()).await.expect("written");
    gate.waiting.notified().await;
    let mut multiplexed = h2::Client::open(service.connect().await, 65_535).await;
    assert_eq!(multiplexed.get(1, "/ok").await, "ok");
    multiplexed.request(3, "/held").await;
    gate.waiting.notified().await;

    told_to_stop(&service).await;
    for stream in [&mut idle, &mut silent] {
        assert_eq!(until_closed(stream).await, b"");
    }
    // What was asked before is answered, however long that takes.
    assert!(is_open(&busy) && !service.ended.is_finished());
    assert_eq!(multiplexed.next().await.expect("a word").kind, h2::GOAWAY);
    gate.open.add_permits(2);
    let last = answer(&mut busy).await;
    assert_eq!((last.status, last.body.as_str()), (200, "held"));
    assert!(last.head.contains("connection: close"), "{last:?}");
    assert_eq!(until_closed(&mut busy).await, b"");
    assert_eq!(multiplexed.answer(3).await, "held");
    ended(service).await;
}

/// Half a head is no request: its peer has a moment, and not all the time that it would have had. A body may take what a
/// body may take.
#[tokio::test]
async fn half_a_head_is_not_waited_for_and_a_body_is() {
    let long = Duration::from_secs(300);
    let limits = Limits { head: long, farewell: SHORT, ..Limits::default() };
    let service = Service::with(limits, plain_routes()).await;
    let mut half = service.connect().await;
    half.write_all(&GET.as_bytes()[..20]).await.expect("written");
    let mut quick = service.connect().await;
    quick.write_all(&GET.as_bytes()[..20]).await.expect("written");
    let mut body = service.connect().await;
    body.write_all(b"POST /echo HTTP/1.1\r\nHost: id.test\r\nContent-Length: 9\r\n\r\na").await.expect("written");
    service.answers().await;
    told_to_stop(&service).await;
    assert_eq!(ask(&mut quick, &GET[20..]).await.status, 200);
    assert_eq!(until_closed(&mut half).await, b"");
    body.write_all(b"bcdefghi").await.expect("written");
    let last = answer(&mut body).await;
    assert_eq!((last.status, last.body.as_str()), (200, "abcdefghi"));
    ended(service).await;
}

#[tokio::test]
async fn who_gives_the_service_up_cuts_its_connections() {
    let gate = Gate::closed();
    let service = Service::with(Limits::default(), routes(&gate)).await;
    let mut busy = service.connect().await;
    busy.write_all(GET.replace("/ok", "/held").as_bytes()).await.expect("written");
    gate.waiting.notified().await;
    service.ended.abort();
    assert_eq!(until_closed(&mut busy).await, b"");
}

#[tokio::test]
async fn two_hundred_idle_connections_do_not_hold_up_the_end() {
    let site = Site::new("");
    let running = site.serve().await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(("127.0.0.1", site.port)).await.expect("a connection");
        assert_eq!(ask(&mut stream, &GET.replace("/ok", "/jwks")).await.status, 200);
        idle.push(stream);
    }
    let ran = running.terminate().await.ok();
    assert!(!ran.stderr.contains("did not end in time"), "{}", ran.stderr);
}

/// Whoever asks twice does not want to wait.
#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let site = Site::new("");
    let running = site.serve().await;
    let mut slow = std::net::TcpStream::connect(("127.0.0.1", site.port)).expect("a connection");
    slow.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    let head = "POST /token HTTP/1.1\r\nHost: id\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    slow.write_all(format!("{head}Expect: 100-continue\r\nContent-Length: 100\r\n\r\n").as_bytes()).expect("written");
    let mut word = [0; 64];
    let n = slow.read(&mut word).expect("an interim answer");
    assert!(word[..n].starts_with(b"HTTP/1.1 100"), "it is in flight");
    assert!(site.is_accepted("web", SITE_SECRET).await);
    running.signal("TERM");
    wait_for("the first signal", async || running.stderr().contains("stopping").then_some(())).await;
    running.signal("INT");
    let ran = running.wait().await.ok();
    assert!(ran.stderr.contains("once more") && !ran.stderr.contains("did not end in time"), "{}", ran.stderr);
    assert!(!matches!(slow.read(&mut word), Ok(1..)), "no answer was made up");
}
