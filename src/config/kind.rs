//! Kinds of values: what each accepts, how it is described to people, and the form in which it goes on. A kind
//! looks at one value alone; `rules.rs` compares them.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use lettre::message::Mailbox;
use toml::Value;
use url::{Host, Url};

use crate::protocol::scope::{self, ScopeSet, is_scope_token};
use crate::protocol::time::Span;
use crate::protocol::user::{canonical_email, checked_username};

use super::database;
use super::error::REDACTED;
use super::issuer::Issuer;
use super::listen::Listen;

/// The words an enumeration accepts, asked of the type that owns them.
type Words = fn() -> Vec<&'static str>;

#[derive(Clone, Copy)]
pub enum Kind {
    /// One line.
    Text,
    /// Text that may have line breaks.
    Lines,
    Bool,
    /// Both bounds included.
    Integer(i64, i64),
    /// Both bounds included.
    Duration(Span, Span),
    Path,
    Secret,
    Strings,
    Choice(Words),
    Choices(Words),
    Issuer,
    Listen,
    Database,
    /// An http or https URL.
    WebUri,
    /// An absolute URI without a fragment (RFC 8707 §2).
    ResourceUri,
    Cidrs,
    Colour,
    /// A scope token that is not one of the standard scopes.
    ScopeName,
    /// Scope tokens separated by spaces (RFC 6749 §3.3).
    Scopes,
    ClientId,
    Username,
    Email,
    /// An address with a name before it, or without (RFC 5322 §3.4).
    Mailbox,
    /// A host's name or address, without a port.
    Host,
    /// A domain that cookies may be set for: no address, no single label.
    CookieDomain,
}

impl PartialEq for Kind {
    /// By kind alone, whatever its bounds or words.
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl Kind {
    /// What is accepted, to complete "must be …".
    pub fn describe(&self) -> String {
        let quoted = |words: &Words| words().iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        match self {
            Self::Integer(least, most) => format!("an integer from {least} to {most}"),
            Self::Duration(least, most) => format!("a duration from {least} to {most}"),
            Self::Choice(words) => format!("one of {}", quoted(words)),
            Self::Choices(words) => format!("an array of {}", quoted(words)),
            fixed => fixed.description().to_owned(),
        }
    }

    const fn description(&self) -> &'static str {
        match self {
            Self::Lines => "text, with line breaks or without",
            Self::Bool => "true or false",
            Self::Path => "a path",
            Self::Secret => "a secret that is not empty",
            Self::Strings => "an array of strings",
            Self::Issuer => "an https URL (http on loopback only) without a trailing slash, query or fragment",
            Self::Listen => "`ip:port`, `localhost:port` or `unix:/path`, or an array of them",
            Self::Database => "`sqlite://path` or `postgres://user@host/database`",
            Self::WebUri => "an http or https URL",
            Self::ResourceUri => "an absolute URI without a fragment",
            Self::Cidrs => "an array of IP addresses and networks, like \"10.0.0.0/8\"",
            Self::Colour => "a colour written #rrggbb",
            Self::ScopeName => "a scope of printable ASCII without spaces that is not one of the standard scopes",
            Self::Scopes => "scopes separated by spaces",
            Self::ClientId => "visible ASCII without spaces",
            Self::Username => "a name without spaces and `@`",
            Self::Email => "an e-mail address",
            Self::Mailbox => "an e-mail address, alone or like `Name <a@example.com>`",
            Self::Host => "a host's name or IP address",
            Self::CookieDomain => {
                "a domain of two labels or more in lower case, without a dot before it, like \"example.com\""
            }
            _ => "a line of text",
        }
    }

    /// Whether the value must not be shown and may come from a file of its own.
    pub const fn holds_secret(&self) -> bool {
        matches!(self, Self::Secret | Self::Database)
    }

    /// The value for people: short, on one line, and without what is secret in it.
    pub fn show(&self, value: &Value) -> String {
        match (self, value) {
            (Self::Secret, _) => REDACTED.to_owned(),
            (Self::Database, Value::String(url)) => format!("\"{}\"", self.redact(url)),
            _ => {
                let text = value.to_string().replace(['\n', '\r'], " ");
                if text.chars().count() > 80 { text.chars().take(79).chain(['…']).collect() } else { text }
            }
        }
    }

    /// What is left of a text of this kind once its secrets are hidden.
    pub fn redact(&self, text: &str) -> String {
        match self {
            Self::Secret => REDACTED.to_owned(),
            Self::Database => database::without_password(text),
            _ => text.to_owned(),
        }
    }

    /// The value in the form in which it goes on (paths beside `base`, lists as arrays), or what to do about it.
    pub fn check(&self, value: &Value, base: &Path) -> Result<Value, String> {
        match self {
            Self::Bool => value.as_bool().map(Value::Boolean),
            Self::Integer(least, most) => {
                value.as_integer().filter(|number| (*least..=*most).contains(number)).map(Value::Integer)
            }
            Self::Listen => self.listen(value, base),
            Self::Strings | Self::Cidrs | Self::Choices(_) => self.list(value, base),
            Self::Issuer => match value.as_str().map(Issuer::parse) {
                Some(Err(error)) => return Err(format!("{error}, not {}", self.show(value))),
                parsed => parsed.and_then(Result::ok).map(|issuer| Value::String(issuer.to_string())),
            },
            _ => value.as_str().and_then(|text| self.text(text, base)).map(Value::String),
        }
        .ok_or_else(|| {
            let example = if matches!(self, Self::Duration(..)) { ", like \"90s\", \"15m\" or \"30d\"" } else { "" };
            format!("must be {}{example}, not {}", self.describe(), self.show(value))
        })
    }

    fn list(&self, value: &Value, base: &Path) -> Option<Value> {
        let texts = value.as_array()?.iter().map(|item| item.as_str().and_then(|text| self.text(text, base)));
        texts.map(|text| text.map(Value::String)).collect::<Option<Vec<_>>>().map(Value::Array)
    }

    fn listen(&self, value: &Value, base: &Path) -> Option<Value> {
        match value {
            Value::String(one) => Some(Value::Array(vec![Value::String(self.text(one, base)?)])),
            Value::Array(items) if !items.is_empty() => self.list(value, base),
            _ => None,
        }
    }

    /// A text of this kind, or one item of a list of this kind.
    fn text(&self, text: &str, base: &Path) -> Option<String> {
        // U+0000 is refused in every string: neither PostgreSQL nor a path can hold it.
        let breaks = matches!(self, Self::Lines | Self::Secret);
        if text.chars().any(|c| c.is_control() && (c == '\0' || !breaks)) {
            return None;
        }
        let accepted = match self {
            Self::Scopes => return text.parse::<ScopeSet>().ok().map(|scopes| scopes.to_string()),
            Self::Path => return (!text.is_empty()).then(|| base.join(text).to_str().map(str::to_owned))?,
            Self::Listen => return Listen::parse(text, base).map(|listen| listen.to_string()),
            Self::Cidrs => return network(text).map(|network| network.to_string()),
            Self::Database => return database::beside(text, base),
            Self::Duration(least, most) => text.parse::<Span>().is_ok_and(|span| *least <= span && span <= *most),
            Self::Choice(words) | Self::Choices(words) => words().contains(&text),
            Self::WebUri => is_web_uri(text),
            // RFC 8707 §2: absolute, no fragment; an empty fragment is one too.
            Self::ResourceUri => Url::parse(text).is_ok() && !text.contains(['#', ' ']),
            Self::Colour => is_colour(text),
            Self::ScopeName => is_scope_token(text) && !scope::STANDARD.contains(&text) && text != scope::PARTNER_USERS,
            Self::ClientId => !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()),
            Self::Username => checked_username(text).is_ok(),
            Self::Email => canonical_email(text).is_ok(),
            Self::Mailbox => text.parse::<Mailbox>().is_ok(),
            Self::Host => {
                text.parse::<IpAddr>().is_ok() || Host::parse(text).is_ok_and(|host| host.to_string() == text)
            }
            Self::CookieDomain => is_cookie_domain(text),
            _ => !text.trim().is_empty(),
        };
        accepted.then(|| text.to_owned())
    }

    /// A value written outside TOML, in a variable or a flag: a list may be comma-separated, a string has no quotes.
    pub fn parse_text(&self, text: &str) -> Value {
        let string = || Value::String(text.to_owned());
        match self {
            Self::Bool => text.parse().map_or_else(|_| string(), Value::Boolean),
            Self::Integer(..) => text.parse().map_or_else(|_| string(), Value::Integer),
            Self::Strings | Self::Cidrs | Self::Choices(_) | Self::Listen if text.trim_start().starts_with('[') => {
                parse_value(text).unwrap_or_else(|| self.comma_separated(text))
            }
            Self::Strings | Self::Cidrs | Self::Choices(_) | Self::Listen => self.comma_separated(text),
            _ => string(),
        }
    }

    fn comma_separated(&self, text: &str) -> Value {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
    }
}

/// One value of TOML text.
pub fn parse_value(text: &str) -> Option<Value> {
    let deserializer = toml::de::ValueDeserializer::parse(text).ok()?;
    serde::Deserialize::deserialize(deserializer).ok()
}

/// A network, or one address as the network that holds it alone; bits beyond the prefix are cleared.
pub fn network(text: &str) -> Option<IpNet> {
    let whole = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse::<IpNet>().ok().map(|network| network.trunc()).or_else(whole)
}

fn is_web_uri(text: &str) -> bool {
    !text.contains(' ') && Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}

/// Which names nobody may share a cookie over (`co.uk`) is for browsers to know, and they refuse those.
fn is_cookie_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(plain) && !label.starts_with('-') && !label.ends_with('-')
    };
    let labels: Vec<&str> = text.split('.').collect();
    let is_address = labels.last().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    labels.len() >= 2 && text.len() <= 253 && labels.into_iter().all(is_label) && !is_address
}

fn is_colour(text: &str) -> bool {
    text.strip_prefix('#').is_some_and(|hex| hex.len() == 6 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::client::{GrantType, SigningAlg};

    /// Checks one value, written in TOML, beside `/etc/keyward`; the answer is TOML too.
    fn check(kind: Kind, toml: &str) -> Option<String> {
        kind.check(&parse_value(toml).expect(toml), Path::new("/etc/keyward")).ok().map(|value| value.to_string())
    }

    #[test]
    fn each_kind_accepts_its_values_in_one_form() {
        let life = Kind::Duration(Span::from_secs(1), Span::minutes(10));
        for (kind, toml, expected) in [
            (Kind::Text, r#""Keyward""#, r#""Keyward""#),
            (Kind::Bool, "true", "true"),
            (Kind::Integer(1, 8), "8", "8"),
            (life, r#""10m""#, r#""10m""#),
            (Kind::Duration(Span::ZERO, Span::minutes(1)), r#""0s""#, r#""0s""#),
            (Kind::Path, r#""data""#, r#""/etc/keyward/data""#),
            (Kind::Path, r#""/data""#, r#""/data""#),
            (Kind::Strings, r#"["a", "b"]"#, r#"["a", "b"]"#),
            (Kind::Listen, r#""127.0.0.1:1""#, r#"["127.0.0.1:1"]"#),
            (Kind::Listen, r#"["127.0.0.1:1", "unix:s"]"#, r#"["127.0.0.1:1", "unix:/etc/keyward/s"]"#),
            (Kind::Database, r#""sqlite://data/k.db""#, r#""sqlite:///etc/keyward/data/k.db""#),
            (Kind::Database, r#""postgresql://u:p@h/d""#, r#""postgresql://u:p@h/d""#),
            (Kind::Cidrs, r#"["10.1.2.3/8", "::1", "192.0.2.1"]"#, r#"["10.0.0.0/8", "::1/128", "192.0.2.1/32"]"#),
            (Kind::Colour, r##""#3d5AFE""##, r##""#3d5AFE""##),
            (Kind::Scopes, r#""openid  email""#, r#""openid email""#),
            (Kind::ScopeName, r#""urn:x:y""#, r#""urn:x:y""#),
            (Kind::ResourceUri, r#""urn:x:y""#, r#""urn:x:y""#),
            (Kind::Mailbox, r#""Keyward <a@b.test>""#, r#""Keyward <a@b.test>""#),
            (Kind::Mailbox, r#""a@b.test""#, r#""a@b.test""#),
            (Kind::Host, r#""smtp.b.test""#, r#""smtp.b.test""#),
            (Kind::Host, r#""::1""#, r#""::1""#),
            (one(), r#""ES256""#, r#""ES256""#),
            (Kind::CookieDomain, r#""xn--bcher-kva.example""#, r#""xn--bcher-kva.example""#),
        ] {
            assert_eq!(check(kind, toml).as_deref(), Some(expected), "{toml}");
        }
    }

    fn one() -> Kind {
        Kind::Choice(|| SigningAlg::ALL.iter().map(|alg| alg.as_str()).collect())
    }

    #[test]
    fn each_kind_refuses_the_rest() {
        let life = Kind::Duration(Span::from_secs(1), Span::minutes(10));
        for (kind, toml) in [
            (Kind::Text, "\"\""),
            (Kind::Text, "\"a\\nb\""),
            (Kind::Lines, "\"a\\u0000b\""),
            (Kind::Secret, "\"\""),
            (Kind::Text, "1"),
            (Kind::Bool, r#""true""#),
            (Kind::Integer(1, 8), "0"),
            (Kind::Integer(1, 8), "9"),
            (Kind::Integer(1, 8), r#""8""#),
            (life, r#""0s""#),
            (life, r#""601s""#),
            (life, r#""10""#),
            (life, "600"),
            (Kind::Path, r#""""#),
            (Kind::Strings, r#""a""#),
            (Kind::Strings, r#"["a", 1]"#),
            (Kind::Listen, "[]"),
            (Kind::Listen, "8080"),
            (Kind::Database, r#""sqlite:keyward.db""#),
            (Kind::Database, r#""sqlite://""#),
            (Kind::Database, r#""sqlite:///var/k.db?mode=rwc""#),
            (Kind::Database, r#""sqlite://:memory:""#),
            (Kind::Database, r#""mysql://h/d""#),
            (Kind::Database, r#""keyward.db""#),
            (Kind::Cidrs, r#"["10.0.0.0/33"]"#),
            (Kind::Cidrs, r#"["localhost"]"#),
            (Kind::Colour, r#""red""#),
            (Kind::Colour, r##""#fff""##),
            (Kind::Scopes, r#""a\\b""#),
            (Kind::ScopeName, r#""openid""#),
            (Kind::ScopeName, r#""a b""#),
            (Kind::ResourceUri, r#""https://a/#x""#),
            (Kind::ResourceUri, r#""/relative""#),
            (Kind::WebUri, r#""javascript:alert(1)""#),
            (Kind::ClientId, r#""a b""#),
            (Kind::ClientId, r#""é""#),
            (Kind::Username, r#""a@b""#),
            (Kind::Email, r#""alice""#),
            (Kind::Mailbox, r#""Keyward""#),
            (Kind::Mailbox, r#""Keyward <a@b.test>\nBcc: c@d.test""#),
            (Kind::Host, r#""smtp.b.test:25""#),
            (Kind::Host, r#""smtp://b.test""#),
            (Kind::Host, r#""a b""#),
            (Kind::CookieDomain, r#""com""#),
            (Kind::CookieDomain, r#"".example.com""#),
            (Kind::CookieDomain, r#""example.com.""#),
            (Kind::CookieDomain, r#""Example.com""#),
            (Kind::CookieDomain, r#""192.0.2.1""#),
            (Kind::CookieDomain, r#""example.com; Path=/x""#),
            (Kind::CookieDomain, r#""-a.example.com""#),
            (one(), r#""none""#),
        ] {
            assert_eq!(check(kind, toml), None, "{toml}");
        }
    }

    #[test]
    fn a_refusal_names_the_value_and_the_words_that_would_do() {
        let grants = Kind::Choices(|| GrantType::ALL.iter().map(|grant| grant.as_str()).collect());
        let error = grants.check(&parse_value(r#"["implicit"]"#).expect("TOML"), Path::new("")).expect_err("refused");
        assert!(error.contains("\"authorization_code\", \"refresh_token\""), "{error}");
        assert!(error.ends_with(r#"not ["implicit"]"#), "{error}");
    }

    #[test]
    fn no_secret_is_shown() {
        let url = Value::String("postgres://keyward:hunter2@db/keyward".to_owned());
        assert!(!Kind::Secret.show(&url).contains("hunter2"));
        assert_eq!(Kind::Database.show(&url), "\"postgres://keyward:redacted@db/keyward\"");
    }
}
