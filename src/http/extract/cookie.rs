//! Cookies (RFC 6265bis): reading them so that a planted twin is noticed, and writing them so that none can be
//! planted where the browser helps (`__Host-` on https).

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

use crate::protocol::time::Span;

/// A cookie of ours.
#[derive(Clone, Copy, Debug)]
pub struct Cookie {
    name: &'static str,
    /// For all hosts of a domain, and not for this one alone.
    shared: bool,
}

/// The session's secret.
pub const SESSION: Cookie = Cookie { name: "keyward_session", shared: false };
/// What form tokens are bound to; it says nothing about who somebody is.
pub const BROWSER: Cookie = Cookie { name: "keyward_browser", shared: false };
/// Who signed in with this browser before, told to nobody but us.
pub const DEVICE: Cookie = Cookie { name: "keyward_device", shared: false };
/// What gateways on other hosts take in the place of the session's secret.
pub const GATEWAY: Cookie = Cookie { name: "keyward_gateway", shared: true };

impl Cookie {
    /// The name on the wire: `__Host-` binds it to this host, https and the path `/`, `__Secure-` to https.
    fn wire_name(self, secure: bool) -> String {
        match (secure, self.shared) {
            (false, _) => self.name.to_owned(),
            (true, false) => format!("__Host-{}", self.name),
            (true, true) => format!("__Secure-{}", self.name),
        }
    }

    /// The value; `None` where the cookie is absent or there are two of it, one of which somebody else set.
    pub fn read(self, headers: &HeaderMap, secure: bool) -> Option<String> {
        let name = self.wire_name(secure);
        let pairs =
            headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(';'));
        let mut values = pairs.filter_map(|pair| pair.trim().split_once('=')).filter(|(own, _)| *own == name);
        match (values.next(), values.next()) {
            (Some((_, value)), None) if !value.is_empty() => Some(value.to_owned()),
            _ => None,
        }
    }

    /// All values: one that proves itself is told from those that others have set.
    pub fn read_all(self, headers: &HeaderMap, secure: bool) -> Vec<String> {
        let name = self.wire_name(secure);
        let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
        let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.filter(|(own, _)| *own == name).map(|(_, value)| value.to_owned()).collect()
    }

    /// `Set-Cookie`. Without `max_age` it ends with the browser. Values are base64url and need no quoting.
    pub fn set(self, value: &str, max_age: Option<Span>, secure: bool) -> Option<HeaderValue> {
        self.write(value, "", max_age, secure)
    }

    pub fn remove(self, secure: bool) -> Option<HeaderValue> {
        self.set("", Some(Span::ZERO), secure)
    }

    /// `Set-Cookie` for all hosts of `domain`, over https only.
    pub fn set_for(self, domain: &str, value: &str, max_age: Span) -> Option<HeaderValue> {
        self.write(value, &format!("; Domain={domain}"), Some(max_age), true)
    }

    pub fn remove_for(self, domain: &str) -> Option<HeaderValue> {
        self.set_for(domain, "", Span::ZERO)
    }

    fn write(self, value: &str, domain: &str, max_age: Option<Span>, secure: bool) -> Option<HeaderValue> {
        let name = self.wire_name(secure);
        let age = max_age.map(|age| format!("; Max-Age={}", age.secs())).unwrap_or_default();
        let secure = if secure { "; Secure" } else { "" };
        HeaderValue::from_str(&format!("{name}={value}{domain}; Path=/; HttpOnly; SameSite=Lax{age}{secure}")).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str], secure: bool) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, line.parse().unwrap());
        }
        SESSION.read(&headers, secure)
    }

    #[test]
    fn a_cookie_that_comes_twice_is_not_believed() {
        assert_eq!(read(&["a=b; keyward_session=x"], false).as_deref(), Some("x"));
        assert_eq!(read(&["a=b", "keyward_session=x"], false).as_deref(), Some("x"));
        assert_eq!(read(&["keyward_session=x; keyward_session=y"], false), None);
        assert_eq!(read(&["keyward_session=x", "keyward_session=y"], false), None);
        assert_eq!(read(&["keyward_session="], false), None);
        assert_eq!(read(&["keyward_session=x"], true), None);
        assert_eq!(read(&["__Host-keyward_session=x; keyward_session=y"], true).as_deref(), Some("x"));
    }

    #[test]
    fn https_cookies_bear_every_protection() {
        let header = SESSION.set("x", Some(Span::days(1)), true).unwrap();
        let text = header.to_str().unwrap();
        assert_eq!(text, "__Host-keyward_session=x; Path=/; HttpOnly; SameSite=Lax; Max-Age=86400; Secure");
        let header = GATEWAY.set_for("example.com", "x", Span::days(1)).unwrap();
        let text = header.to_str().unwrap();
        let expected =
            "__Secure-keyward_gateway=x; Domain=example.com; Path=/; HttpOnly; SameSite=Lax; Max-Age=86400; Secure";
        assert_eq!(text, expected);
    }
}
