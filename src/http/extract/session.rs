//! The session of this browser.

use std::collections::HashSet;
use std::sync::Arc;

use http::HeaderMap;
use http::header::SET_COOKIE;

use super::cookie::{DEVICE, GATEWAY, SESSION};
use crate::app::App;
use crate::crypto::digest::sha256;
use crate::crypto::secret::Secret;
use crate::crypto::{device_cookie, gateway_cookie};
use crate::http::Web;
use crate::http::error::Fault;
use crate::live;
use crate::protocol::ids::{ClientId, UserId};
use crate::protocol::interaction::Consent;
use crate::protocol::time::Span;
use crate::store::Result;
use crate::store::sessions::SignedIn;
use crate::store::standing::KnownSession;

/// A session's use is noted at most this often: a row that every request writes would make every page slow.
const TOUCH_EVERY: Span = Span::minutes(1);

/// Who is signed in here, if anybody.
pub async fn current(web: &Web, headers: &HeaderMap) -> Result<Option<SignedIn>> {
    let app = &web.app;
    let Some(token) = SESSION.read(headers, web.secure) else { return Ok(None) };
    let found = app.store.session(sha256(token.as_bytes()), app.config.sessions.idle, app.now()).await?;
    let Some(found) = found else { return Ok(None) };
    if !stands(app, &found).await? {
        return Ok(None);
    }
    touch(app, &found).await;
    Ok(Some(found))
}

/// Whether what the session leans on stands: the person's partner, and the key that it came from.
async fn stands(app: &App, found: &SignedIn) -> Result<bool> {
    if !live::partner_stands(app, &found.user).await? {
        return Ok(false);
    }
    match &found.session.key {
        None => Ok(true),
        Some(key) => live::key_session(app, key, app.now()).await,
    }
}

/// Gives this browser a session: its own cookie, and the one for gateways on other hosts where there are any.
pub fn set_cookies(
    web: &Web,
    headers: &mut HeaderMap,
    secret: &Secret<String>,
    lifetime: Span,
) -> std::result::Result<(), Fault> {
    let mut cookies = vec![SESSION.set(secret.expose(), Some(lifetime), web.secure)];
    if let Some(domain) = &web.app.config.gateway_cookie_domain {
        let value = gateway_cookie::make(&web.app.keys.server.gateway, secret.expose());
        cookies.push(GATEWAY.set_for(domain, &value, lifetime));
    }
    for cookie in cookies {
        headers.append(SET_COOKIE, cookie.ok_or_else(|| Fault::new("a session cookie could not be written"))?);
    }
    Ok(())
}

/// Notes in this browser that somebody proved with it who they are, beside those who did before.
pub fn remember_device(
    web: &Web,
    request: &HeaderMap,
    response: &mut HeaderMap,
    user: &UserId,
) -> std::result::Result<(), Fault> {
    let before = DEVICE.read(request, web.secure);
    let value = device_cookie::remember(&web.app.keys.server.devices, user, before.as_deref(), web.app.now());
    let cookie = DEVICE.set(&value, Some(device_cookie::LIFETIME), web.secure);
    response.append(SET_COOKIE, cookie.ok_or_else(|| Fault::new("a device's cookie could not be written"))?);
    Ok(())
}

/// Takes from this browser what [`set_cookies`] gave it.
pub fn remove_cookies(web: &Web, headers: &mut HeaderMap) {
    let gateway = web.app.config.gateway_cookie_domain.as_ref().and_then(|domain| GATEWAY.remove_for(domain));
    for cookie in [SESSION.remove(web.secure), gateway].into_iter().flatten() {
        headers.append(SET_COOKIE, cookie);
    }
}

/// The cookie that a gateway was shown.
pub enum Shown {
    Nothing,
    /// One whose session ended, or that we never gave.
    Dead,
    Live(Arc<KnownSession>),
}

/// Whose cookie a gateway was shown: the session's own where it stands on our host, or the one for gateways. Pages
/// read the session anew each time ([`current`]); here it is remembered for a second at most.
pub async fn at_gateway(web: &Web, headers: &HeaderMap) -> Result<Shown> {
    let app = &web.app;
    let hash = match SESSION.read(headers, web.secure) {
        Some(secret) => Some(sha256(secret.as_bytes())),
        None => {
            let shared = app.config.gateway_cookie_domain.as_ref().map(|_| GATEWAY.read_all(headers, web.secure));
            let Some(cookies) = shared.filter(|cookies| !cookies.is_empty()) else { return Ok(Shown::Nothing) };
            // Other hosts of the domain can set it too, and one for a domain of before lives on beside it: what counts
            // is what we gave, as long as that is one.
            let opened = cookies.iter().filter_map(|cookie| gateway_cookie::open(&app.keys.server.gateway, cookie));
            let opened: HashSet<[u8; 32]> = opened.collect();
            opened.iter().next().copied().filter(|_| opened.len() == 1)
        }
    };
    let Some(hash) = hash else { return Ok(Shown::Dead) };
    let Some(known) = app.store.known_session(hash, app.config.sessions.idle, app.now()).await? else {
        return Ok(Shown::Dead);
    };
    if !stands(app, &known.signed_in).await? {
        return Ok(Shown::Dead);
    }
    if known.is_to_be_noted(touch_every(app), app.now()) {
        note(app, &known.signed_in).await;
    }
    Ok(Shown::Live(known))
}

/// Who stands before an app, and what they have allowed it.
pub struct Visitor {
    pub signed_in: SignedIn,
    pub consent: Option<Consent>,
}

/// Who is signed in here, if anybody, in the eyes of `client`.
pub async fn visitor(web: &Web, headers: &HeaderMap, client: &ClientId) -> Result<Option<Visitor>> {
    let app = &web.app;
    let Some(token) = SESSION.read(headers, web.secure) else { return Ok(None) };
    let (hash, idle) = (sha256(token.as_bytes()), app.config.sessions.idle);
    let Some((signed_in, consent)) = app.store.session_and_consent(hash, client, idle, app.now()).await? else {
        return Ok(None);
    };
    if !stands(app, &signed_in).await? {
        return Ok(None);
    }
    touch(app, &signed_in).await;
    Ok(Some(Visitor { signed_in, consent }))
}

async fn touch(app: &App, found: &SignedIn) {
    if app.now() - found.last_seen_at > touch_every(app) {
        note(app, found).await;
    }
}

fn touch_every(app: &App) -> Span {
    TOUCH_EVERY.min(Span::from_millis(app.config.sessions.idle.millis() / 10))
}

/// While the database takes no writes, whoever is signed in still is; their rest only counts on from before.
async fn note(app: &App, found: &SignedIn) {
    if let Err(error) = app.store.touch_session(found.session.id.clone(), app.now()).await {
        tracing::warn!(%error, "the use of a session was not noted");
    }
}
