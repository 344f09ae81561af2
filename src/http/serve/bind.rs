//! Opens an address. A socket that is bound and not served yet is a [`Bound`]: whoever asks for port 0 learns which
//! it became, and who else may not have it is told before anything is started.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use super::{Front, Limits, accept};
use crate::config::Listen;

pub struct Bound {
    socket: Socket,
    front: Arc<Front>,
}

pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl Bound {
    /// Opens the address, behind a front of its own with the usual limits and without TLS.
    pub async fn bind(listen: &Listen) -> anyhow::Result<Self> {
        let socket = match listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).await;
                Socket::Tcp(listener.with_context(|| format!("cannot listen on {address}"))?)
            }
            Listen::Unix(path) => {
                remove_stale_socket(path).with_context(|| format!("cannot replace {}", path.display()))?;
                let listener =
                    UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
                let file = SocketFile::at(path)?;
                // Whoever may reach the directory may talk to us; the proxy usually is another user.
                fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
                Socket::Unix(listener, file)
            }
        };
        Ok(Self { socket, front: Arc::new(Front::new(Limits::default())) })
    }

    /// The same address behind a front that it shares with others.
    pub fn behind(self, front: &Arc<Front>) -> Self {
        Self { front: Arc::clone(front), ..self }
    }

    /// The address of a TCP socket.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }

    /// Serves until `stop` turns true, then until the connections have ended. When this is dropped they are cut.
    pub async fn serve(self, routes: Router, stop: watch::Receiver<bool>) -> io::Result<()> {
        accept::run(self.socket, self.front, routes, stop).await;
        Ok(())
    }
}

/// Where it listens, for people.
impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.socket, self.address()) {
            (Socket::Unix(_, file), _) => write!(f, "unix:{}", file.path.display()),
            (Socket::Tcp(_), Some(address)) if self.front.tls.is_some() => write!(f, "{address} (TLS)"),
            (Socket::Tcp(_), Some(address)) => write!(f, "{address}"),
            (Socket::Tcp(_), None) => f.write_str("an address that the system does not tell"),
        }
    }
}

/// A socket file that nobody listens on any more is left over from a process that was killed. Whatever else is there
/// stays there.
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if is_socket && std::os::unix::net::UnixStream::connect(path).err().is_some_and(refused) {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Our socket's file; removed with it, unless somebody put another one there.
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket's file could not be removed");
        }
    }
}
