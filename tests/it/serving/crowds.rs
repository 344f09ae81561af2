//! More connections than there is room for.

use std::process::Command;

use ipnet::IpNet;

use super::*;
use crate::support::process::{Running, Site, wait_for};

const HOME: &str = "127.0.0.1";

fn limits(connections: usize, connections_per_peer: usize) -> Limits {
    Limits { connections, connections_per_peer, ..Limits::default() }
}

/// A connection that has been answered once and is idle now.
async fn idle(service: &Service, source: &str) -> TcpStream {
    let mut stream = service.connect_from(source).await;
    assert_eq!(ask(&mut stream, GET).await.status, 200);
    stream
}

#[tokio::test]
async fn the_longest_idle_makes_room() {
    let service = Service::with(limits(8, 100), plain_routes()).await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(idle(&service, HOME).await);
    }
    // Used again, the first is no longer the one that waited longest.
    assert_eq!(ask(&mut streams[0], GET).await.status, 200);
    let _ninth = idle(&service, HOME).await;
    assert_eq!(until_closed(&mut streams[1]).await, b"");
    for kept in [0, 2, 3, 4, 5, 6, 7] {
        assert_eq!(ask(&mut streams[kept], GET).await.status, 200, "{kept}");
    }
}

#[tokio::test]
async fn those_who_hold_everything_keep_nobody_out() {
    let service = Service::with(limits(8, 100), plain_routes()).await;
    for held in ["", "GET /ok HTTP/1.1\r\nHo", "POST /echo HTTP/1.1\r\nHost: id.test\r\nContent-Length: 9\r\n\r\na"] {
        let mut holders = Vec::new();
        for _ in 0..20 {
            let mut stream = service.connect().await;
            stream.write_all(held.as_bytes()).await.expect("written");
            holders.push(stream);
        }
        for _ in 0..20 {
            service.answers().await;
        }
    }
}

#[tokio::test]
async fn work_that_was_begun_is_not_given_up_for_others() {
    let gate = Gate::closed();
    let service = Service::with(limits(4, 100), routes(&gate)).await;
    let mut busy = Vec::new();
    for _ in 0..4 {
        let mut stream = service.connect().await;
        stream.write_all(GET.replace("/ok", "/held").as_bytes()).await.expect("written");
        gate.waiting.notified().await;
        busy.push(stream);
    }
    assert_eq!(until_closed(&mut service.connect().await).await, b"", "there is no room");
    gate.open.add_permits(4);
    for stream in &mut busy {
        assert_eq!(answer(stream).await.body, "held");
    }
    service.answers().await;
}

#[tokio::test]
async fn one_peer_does_not_take_the_room_of_others() {
    let service = Service::with(limits(100, 4), plain_routes()).await;
    let mut others = vec![idle(&service, "127.0.0.2").await, idle(&service, "127.0.0.3").await];
    let mut own = Vec::new();
    for _ in 0..30 {
        own.push(idle(&service, HOME).await);
    }
    for stream in &mut others {
        assert_eq!(ask(stream, GET).await.status, 200);
    }
    for stream in &mut own[..26] {
        assert_eq!(until_closed(stream).await, b"");
    }
    for stream in &mut own[26..] {
        assert_eq!(ask(stream, GET).await.status, 200);
    }
}

#[tokio::test]
async fn a_trusted_proxy_may_have_as_many_as_there_are() {
    let trusted: Vec<IpNet> = vec!["127.0.0.8/32".parse().expect("a network")];
    let front = Arc::new(Front::new(limits(100, 4)).trusting(&trusted));
    let service = Service::behind(&front, plain_routes()).await;
    let mut proxied = Vec::new();
    for _ in 0..30 {
        proxied.push(idle(&service, "127.0.0.8").await);
    }
    for stream in &mut proxied {
        assert_eq!(ask(stream, GET).await.status, 200);
    }
}

#[tokio::test]
async fn listeners_share_what_there_is() {
    let front = Arc::new(Front::new(limits(4, 100)));
    let one = Service::behind(&front, plain_routes()).await;
    let other = Service::behind(&front, plain_routes()).await;
    let mut first = idle(&one, HOME).await;
    let mut rest = Vec::new();
    for _ in 0..4 {
        rest.push(idle(&other, HOME).await);
    }
    assert_eq!(until_closed(&mut first).await, b"");
}

/// Holds connections open, each with this sent, and drips on every one of them. Says `ready` once all are there.
const FLOOD: &str = r#"
import resource, socket, sys, time
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
port, each, kinds = int(sys.argv[1]), int(sys.argv[2]), [b"", b"GET /jwks HTTP/1.1\r\nX-Drip: ",
    b"POST /token HTTP/1.1\r\nHost: id\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 9999\r\n\r\na=",
    b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
held = []
for number in range(each * len(kinds)):
    kind = kinds[number % len(kinds)]
    try:
        held.append((socket.create_connection(("127.0.0.1", port)), kind))
        held[-1][0].sendall(kind)
    except OSError:
        pass
print("ready", flush=True)
while True:
    for stream, kind in held:
        try:
            if kind[:4] in (b"GET ", b"POST"):
                stream.send(b"a")
        except OSError:
            pass
    time.sleep(0.2)
"#;

fn flood(site: &Site, each: usize) -> Running {
    let mut command = Command::new("python3");
    command.args(["-c", FLOOD, &site.port.to_string(), &each.to_string()]);
    Running::start(command, "")
}

/// `more` stands in the configuration, and the process may open `files` files.
async fn flooded(more: &str, files: &str) {
    let site = Site::new(more);
    let mut running = Running::start(site.command_with_files(files, &["serve"]), "");
    site.answers(&mut running).await;
    let mut flood = flood(&site, 400);
    wait_for("2 000 connections", async || {
        assert!(flood.ended().is_none(), "{}", flood.stderr());
        flood.stdout().contains("ready").then_some(())
    })
    .await;
    for _ in 0..50 {
        let page = site.browser().get("/jwks").await;
        assert_eq!(page.status, 200);
        assert!(page.body.contains("\"keys\""), "{}", page.body);
    }
    assert!(site.is_accepted("web", crate::support::process::SITE_SECRET).await);
    let ran = running.terminate().await.ok();
    assert!(!ran.stderr.contains("panicked") && !ran.stderr.contains("ERROR"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("did not end in time"), "{}", ran.stderr);
    // Refusals and evictions are not told one by one.
    assert!(ran.stderr.lines().filter(|line| line.contains("WARN")).count() < 10, "{}", ran.stderr);
}

#[tokio::test]
async fn two_thousand_connections_that_do_nothing_keep_nobody_out() {
    flooded("", "$(ulimit -Hn)").await;
}

#[tokio::test]
async fn two_thousand_connections_that_all_may_stay_keep_nobody_out() {
    flooded("[limits]\nconnections_per_peer = 100000\n", "$(ulimit -Hn)").await;
}

#[tokio::test]
async fn a_process_that_may_open_few_files_keeps_nobody_out() {
    flooded("[limits]\nconnections_per_peer = 100000\n", "200").await;
}
