//! What a gateway is told about a request before it hands it on (`/forward-auth/*`): which answer follows from the
//! mode of the route, the credential and what the route asks of it. Gateways know three answers, 2xx, 401 and 403; who
//! sent the request is a fact that the shell brings.

mod headers;
mod origin;

use std::borrow::Cow;

use url::form_urlencoded;

use super::client::wire_enum;
use super::scope::ScopeSet;
use super::time::Span;
use super::user::User;
pub use headers::{HEADERS, headers};
pub use origin::{is_own_origin, is_safe, site_origin};

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

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "https://id.test";
    const QUIZ: &str = "https://quiz.test";

    fn set(text: &str) -> ScopeSet {
        text.parse().unwrap()
    }

    pub fn holder(scope: &str, audience: Option<&[&'static str]>) -> Holder<'static> {
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
}
