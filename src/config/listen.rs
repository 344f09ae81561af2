//! Addresses to serve on, as they are written in `listen`. Opening them is for `http` to do.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// One address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Listen {
    /// `ip:port` or `localhost:port`; port 0 takes a free one.
    Tcp(String),
    Unix(PathBuf),
}

impl Listen {
    /// A relative socket path is one beside `base`.
    pub fn parse(text: &str, base: &Path) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return (!path.is_empty() && !path.contains('\0')).then(|| Self::Unix(base.join(path)));
        }
        let is_localhost =
            text.strip_prefix("localhost:").is_some_and(|port| !port.starts_with('+') && port.parse::<u16>().is_ok());
        (is_localhost || text.parse::<SocketAddr>().is_ok()).then(|| Self::Tcp(text.to_owned()))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text, Path::new("")).ok_or(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_ip_and_port_or_a_socket_path() {
        for (text, expected) in [
            ("127.0.0.1:8080", Some("127.0.0.1:8080")),
            ("0.0.0.0:0", Some("0.0.0.0:0")),
            ("[::1]:8080", Some("[::1]:8080")),
            ("localhost:8080", Some("localhost:8080")),
            ("unix:/run/keyward.sock", Some("unix:/run/keyward.sock")),
            ("unix:keyward.sock", Some("unix:/etc/keyward/keyward.sock")),
            ("unix:", None),
            ("8080", None),
            (":8080", None),
            ("127.0.0.1", None),
            ("localhost", None),
            ("localhost:+80", None),
            ("127.0.0.1:65536", None),
            ("id.example.com:443", None),
            ("http://127.0.0.1:8080", None),
        ] {
            let listen = Listen::parse(text, Path::new("/etc/keyward")).map(|listen| listen.to_string());
            assert_eq!(listen.as_deref(), expected, "{text}");
        }
    }
}
