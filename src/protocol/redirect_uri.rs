//! Redirect URIs: which may be registered, which requested one is a registered one, and the answers that travel
//! to it (RFC 6749 §3.1.2, RFC 9700 §2.1 and §4.1, RFC 8252 §7, OAuth 2.0 Multiple Response Type Encoding
//! Practices §2.1, OAuth 2.0 Form Post Response Mode).
//!
//! A [`RedirectTarget`] can be made only by comparing with a client's registration, so an answer to an
//! unproven address does not type-check.

use url::{Host, Url, form_urlencoded};

use super::client::{Client, wire_enum};
use super::error::Error;

wire_enum! {
    /// `response_mode`.
    pub enum ResponseMode {
        Query = "query",
        Fragment = "fragment",
        FormPost = "form_post",
    }
}

/// Schemes under which a browser runs or reads something of its own instead of handing the answer to an app.
const FORBIDDEN_SCHEMES: [&str; 14] = [
    "about",
    "blob",
    "chrome",
    "data",
    "file",
    "filesystem",
    "ftp",
    "intent",
    "javascript",
    "mailto",
    "vbscript",
    "view-source",
    "ws",
    "wss",
];

/// Whether `uri` may be registered as a redirect URI or a post-logout redirect URI.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn check_registrable(uri: &str, public_client: bool) -> Result<(), String> {
    let problem = |what: &str| Err(format!("`{uri}` {what}"));
    if uri.bytes().any(|b| !b.is_ascii_graphic() || matches!(b, b'\\' | b'"' | b'<' | b'>' | b'`')) {
        return problem("contains a character that a URI may not have");
    }
    if uri.contains('*') {
        return problem("contains a wildcard; every address is registered in full");
    }
    let Ok(url) = Url::parse(uri) else { return problem("is not an absolute URI") };
    if uri.contains('#') {
        return problem("has a fragment, which RFC 6749 §3.1.2 forbids");
    }
    if FORBIDDEN_SCHEMES.contains(&url.scheme()) {
        return problem("has a scheme that browsers handle themselves");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return problem("contains a user name or password");
    }
    let path = uri.split(['?', '#']).next().unwrap_or(uri);
    if path.split('/').skip(1).any(|segment| matches!(decoded_dots(segment).as_str(), "." | "..")) {
        return problem("contains a dot segment");
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(&url) => Ok(()),
        // OpenID Connect Core §3.1.2.1: http only for confidential clients.
        "http" if public_client => problem("uses http on a host that is not loopback, which a public client may not"),
        "http" => Ok(()),
        _ if uri.len() > url.scheme().len() + 1 => Ok(()),
        _ => problem("has nothing after its scheme"),
    }
}

fn decoded_dots(segment: &str) -> String {
    segment.replace("%2e", ".").replace("%2E", ".")
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// Whether a requested URI is the registered one: byte for byte, except that the port of a loopback address is
/// free (RFC 8252 §7.3), since a native app takes whichever the system gives it. Parsers are kept out of the
/// comparison; where two of them disagree, an attacker lives.
pub fn matches(registered: &str, requested: &str) -> bool {
    if registered == requested {
        return true;
    }
    ["http://127.0.0.1", "http://[::1]"].iter().any(|origin| {
        let own = registered.strip_prefix(origin).and_then(without_port);
        let asked = requested.strip_prefix(origin).and_then(without_port);
        own.is_some() && own == asked
    })
}

/// What follows the optional port; `None` where something else follows the host.
fn without_port(after_host: &str) -> Option<&str> {
    let rest = match after_host.strip_prefix(':') {
        None => after_host,
        Some(port) => {
            let digits = port.bytes().take_while(u8::is_ascii_digit).count();
            port[..digits].parse::<u16>().ok().filter(|port| *port != 0)?;
            &port[digits..]
        }
    };
    (rest.is_empty() || rest.starts_with(['/', '?'])).then_some(rest)
}

/// Why a request has no address that an answer could go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unregistered {
    /// Absent, and the client has not exactly one to fall back to.
    Missing,
    /// Not one of the client's.
    Unknown,
}

/// A proven address, with all that an answer to it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectTarget {
    redirect_uri: String,
    response_mode: ResponseMode,
    state: Option<String>,
    issuer: String,
}

/// An answer on its way through the browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorizationResponse {
    /// The `Location` of a 303.
    Redirect(String),
    /// A page that posts these fields to `action`.
    FormPost { action: String, fields: Vec<(&'static str, String)> },
}

impl RedirectTarget {
    /// Proves `requested` against the client's registration.
    pub fn verify(
        client: &Client,
        requested: Option<&str>,
        response_mode: ResponseMode,
        state: Option<&str>,
        issuer: &str,
    ) -> Result<Self, Unregistered> {
        let registered = &client.metadata.redirect_uris;
        let redirect_uri = match (requested, registered.as_slice()) {
            (Some(uri), _) if registered.iter().any(|own| matches(own, uri)) => uri,
            (Some(_), _) => return Err(Unregistered::Unknown),
            (None, [only]) => only,
            (None, _) => return Err(Unregistered::Missing),
        };
        Ok(Self {
            redirect_uri: redirect_uri.to_owned(),
            response_mode,
            state: state.map(str::to_owned),
            issuer: issuer.to_owned(),
        })
    }

    pub fn response_mode(&self) -> ResponseMode {
        self.response_mode
    }

    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// The authorization response of RFC 6749 §4.1.2 with `iss` of RFC 9207.
    pub fn code(&self, code: String) -> AuthorizationResponse {
        self.answer(vec![("code", code)])
    }

    /// The error response of RFC 6749 §4.1.2.1.
    pub fn error(&self, error: &Error) -> AuthorizationResponse {
        self.answer(vec![
            ("error", error.code.as_str().to_owned()),
            ("error_description", error.description().to_owned()),
        ])
    }

    fn answer(&self, mut fields: Vec<(&'static str, String)>) -> AuthorizationResponse {
        if let Some(state) = &self.state {
            fields.push(("state", state.clone()));
        }
        fields.push(("iss", self.issuer.clone()));
        match self.response_mode {
            ResponseMode::Query => AuthorizationResponse::Redirect(with_query(&self.redirect_uri, &fields)),
            ResponseMode::Fragment => {
                AuthorizationResponse::Redirect(format!("{}#{}", self.redirect_uri, encode(&fields)))
            }
            ResponseMode::FormPost => AuthorizationResponse::FormPost { action: self.redirect_uri.clone(), fields },
        }
    }
}

/// `uri` with `fields` added to whatever query it has (RFC 6749 §3.1.2: the registered query is retained).
pub fn with_query(uri: &str, fields: &[(&str, String)]) -> String {
    if fields.is_empty() {
        return uri.to_owned();
    }
    let separator = match uri.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    format!("{uri}{separator}{}", encode(fields))
}

fn encode(fields: &[(&str, String)]) -> String {
    // `%20` and not `+`: in a fragment only the former is understood by everyone.
    // `~` is unreserved (RFC 3986 §2.3), and apps compare their state as text.
    let encoded = |text: &str| {
        let encoded: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
        encoded.replace('+', "%20").replace("%7E", "~")
    };
    let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::client::ClientMetadata;
    use crate::protocol::ids::ClientId;

    fn client(redirect_uris: &[&str]) -> Client {
        let redirect_uris = redirect_uris.iter().map(|uri| (*uri).to_owned()).collect();
        let metadata = ClientMetadata { redirect_uris, ..ClientMetadata::default() };
        Client { id: ClientId::new("app"), metadata, disabled_at: None }
    }

    fn target(uri: &str, mode: ResponseMode) -> RedirectTarget {
        RedirectTarget::verify(&client(&[uri]), Some(uri), mode, Some("a b\r\n&~"), "https://id.test").unwrap()
    }

    #[test]
    fn requested_addresses_are_compared_byte_for_byte() {
        let registered = "https://app.test/cb";
        assert!(matches(registered, registered));
        for requested in [
            "https://app.test.evil/cb",
            "https://app.test/cb/x",
            "https://app.test/cb?x=1",
            "https://app.test/cb/",
            "HTTPS://app.test/cb",
            "https://app.test/CB",
            "https://app.test/%63b",
            "https://app.test/x/%2e%2e/cb",
            "https://app.test/cb/..;/x",
            "https://app.test/%2563b",
            "https://app.test@evil/cb",
            "https://app.test\\@evil/cb",
            "https://evil\\.app.test/cb",
            "https://app.test/cb#",
            "https://app.test/cb#x",
            "https://app.test:443/cb",
            " https://app.test/cb",
            "https://app.test/cb\0",
            "",
        ] {
            assert!(!matches(registered, requested), "{requested}");
        }
    }

    #[test]
    fn only_the_port_of_a_literal_loopback_address_is_free() {
        for (registered, requested, expected) in [
            ("http://127.0.0.1/cb", "http://127.0.0.1:51004/cb", true),
            ("http://127.0.0.1:8000/cb", "http://127.0.0.1:51004/cb", true),
            ("http://[::1]/cb?a=1", "http://[::1]:1/cb?a=1", true),
            ("http://127.0.0.1/cb", "http://127.0.0.1.evil/cb", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1@evil/cb", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:80@evil/cb", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:/cb", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:0/cb", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:99999/cb", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:1/other", false),
            ("http://127.0.0.1/cb", "https://127.0.0.1:1/cb", false),
            ("http://127.0.0.1/cb", "http://0x7f.1/cb", false),
            ("http://127.0.0.1/cb", "http://[::1]:1/cb", false),
            ("http://localhost/cb", "http://localhost:1/cb", false),
            ("http://localhost.evil/cb", "http://localhost/cb", false),
            ("https://127.0.0.1/cb", "https://127.0.0.1:1/cb", false),
        ] {
            assert_eq!(matches(registered, requested), expected, "{registered} {requested}");
        }
    }

    #[test]
    fn what_may_be_registered() {
        for (uri, public, allowed) in [
            ("https://app.test/cb", true, true),
            ("https://app.test/cb?tenant=1", true, true),
            ("http://localhost:3000/cb", true, true),
            ("http://127.0.0.1/cb", true, true),
            ("http://app.test/cb", false, true),
            ("http://app.test/cb", true, false),
            ("com.example.app:/cb", true, true),
            ("cursor://x.y/cb", true, true),
            ("com.example.app:", true, false),
            ("https://app.test/cb#x", false, false),
            ("https://app.test/cb#", false, false),
            ("https://user@app.test/cb", false, false),
            ("https://app.test/a/../cb", false, false),
            ("https://app.test/a/%2e%2E/cb", false, false),
            ("https://*.app.test/cb", false, false),
            ("https://app.test\\cb", false, false),
            ("https://app.test/c b", false, false),
            ("/cb", false, false),
            ("", false, false),
            ("javascript:alert(1)", false, false),
            ("JavaScript:alert(1)", false, false),
            ("data:text/html,x", true, false),
            ("vbscript:x", true, false),
            ("file:///etc/passwd", true, false),
            ("blob:https://app.test/x", true, false),
        ] {
            assert_eq!(check_registrable(uri, public).is_ok(), allowed, "{uri}");
        }
    }

    #[test]
    fn an_absent_address_falls_back_to_the_only_one() {
        let verify = |client: &Client| RedirectTarget::verify(client, None, ResponseMode::Query, None, "i");
        assert_eq!(verify(&client(&["https://a.test/"])).map(|t| t.redirect_uri), Ok("https://a.test/".to_owned()));
        assert_eq!(verify(&client(&["https://a.test/", "https://b.test/"])), Err(Unregistered::Missing));
        assert_eq!(verify(&client(&[])), Err(Unregistered::Missing));
    }

    #[test]
    fn answers_keep_the_registered_query_and_cannot_break_out_of_a_header() {
        let fields = "code=x&state=a%20b%0D%0A%26~&iss=https%3A%2F%2Fid.test";
        for (uri, mode, expected) in [
            ("https://a.test/cb", ResponseMode::Query, format!("https://a.test/cb?{fields}")),
            ("https://a.test/cb?t=1", ResponseMode::Query, format!("https://a.test/cb?t=1&{fields}")),
            ("https://a.test/cb?", ResponseMode::Query, format!("https://a.test/cb?{fields}")),
            ("https://a.test/cb?t=1", ResponseMode::Fragment, format!("https://a.test/cb?t=1#{fields}")),
        ] {
            assert_eq!(target(uri, mode).code("x".to_owned()), AuthorizationResponse::Redirect(expected));
        }
        let AuthorizationResponse::FormPost { action, fields } =
            target("https://a.test/cb", ResponseMode::FormPost).error(&Error::access_denied("no"))
        else {
            panic!("a form")
        };
        assert_eq!(action, "https://a.test/cb");
        assert_eq!(fields.iter().map(|(n, _)| *n).collect::<Vec<_>>(), ["error", "error_description", "state", "iss"]);
    }
}
