//! Where it listens: several addresses, unix sockets and their files, and who is seen at the other end.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use axum::extract::{ConnectInfo, Request};
use tokio::net::UnixStream;

use super::*;
use crate::support::process::{Site, free_port};

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// A site that listens here, beside its port.
fn site_with(listen: &str) -> Site {
    let site = Site::empty();
    let own = format!("listen = \"127.0.0.1:{}\"", site.port);
    let config = site.default_config("");
    assert!(config.contains(&own));
    site.configure(&config.replace(&own, &format!("listen = [\"127.0.0.1:{}\", {listen}]", site.port)));
    site
}

#[tokio::test]
async fn several_addresses_and_a_unix_socket_at_once() {
    let other = free_port();
    let site = site_with(&format!("\"127.0.0.1:{other}\", \"unix:run.sock\""));
    let running = site.serve().await;
    let socket = site.path("run.sock");
    let discovery = GET.replace("/ok", "/.well-known/openid-configuration");
    for port in [site.port, other] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
        assert!(ask(&mut stream, &discovery).await.body.contains(&site.issuer));
    }
    let mut stream = UnixStream::connect(&socket).await.expect("a connection");
    assert!(ask(&mut stream, &discovery).await.body.contains(&site.issuer));
    // The idle connection is no reason to stay, and the file is gone with the process.
    let ran = running.terminate().await.ok();
    assert!(!socket.exists());
    for place in [format!("127.0.0.1:{}", site.port), format!("127.0.0.1:{other}"), "run.sock".to_owned()] {
        let told = ran.stderr.lines().any(|line| line.contains("listening") && line.contains(&place));
        assert!(told, "the log tells where: {}", ran.stderr);
    }
}

#[tokio::test]
async fn a_socket_of_the_dead_is_replaced_and_nothing_else_is() {
    let site = site_with("\"unix:run.sock\"");
    let socket = site.path("run.sock");
    let running = site.serve().await;
    running.signal("KILL");
    running.wait().await;
    assert!(is_socket(&socket), "nobody removed it");
    let living = site.serve().await;

    // A second process neither takes it away nor removes it.
    let rival = site_with(&format!("\"unix:{}\"", socket.display()));
    rival.run(&["serve"]).await.refused(&["cannot listen on", "run.sock", "in use"]);
    assert!(UnixStream::connect(&socket).await.is_ok());
    living.terminate().await.ok();

    // A file that is no socket is somebody's file.
    std::fs::write(&socket, "precious").expect("written");
    site.run(&["serve"]).await.refused(&["cannot listen on", "run.sock"]);
    assert_eq!(std::fs::read_to_string(&socket).expect("the file"), "precious");
}

/// It started, and then could not go on: what it made is gone all the same.
#[tokio::test]
async fn a_start_that_fails_leaves_no_socket_behind() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = taken.local_addr().expect("an address");
    let site = site_with(&format!("\"unix:run.sock\", \"{address}\""));
    site.run(&["serve"]).await.refused(&["cannot listen on", "in use"]);
    assert!(!site.path("run.sock").exists());
}

#[tokio::test]
async fn who_is_at_the_other_end_is_known_for_tcp_alone() {
    let seen = get(|request: Request| async move {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        peer.map_or("nobody".to_owned(), |peer| peer.0.ip().to_string())
    });
    let routes = Router::new().route("/ok", seen);
    let service = Service::with(Limits::default(), routes.clone()).await;
    for source in ["127.0.0.1", "127.0.0.7"] {
        assert_eq!(ask(&mut service.connect_from(source).await, GET).await.body, source);
    }

    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s");
    let front = Arc::new(Front::new(Limits { connections_per_peer: 1, ..Limits::default() }));
    let bound = Bound::bind(&Listen::Unix(path.clone())).await.expect("a listener").behind(&front);
    let (stop, stopped) = watch::channel(false);
    let ended = tokio::spawn(bound.serve(routes, stopped));
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(UnixStream::connect(&path).await.expect("a connection"));
    }
    for stream in &mut streams {
        assert_eq!(ask(stream, GET).await.body, "nobody", "and nobody is no peer to count");
    }
    stop.send(true).expect("somebody listens");
    ended.await.expect("no panic").expect("no error");
    assert!(!path.exists());
}
