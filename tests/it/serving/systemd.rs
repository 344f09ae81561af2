//! What systemd is told over `NOTIFY_SOCKET`.

use std::os::unix::net::UnixDatagram;

use super::*;
use crate::support::process::{Running, SITE_SECRET, Site};

fn hear(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    let n = socket.recv(&mut buffer).expect("a word in time");
    String::from_utf8_lossy(&buffer[..n]).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_liveness_and_the_end_are_told() {
    let site = Site::new("");
    let socket = UnixDatagram::bind(site.path("notify")).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    let mut command = site.command(&["serve"]);
    command.env("NOTIFY_SOCKET", site.path("notify")).env("WATCHDOG_USEC", "400000");
    let running = Running::start(command, "");
    assert_eq!(hear(&socket), "READY=1");
    // Ready means ready: no first request is lost.
    assert!(site.is_accepted("web", SITE_SECRET).await);
    for _ in 0..3 {
        assert_eq!(hear(&socket), "WATCHDOG=1");
    }
    running.signal("TERM");
    let stopping = std::iter::repeat_with(|| hear(&socket)).find(|word| word != "WATCHDOG=1");
    assert_eq!(stopping.as_deref(), Some("STOPPING=1"));
    running.wait().await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_is_never_ready_and_a_listener_that_is_gone_is_no_reason_to_fail() {
    let taken = Site::new("");
    let _running = taken.serve().await;
    let socket = UnixDatagram::bind(taken.path("notify")).expect("a socket");
    socket.set_nonblocking(true).expect("set");
    let mut command = taken.command(&["serve"]);
    command.env("NOTIFY_SOCKET", taken.path("notify"));
    Running::start(command, "").wait().await.refused(&["in use"]);
    assert!(socket.recv(&mut [0; 64]).is_err(), "nothing was said");

    let site = Site::new("");
    let running = site.serve_with(&[("NOTIFY_SOCKET", "/nowhere/notify")]).await;
    let ran = running.terminate().await.ok();
    assert!(ran.stderr.contains("systemd could not be told"), "{}", ran.stderr);
}
