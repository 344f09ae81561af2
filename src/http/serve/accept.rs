//! Takes connections from one listener and gives each a task of its own. Nothing that a peer does or leaves undone is
//! waited for here.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;

use super::Front;
use super::bind::Socket;
use super::burst::Burst;
use super::connection::attend;
use super::stream::Stream;

/// How long nothing is accepted after the system had no more files or memory to give.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` turns true, then until the connections have ended.
pub async fn run(socket: Socket, front: Arc<Front>, routes: Router, mut stop: watch::Receiver<bool>) {
    let listener = front.admission.listener();
    // Once here, and not again for every request.
    let routes = routes.with_state(());
    let mut connections = JoinSet::new();
    let mut failures = Burst::default();
    loop {
        let accepted = tokio::select! {
            accepted = async {
                front.admission.settled().await;
                socket.accept().await
            } => accepted,
            Some(ended) = connections.join_next() => {
                note(ended);
                continue;
            }
            // A sender that is gone means the same.
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let counted = peer.map(|peer| peer.ip()).filter(|peer| !front.trusts(*peer));
                // Dropped without a seat, it is closed.
                if let Some(seat) = front.admission.admit(listener, counted) {
                    connections.spawn(attend(Arc::clone(&front), seat, stream, peer, routes.clone()));
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if let Some(unsaid) = failures.say() {
                    tracing::error!(%error, unsaid, "connections cannot be accepted; trying again");
                }
                front.admission.make_room();
                tokio::select! {
                    () = sleep(PAUSE) => {}
                    _ = stop.wait_for(|stop| *stop) => break,
                }
            }
        }
    }
    // Nobody can come in any more, and a socket's file is gone.
    drop(socket);
    front.admission.stop(listener);
    while let Some(ended) = connections.join_next().await {
        note(ended);
    }
}

impl Socket {
    async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Answers are written whole; waiting for more to send only delays them.
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Some(peer)))
            }
            Self::Unix(listener, _) => Ok((Stream::Unix(listener.accept().await?.0), None)),
        }
    }
}

/// Errors of a connection that was gone before it was taken; the listener is fine (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, InvalidInput, NetworkDown,
        NetworkUnreachable, NotConnected, PermissionDenied,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | InvalidInput
            | NetworkDown
            | NetworkUnreachable
            | NotConnected
            | PermissionDenied
    )
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked");
    }
}
