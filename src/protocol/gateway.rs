//! What a gateway is told about a request before it hands it on (`/forward-auth/*`): which answer follows from the
//! mode of the route, the credential and what the route asks of it, and the headers that name the person. Gateways
//! know three answers, 2xx, 401 and 403; who sent the request is a fact that the shell brings.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use url::{Url, form_urlencoded};

use super::client::wire_enum;
use super::scope::ScopeSet;
use super::time::Span;
use super::user::User;

wire_enum! {
    /// What a route wants of its visitors; the last part of the path.
    pub enum Mode {
        /// Everybody comes in, and nobody is looked at.
        Public = "public",
        /// Everybody comes in, some by name.
        Optional = "optional",
        /// Only who shows a credential comes in.
        Required = "required",
    }
}

wire_enum! {
    /// What somebody came in with.
    pub enum Method {
        ApiKey = "api_key",
        Token = "token",
        Cookie = "cookie",
    }
}

/// What a route asks of a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirement {
    /// All of these.
    pub scope: ScopeSet,
    /// The resource that the route belongs to; `None`: no resource of its own.
    pub audience: Option<String>,
}

impl Requirement {
    /// The query of a route. It was written by whoever configured the gateway: a name that says nothing, a value that
    /// is empty or there twice is a mistake that would open the route, so all of them are refused.
    pub fn parse(query: &str) -> Result<Self, Misconfigured> {
        let (mut scope, mut audience) = (None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let slot = match &*name {
                "scope" => &mut scope,
                "audience" => &mut audience,
                _ => return Err(Misconfigured::Parameter),
            };
            let text = value.trim_matches(' ').to_owned();
            if text.is_empty() || text.contains([char::REPLACEMENT_CHARACTER, '\0']) || slot.replace(text).is_some() {
                return Err(Misconfigured::Value);
            }
        }
        let scope = scope.map(|scope: String| scope.parse()).transpose().map_err(|_| Misconfigured::Value)?;
        Ok(Self { scope: scope.unwrap_or_default(), audience })
    }

    /// What a live credential lacks, if anything.
    fn lacking(&self, holder: &Holder<'_>, issuer: &str) -> Option<Trouble> {
        let fits = match (&holder.audience, self.audience.as_deref()) {
            (None, _) => true,
            (Some(own), Some(audience)) => own.contains(&audience),
            // What was made for a resource is for that resource, and for us who made it: whoever runs the resource
            // must not get in here with what it is shown there.
            (Some(own), None) => own.iter().all(|own| *own == issuer) && !own.is_empty(),
        };
        match fits {
            false => Some(Trouble::InvalidAudience),
            true => (!self.scope.is_subset(&holder.scope)).then_some(Trouble::InsufficientScope),
        }
    }
}

/// A route that was not configured as it could have been meant. It opens to nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misconfigured {
    #[error("the path ends with public, optional or required")]
    Mode,
    #[error("the query may hold scope and audience, and nothing else")]
    Parameter,
    #[error("scope and audience stand once and are not empty; scopes are separated by spaces")]
    Value,
}

/// Why a credential does not let anybody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Two of them, or one that cannot be read.
    InvalidRequest,
    InvalidToken,
    TokenExpired,
    /// Whatever is wrong with the key.
    InvalidApiKey,
    /// A cookie whose session ended.
    InvalidSession,
    /// A cookie on a request of another site that would change something.
    ForeignOrigin,
    /// A bad key, like many others from there.
    TooManyAttempts {
        retry_after: Span,
    },
    InsufficientScope,
    /// It is for another resource.
    InvalidAudience,
}

impl Trouble {
    /// The word in `X-Auth-Error`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidToken => "invalid_token",
            Self::TokenExpired => "token_expired",
            Self::InvalidApiKey => "invalid_api_key",
            Self::InvalidSession => "invalid_session",
            Self::ForeignOrigin => "foreign_origin",
            Self::TooManyAttempts { .. } => "too_many_attempts",
            Self::InsufficientScope => "insufficient_scope",
            Self::InvalidAudience => "invalid_audience",
        }
    }

    /// For the developer who meets it, in the characters of RFC 6750 §3.
    pub const fn description(self) -> &'static str {
        match self {
            Self::InvalidRequest => "more than one credential was sent",
            Self::InvalidToken => "the access token is unknown or revoked",
            Self::TokenExpired => "the access token has expired",
            Self::InvalidApiKey => "the API key is unknown, expired or revoked, or not for direct use",
            Self::InvalidSession => "the session has ended",
            Self::ForeignOrigin => "a request with a cookie that changes something must come from the site itself",
            Self::TooManyAttempts { .. } => "too many bad API keys came from this network; wait a while",
            Self::InsufficientScope => "the credential lacks a scope",
            Self::InvalidAudience => "the credential is for another resource",
        }
    }

    /// The error code of the challenge (RFC 6750 §3.1); `None` where there was no bearer credential to speak of.
    pub const fn challenge(self) -> Option<&'static str> {
        match self {
            Self::InvalidRequest => Some("invalid_request"),
            Self::InvalidToken | Self::TokenExpired | Self::InvalidApiKey => Some("invalid_token"),
            Self::InsufficientScope | Self::InvalidAudience => Some("insufficient_scope"),
            Self::InvalidSession | Self::ForeignOrigin | Self::TooManyAttempts { .. } => None,
        }
    }

    /// Whether another credential is what helps (401), or nothing that the visitor could show (403).
    const fn is_of_the_credential(self) -> bool {
        match self {
            Self::InvalidRequest
            | Self::InvalidToken
            | Self::TokenExpired
            | Self::InvalidApiKey
            | Self::InvalidSession => true,
            Self::ForeignOrigin | Self::TooManyAttempts { .. } | Self::InsufficientScope | Self::InvalidAudience => {
                false
            }
        }
    }
}

/// Who showed a live credential, and how far it reaches.
#[derive(Clone, Debug)]
pub struct Holder<'a> {
    pub method: Method,
    /// `sub`: of a person, or of a client whose own token it is.
    pub subject: &'a str,
    pub user: Option<&'a User>,
    /// As far as the person may still have it.
    pub scope: Cow<'a, ScopeSet>,
    /// What it is for; `None`: bound to nothing.
    pub audience: Option<Vec<&'a str>>,
    /// The client that a token was issued to.
    pub client: Option<&'a str>,
    /// Whose person it is, or whose own client.
    pub partner: Option<&'a str>,
    /// The API key that it is or came from.
    pub key_id: Option<&'a str>,
}

/// The answer.
#[derive(Clone, Debug)]
pub enum Verdict<'a> {
    /// 200.
    User(Holder<'a>),
    /// 200, with what was wrong with the credential, if there was one.
    Guest(Option<Trouble>),
    /// 401; `None`: there was no credential.
    Unauthorized(Option<Trouble>),
    /// 403.
    Forbidden(Trouble),
}

impl Verdict<'_> {
    pub const fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::User(_) => None,
            Self::Guest(trouble) | Self::Unauthorized(trouble) => *trouble,
            Self::Forbidden(trouble) => Some(*trouble),
        }
    }
}

/// Decides about a request. On a public route nothing is presented, whatever was sent.
pub fn decide<'a>(
    mode: Mode,
    presented: Result<Option<Holder<'a>>, Trouble>,
    requirement: &Requirement,
    issuer: &str,
) -> Verdict<'a> {
    let judged = presented.and_then(|holder| match holder {
        None => Ok(None),
        Some(holder) => requirement.lacking(&holder, issuer).map_or(Ok(Some(holder)), Err),
    });
    match (mode, judged) {
        (Mode::Public, _) | (Mode::Optional, Ok(None)) => Verdict::Guest(None),
        (Mode::Optional | Mode::Required, Ok(Some(holder))) => Verdict::User(holder),
        (Mode::Optional, Err(trouble)) => Verdict::Guest(Some(trouble)),
        (Mode::Required, Ok(None)) => Verdict::Unauthorized(None),
        (Mode::Required, Err(trouble)) if trouble.is_of_the_credential() => Verdict::Unauthorized(Some(trouble)),
        (Mode::Required, Err(trouble)) => Verdict::Forbidden(trouble),
    }
}

/// Every header of an answer. All of them stand in each, empty where there is nothing to say, so that a gateway which
/// copies them always puts ours in the place of what a visitor sent.
pub const HEADERS: [&str; 12] = [
    "x-auth-status",
    "x-auth-subject",
    "x-auth-username",
    "x-auth-email",
    "x-auth-email-verified",
    "x-auth-scopes",
    "x-auth-client",
    "x-auth-method",
    "x-auth-partner",
    "x-auth-external-id",
    "x-auth-key-id",
    "x-auth-error",
];

/// What cannot stand in a header or would be taken apart there; beyond ASCII everything is encoded anyway.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b',');

/// A value as UTF-8 in percent-encoding (RFC 3986 §2.1).
fn encoded(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, ENCODED).into()
}

/// The values of [`HEADERS`], in their order.
pub fn headers<'a>(verdict: &'a Verdict<'a>) -> [Cow<'a, str>; HEADERS.len()] {
    let error = verdict.trouble().map_or("", Trouble::code);
    let Verdict::User(holder) = verdict else {
        let mut values = [const { Cow::Borrowed("") }; HEADERS.len()];
        values[0] = "guest".into();
        values[HEADERS.len() - 1] = error.into();
        return values;
    };
    let text = |value: Option<&'a str>| value.map_or(Cow::Borrowed(""), encoded);
    let told = |scope: &str| holder.user.filter(|_| holder.scope.contains(scope));
    let email = told("email").and_then(|user| Some((user.email.as_deref()?, user.email_verified)));
    [
        "user".into(),
        encoded(holder.subject),
        text(told("profile").and_then(|user| user.username.as_deref())),
        text(email.map(|(email, _)| email)),
        email.map_or("", |(_, verified)| if verified { "true" } else { "false" }).into(),
        // Scope tokens are what may stand in a header, and none has a space (RFC 6749 §3.3).
        holder.scope.to_string().into(),
        text(holder.client),
        holder.method.as_str().into(),
        text(holder.partner),
        text(holder.user.and_then(|user| user.external_id.as_deref())),
        text(holder.key_id),
        error.into(),
    ]
}

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
    use super::super::grant::tests::user;
    use super::*;
    use crate::protocol::ids::ClientId;

    const ISSUER: &str = "https://id.test";
    const QUIZ: &str = "https://quiz.test";

    fn set(text: &str) -> ScopeSet {
        text.parse().unwrap()
    }

    fn holder(scope: &str, audience: Option<&[&'static str]>) -> Holder<'static> {
        Holder {
            method: Method::Token,
            subject: "alice-id",
            user: None,
            scope: Cow::Owned(set(scope)),
            audience: audience.map(<[_]>::to_vec),
            client: Some("web"),
            partner: None,
            key_id: None,
        }
    }

    /// The status with the word in `X-Auth-Error`.
    fn told(verdict: &Verdict<'_>) -> String {
        let status = match verdict {
            Verdict::User(_) => "user",
            Verdict::Guest(_) => "guest",
            Verdict::Unauthorized(_) => "401",
            Verdict::Forbidden(_) => "403",
        };
        format!("{status} {}", verdict.trouble().map_or("", Trouble::code)).trim_end().to_owned()
    }

    #[test]
    fn the_answer_follows_from_the_mode_and_the_credential() {
        let throttled = Trouble::TooManyAttempts { retry_after: Span::minutes(1) };
        for (presented, optional, required) in [
            (Ok(None), "guest", "401"),
            (Ok(Some(holder("quiz.read email", None))), "user", "user"),
            (Ok(Some(holder("email", None))), "guest insufficient_scope", "403 insufficient_scope"),
            (Err(Trouble::InvalidRequest), "guest invalid_request", "401 invalid_request"),
            (Err(Trouble::InvalidToken), "guest invalid_token", "401 invalid_token"),
            (Err(Trouble::TokenExpired), "guest token_expired", "401 token_expired"),
            (Err(Trouble::InvalidApiKey), "guest invalid_api_key", "401 invalid_api_key"),
            (Err(Trouble::InvalidSession), "guest invalid_session", "401 invalid_session"),
            (Err(Trouble::ForeignOrigin), "guest foreign_origin", "403 foreign_origin"),
            (Err(throttled), "guest too_many_attempts", "403 too_many_attempts"),
        ] {
            let requirement = Requirement { scope: set("quiz.read"), audience: None };
            let decide = |mode| told(&super::decide(mode, presented.clone(), &requirement, ISSUER));
            assert_eq!(decide(Mode::Public), "guest", "{presented:?}");
            assert_eq!(decide(Mode::Optional), optional, "{presented:?}");
            assert_eq!(decide(Mode::Required), required, "{presented:?}");
        }
    }

    #[test]
    fn a_credential_for_one_resource_opens_no_other() {
        for (own, asked, fits) in [
            (None, None, true),
            (None, Some(QUIZ), true),
            (Some(&[ISSUER][..]), None, true),
            (Some(&[ISSUER]), Some(QUIZ), false),
            (Some(&[ISSUER]), Some(ISSUER), true),
            (Some(&[QUIZ]), Some(QUIZ), true),
            (Some(&[QUIZ]), None, false),
            (Some(&[QUIZ]), Some(ISSUER), false),
            (Some(&[QUIZ, ISSUER]), Some(QUIZ), true),
            (Some(&[QUIZ, ISSUER]), None, false),
            (Some(&[QUIZ, ISSUER]), Some(ISSUER), true),
            (Some(&[QUIZ]), Some("https://quiz.test/"), false),
            (Some(&[]), None, false),
        ] {
            let requirement = Requirement { audience: asked.map(str::to_owned), ..Requirement::default() };
            let verdict = decide(Mode::Required, Ok(Some(holder("email", own))), &requirement, ISSUER);
            assert_eq!(told(&verdict), if fits { "user" } else { "403 invalid_audience" }, "{own:?} {asked:?}");
        }
    }

    #[test]
    fn a_route_that_could_be_meant_otherwise_opens_to_nobody() {
        let requirement = |scope: &str, audience: Option<&str>| Requirement {
            scope: set(scope),
            audience: audience.map(str::to_owned),
        };
        for (query, expected) in [
            ("", Ok(requirement("", None))),
            ("scope=quiz.read", Ok(requirement("quiz.read", None))),
            ("scope=quiz.read+email", Ok(requirement("quiz.read email", None))),
            ("scope=quiz.read%20email", Ok(requirement("quiz.read email", None))),
            ("audience=https://quiz.test", Ok(requirement("", Some(QUIZ)))),
            ("scope=a&audience=https%3A%2F%2Fquiz.test", Ok(requirement("a", Some(QUIZ)))),
            ("scopes=a", Err(Misconfigured::Parameter)),
            ("scope=a&rd=x", Err(Misconfigured::Parameter)),
            ("Scope=a", Err(Misconfigured::Parameter)),
            ("scope", Err(Misconfigured::Value)),
            ("scope=", Err(Misconfigured::Value)),
            ("scope=+", Err(Misconfigured::Value)),
            ("audience=", Err(Misconfigured::Value)),
            ("scope=a&scope=b", Err(Misconfigured::Value)),
            ("audience=a&audience=a", Err(Misconfigured::Value)),
            ("scope=%22", Err(Misconfigured::Value)),
            ("scope=%FF", Err(Misconfigured::Value)),
            ("audience=%00", Err(Misconfigured::Value)),
        ] {
            assert_eq!(Requirement::parse(query), expected, "{query}");
        }
    }

    #[test]
    fn a_credential_tells_of_its_person_what_its_scopes_tell() {
        let person = User {
            username: Some("alice".to_owned()),
            email: Some("alice@example.com".to_owned()),
            partner: Some(ClientId::new("acme")),
            external_id: Some("user_123".to_owned()),
            ..user()
        };
        let told = |scope: &str, header: &str| {
            let holder = Holder { user: Some(&person), partner: Some("acme"), ..holder(scope, None) };
            let verdict = Verdict::User(holder);
            let at = HEADERS.iter().position(|name| *name == header).unwrap();
            headers(&verdict)[at].clone().into_owned()
        };
        for (scope, header, expected) in [
            ("openid", "x-auth-username", ""),
            ("profile", "x-auth-username", "alice"),
            ("openid", "x-auth-email", ""),
            ("email", "x-auth-email", "alice@example.com"),
            ("openid", "x-auth-email-verified", ""),
            ("openid email", "x-auth-scopes", "openid email"),
            ("openid", "x-auth-status", "user"),
            ("openid", "x-auth-subject", "alice-id"),
            ("openid", "x-auth-external-id", "user_123"),
            ("openid", "x-auth-partner", "acme"),
            ("openid", "x-auth-error", ""),
        ] {
            assert_eq!(told(scope, header), expected, "{scope} {header}");
        }
    }

    #[test]
    fn nothing_that_a_person_is_called_leaves_its_header() {
        for (text, expected) in [
            ("alice", "alice"),
            ("a\r\nX-Auth-Subject: root", "a%0D%0AX-Auth-Subject:%20root"),
            ("Zoë", "Zo%C3%AB"),
            ("100%", "100%25"),
            ("a,b", "a%2Cb"),
            (" a ", "%20a%20"),
            ("\u{7f}\u{0}", "%7F%00"),
            ("\u{2028}", "%E2%80%A8"),
        ] {
            assert_eq!(encoded(text), expected, "{text:?}");
        }
    }

    #[test]
    fn whoever_is_not_let_in_by_name_has_no_name() {
        for verdict in [Verdict::Guest(None), Verdict::Unauthorized(None), Verdict::Forbidden(Trouble::ForeignOrigin)] {
            let values = headers(&verdict);
            assert_eq!(values[0], "guest");
            assert!(values[1..HEADERS.len() - 1].iter().all(|value| value.is_empty()), "{verdict:?}");
        }
    }

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
