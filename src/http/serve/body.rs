//! Request bodies that do not take for ever, and what became of them. A handler only sees that a body broke off;
//! the layer around it reads the [`BodyFate`] and gives the answer that fits (RFC 9110 §15.5.9, §15.5.14).

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::StatusCode;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

use super::admission::Held;

/// Why a body was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyProblem {
    TooSlow,
    TooLarge,
}

impl BodyProblem {
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }
}

/// What became of a request's body; travels with the request.
#[derive(Clone, Debug, Default)]
pub struct BodyFate(Arc<OnceLock<BodyProblem>>);

impl BodyFate {
    /// The fate of this request's body.
    pub fn of<B>(request: &mut http::Request<B>) -> Self {
        request.extensions_mut().get_or_insert_default::<Self>().clone()
    }

    pub fn problem(&self) -> Option<BodyProblem> {
        self.0.get().copied()
    }

    fn set_too_slow(&self) {
        let _ = self.0.set(BodyProblem::TooSlow);
    }

    pub fn set_too_large(&self) {
        let _ = self.0.set(BodyProblem::TooLarge);
    }
}

/// A body that comes in time or breaks off.
pub struct Timely {
    incoming: Incoming,
    patience: Duration,
    /// Runs from the first time that somebody has to wait.
    timer: Option<Pin<Box<Sleep>>>,
    waits: bool,
    fate: BodyFate,
    held: Arc<Held>,
}

impl Timely {
    pub fn body(incoming: Incoming, patience: Duration, fate: BodyFate, held: Arc<Held>) -> Body {
        Body::new(Self { incoming, patience, timer: None, waits: false, fate, held })
    }

    fn waits(&mut self, waits: bool) {
        if self.waits != waits {
            self.waits = waits;
            self.held.activity.waits_for_body(waits);
        }
    }
}

impl HttpBody for Timely {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
            self.waits(false);
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        self.waits(true);
        let patience = self.patience;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(patience)));
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.waits(false);
        self.fate.set_too_slow();
        Poll::Ready(Some(Err("the body did not come in time".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for Timely {
    fn drop(&mut self) {
        self.waits(false);
        if !self.incoming.is_end_stream() {
            self.held.activity.body_left_unread();
        }
    }
}
