//! The error codes of OAuth 2.0 and OpenID Connect, each with a text for the developer who meets it. How an
//! error travels (redirect, JSON, challenge, page) is for `http::error`.

use std::borrow::Cow;
use std::fmt;

use super::client::wire_enum;

wire_enum! {
    /// `error` values we send, with the section that defines each.
    pub enum ErrorCode {
        // RFC 6749 §4.1.2.1 and §5.2
        InvalidRequest = "invalid_request",
        InvalidClient = "invalid_client",
        InvalidGrant = "invalid_grant",
        UnauthorizedClient = "unauthorized_client",
        UnsupportedGrantType = "unsupported_grant_type",
        UnsupportedResponseType = "unsupported_response_type",
        InvalidScope = "invalid_scope",
        AccessDenied = "access_denied",
        ServerError = "server_error",
        TemporarilyUnavailable = "temporarily_unavailable",
        // OpenID Connect Core §3.1.2.6
        LoginRequired = "login_required",
        ConsentRequired = "consent_required",
        RequestNotSupported = "request_not_supported",
        RequestUriNotSupported = "request_uri_not_supported",
        RegistrationNotSupported = "registration_not_supported",
        // OpenID Connect Core Unmet Authentication Requirements §2
        UnmetAuthenticationRequirements = "unmet_authentication_requirements",
        // RFC 6750 §3.1
        InvalidToken = "invalid_token",
        InsufficientScope = "insufficient_scope",
        // RFC 8707 §2
        InvalidTarget = "invalid_target",
    }
}

/// One protocol error. The description is for developers, never holds a secret, and keeps to the characters of
/// RFC 6749 §5.2 (`%x20-21 / %x23-5B / %x5D-7E`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub code: ErrorCode,
    description: Cow<'static, str>,
}

impl Error {
    pub fn new(code: ErrorCode, description: impl Into<Cow<'static, str>>) -> Self {
        let description = description.into();
        let allowed = |c: char| matches!(c, ' ' | '!' | '#'..='[' | ']'..='~');
        if description.chars().all(allowed) {
            return Self { code, description };
        }
        let description: String = description.chars().map(|c| if allowed(c) { c } else { '?' }).collect();
        Self { code, description: description.into() }
    }

    pub fn description(&self) -> &str {
        &self.description
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.description)
    }
}

impl std::error::Error for Error {}

/// `Error::new` by the name of its code, so that a rule reads as one line.
macro_rules! constructors {
    ($($name:ident => $code:ident,)+) => {
        impl Error {
            $(pub fn $name(description: impl Into<Cow<'static, str>>) -> Self {
                Self::new(ErrorCode::$code, description)
            })+
        }
    };
}

constructors! {
    invalid_request => InvalidRequest,
    invalid_client => InvalidClient,
    invalid_grant => InvalidGrant,
    invalid_scope => InvalidScope,
    invalid_target => InvalidTarget,
    invalid_token => InvalidToken,
    unauthorized_client => UnauthorizedClient,
    login_required => LoginRequired,
    access_denied => AccessDenied,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_keep_to_the_characters_of_rfc_6749() {
        let error = Error::invalid_request("say \"é\"\r\n now");
        assert_eq!(error.description(), "say ????? now");
        assert_eq!(Error::invalid_request("plain ~ text!").description(), "plain ~ text!");
    }
}
