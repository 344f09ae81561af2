//! The issuer identifier (OpenID Connect Discovery §3, RFC 8414 §2). Relying parties compare it byte for byte, so
//! only the one spelling that every URL library leaves alone is accepted.

use std::fmt;

use serde::Deserialize;
use url::{Host, Url};

/// An issuer in its canonical spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Issuer(String);

impl Issuer {
    /// The error says what is wrong and, where there is one, which spelling would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("must be a URL without white space".to_owned());
        }
        let url = Url::parse(text).map_err(|error| format!("is not a URL ({error}); write {EXAMPLE}"))?;
        let Some(host) = url.host().filter(|_| matches!(url.scheme(), "http" | "https")) else {
            return Err(format!("must be an https URL; write {EXAMPLE}"));
        };
        let spelling = canonical(&url);
        if url.scheme() == "http" && !is_loopback(&host) {
            let secure = spelling.replacen("http", "https", 1);
            return Err(format!("may use http on loopback hosts only; write \"{secure}\""));
        }
        if text.contains('%') || spelling.contains('%') {
            return Err("must not need percent-encoding; use plain ASCII letters in its path".to_owned());
        }
        if text != spelling {
            return Err(format!("{}; write \"{spelling}\"", difference(text, &url)));
        }
        Ok(Self(spelling))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }

    /// Scheme, host and port (RFC 6454 §6.2), as browsers send it in `Origin`.
    pub fn origin(&self) -> &str {
        self.split().0
    }

    /// The host without its port; an IPv6 address stands in brackets.
    pub fn host(&self) -> &str {
        let authority = self.origin().split_once("://").map_or("", |(_, authority)| authority);
        let end = authority.rfind(':').filter(|at| *at > authority.rfind(']').unwrap_or(0));
        end.map_or(authority, |end| &authority[..end])
    }

    /// What follows the origin: empty, or `/realms/a`.
    pub fn path(&self) -> &str {
        self.split().1
    }

    fn split(&self) -> (&str, &str) {
        let host = self.0.find("://").map_or(0, |at| at + 3);
        let end = self.0[host..].find('/').map_or(self.0.len(), |at| host + at);
        self.0.split_at(end)
    }
}

const EXAMPLE: &str = "it like \"https://id.example.com\"";

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Issuer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

fn canonical(url: &Url) -> String {
    let origin = url.origin().ascii_serialization();
    format!("{origin}{}", url.path().trim_end_matches('/'))
}

fn difference(text: &str, url: &Url) -> &'static str {
    // The parser hides an empty user and `?` alone, so the text itself is looked at.
    let authority = text.split("://").nth(1).and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    if authority.contains('@') {
        "must not hold a user name or password"
    } else if text.contains('?') {
        "must not have a query"
    } else if text.contains('#') {
        "must not have a fragment"
    } else if text.ends_with('/') {
        "must not end with a slash"
    } else if url.port().is_none() && authority.rsplit_once(']').map_or(authority, |(_, port)| port).contains(':') {
        "must not spell out the default port"
    } else {
        "is not in its canonical spelling"
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::Issuer;

    #[test]
    fn a_canonical_issuer_is_kept_byte_for_byte() {
        for (text, origin, host, path) in [
            ("https://id.example.com", "https://id.example.com", "id.example.com", ""),
            ("https://id.example.com:8443", "https://id.example.com:8443", "id.example.com", ""),
            ("https://id.example.com/realms/a", "https://id.example.com", "id.example.com", "/realms/a"),
            ("https://10.0.0.1", "https://10.0.0.1", "10.0.0.1", ""),
            ("http://localhost:8080", "http://localhost:8080", "localhost", ""),
            ("http://127.9.9.9/x", "http://127.9.9.9", "127.9.9.9", "/x"),
            ("http://[::1]:8080/a", "http://[::1]:8080", "[::1]", "/a"),
            ("http://[::1]", "http://[::1]", "[::1]", ""),
        ] {
            let issuer = Issuer::parse(text).expect(text);
            assert_eq!((issuer.as_str(), issuer.origin(), issuer.path()), (text, origin, path));
            assert_eq!(issuer.host(), host);
            assert_eq!(issuer.is_https(), text.starts_with("https"));
        }
    }

    #[test]
    fn the_host_has_no_port() {
        for (text, host) in [
            ("https://id.example.com", "id.example.com"),
            ("https://id.example.com:8443/a", "id.example.com"),
            ("http://[::1]:8080", "[::1]"),
            ("http://[::1]", "[::1]"),
        ] {
            assert_eq!(Issuer::parse(text).expect(text).host(), host);
        }
    }

    #[test]
    fn every_other_spelling_is_refused_with_the_right_one() {
        for (text, reason) in [
            ("", "without white space"),
            (" https://id.example.com", "without white space"),
            ("https://id.example.com\n", "without white space"),
            ("https://id.exa\tmple.com", "without white space"),
            ("id.example.com", "is not a URL"),
            ("https://", "is not a URL"),
            ("ftp://id.example.com", "must be an https URL"),
            ("urn:x", "must be an https URL"),
            ("http://id.example.com", "loopback hosts only; write \"https://id.example.com\""),
            ("http://localhost.example.com", "loopback hosts only"),
            ("http://10.0.0.1:8080", "loopback hosts only"),
            ("http://0.0.0.0:8080", "loopback hosts only"),
            ("http://[::]:8080", "loopback hosts only"),
            ("https://id.example.com/", "end with a slash; write \"https://id.example.com\""),
            ("https://id.example.com/a//", "end with a slash; write \"https://id.example.com/a\""),
            ("https://id.example.com?a=b", "query; write \"https://id.example.com\""),
            ("https://id.example.com/a?", "query; write \"https://id.example.com/a\""),
            ("https://id.example.com#a", "fragment; write \"https://id.example.com\""),
            ("https://id.example.com/a#", "fragment; write \"https://id.example.com/a\""),
            ("https://me:pw@id.example.com", "user name or password; write \"https://id.example.com\""),
            ("https://@id.example.com", "user name or password"),
            ("https://id.example.com:443", "default port; write \"https://id.example.com\""),
            ("https://[2001:db8::1]:443", "default port; write \"https://[2001:db8::1]\""),
            ("http://localhost:80", "default port; write \"http://localhost\""),
            ("https://id.example.com:08443", "canonical spelling; write \"https://id.example.com:8443\""),
            ("https://ID.example.com", "canonical spelling; write \"https://id.example.com\""),
            ("HTTPS://id.example.com", "canonical spelling; write \"https://id.example.com\""),
            ("https:id.example.com", "canonical spelling; write \"https://id.example.com\""),
            ("https:\\\\id.example.com", "canonical spelling"),
            ("https://bücher.example", "canonical spelling; write \"https://xn--bcher-kva.example\""),
            ("https://id.example.com/a/../b", "canonical spelling; write \"https://id.example.com/b\""),
            ("https://id.example.com/./a", "canonical spelling; write \"https://id.example.com/a\""),
            ("https://id.example.com/a\\b", "canonical spelling; write \"https://id.example.com/a/b\""),
            ("https://id.example.com/%61", "percent-encoding"),
            ("https://id.example.com/%2e%2e/a", "percent-encoding"),
            ("https://id%2eexample.com", "percent-encoding"),
            ("https://id.example.com/café", "percent-encoding"),
            ("http://127.1:8080", "canonical spelling; write \"http://127.0.0.1:8080\""),
            ("http://[0:0:0:0:0:0:0:1]", "canonical spelling; write \"http://[::1]\""),
        ] {
            let error = Issuer::parse(text).map(|issuer| issuer.to_string()).expect_err(text);
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }
}
