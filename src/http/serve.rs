//! Listens and serves until told to stop; requests in flight are finished.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use axum::Router;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use crate::config::Listen;

/// A socket that is bound and not served yet: whoever asks for port 0 learns which it became.
pub enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Bound {
    pub async fn bind(listen: &Listen) -> anyhow::Result<Self> {
        match listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).await;
                Ok(Self::Tcp(listener.with_context(|| format!("cannot listen on {address}"))?))
            }
            Listen::Unix(path) => {
                remove_stale_socket(path)?;
                let listener =
                    UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
                // Whoever may reach the directory may talk to us; the proxy usually is another user.
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
                Ok(Self::Unix(listener))
            }
        }
    }

    /// The address of a TCP socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Serves until `stop` turns true.
    pub async fn serve(self, routes: Router, mut stop: watch::Receiver<bool>) -> std::io::Result<()> {
        let stopped = async move {
            // A sender that is gone means the same.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        match self {
            Self::Tcp(listener) => {
                let service = routes.into_make_service_with_connect_info::<SocketAddr>();
                axum::serve(listener, service).with_graceful_shutdown(stopped).await
            }
            Self::Unix(listener) => axum::serve(listener, routes).with_graceful_shutdown(stopped).await,
        }
    }
}

/// A socket file that nobody listens on any more is left over from a process that was killed.
fn remove_stale_socket(path: &Path) -> anyhow::Result<()> {
    if path.exists() && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path).with_context(|| format!("cannot replace {}", path.display()))?;
    }
    Ok(())
}
