//! One connection from its first byte to its last: the TLS handshake, requests as long as there are any, an orderly
//! end. It ends as well when its peer takes too long, when its seat is needed, and when we stop.

use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse as _, Response};
use futures_util::future::{Either, select};
use http::header::{CONNECTION, HOST};
use http::{HeaderValue, Request, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use openssl::ssl::{Ssl, SslContext};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};
use tokio_openssl::SslStream;
use tower::Service as _;

use super::Front;
use super::activity::{Millis, now};
use super::admission::{Held, Seat, Told};
use super::body::{BodyFate, Timely};
use super::limits::{LINGER_BYTES, Limits};
use super::stream::{Stream, Watched};

/// Serves one connection. `peer` is known for TCP.
pub async fn attend(front: Arc<Front>, seat: Seat, stream: Stream, peer: Option<SocketAddr>, routes: Router) {
    let held = seat.held();
    let stream = match (&front.tls, stream) {
        (Some(tls), Stream::Tcp(stream)) => match handshake(&front.limits, held, tls.context(), stream).await {
            Some(stream) => stream,
            None => return,
        },
        (_, stream) => stream,
    };
    held.activity.opened();
    let Some(mut stream) = converse(&front, held, stream, peer, routes).await else { return };
    let lingering = pin!(timeout(front.limits.farewell, stream.linger(LINGER_BYTES)));
    select(lingering, pin!(held.until_told(Told::Cut))).await;
}

/// The connection once it is encrypted, unless that takes too long or fails.
async fn handshake(limits: &Limits, held: &Held, context: SslContext, stream: TcpStream) -> Option<Stream> {
    let mut stream = Box::new(SslStream::new(Ssl::new(&context).ok()?, stream).ok()?);
    let accepted = {
        let accepted = pin!(timeout(limits.handshake, Pin::new(stream.as_mut()).accept()));
        match select(accepted, pin!(held.until_told(Told::Stop))).await {
            Either::Left((accepted, _)) => accepted.ok()?,
            Either::Right(_) => return None,
        }
    };
    match accepted {
        Ok(()) => Some(Stream::Tls(stream)),
        Err(error) => {
            tracing::debug!(%error, "TLS handshake failed");
            None
        }
    }
}

/// Requests and answers. Returns the stream if its peer may still be sending what nobody will read.
async fn converse(
    front: &Front,
    held: &Arc<Held>,
    stream: Stream,
    peer: Option<SocketAddr>,
    routes: Router,
) -> Option<Stream> {
    let (watched, mut returned) = Watched::new(stream, Arc::clone(held));
    let guest = Guest { held: Arc::clone(held), peer, routes, patience: front.limits.body };
    let service = service_fn(move |request| guest.answer(request));
    let ended = {
        let mut conversation = pin!(front.http.serve_connection(TokioIo::new(watched), service));
        let mut patience = Patience { sleep: pin!(sleep(Duration::ZERO)), until: Millis::MAX };
        let mut closing = None;
        poll_fn(|cx| {
            loop {
                match held.told(cx) {
                    Told::Cut => return Poll::Ready(None),
                    Told::Stop if closing.is_none() => {
                        closing = Some(now());
                        conversation.as_mut().graceful_shutdown();
                    }
                    Told::Stop | Told::Nothing => {}
                }
                if let Poll::Ready(ended) = conversation.as_mut().poll(cx) {
                    return Poll::Ready(Some(ended));
                }
                ready!(patience.poll(held.activity.due(&front.limits, closing), front.limits.idle, cx));
                if closing.is_some() || !held.activity.is_idle() {
                    return Poll::Ready(None);
                }
                closing = Some(now());
                conversation.as_mut().graceful_shutdown();
            }
        })
        .await
    };
    match ended {
        Some(Ok(())) if !held.activity.has_unread_body() => None,
        Some(ended) => {
            if let Err(error) = ended {
                tell(error.as_ref(), peer);
            }
            returned.try_recv().ok()
        }
        None => {
            tracing::debug!(?peer, "connection cut");
            None
        }
    }
}

/// What went wrong on a connection. Most of it is the network, or somebody who does not speak HTTP; but a head that is too
/// large may be that of a person with many cookies, whose answer no other line tells of.
fn tell(error: &(dyn Error + 'static), peer: Option<SocketAddr>) {
    let refused = error.downcast_ref::<hyper::Error>().filter(|error| error.is_parse_too_large());
    match refused {
        Some(error) => tracing::warn!(%error, ?peer, "request refused"),
        None => tracing::debug!(error, ?peer, "connection ended"),
    }
}

/// A timer for a moment that moves. It is set again where the moment comes nearer, and looks again where it went away,
/// so that a busy connection does not set it for every request.
struct Patience<'a> {
    sleep: Pin<&'a mut Sleep>,
    until: Millis,
}

impl Patience<'_> {
    /// Ready once `due` has passed. Looks again after `nap` at the latest: what ends our turn need not wake us.
    fn poll(&mut self, due: Option<Millis>, nap: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let due = due.unwrap_or(Millis::MAX);
        if due < self.until {
            self.set(Duration::from_millis(due.saturating_sub(now())), due);
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            let left = Duration::from_millis(due.saturating_sub(now()));
            if left.is_zero() {
                return Poll::Ready(());
            }
            self.set(left.min(nap), due);
        }
        Poll::Pending
    }

    fn set(&mut self, sleep_for: Duration, until: Millis) {
        self.sleep.set(sleep(sleep_for));
        self.until = until;
    }
}

/// Whoever is at the other end, and what they are served.
struct Guest {
    held: Arc<Held>,
    peer: Option<SocketAddr>,
    routes: Router,
    /// For one request body.
    patience: Duration,
}

impl Guest {
    fn answer(
        &self,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response, Infallible>> + Send + use<> {
        let turn = OurTurn::begin(&self.held, request.version() == Version::HTTP_2);
        let mut routes = self.routes.clone();
        let peer = self.peer;
        if let Some(peer) = peer {
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        let fate = (!request.body().is_end_stream()).then(|| BodyFate::of(&mut request));
        let request = request.map(|incoming| match fate {
            Some(fate) => Timely::body(incoming, self.patience, fate, Arc::clone(&self.held)),
            None => Body::empty(),
        });
        async move {
            let may_close = request.version() <= Version::HTTP_11;
            let mut response = if names_one_host(&request) {
                routes.call(request).await?
            } else {
                let why = "a request needs exactly one Host header";
                tracing::warn!(method = %request.method(), ?peer, detail = why, "request refused");
                (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response()
            };
            if may_close && turn.0.activity.has_unread_body() {
                // The rest of that body is no request.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        }
    }
}

/// RFC 9112 §3.2. Two of them are how one server is made to see another host than the one before it.
fn names_one_host(request: &Request<Body>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (request.version(), hosts.next(), hosts.next()) {
        (_, _, Some(_)) => false,
        (Version::HTTP_11, host, _) => host.is_some(),
        _ => true,
    }
}

/// A request that its connection works for.
struct OurTurn(Arc<Held>);

impl OurTurn {
    fn begin(held: &Arc<Held>, multiplexed: bool) -> Self {
        held.activity.request_came(multiplexed);
        Self(Arc::clone(held))
    }
}

impl Drop for OurTurn {
    fn drop(&mut self) {
        self.0.activity.request_left();
    }
}
