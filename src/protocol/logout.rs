//! RP-initiated logout (OpenID Connect RP-Initiated Logout 1.0): whether the person must confirm, and whether the
//! browser may go back to the app. Whoever cannot show an ID token of ours is not sent anywhere.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::authorize::is_for_client;
use super::claims::audience;
use super::client::Client;
use super::ids::{ClientId, SessionId, UserId};
use super::interaction::Session;
use super::params::Params;
use super::redirect_uri::{matches, with_query};

/// A logout request, resolved: signatures are verified and addresses compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogoutRequest {
    /// The app that asks, as far as it could be proven by a hint.
    pub client_id: Option<ClientId>,
    sid: Option<SessionId>,
    sub: Option<UserId>,
    /// Where the app asked the browser to go afterwards; compared with the registration when it goes.
    unverified_redirect: Option<String>,
    state: Option<String>,
}

/// The client that a request speaks of, to be loaded before [`LogoutRequest::resolve`].
pub fn unverified_client_id(params: &Params, hint: Option<&Map<String, Value>>) -> Option<ClientId> {
    let hinted = || hint.and_then(|claims| audience(claims).first().copied());
    params.get("client_id").or_else(hinted).map(ClientId::new)
}

impl LogoutRequest {
    /// `hint` holds the claims of the `id_token_hint` where it is a token of ours, expired or not.
    pub fn resolve(params: &Params, hint: Option<&Map<String, Value>>, client: Option<&Client>) -> Self {
        let proven = client.zip(hint).filter(|(client, claims)| is_for_client(claims, &client.id));
        let Some((client, claims)) = proven.filter(|_| params.repeated().is_none()) else { return Self::default() };
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        Self {
            client_id: Some(client.id.clone()),
            sid: text("sid").map(SessionId::new),
            sub: text("sub").map(UserId::new),
            unverified_redirect: params.get("post_logout_redirect_uri").map(str::to_owned),
            state: params.get("state").map(str::to_owned),
        }
    }

    /// Where the browser goes once the person is signed out: an address that is registered for the client now.
    /// `client` is the one of [`Self::client_id`].
    pub fn redirect(&self, client: Option<&Client>) -> Option<String> {
        let client = client.filter(|client| client.is_enabled() && Some(&client.id) == self.client_id.as_ref())?;
        let uri = self.unverified_redirect.as_deref()?;
        let registered = &client.metadata.post_logout_redirect_uris;
        let state: Vec<(&str, String)> = self.state.iter().map(|state| ("state", state.clone())).collect();
        registered.iter().any(|own| matches(own, uri)).then(|| with_query(uri, &state))
    }

    /// A click is needed unless the hint names this very session: otherwise any page could sign people out.
    pub fn needs_confirmation(&self, session: Option<&Session>) -> bool {
        session.is_some_and(|session| {
            self.sid.as_ref() != Some(&session.id) || self.sub.as_ref() != Some(&session.user_id)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::claims::Authentication;
    use crate::protocol::client::ClientMetadata;
    use crate::protocol::time::Timestamp;
    use serde_json::json;

    fn client(id: &str) -> Client {
        let metadata = ClientMetadata {
            post_logout_redirect_uris: vec!["https://app.test/bye".to_owned()],
            ..ClientMetadata::default()
        };
        Client { id: ClientId::new(id), metadata, disabled_at: None }
    }

    #[test]
    fn the_browser_goes_back_only_with_a_hint_and_to_a_registered_address() {
        let hint = json!({"aud": "app", "sub": "alice", "sid": "s"});
        let foreign = json!({"aud": "other", "sub": "alice", "sid": "s"});
        let bye = "post_logout_redirect_uri=https://app.test/bye";
        for (query, hint, expected) in [
            (bye.to_owned(), Some(&hint), Some("https://app.test/bye")),
            (format!("{bye}&state=a+b"), Some(&hint), Some("https://app.test/bye?state=a%20b")),
            (format!("{bye}&client_id=app"), Some(&hint), Some("https://app.test/bye")),
            (bye.to_owned(), None, None),
            (format!("{bye}&client_id=app"), None, None),
            (bye.to_owned(), Some(&foreign), None),
            (format!("{bye}?x=1"), Some(&hint), None),
            (format!("{bye}&{bye}"), Some(&hint), None),
            ("state=x".to_owned(), Some(&hint), None),
        ] {
            let params = Params::parse(query.as_bytes()).unwrap();
            let request = LogoutRequest::resolve(&params, hint.and_then(Value::as_object), Some(&client("app")));
            assert_eq!(request.redirect(Some(&client("app"))).as_deref(), expected, "{query} {hint:?}");
            assert_eq!(request.redirect(Some(&client("other"))), None, "another client's");
            let disabled = Client { disabled_at: Some(Timestamp(1)), ..client("app") };
            assert_eq!(request.redirect(Some(&disabled)), None, "a client that was switched off");
        }
    }

    #[test]
    fn a_click_is_needed_unless_the_hint_names_the_session() {
        let session = |sid: &str, sub: &str| Session {
            roles: Vec::new(),
            key: None,
            id: SessionId::new(sid),
            user_id: UserId::new(sub),
            authentication: Authentication { auth_time: Some(Timestamp(0)), acr: String::new(), amr: vec![] },
        };
        let hint = json!({"aud": "app", "sub": "alice", "sid": "s"});
        let params = Params::parse(b"").unwrap();
        let hinted = LogoutRequest::resolve(&params, hint.as_object(), Some(&client("app")));
        let bare = LogoutRequest::resolve(&params, None, None);
        for (request, session, expected) in [
            (&hinted, Some(session("s", "alice")), false),
            (&hinted, Some(session("other", "alice")), true),
            (&hinted, Some(session("s", "bob")), true),
            (&hinted, None, false),
            (&bare, Some(session("s", "alice")), true),
            (&bare, None, false),
        ] {
            assert_eq!(request.needs_confirmation(session.as_ref()), expected, "{session:?}");
        }
    }
}
