//! Which requests may use the cookie that came with them: a page of another site can make a browser send one, and the
//! browser says so.

use url::Url;

/// Whether a request by one of these methods only looks (RFC 9110 §9.2.1). There may be more than one: what the gateway
/// asks us by, and what it says the visitor used. One that changes something is enough.
pub fn is_safe<'a>(mut methods: impl Iterator<Item = &'a str>) -> bool {
    methods.all(|method| matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE"))
}

/// Whether a request that changes something may use the cookie that came with it: its page belongs to the site that is
/// protected, or to us. A browser always says where such a request comes from.
pub fn is_own_origin(origin: Option<&str>, issuer_origin: &str, site: Option<&str>) -> bool {
    origin.is_some_and(|origin| origin == issuer_origin || Some(origin) == site)
}

/// The origin (RFC 6454 §6.2) of the site that a gateway protects, from what it says of it.
pub fn site_origin(scheme: &str, host: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '[' | ']');
    if !matches!(scheme, "http" | "https") || host.is_empty() || !host.chars().all(plain) {
        return None;
    }
    Some(Url::parse(&format!("{scheme}://{host}")).ok()?.origin().ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "https://id.test";

    #[test]
    fn a_cookie_changes_something_only_from_its_own_site() {
        let site = site_origin("https", "app.test");
        for (methods, origin, allowed) in [
            (&["GET"][..], None, true),
            (&["HEAD", "GET"], Some("https://evil.test"), true),
            (&["GET", "POST"], None, false),
            (&["POST", "GET"], Some("https://app.test"), true),
            (&["GET", "DELETE"], Some("https://id.test"), true),
            (&["GET", "DELETE"], Some("https://evil.test"), false),
            (&["GET", "PUT"], Some("null"), false),
            (&["GET", "POST"], Some("http://app.test"), false),
            (&["GET", "POST"], Some("https://app.test:8443"), false),
            (&["GET", "BREW"], None, false),
            (&["GET", "get"], None, false),
            (&["GET", ""], None, false),
        ] {
            let found = is_safe(methods.iter().copied()) || is_own_origin(origin, ISSUER, site.as_deref());
            assert_eq!(found, allowed, "{methods:?} {origin:?}");
        }
        assert!(!is_own_origin(Some("https://app.test"), ISSUER, None), "nobody said which site it is");
    }

    #[test]
    fn a_site_is_named_as_browsers_name_it() {
        for (scheme, host, expected) in [
            ("https", "App.Test", Some("https://app.test")),
            ("https", "app.test:443", Some("https://app.test")),
            ("http", "app.test:80", Some("http://app.test")),
            ("https", "app.test:8443", Some("https://app.test:8443")),
            ("http", "[::1]:8080", Some("http://[::1]:8080")),
            ("ws", "app.test", None),
            ("https", "", None),
            ("https", "evil.test, app.test", None),
            ("https", "evil.test/app.test", None),
            ("https", "app.test@evil.test", None),
            ("https", "app.test:x", None),
        ] {
            assert_eq!(site_origin(scheme, host).as_deref(), expected, "{scheme} {host}");
        }
    }
}
