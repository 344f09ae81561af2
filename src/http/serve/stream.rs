//! The bytes of one connection, plain or encrypted, and a wrapper that tells its [`Activity`](super::activity) what
//! moves.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio_openssl::SslStream;

use super::admission::Held;

/// One type for all, so that the machinery of HTTP is compiled once.
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Boxed: larger than the others.
    Tls(Box<SslStream<TcpStream>>),
}

macro_rules! each {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($inner) => $call,
            Stream::Unix($inner) => $call,
            Stream::Tls($inner) => {
                let $inner = $inner.as_mut();
                $call
            }
        }
    };
}

impl Stream {
    /// Ends our side, then reads and drops what the peer still sends, so that it gets to read our last answer
    /// (RFC 9112 §9.6). Ends when the peer does, or after `most` bytes.
    pub async fn linger(&mut self, most: usize) {
        match self {
            Self::Unix(stream) => drain(stream, most).await,
            Self::Tcp(stream) => drain(stream, most).await,
            // What comes after our end of a TLS connection is of no interest, so it is not decrypted.
            Self::Tls(stream) => drain(stream.get_mut(), most).await,
        }
    }
}

async fn drain(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), most: usize) {
    let _ = stream.shutdown().await;
    let (mut scratch, mut dropped) = (vec![0; 16 * 1024], 0);
    while dropped < most
        && let Ok(n @ 1..) = stream.read(&mut scratch).await
    {
        dropped += n;
    }
}

/// A stream that is watched. What is left of it goes back to whoever lent it.
pub struct Watched {
    /// Present until it is dropped.
    stream: Option<Stream>,
    held: Arc<Held>,
    back: Option<oneshot::Sender<Stream>>,
}

impl Watched {
    pub fn new(stream: Stream, held: Arc<Held>) -> (Self, oneshot::Receiver<Stream>) {
        let (back, returned) = oneshot::channel();
        (Self { stream: Some(stream), held, back: Some(back) }, returned)
    }

    fn stream(&mut self) -> io::Result<&mut Stream> {
        self.stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn wrote<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.held.activity.wrote(result.is_ready());
        result
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let (Some(stream), Some(back)) = (self.stream.take(), self.back.take()) {
            let _ = back.send(stream);
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(each!(self.stream()?, stream => Pin::new(stream).poll_read(cx, buf)))?;
        if buf.filled().len() > before {
            self.held.activity.heard();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = each!(self.stream()?, stream => Pin::new(stream).poll_write(cx, bytes));
        self.wrote(wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = each!(self.stream()?, stream => Pin::new(stream).poll_write_vectored(cx, slices));
        self.wrote(wrote)
    }

    fn is_write_vectored(&self) -> bool {
        !matches!(self.stream, Some(Stream::Tls(_)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.stream()?, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = each!(self.stream()?, stream => Pin::new(stream).poll_shutdown(cx));
        self.wrote(ended)
    }
}
