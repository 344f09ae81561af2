//! What must happen next in a sign-in: the whole matrix of `prompt`, `max_age`, hints, sessions and consent
//! (OpenID Connect Core §3.1.2.1, §3.1.2.3, §3.1.2.4) as one function. It is asked at the first request and again
//! after every page, so no page can skip a step.

use serde::{Deserialize, Serialize};

use super::api_key::KeySession;
use super::authorize::AuthorizationRequest;
use super::claims::{Authentication, ClaimsRequest};
use super::client::Client;
use super::error::{Error, ErrorCode};
use super::ids::{SessionId, UserId};
use super::metadata::Metadata;
use super::scope::{self, ScopeSet};
use super::time::{Span, Timestamp};

/// How long a person may take from the app's request to its answer.
pub const SIGN_IN_LIFETIME: Span = Span::minutes(30);

/// A live session of this browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: SessionId,
    pub user_id: UserId,
    /// The person's.
    pub roles: Vec<String>,
    pub authentication: Authentication,
    /// Where it came from an API key and not from a person at a page.
    pub key: Option<KeySession>,
}

/// What a person has allowed a client before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    pub allowed: Vec<Allowed>,
    /// When they last said so.
    pub given_at: Timestamp,
}

/// Scopes that were allowed together with the resources they are for (RFC 8707): what may be done at one resource
/// says nothing about another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    pub scope: ScopeSet,
    pub resources: Vec<String>,
}

impl Consent {
    /// Whether all of these scopes were allowed for all of these resources.
    fn covers(&self, scope: &ScopeSet, resources: &[String]) -> bool {
        let for_these = self.allowed.iter().filter(|one| resources.iter().all(|uri| one.resources.contains(uri)));
        scope.is_subset(&for_these.fold(ScopeSet::default(), |all, one| all.union(&one.scope)))
    }

    /// Adds what was allowed just now.
    pub fn add(&mut self, allowed: Allowed, given_at: Timestamp) {
        self.given_at = given_at;
        match self.allowed.iter_mut().find(|one| one.resources == allowed.resources) {
            Some(same) => same.scope = same.scope.union(&allowed.scope),
            None => self.allowed.push(allowed),
        }
    }
}

/// What a sign-in has come to so far. `prompt` and `max_age` are met only by an event later than `requested_at`.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    pub requested_at: Timestamp,
    /// The session whose account was chosen on the page (`prompt=select_account`).
    pub selected: Option<&'a SessionId>,
    /// The person refused on the consent page.
    pub denied: bool,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Show the sign-in page.
    Login,
    /// Show the sign-in page with the current account to choose.
    SelectAccount,
    /// Show the consent page for these scopes.
    Consent { scope: ScopeSet },
    /// Issue a code for these scopes. `offline`: the grant outlives the session.
    Issue { scope: ScopeSet, offline: bool },
    /// Tell the app.
    Fail(Error),
}

/// Decides the next step of `request` for this browser.
pub fn next(
    request: &AuthorizationRequest,
    client: &Client,
    metadata: &Metadata,
    session: Option<&Session>,
    consent: Option<&Consent>,
    progress: Progress<'_>,
    now: Timestamp,
) -> Step {
    if progress.denied {
        return Step::Fail(Error::access_denied("the person did not allow it"));
    }
    let counts = |session: &&Session| session.key.as_ref().is_none_or(|key| key.signs_in_to(client));
    let Some(session) = session.filter(counts) else {
        return unless_silent(request, Step::Login, ErrorCode::LoginRequired, "nobody is signed in");
    };
    let signed_in_since = session.authentication.auth_time.is_some_and(|at| at > progress.requested_at);
    if !signed_in_since && wants_fresh_login(request, session, now) {
        return unless_silent(request, Step::Login, ErrorCode::LoginRequired, "a fresh sign-in is required");
    }
    if !is_wanted_subject(request, session) {
        if signed_in_since {
            return Step::Fail(Error::login_required("somebody else signed in than the hint names"));
        }
        return unless_silent(request, Step::Login, ErrorCode::LoginRequired, "somebody else is signed in");
    }
    let selected = signed_in_since || progress.selected == Some(&session.id);
    if request.prompt.select_account && !selected {
        return Step::SelectAccount;
    }
    let acr = request.claims.id_token.get("acr");
    if acr.is_some_and(|acr| acr.essential && !acr.accepts(&session.authentication.acr)) {
        let text = "the acr that was required cannot be reached";
        return Step::Fail(Error::new(ErrorCode::UnmetAuthenticationRequirements, text));
    }
    if session.key.as_ref().is_some_and(|key| !key.covers(&request.resources)) {
        return Step::Fail(Error::invalid_target("the sign-in came from an API key that is not for this resource"));
    }
    let scope = request.current_scope(client).filtered(|token| {
        let of_key = session.key.as_ref().is_none_or(|key| key.scope.contains(token));
        of_key && metadata.permits(token, &session.roles)
    });
    let claims = claims_within(request, session);
    consent_step(request, client, scope, &claims, consent, progress)
}

/// The claims asked for by name, as far as the session may tell them.
pub fn claims_within(request: &AuthorizationRequest, session: &Session) -> ClaimsRequest {
    let claims = request.claims.clone();
    match &session.key {
        None => claims,
        Some(key) => claims.within(&key.scope),
    }
}

/// `prompt=none` forbids every page (OpenID Connect Core §3.1.2.6).
fn unless_silent(request: &AuthorizationRequest, step: Step, code: ErrorCode, description: &'static str) -> Step {
    if request.prompt.none { Step::Fail(Error::new(code, description)) } else { step }
}

fn wants_fresh_login(request: &AuthorizationRequest, session: &Session, now: Timestamp) -> bool {
    let age = session.authentication.auth_time.map(|at| now - at);
    let too_old = |max_age: u32| age.is_none_or(|age| age > Span::from_secs(i64::from(max_age)));
    request.prompt.login || request.max_age.is_some_and(|max_age| max_age == 0 || too_old(max_age))
}

/// `id_token_hint`, and a `sub` asked for by value (OpenID Connect Core §5.5.1), name who must be signed in.
fn is_wanted_subject(request: &AuthorizationRequest, session: &Session) -> bool {
    let hinted = request.hinted_subject.as_ref().is_none_or(|sub| *sub == session.user_id);
    let sub = request.claims.id_token.get("sub").is_none_or(|sub| sub.accepts(session.user_id.as_str()));
    hinted && sub
}

fn consent_step(
    request: &AuthorizationRequest,
    client: &Client,
    scope: ScopeSet,
    claims: &ClaimsRequest,
    consent: Option<&Consent>,
    progress: Progress<'_>,
) -> Step {
    if scope.is_empty() {
        return Step::Fail(Error::invalid_scope("this client and this person may have none of these scopes"));
    }
    let wanted = scope.union(&claims.scopes());
    let given_since = consent.is_some_and(|consent| consent.given_at > progress.requested_at);
    let remembered = consent.is_some_and(|consent| consent.covers(&wanted, &request.resources));
    let asked_again = request.prompt.consent && !given_since;
    if asked_again || !(client.metadata.first_party || remembered) {
        let ask = Step::Consent { scope: wanted };
        return unless_silent(request, ask, ErrorCode::ConsentRequired, "the person has not allowed this yet");
    }
    let offline = scope.contains(scope::OFFLINE_ACCESS);
    Step::Issue { scope, offline }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::authorize::Prompt;
    use crate::protocol::client::{ClientMetadata, GrantType};
    use crate::protocol::ids::{ApiKeyId, ClientId};
    use crate::protocol::metadata::tests::metadata;
    use crate::protocol::redirect_uri::ResponseMode;

    const REQUESTED: Timestamp = Timestamp(1_000_000);
    const NOW: Timestamp = Timestamp(1_060_000);

    fn request(change: impl FnOnce(&mut AuthorizationRequest)) -> AuthorizationRequest {
        let mut request = AuthorizationRequest {
            client_id: ClientId::new("app"),
            redirect_uri: Some("https://app.test/cb".to_owned()),
            response_mode: ResponseMode::Query,
            state: None,
            scope: "openid email".parse().unwrap(),
            nonce: None,
            code_challenge: None,
            prompt: Prompt::default(),
            max_age: None,
            login_hint: None,
            hinted_subject: None,
            claims: ClaimsRequest::default(),
            resources: Vec::new(),
        };
        change(&mut request);
        request
    }

    fn prompt(words: &str) -> AuthorizationRequest {
        request(|r| {
            r.prompt = Prompt {
                none: words.contains("none"),
                login: words.contains("login"),
                consent: words.contains("consent"),
                select_account: words.contains("select_account"),
            };
        })
    }

    fn claims(text: &str) -> AuthorizationRequest {
        request(|r| r.claims = ClaimsRequest::parse(text).unwrap())
    }

    fn client(first_party: bool) -> Client {
        let metadata = ClientMetadata {
            scope: "openid email profile offline_access".parse().unwrap(),
            grant_types: vec![GrantType::AuthorizationCode, GrantType::RefreshToken],
            first_party,
            ..ClientMetadata::default()
        };
        Client { id: ClientId::new("app"), metadata, disabled_at: None }
    }

    fn session(auth_time: i64) -> Session {
        let authentication = Authentication { auth_time: Some(Timestamp(auth_time)), acr: "one".into(), amr: vec![] };
        Session {
            id: SessionId::new("s1"),
            user_id: UserId::new("alice"),
            roles: Vec::new(),
            authentication,
            key: None,
        }
    }

    fn consent(scope: &str, given_at: i64) -> Consent {
        let allowed = vec![Allowed { scope: scope.parse().unwrap(), resources: vec![] }];
        Consent { allowed, given_at: Timestamp(given_at) }
    }

    fn name(step: &Step) -> String {
        match step {
            Step::Login => "login".to_owned(),
            Step::SelectAccount => "select".to_owned(),
            Step::Consent { scope } => format!("consent {scope}"),
            Step::Issue { scope, offline } => format!("issue {scope}{}", if *offline { " offline" } else { "" }),
            Step::Fail(error) => error.code.to_string(),
        }
    }

    const BEFORE: i64 = 900_000;
    const SINCE: i64 = 1_010_000;

    #[test]
    fn sessions_prompts_and_ages() {
        let selected = SessionId::new("s1");
        let other = SessionId::new("s2");
        let hint = |sub: &str| request(|r| r.hinted_subject = Some(UserId::new(sub)));
        let none_hint = |sub: &str| {
            request(|r| {
                r.hinted_subject = Some(UserId::new(sub));
                r.prompt.none = true;
            })
        };
        let age = |seconds: u32| request(|r| r.max_age = Some(seconds));
        let old = Some(session(BEFORE));
        let new = Some(session(SINCE));
        for (request, session, selected, expected) in [
            (prompt(""), None, None, "login"),
            (prompt("none"), None, None, "login_required"),
            (prompt(""), old.clone(), None, "issue openid email"),
            (prompt("none"), old.clone(), None, "issue openid email"),
            (prompt("login"), old.clone(), None, "login"),
            (prompt("login"), new.clone(), None, "issue openid email"),
            (age(10_000), old.clone(), None, "issue openid email"),
            (age(159), old.clone(), None, "login"),
            (age(160), old.clone(), None, "issue openid email"),
            (age(0), old.clone(), None, "login"),
            (age(0), new.clone(), None, "issue openid email"),
            (age(1), new.clone(), None, "issue openid email"),
            (prompt("select_account"), old.clone(), None, "select"),
            (prompt("select_account"), old.clone(), Some(&other), "select"),
            (prompt("select_account"), old.clone(), Some(&selected), "issue openid email"),
            (prompt("select_account"), new.clone(), None, "issue openid email"),
            (prompt("select_account login"), old.clone(), Some(&selected), "login"),
            (hint("alice"), old.clone(), None, "issue openid email"),
            (hint("bob"), old.clone(), None, "login"),
            (hint("bob"), new.clone(), None, "login_required"),
            (none_hint("alice"), old.clone(), None, "issue openid email"),
            (none_hint("bob"), old.clone(), None, "login_required"),
            (claims(r#"{"id_token":{"sub":{"value":"bob"}}}"#), old.clone(), None, "login"),
            (
                claims(r#"{"id_token":{"acr":{"essential":true,"values":["one","two"]}}}"#),
                old.clone(),
                None,
                "issue openid email",
            ),
            (
                claims(r#"{"id_token":{"acr":{"essential":true,"value":"two"}}}"#),
                old.clone(),
                None,
                "unmet_authentication_requirements",
            ),
            (claims(r#"{"id_token":{"acr":{"value":"two"}}}"#), old.clone(), None, "issue openid email"),
        ] {
            let progress = Progress { requested_at: REQUESTED, selected, denied: false };
            let step = next(&request, &client(true), &metadata(), session.as_ref(), None, progress, NOW);
            assert_eq!(name(&step), expected, "{request:?} {session:?}");
        }
    }

    /// A key signs its person in to the partner's own apps, never beyond its scopes, and never as if they were there.
    #[test]
    fn a_session_from_a_key_reaches_no_further() {
        let of_key = |partner: Option<&str>| {
            let authentication = Authentication::of_api_key();
            let scope = "openid".parse().unwrap();
            let partner = partner.map(ClientId::new);
            let audiences = vec!["https://quiz.test".to_owned()];
            let key = KeySession { kid: Some(ApiKeyId::new("k")), scope, audiences, origin: None, partner };
            Session { authentication, key: Some(key), ..session(BEFORE) }
        };
        let of = |partner: Option<&str>| {
            let mut client = client(true);
            client.metadata.partner_client_id = partner.map(ClientId::new);
            client
        };
        let to = |uri: &str| {
            let uris = uri.split_whitespace().map(str::to_owned).collect();
            request(|r| r.resources = uris)
        };
        let plain = to("https://quiz.test");
        let aged = request(|r| {
            r.max_age = Some(10_000);
            r.resources = vec!["https://quiz.test".to_owned()];
        });
        for (request, session, client, expected) in [
            (&plain, of_key(Some("acme")), of(Some("acme")), "issue openid"),
            (&plain, of_key(Some("acme")), of(Some("other")), "login"),
            (&plain, of_key(Some("acme")), of(None), "login"),
            (&plain, of_key(None), of(None), "login"),
            (&plain, of_key(None), of(Some("acme")), "login"),
            (&aged, of_key(Some("acme")), of(Some("acme")), "login"),
            (&prompt("login"), of_key(Some("acme")), of(Some("acme")), "login"),
            (&prompt("none"), of_key(None), of(None), "login_required"),
            (&to(""), of_key(Some("acme")), of(Some("acme")), "invalid_target"),
            (&to("https://pay.test"), of_key(Some("acme")), of(Some("acme")), "invalid_target"),
            (&to("https://quiz.test https://pay.test"), of_key(Some("acme")), of(Some("acme")), "invalid_target"),
        ] {
            let progress = Progress { requested_at: REQUESTED, selected: None, denied: false };
            let step = next(request, &client, &metadata(), Some(&session), None, progress, NOW);
            assert_eq!(name(&step), expected, "{request:?} {session:?} {client:?}");
        }
        let named = claims(r#"{"userinfo":{"email":null,"sub":null}}"#);
        let told = claims_within(&named, &of_key(Some("acme")));
        assert_eq!(told.userinfo.keys().collect::<Vec<_>>(), ["sub"], "email is beyond the key");
        assert_eq!(claims_within(&named, &session(BEFORE)), named.claims);
    }

    #[test]
    fn a_scope_that_wants_a_role_is_nothing_to_others() {
        let request = request(|r| r.scope = "openid teach".parse().unwrap());
        let mut client = client(true);
        client.metadata.scope = "openid teach".parse().unwrap();
        for (roles, expected) in [(&[][..], "issue openid"), (&["teacher"], "issue openid teach")] {
            let roles = roles.iter().map(|role: &&str| (*role).to_owned()).collect();
            let session = Session { roles, ..session(BEFORE) };
            let progress = Progress { requested_at: REQUESTED, selected: None, denied: false };
            let step = next(&request, &client, &metadata(), Some(&session), None, progress, NOW);
            assert_eq!(name(&step), expected);
        }
    }

    #[test]
    fn consent_is_asked_once_and_remembered() {
        let offline = request(|r| r.scope = "openid offline_access".parse().unwrap());
        let silent = request(|r| r.prompt.none = true);
        let resource = request(|r| r.resources = vec!["https://api.test".to_owned()]);
        let named = claims(r#"{"userinfo":{"name":null}}"#);
        let gone = request(|r| r.scope = "phone".parse().unwrap());
        for (request, first_party, given, expected) in [
            (request(|_| ()), false, None, "consent openid email"),
            (request(|_| ()), true, None, "issue openid email"),
            (silent.clone(), false, None, "consent_required"),
            (request(|_| ()), false, Some(consent("openid email", BEFORE)), "issue openid email"),
            (silent, false, Some(consent("email openid profile", BEFORE)), "issue openid email"),
            (request(|_| ()), false, Some(consent("openid", BEFORE)), "consent openid email"),
            (prompt("consent"), true, None, "consent openid email"),
            (prompt("consent"), false, Some(consent("openid email", BEFORE)), "consent openid email"),
            (prompt("consent"), false, Some(consent("openid email", SINCE)), "issue openid email"),
            (prompt("consent"), true, Some(consent("openid email", SINCE)), "issue openid email"),
            (offline.clone(), true, None, "issue openid offline_access offline"),
            (offline.clone(), false, Some(consent("openid", BEFORE)), "consent openid offline_access"),
            (offline, false, Some(consent("openid offline_access", BEFORE)), "issue openid offline_access offline"),
            (resource, false, Some(consent("openid email", BEFORE)), "consent openid email"),
            (named, false, Some(consent("openid email", BEFORE)), "consent openid email profile"),
            (gone, true, None, "invalid_scope"),
        ] {
            let progress = Progress { requested_at: REQUESTED, selected: None, denied: false };
            let step = next(
                &request,
                &client(first_party),
                &metadata(),
                Some(&session(BEFORE)),
                given.as_ref(),
                progress,
                NOW,
            );
            assert_eq!(name(&step), expected, "{request:?} {given:?}");
        }
    }

    #[test]
    fn what_was_allowed_at_one_resource_says_nothing_about_another() {
        let allowed = |scope: &str, resources: &[&str]| Allowed {
            scope: scope.parse().unwrap(),
            resources: resources.iter().map(|uri| (*uri).to_owned()).collect(),
        };
        let mut consent = Consent { allowed: vec![], given_at: Timestamp(0) };
        for (scope, resources) in [("read", &["x"][..]), ("write", &["y"]), ("list", &["y", "x"]), ("more", &["x"])] {
            consent.add(allowed(scope, resources), Timestamp(1));
        }
        assert_eq!(consent.allowed.len(), 3);
        for (scope, resources, expected) in [
            ("read more", &["x"][..], true),
            ("read list", &["x"], true),
            ("list", &["x", "y"], true),
            ("read write", &[], true),
            ("write", &["x"], false),
            ("read", &["x", "y"], false),
            ("read", &["z"], false),
        ] {
            let Allowed { scope, resources } = allowed(scope, resources);
            assert_eq!(consent.covers(&scope, &resources), expected, "{scope} {resources:?}");
        }
    }

    #[test]
    fn a_refusal_ends_the_request() {
        let progress = Progress { requested_at: REQUESTED, selected: None, denied: true };
        let step = next(&request(|_| ()), &client(true), &metadata(), Some(&session(SINCE)), None, progress, NOW);
        assert_eq!(name(&step), "access_denied");
    }
}
