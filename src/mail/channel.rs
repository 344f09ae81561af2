//! The connection to a mail server, up to where it is safe to talk. STARTTLS (RFC 3207) is done here, byte by byte:
//! whatever somebody in between slips in behind the server's last plain word must meet the handshake, which fails on
//! it, and never pass for an answer that came by TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use lettre::transport::smtp::client::AsyncTokioStream;
use native_tls::TlsConnector;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_native_tls::TlsStream;

/// What the library waits for first, and no server says again once the connection is TLS.
const GREETING: &[u8] = b"220 secured\r\n";
/// Bytes of a reply that we read (RFC 5321 §4.5.3.1.5 allows 512 a line).
const MAX_REPLY: usize = 64 * 1024;

/// When a connection becomes TLS.
pub enum Security {
    None,
    AtOnce(TlsConnector),
    Starttls(TlsConnector),
}

#[derive(Debug)]
pub struct Channel {
    /// Read before anything of the stream.
    greeting: &'static [u8],
    peer: SocketAddr,
    stream: Stream,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Channel {
    /// Connects to `host`, whose name its certificate has to bear. `hello` is how we introduce ourselves.
    ///
    /// # Errors
    /// For people.
    pub async fn open(host: &str, port: u16, hello: &str, security: Security) -> Result<Self, String> {
        let mut plain = TcpStream::connect((host, port)).await.map_err(told)?;
        let peer = plain.peer_addr().map_err(told)?;
        let (connector, greeting): (_, &[u8]) = match security {
            Security::None => return Ok(Self { greeting: b"", peer, stream: Stream::Plain(plain) }),
            Security::AtOnce(connector) => (connector, b""),
            Security::Starttls(connector) => {
                ask_for_tls(&mut plain, hello).await?;
                (connector, GREETING)
            }
        };
        let tls = tokio_native_tls::TlsConnector::from(connector).connect(host, plain).await.map_err(told)?;
        Ok(Self { greeting, peer, stream: Stream::Tls(Box::new(tls)) })
    }
}

fn told(error: impl ToString) -> String {
    error.to_string()
}

async fn ask_for_tls(plain: &mut TcpStream, hello: &str) -> Result<(), String> {
    reply(plain, "220").await?;
    plain.write_all(format!("EHLO {hello}\r\n").as_bytes()).await.map_err(told)?;
    let offers = reply(plain, "250").await?;
    if !offers.lines().any(|line| line.get(4..).is_some_and(|word| word.trim().eq_ignore_ascii_case("STARTTLS"))) {
        return Err("STARTTLS is not supported by this server, and mail is not handed over without it".to_owned());
    }
    plain.write_all(b"STARTTLS\r\n").await.map_err(told)?;
    reply(plain, "220").await.map(|_| ())
}

/// One reply and not a byte more (RFC 5321 §4.2).
async fn reply(plain: &mut TcpStream, expected: &str) -> Result<String, String> {
    let mut text = Vec::new();
    let mut line = 0;
    loop {
        let byte = plain.read_u8().await.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => "the server hung up".to_owned(),
            _ => told(error),
        })?;
        text.push(byte);
        if text.len() > MAX_REPLY {
            return Err("the server talks without end".to_owned());
        }
        if byte == b'\n' {
            // `250-` goes on, `250 ` does not.
            if text.get(line + 3) != Some(&b'-') {
                break;
            }
            line = text.len();
        }
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    if text.starts_with(expected) { Ok(text) } else { Err(text) }
}

impl AsyncTokioStream for Channel {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

impl AsyncRead for Channel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.greeting.is_empty() {
            let (now, later) = this.greeting.split_at(this.greeting.len().min(buf.remaining()));
            buf.put_slice(now);
            this.greeting = later;
            return Poll::Ready(Ok(()));
        }
        match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Channel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
