//! The session of this browser.

use http::HeaderMap;

use super::cookie::SESSION;
use crate::crypto::digest::sha256;
use crate::http::Web;
use crate::protocol::time::Span;
use crate::store::Result;
use crate::store::sessions::SignedIn;

/// A session's use is noted at most this often: a row that every request writes would make every page slow.
const TOUCH_EVERY: Span = Span::minutes(1);

/// Who is signed in here, if anybody.
pub async fn current(web: &Web, headers: &HeaderMap) -> Result<Option<SignedIn>> {
    let app = &web.app;
    let Some(token) = SESSION.read(headers, web.secure) else { return Ok(None) };
    let now = app.now();
    let idle = app.config.sessions.idle;
    let found = app.store.session(sha256(token.as_bytes()), idle, now).await?;
    if let Some(found) = &found {
        let often_enough = TOUCH_EVERY.min(Span::from_millis(idle.millis() / 10));
        // While the database takes no writes, whoever is signed in still is; their rest only counts on from before.
        if now - found.last_seen_at > often_enough
            && let Err(error) = app.store.touch_session(found.session.id.clone(), now).await
        {
            tracing::warn!(%error, "the use of a session was not noted");
        }
    }
    Ok(found)
}
