//! The session of this browser.

use http::HeaderMap;

use super::cookie::SESSION;
use crate::app::App;
use crate::crypto::digest::sha256;
use crate::http::Web;
use crate::live;
use crate::protocol::ids::ClientId;
use crate::protocol::interaction::Consent;
use crate::protocol::time::Span;
use crate::store::Result;
use crate::store::sessions::SignedIn;

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

/// While the database takes no writes, whoever is signed in still is; their rest only counts on from before.
async fn touch(app: &App, found: &SignedIn) {
    let now = app.now();
    let often_enough = TOUCH_EVERY.min(Span::from_millis(app.config.sessions.idle.millis() / 10));
    if now - found.last_seen_at > often_enough
        && let Err(error) = app.store.touch_session(found.session.id.clone(), now).await
    {
        tracing::warn!(%error, "the use of a session was not noted");
    }
}
