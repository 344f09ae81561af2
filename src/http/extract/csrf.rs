//! Protection of our forms against other sites: where the request comes from, as the browser says, and a token that
//! only a page of ours in this very browser could have carried.

use http::HeaderMap;
use http::header::ORIGIN;

use super::cookie::BROWSER;
use crate::ambient::random_token;
use crate::crypto::digest::{base64url, constant_time_eq, hmac_sha256};
use crate::http::Web;
use crate::http::pages::error::PageError;

/// The browser that asks, by a random cookie that is set only when absent: a second tab must not invalidate the
/// form of the first.
pub struct Browser {
    id: String,
    /// The cookie must be sent along.
    pub is_new: bool,
}

impl Browser {
    pub fn of(web: &Web, headers: &HeaderMap) -> Self {
        match BROWSER.read(headers, web.secure) {
            Some(id) => Self { id, is_new: false },
            None => Self { id: random_token::<16>(web.app.rng.as_ref()), is_new: true },
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// The token of a form. `context` names the form and whom it speaks for, so that one made for another person or
    /// purpose does not count.
    pub fn token(&self, web: &Web, context: &str) -> String {
        base64url(&hmac_sha256(&web.app.keys.server.csrf, &[self.id.as_bytes(), context.as_bytes()]))
    }

    /// Whether a submitted form is one that this browser got from us.
    pub fn vouches(&self, web: &Web, context: &str, token: Option<&str>) -> bool {
        let expected = self.token(web, context);
        let matches = token.is_some_and(|token| constant_time_eq(token.as_bytes(), expected.as_bytes()));
        !self.is_new && matches
    }
}

/// Refuses a form of another site before anything is looked at: it brings no cookies, so answering it as if nobody
/// were signed in would take away the cookies that the browser has.
pub fn refuse_foreign(web: &Web, headers: &HeaderMap) -> Result<(), PageError> {
    if is_same_origin(headers, web.app.config.issuer.origin()) { Ok(()) } else { Err(PageError::foreign_form()) }
}

/// Whether a call may use the cookies that came with it. A program that is no browser says nothing of an origin and has
/// no cookies but its own.
pub fn is_own_call(web: &Web, headers: &HeaderMap) -> bool {
    is_same_origin(headers, web.app.config.issuer.origin())
}

/// What the browser says of where a form came from. One that says nothing is no browser of today; the token decides.
///
/// Our pages send no referrer, and for a form of such a page `Origin` is `null`; `Sec-Fetch-Site` then tells it from
/// a form of a stranger, so it is asked first.
fn is_same_origin(headers: &HeaderMap, own: &str) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    match (text("sec-fetch-site"), text(ORIGIN.as_str())) {
        (Some(site), None | Some("null")) => matches!(site, "same-origin" | "none"),
        (Some(site), Some(origin)) => matches!(site, "same-origin" | "none") && origin == own,
        (None, Some(origin)) => origin == own,
        (None, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_browser_says_where_a_form_came_from() {
        for (site, origin, expected) in [
            (None, None, true),
            (None, Some("https://id.test"), true),
            (None, Some("https://evil.test"), false),
            (None, Some("null"), false),
            (Some("same-origin"), Some("https://id.test"), true),
            (Some("same-origin"), Some("null"), true),
            (Some("same-origin"), Some("https://evil.test"), false),
            (Some("cross-site"), Some("null"), false),
            (Some("cross-site"), None, false),
            (Some("same-site"), Some("https://other.id.test"), false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [("sec-fetch-site", site), ("origin", origin)] {
                if let Some(value) = value {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            assert_eq!(is_same_origin(&headers, "https://id.test"), expected, "{site:?} {origin:?}");
        }
    }
}
