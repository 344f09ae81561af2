//! The headers of an answer: who the visitor is, in a form that stays in its header whatever people are called.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{Trouble, Verdict};

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

#[cfg(test)]
mod tests {
    use super::super::Holder;
    use super::super::tests::holder;
    use super::*;
    use crate::protocol::grant::tests::user;
    use crate::protocol::ids::ClientId;
    use crate::protocol::user::User;

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
}
