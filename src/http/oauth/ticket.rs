//! A sign-in on its way through the pages: the resolved request, sealed, in the URL. The database holds nothing of
//! it, so an anonymous visitor costs no row, unless the request is too large for a URL.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::ambient::random_token;
use crate::crypto::seal::SealKey;
use crate::http::Web;
use crate::http::error::Fault;
use crate::http::pages::error::PageError;
use crate::limit::Action;
use crate::protocol::authorize::AuthorizationRequest;
use crate::protocol::ids::{GrantId, SessionId};
use crate::protocol::interaction::{Progress, SIGN_IN_LIFETIME};
use crate::protocol::time::Timestamp;

/// What still fits a URL everywhere.
const MAX_IN_URL: usize = 1500;
/// Marks a ticket that waits in the database.
const PARKED: char = '~';

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ticket {
    /// The grant that this sign-in may become: at most one, since its row is written under this id.
    pub id: GrantId,
    pub issued_at: Timestamp,
    pub request: AuthorizationRequest,
    /// The session whose account was chosen.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    selected: Option<SessionId>,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    denied: bool,
    /// The text it was read from, which serves again while nothing changed: a large one is kept only once.
    #[serde(skip)]
    text: Option<String>,
}

impl Ticket {
    pub fn new(web: &Web, request: AuthorizationRequest) -> Self {
        let id = GrantId::from_random(web.app.rng.id());
        Self { id, issued_at: web.app.now(), request, selected: None, denied: false, text: None }
    }

    pub fn progress(&self) -> Progress<'_> {
        Progress { requested_at: self.issued_at, selected: self.selected.as_ref(), denied: self.denied }
    }

    /// The account of this session was chosen.
    pub fn select(&mut self, session: Option<SessionId>) {
        self.selected = session;
        self.text = None;
    }

    /// The person refused.
    pub fn deny(&mut self) {
        self.denied = true;
        self.text = None;
    }

    /// The text for a URL.
    pub async fn seal(&self, web: &Web, from: Option<IpAddr>) -> Result<String, PageError> {
        if let Some(text) = &self.text {
            return Ok(text.clone());
        }
        let bytes = serde_json::to_vec(self).map_err(Fault::new)?;
        let sealed = web.app.keys.server.tickets.seal(&bytes).map_err(Fault::new)?;
        if sealed.len() <= MAX_IN_URL {
            return Ok(sealed);
        }
        let now = web.app.now();
        if let Err(throttled) = web.app.limits.reserve(Action::ParkTicket { from }, now).await.map_err(Fault::from)? {
            return Err(PageError::throttled(throttled));
        }
        let id = random_token::<16>(web.app.rng.as_ref());
        web.app.store.park_ticket(id.clone(), sealed, self.issued_at + SIGN_IN_LIFETIME).await.map_err(Fault::from)?;
        Ok(format!("{PARKED}{id}"))
    }

    /// Reads a ticket of ours that is still in time.
    pub async fn open(web: &Web, text: Option<&str>) -> Result<Self, PageError> {
        let text = text.ok_or_else(PageError::ticket_expired)?;
        let now = web.app.now();
        let parked = match text.strip_prefix(PARKED) {
            None => None,
            Some(id) => Some(
                web.app
                    .store
                    .parked_ticket(id, now)
                    .await
                    .map_err(Fault::from)?
                    .ok_or_else(PageError::ticket_expired)?,
            ),
        };
        let mut ticket: Self = open_sealed(&web.app.keys.server.tickets, parked.as_deref().unwrap_or(text))?;
        ticket.text = Some(text.to_owned());
        if now >= ticket.issued_at + SIGN_IN_LIFETIME { Err(PageError::ticket_expired()) } else { Ok(ticket) }
    }
}

/// Reads something that we sealed into a URL or form.
pub fn open_sealed<T: serde::de::DeserializeOwned>(key: &SealKey, text: &str) -> Result<T, PageError> {
    let bytes = key.open(text).map_err(|_| PageError::ticket_expired())?;
    serde_json::from_slice(&bytes).map_err(|_| PageError::ticket_expired())
}
