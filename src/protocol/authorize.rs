//! The authorization request (RFC 6749 §4.1.1, OpenID Connect Core §3.1.2.1), parsed once into types that cannot
//! be forged: `Params` → [`Addressed`] (the client and its redirect URI are proven) → [`AuthorizationRequest`].
//! Errors before the first step are for a page, errors after it may travel to the app.
//!
//! What the person must still do is for `interaction.rs`; signatures of hints are checked by the shell.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::claims::{ClaimsRequest, audience};
use super::client::{Client, GrantType};
use super::error::{Error, ErrorCode};
use super::ids::{ClientId, UserId};
use super::metadata::{Metadata, RESPONSE_TYPE_CODE};
use super::params::Params;
use super::pkce::CodeChallenge;
use super::redirect_uri::{RedirectTarget, ResponseMode, Unregistered};
use super::scope::{self, ScopeSet};

/// Why a request cannot be answered to any app. Shown to the person as a page, never as a redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unaddressed {
    MissingClientId,
    /// `client_id` or `redirect_uri` came twice, so which one counts is anybody's guess.
    Repeated(&'static str),
    /// Unknown or disabled; which of the two is not told.
    UnknownClient,
    MissingRedirectUri {
        client_name: String,
    },
    UnregisteredRedirectUri {
        client_name: String,
        client_uri: Option<String>,
        received: String,
        registered: Vec<String>,
    },
}

/// Parameters of a request whose client and redirect URI are proven.
pub struct Addressed<'a> {
    params: &'a Params,
    client: &'a Client,
    target: RedirectTarget,
}

/// `prompt` (OpenID Connect Core §3.1.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    pub none: bool,
    pub login: bool,
    pub consent: bool,
    pub select_account: bool,
}

/// A valid request, resolved: everything that had to be looked up or verified once is here as its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationRequest {
    pub client_id: ClientId,
    /// As the app sent it; `None` where it fell back to the only registered one.
    pub redirect_uri: Option<String>,
    pub response_mode: ResponseMode,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub state: Option<String>,
    pub scope: ScopeSet,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub nonce: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code_challenge: Option<CodeChallenge>,
    #[serde(default)]
    pub prompt: Prompt,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_age: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub login_hint: Option<String>,
    /// `sub` of a verified `id_token_hint`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hinted_subject: Option<UserId>,
    #[serde(skip_serializing_if = "ClaimsRequest::is_empty", default)]
    pub claims: ClaimsRequest,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub resources: Vec<String>,
}

/// The `client_id` that a request names, to be loaded before [`Addressed::prove`].
pub fn unverified_client_id(params: &Params) -> Result<ClientId, Unaddressed> {
    if params.is_repeated("client_id") {
        return Err(Unaddressed::Repeated("client_id"));
    }
    params.get("client_id").map(ClientId::new).ok_or(Unaddressed::MissingClientId)
}

impl<'a> Addressed<'a> {
    /// Proves the address of a request. `client` is `None` where no such client exists.
    pub fn prove(params: &'a Params, client: Option<&'a Client>, issuer: &str) -> Result<Self, Unaddressed> {
        let client = client.filter(|client| client.is_enabled()).ok_or(Unaddressed::UnknownClient)?;
        if params.is_repeated("redirect_uri") {
            return Err(Unaddressed::Repeated("redirect_uri"));
        }
        // An ambiguous or unknown mode cannot choose how its own error travels.
        let mode = params.get("response_mode").filter(|_| !params.is_repeated("response_mode"));
        let mode = mode.and_then(|mode| mode.parse().ok()).unwrap_or(ResponseMode::Query);
        let state = params.get("state").filter(|_| !params.is_repeated("state"));
        let target = verify_target(client, params.get("redirect_uri"), mode, state, issuer)?;
        Ok(Self { params, client, target })
    }

    pub fn target(&self) -> &RedirectTarget {
        &self.target
    }

    /// Whether a hint came that the shell must verify before [`Addressed::validate`].
    pub fn id_token_hint(&self) -> Option<&str> {
        self.params.get("id_token_hint")
    }

    /// Checks everything else. `hint` holds the claims of the `id_token_hint` where it is a token of ours.
    ///
    /// # Errors
    /// One that travels to the proven address.
    pub fn validate(
        &self,
        metadata: &Metadata,
        hint: Option<&Map<String, Value>>,
    ) -> Result<AuthorizationRequest, Error> {
        let params = self.params;
        if let Some(name) = params.repeated() {
            return Err(Error::invalid_request(format!("{name} was sent more than once")));
        }
        refuse_unsupported_parameters(params)?;
        self.check_response()?;
        let prompt = parse_prompt(params.get("prompt"))?;
        let resources = params.resources();
        metadata.check_resources(&resources)?;
        let scope = self.scope(metadata)?;
        let claims = params.get("claims").map(ClaimsRequest::parse).transpose()?.unwrap_or_default();
        let code_challenge = CodeChallenge::parse(params, self.client.metadata.is_public())?;
        Ok(AuthorizationRequest {
            client_id: self.client.id.clone(),
            redirect_uri: params.get("redirect_uri").map(str::to_owned),
            response_mode: self.target.response_mode(),
            state: self.target.state().map(str::to_owned),
            nonce: params.get("nonce").map(str::to_owned),
            code_challenge,
            prompt,
            max_age: parse_max_age(params.get("max_age"))?.or(self.client.metadata.default_max_age),
            login_hint: params.get("login_hint").map(str::to_owned),
            hinted_subject: self.hinted_subject(hint)?,
            claims: claims.within(&self.client.metadata.scope),
            resources,
            scope,
        })
    }

    fn check_response(&self) -> Result<(), Error> {
        let params = self.params;
        if params.get("response_mode").is_some_and(|mode| mode.parse::<ResponseMode>().is_err()) {
            return Err(Error::invalid_request("response_mode must be query, fragment or form_post"));
        }
        let Some(response_type) = params.get("response_type") else {
            return Err(Error::invalid_request("response_type is missing"));
        };
        if response_type != RESPONSE_TYPE_CODE {
            return Err(Error::new(ErrorCode::UnsupportedResponseType, "the supported response_type is code"));
        }
        if !self.client.metadata.allows(GrantType::AuthorizationCode) {
            return Err(Error::unauthorized_client("this client is not registered for the authorization code grant"));
        }
        Ok(())
    }

    /// Scopes that we or the client's registration do not know are left out (OpenID Connect Core §3.1.2.1), and
    /// the token response says what remained.
    fn scope(&self, metadata: &Metadata) -> Result<ScopeSet, Error> {
        let registered = &self.client.metadata;
        let asked: ScopeSet = match self.params.get("scope") {
            Some(text) => {
                text.parse().map_err(|_| Error::invalid_scope("scope holds a character that RFC 6749 3.3 forbids"))?
            }
            // A pre-defined default (RFC 6749 §3.3): all that the client is registered for while the person is there.
            None => registered.scope.filtered(|token| token != scope::OFFLINE_ACCESS),
        };
        let refreshes = registered.allows(GrantType::RefreshToken);
        let known = asked.filtered(|token| {
            metadata.supports_scope(token)
                && registered.scope.contains(token)
                && (token != scope::OFFLINE_ACCESS || refreshes)
        });
        if known.is_empty() {
            return Err(Error::invalid_scope("none of these scopes is registered for this client"));
        }
        if known.contains(scope::OPENID) && self.params.get("redirect_uri").is_none() {
            return Err(Error::invalid_request("redirect_uri is required with the scope openid"));
        }
        Ok(known)
    }

    fn hinted_subject(&self, hint: Option<&Map<String, Value>>) -> Result<Option<UserId>, Error> {
        if self.params.get("id_token_hint").is_none() {
            return Ok(None);
        }
        let claims = hint.ok_or_else(|| Error::invalid_request("id_token_hint is not an ID token of this issuer"))?;
        if !is_for_client(claims, &self.client.id) {
            return Err(Error::invalid_request("id_token_hint was issued to another client"));
        }
        Ok(claims.get("sub").and_then(Value::as_str).map(UserId::new))
    }
}

/// Whether an ID token's `aud` names the client.
pub fn is_for_client(claims: &Map<String, Value>, client_id: &ClientId) -> bool {
    audience(claims).contains(&client_id.as_str())
}

fn verify_target(
    client: &Client,
    requested: Option<&str>,
    mode: ResponseMode,
    state: Option<&str>,
    issuer: &str,
) -> Result<RedirectTarget, Unaddressed> {
    RedirectTarget::verify(client, requested, mode, state, issuer).map_err(|why| match why {
        Unregistered::Missing => Unaddressed::MissingRedirectUri { client_name: client.display_name().to_owned() },
        Unregistered::Unknown => Unaddressed::UnregisteredRedirectUri {
            client_name: client.display_name().to_owned(),
            client_uri: client.metadata.client_uri.clone(),
            received: requested.unwrap_or_default().to_owned(),
            registered: client.metadata.redirect_uris.clone(),
        },
    })
}

/// Parameters that we must not ignore, because what they carry may replace all the others.
fn refuse_unsupported_parameters(params: &Params) -> Result<(), Error> {
    for (name, code) in [
        ("request", ErrorCode::RequestNotSupported),
        ("request_uri", ErrorCode::RequestUriNotSupported),
        ("registration", ErrorCode::RegistrationNotSupported),
    ] {
        if params.get(name).is_some() {
            return Err(Error::new(code, format!("the parameter {name} is not supported")));
        }
    }
    Ok(())
}

fn parse_prompt(value: Option<&str>) -> Result<Prompt, Error> {
    let mut prompt = Prompt::default();
    for word in value.unwrap_or_default().split_whitespace() {
        match word {
            "none" => prompt.none = true,
            "login" => prompt.login = true,
            "consent" => prompt.consent = true,
            "select_account" => prompt.select_account = true,
            _ => return Err(Error::invalid_request("prompt must be none, login, consent or select_account")),
        }
    }
    if prompt.none && (prompt.login || prompt.consent || prompt.select_account) {
        return Err(Error::invalid_request("prompt=none cannot be combined with another prompt"));
    }
    Ok(prompt)
}

fn parse_max_age(value: Option<&str>) -> Result<Option<u32>, Error> {
    let Some(text) = value else { return Ok(None) };
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let parsed = text.parse().ok().filter(|_| digits);
    parsed.map(Some).ok_or_else(|| Error::invalid_request("max_age must be a whole number of seconds"))
}

impl AuthorizationRequest {
    /// Proves the address anew when a sign-in goes on: the registration may have changed since.
    pub fn readdress(&self, client: Option<&Client>, issuer: &str) -> Result<RedirectTarget, Unaddressed> {
        let client = client.filter(|client| client.is_enabled()).ok_or(Unaddressed::UnknownClient)?;
        verify_target(client, self.redirect_uri.as_deref(), self.response_mode, self.state.as_deref(), issuer)
    }

    /// The scopes that are still registered for the client.
    pub fn current_scope(&self, client: &Client) -> ScopeSet {
        let refreshes = client.metadata.allows(GrantType::RefreshToken);
        let registered = &client.metadata.scope;
        self.scope.filtered(|token| registered.contains(token) && (token != scope::OFFLINE_ACCESS || refreshes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::client::{AuthMethod, ClientMetadata};
    use crate::protocol::metadata::tests::metadata;
    use crate::protocol::redirect_uri::AuthorizationResponse;

    const CB: &str = "https://app.test/cb";
    const PKCE: &str = "code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256";

    fn client(public: bool) -> Client {
        let metadata = ClientMetadata {
            redirect_uris: vec![CB.to_owned(), "https://app.test/other".to_owned()],
            grant_types: vec![GrantType::AuthorizationCode, GrantType::RefreshToken],
            scope: "openid profile offline_access quiz.read".parse().unwrap(),
            token_endpoint_auth_method: public.then_some(AuthMethod::None),
            ..ClientMetadata::default()
        };
        Client { id: ClientId::new("app"), metadata, disabled_at: None }
    }

    fn request(query: &str, client: &Client) -> Result<AuthorizationRequest, ErrorCode> {
        let params = Params::parse(query.as_bytes()).unwrap();
        let addressed = Addressed::prove(&params, Some(client), "https://id.test").expect("an address");
        addressed.validate(&metadata(), None).map_err(|error| error.code)
    }

    fn base(more: &str) -> String {
        format!("client_id=app&redirect_uri={CB}&response_type=code&scope=openid&{more}")
    }

    #[test]
    fn a_request_without_a_proven_address_never_becomes_addressed() {
        let app = client(false);
        let disabled = Client { disabled_at: Some(crate::protocol::time::Timestamp(1)), ..client(false) };
        for (query, client) in [
            ("client_id=app", Some(&app)),
            ("client_id=app&redirect_uri=https://app.test/cb/x", Some(&app)),
            ("client_id=app&redirect_uri=https://app.test/cb&redirect_uri=https://app.test/other", Some(&app)),
            ("client_id=app&redirect_uri=https://app.test/cb", Some(&disabled)),
            ("client_id=app&redirect_uri=https://app.test/cb", None),
        ] {
            let params = Params::parse(query.as_bytes()).unwrap();
            assert!(Addressed::prove(&params, client, "i").is_err(), "{query}");
        }
        assert!(Addressed::prove(&Params::parse(base("").as_bytes()).unwrap(), Some(&app), "i").is_ok());
        let twice = Params::parse(b"client_id=app&client_id=b").unwrap();
        assert_eq!(unverified_client_id(&twice), Err(Unaddressed::Repeated("client_id")));
        assert_eq!(unverified_client_id(&Params::parse(b"").unwrap()), Err(Unaddressed::MissingClientId));
    }

    #[test]
    fn requests_that_are_refused() {
        use ErrorCode::*;
        let app = client(false);
        for (query, expected) in [
            (format!("client_id=app&redirect_uri={CB}&scope=openid"), InvalidRequest),
            (base("state=a&state=b"), InvalidRequest),
            (base("nonce=a&nonce=b"), InvalidRequest),
            (base("request=eyJ"), RequestNotSupported),
            (base("request_uri=https://app.test/r"), RequestUriNotSupported),
            (base("registration=%7B%7D"), RegistrationNotSupported),
            (base("response_mode=web_message"), InvalidRequest),
            (base("prompt=none+login"), InvalidRequest),
            (base("prompt=unheard"), InvalidRequest),
            (base("max_age=-1"), InvalidRequest),
            (base("max_age=abc"), InvalidRequest),
            (base("max_age=%2B1"), InvalidRequest),
            (base("max_age=9223372036854775808"), InvalidRequest),
            (base("claims=nonsense"), InvalidRequest),
            (base("id_token_hint=eyJ"), InvalidRequest),
            (base("resource=https://other.test"), InvalidTarget),
            (base("resource=https://quiz.test&resource=https://pay.test"), InvalidTarget),
            (base("code_challenge=x&code_challenge_method=plain"), InvalidRequest),
            (format!("client_id=app&redirect_uri={CB}&response_type=code&scope=unknown"), InvalidScope),
            (format!("client_id=app&redirect_uri={CB}&response_type=code&scope=openid%22"), InvalidScope),
            (format!("client_id=app&redirect_uri={CB}&response_type=token&scope=openid"), UnsupportedResponseType),
            (format!("client_id=app&redirect_uri={CB}&response_type=code+token&scope=openid"), UnsupportedResponseType),
            (format!("client_id=app&redirect_uri={CB}&response_type=id_token&scope=openid"), UnsupportedResponseType),
        ] {
            assert_eq!(request(&query, &app), Err(expected), "{query}");
        }
        assert!(request(&base(""), &app).is_ok());
        assert_eq!(request(&base(""), &client(true)), Err(InvalidRequest), "a public client must send a challenge");
        assert!(request(&base(PKCE), &client(true)).is_ok());
        let mut machine = client(false);
        machine.metadata.grant_types = vec![GrantType::ClientCredentials];
        assert_eq!(request(&base(""), &machine), Err(UnauthorizedClient));
    }

    #[test]
    fn requests_that_are_understood() {
        let app = client(false);
        let parsed = request(
            &base("state=s&nonce=n&prompt=login+consent&max_age=0&login_hint=a%40b.c&display=popup&extra=foobar\
                   &ui_locales=se+en&claims_locales=se&acr_values=1+2&resource=https://quiz.test&response_mode=form_post"),
            &app,
        )
        .unwrap();
        assert_eq!(parsed.max_age, Some(0));
        assert!(parsed.prompt.login && parsed.prompt.consent && !parsed.prompt.none);
        assert_eq!(parsed.response_mode, ResponseMode::FormPost);
        let json = serde_json::to_string(&parsed).unwrap();
        assert_eq!(serde_json::from_str::<AuthorizationRequest>(&json).unwrap(), parsed);
    }

    #[test]
    fn scopes_beyond_the_registration_are_left_out() {
        let with = |scope: &str, client: &Client| {
            let query = format!("client_id=app&redirect_uri={CB}&response_type=code&{scope}");
            request(&query, client).map(|r| r.scope.to_string())
        };
        let app = client(false);
        assert_eq!(with("scope=email+openid+unknown+profile", &app).as_deref(), Ok("openid profile"));
        assert_eq!(with("", &app).as_deref(), Ok("openid profile quiz.read"));
        let mut online = client(false);
        online.metadata.grant_types = vec![GrantType::AuthorizationCode];
        assert_eq!(with("scope=openid+offline_access", &online).as_deref(), Ok("openid"));
    }

    #[test]
    fn the_hint_must_be_ours_and_for_this_client() {
        let app = client(false);
        let params = Params::parse(base("id_token_hint=x").as_bytes()).unwrap();
        let addressed = Addressed::prove(&params, Some(&app), "i").unwrap();
        for (claims, expected) in [
            (serde_json::json!({"aud": "app", "sub": "u1"}), Some("u1")),
            (serde_json::json!({"aud": ["x", "app"], "sub": "u1"}), Some("u1")),
            (serde_json::json!({"aud": "other", "sub": "u1"}), None),
            (serde_json::json!({"sub": "u1"}), None),
        ] {
            let parsed = addressed.validate(&metadata(), claims.as_object());
            let subject = parsed.ok().and_then(|r| r.hinted_subject);
            assert_eq!(subject.as_ref().map(UserId::as_str), expected, "{claims}");
        }
    }

    #[test]
    fn an_ambiguous_state_is_not_sent_back() {
        let app = client(false);
        let params = Params::parse(base("state=a&state=b").as_bytes()).unwrap();
        let addressed = Addressed::prove(&params, Some(&app), "https://id.test").unwrap();
        let error = addressed.validate(&metadata(), None).unwrap_err();
        let AuthorizationResponse::Redirect(location) = addressed.target().error(&error) else { panic!("a redirect") };
        assert!(!location.contains("state="), "{location}");
    }
}
