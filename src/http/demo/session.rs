//! The demo's sessions: in memory, bounded, found by the cookie `demo_session` (RFC 6265; the provider on the same
//! host sees it too, since cookies do not know ports, so the name must not be one of its own).
//!
//! What the tokens in a session mean is for `tokens`.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderName};
use openidconnect::{CsrfToken, Nonce, PkceCodeVerifier};
use subtle::ConstantTimeEq;

use super::tokens::SignedIn;

const COOKIE_NAME: &str = "demo_session";
/// Anybody may make a session by starting a sign-in; beyond this many the oldest goes.
const MAX_SESSIONS: usize = 1000;
/// Sign-ins one browser may have under way at once, in several tabs.
const MAX_ATTEMPTS: usize = 8;

/// One browser.
pub(super) struct Session {
    /// Every form of this session carries it.
    pub csrf: String,
    pub signed_in: Option<SignedIn>,
    /// What the provider must give back after RP-initiated logout (OpenID Connect RP-Initiated Logout 1.0 §2).
    pub sign_out_state: Option<String>,
    attempts: VecDeque<Attempt>,
}

/// One authorization request under way.
pub(super) struct Attempt {
    pub state: String,
    pub nonce: Nonce,
    pub code_verifier: PkceCodeVerifier,
    /// Seconds, when the request had a `max_age` that is a number.
    pub max_age: Option<i64>,
}

impl Session {
    fn new() -> Self {
        Self { csrf: random(), signed_in: None, sign_out_state: None, attempts: VecDeque::new() }
    }

    pub fn takes_csrf(&self, unverified_csrf: &str) -> bool {
        self.csrf.as_bytes().ct_eq(unverified_csrf.as_bytes()).into()
    }

    pub fn remember(&mut self, attempt: Attempt) {
        if self.attempts.len() >= MAX_ATTEMPTS {
            self.attempts.pop_front();
        }
        self.attempts.push_back(attempt);
    }

    /// The attempt that `state` belongs to; it serves once.
    pub fn claim(&mut self, unverified_state: &str) -> Option<Attempt> {
        let found = self.attempts.iter().position(|attempt| attempt.state == unverified_state)?;
        self.attempts.remove(found)
    }
}

/// All of them.
pub(super) struct Sessions {
    held: Mutex<Held>,
    secure: bool,
}

#[derive(Default)]
struct Held {
    by_id: HashMap<String, Session>,
    /// Oldest first; every id here is a key of `by_id` and the other way round.
    ids: VecDeque<String>,
}

impl Held {
    fn insert(&mut self, session: Session) -> String {
        while self.ids.len() >= MAX_SESSIONS
            && let Some(oldest) = self.ids.pop_front()
        {
            self.by_id.remove(&oldest);
        }
        let id = random();
        self.ids.push_back(id.clone());
        self.by_id.insert(id.clone(), session);
        id
    }

    fn remove(&mut self, id: &str) -> Option<Session> {
        self.ids.retain(|held| held != id);
        self.by_id.remove(id)
    }
}

/// A `Set-Cookie` header in the shape that axum's responses take.
pub(super) type SetCookie = [(HeaderName, String); 1];

impl Sessions {
    pub fn new(secure: bool) -> Self {
        Self { held: Mutex::default(), secure }
    }

    /// Runs `f` on the browser's session, when it has one.
    pub fn of<T>(&self, headers: &HeaderMap, f: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let mut held = self.lock();
        let id = cookies(headers).find(|id| held.by_id.contains_key(*id))?;
        held.by_id.get_mut(id).map(f)
    }

    /// Runs `f` on the browser's session, a new one when it has none.
    pub fn ensure(&self, headers: &HeaderMap, f: impl FnOnce(&mut Session)) -> Option<SetCookie> {
        let mut held = self.lock();
        if let Some(id) = cookies(headers).find(|id| held.by_id.contains_key(*id)) {
            held.by_id.get_mut(id).map(f);
            return None;
        }
        let mut session = Session::new();
        f(&mut session);
        Some(self.set_cookie(&held.insert(session)))
    }

    /// Replaces the browser's session by a signed-in one under a new id and CSRF token, so that nobody who knew the
    /// old ones rides along. Sign-ins under way in other tabs stay.
    pub fn sign_in(&self, headers: &HeaderMap, signed_in: SignedIn) -> SetCookie {
        let mut held = self.lock();
        let attempts = close(&mut held, headers).map(|session| session.attempts).unwrap_or_default();
        let id = held.insert(Session { signed_in: Some(signed_in), attempts, ..Session::new() });
        self.set_cookie(&id)
    }

    /// Replaces the browser's session by one that only remembers the `state` of the logout request.
    pub fn sign_out(&self, headers: &HeaderMap, state: String) -> SetCookie {
        let mut held = self.lock();
        close(&mut held, headers);
        self.set_cookie(&held.insert(Session { sign_out_state: Some(state), ..Session::new() }))
    }

    /// Ends the browser's session and takes its cookie back.
    pub fn close(&self, headers: &HeaderMap) -> SetCookie {
        close(&mut self.lock(), headers);
        [(SET_COOKIE, format!("{COOKIE_NAME}=; Path=/; Max-Age=0"))]
    }

    fn set_cookie(&self, id: &str) -> SetCookie {
        let secure = if self.secure { "; Secure" } else { "" };
        [(SET_COOKIE, format!("{COOKIE_NAME}={id}; Path=/; HttpOnly; SameSite=Lax{secure}"))]
    }

    /// A panic elsewhere while the lock was held leaves sessions that are still whole: each change is one call.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn close(held: &mut Held, headers: &HeaderMap) -> Option<Session> {
    cookies(headers).filter_map(|id| held.remove(id)).last()
}

/// The values of the session cookie: HTTP/2 may split the header, and a browser may hold several of one name.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(COOKIE)
        .into_iter()
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter_map(|(name, value)| (name == COOKIE_NAME).then_some(value))
}

/// 256 bits, from the relying party library: this crate's own randomness is the provider's.
fn random() -> String {
    CsrfToken::new_random_len(32).into_secret()
}
