//! The modules of the OpenID Foundation's certification plans that concern the code flow, by their names, with what
//! each demands of a provider: the checks of every module, the Basic plan and the Config plan.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{Method, StatusCode};
use josekit::jwk::Jwk;
use josekit::jws::{ES256, JwsVerifier, RS256};
use keyward::protocol::client::{AuthMethod, ClientMetadata, SigningAlg};
use keyward::protocol::time::Span;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::authorize::{add_client, code_at_app, enc, error_at_app, is_consent, is_sign_in, open, type_password};
use crate::on_both_databases;
use crate::support::{Browser, CALLBACK, Page, Provider, VERIFIER, challenge, claims_of, text_of};

const NONCE: &str = "n-0S6_WzA2Mj";

/// The claims of OpenID Connect Core §5.4 that the scope `profile` brings.
const PROFILE: [&str; 14] = [
    "name",
    "family_name",
    "given_name",
    "middle_name",
    "nickname",
    "preferred_username",
    "profile",
    "picture",
    "website",
    "gender",
    "birthdate",
    "zoneinfo",
    "locale",
    "updated_at",
];

/// What an ID token may hold without a warning of `oidcc-server`.
const IN_ID_TOKENS: [&str; 14] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "iat",
    "auth_time",
    "nonce",
    "acr",
    "amr",
    "azp",
    "at_hash",
    "c_hash",
    "s_hash",
    "sid",
];

/// What the token endpoint gave for a code, checked as every module checks it.
struct Tokens {
    body: Value,
    id: Map<String, Value>,
}

impl Tokens {
    fn text(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_else(|| panic!("no {name} in {}", self.body))
    }
}

/// Shannon's entropy of a text, in bits: how the suite measures codes and tokens.
fn entropy(text: &str) -> f64 {
    let mut counts: BTreeMap<u8, u32> = BTreeMap::new();
    text.bytes().for_each(|byte| *counts.entry(byte).or_default() += 1);
    let length = f64::from(u32::try_from(text.len()).expect("a short text"));
    counts.values().map(|count| f64::from(*count)).map(|count| -(count / length).log2() * count).sum()
}

/// Goes through the authorization endpoint as alice, allowing what is asked, and redeems the code.
async fn flow(provider: &Provider, browser: &mut Browser, client_id: &str, more: &str) -> Tokens {
    let url = provider.authorize_url_for(client_id, &format!("nonce={NONCE}&{more}"));
    let page = provider.authorize(browser, &url).await;
    redeemed(provider, client_id, &page, Some(NONCE)).await
}

/// Redeems the code of an answer, checking both as every module does.
async fn redeemed(provider: &Provider, client_id: &str, page: &Page, nonce: Option<&str>) -> Tokens {
    let code = code_at_app(page);
    let params = page.location_params();
    assert_eq!((params["state"].as_str(), params["iss"].as_str()), ("xyz", "https://id.test"));
    assert_eq!(params.keys().map(String::as_str).collect::<Vec<_>>(), ["code", "iss", "state"]);
    let fields = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", CALLBACK)];
    let page = token_call(provider, client_id, &fields).await;
    checked_tokens(provider, client_id, &page, nonce).await
}

/// A token request with `client_secret_basic` and its whole answer.
async fn token_call(provider: &Provider, client_id: &str, fields: &[(&str, &str)]) -> Page {
    let basic =
        format!("Basic {}", STANDARD.encode(format!("{}:{}", enc(client_id), enc(&format!("{client_id}-secret")))));
    provider.browser().send(Method::POST, "/token", Some(fields), &[("authorization", &basic)]).await
}

async fn checked_tokens(provider: &Provider, client_id: &str, page: &Page, nonce: Option<&str>) -> Tokens {
    assert_eq!(page.status, StatusCode::OK, "{}", page.body);
    assert_eq!(page.header("content-type"), Some("application/json"));
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let body = page.json();
    assert_eq!(body["token_type"], "Bearer");
    assert!(body["expires_in"].as_i64().is_some_and(|seconds| seconds > 0), "{body}");
    assert!(entropy(body["access_token"].as_str().expect("an access token")) >= 96.0);

    let (header, id) = verified(provider, body["id_token"].as_str().expect("an ID token")).await;
    assert_eq!(header["alg"], "RS256");
    let now = provider.app.now().numeric_date();
    let number = |name: &str| id[name].as_i64().unwrap_or_else(|| panic!("no number {name} in {id:?}"));
    assert_eq!((&id["iss"], &id["aud"]), (&json!("https://id.test"), &json!(client_id)));
    assert!((now - 300..=now).contains(&number("iat")) && number("exp") > now && number("auth_time") <= now);
    assert_eq!(id.get("nonce").and_then(Value::as_str), nonce);
    assert!(id["sub"].as_str().is_some_and(|sub| (1..=255).contains(&sub.len()) && sub.is_ascii()));
    let hash = Sha256::digest(body["access_token"].as_str().unwrap_or_default());
    assert_eq!(id["at_hash"], URL_SAFE_NO_PAD.encode(&hash[..16]));
    for name in id.keys() {
        assert!(IN_ID_TOKENS.contains(&name.as_str()), "{name} does not belong into an ID token");
    }
    Tokens { body, id }
}

/// Verifies a JWT as a relying party does: with the key of that `kid` at `jwks_uri`, fetched just now.
async fn verified(provider: &Provider, token: &str) -> (Value, Map<String, Value>) {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().expect("a JWT")).expect("base64url");
    let header: Value = serde_json::from_slice(&header).expect("JSON");
    let jwks = provider.browser().get("/jwks").await.json();
    let key = jwks["keys"].as_array().expect("keys").iter().find(|key| key["kid"] == header["kid"]).expect("the key");
    assert_eq!(key["alg"], header["alg"]);
    let jwk = Jwk::from_map(key.as_object().expect("a key").clone()).expect("a JWK");
    let verifier: Box<dyn JwsVerifier> = match header["alg"].as_str() {
        Some("RS256") => Box::new(RS256.verifier_from_jwk(&jwk).expect("an RSA key")),
        Some("ES256") => Box::new(ES256.verifier_from_jwk(&jwk).expect("an EC key")),
        other => panic!("alg {other:?}"),
    };
    let (payload, _) = josekit::jwt::decode_with_verifier(token, verifier.as_ref()).expect("a valid signature");
    (header, payload.claims_set().clone())
}

/// The answer of the UserInfo endpoint, checked as every module checks it.
#[track_caller]
fn checked_userinfo(page: &Page, tokens: &Tokens) -> Map<String, Value> {
    assert_eq!(page.status, StatusCode::OK, "{}", page.body);
    assert_eq!(page.header("content-type"), Some("application/json"));
    let Value::Object(claims) = page.json() else { panic!("{}", page.body) };
    assert_eq!(claims["sub"], tokens.id["sub"]);
    for (name, value) in &claims {
        let typed = match name.as_str() {
            "email_verified" | "phone_number_verified" => value.is_boolean(),
            "updated_at" => value.is_i64(),
            "address" => value.as_object().is_some_and(|parts| parts.values().all(Value::is_string)),
            "roles" | "groups" => value.as_array().is_some_and(|list| list.iter().all(Value::is_string)),
            _ => value.as_str().is_some_and(|text| !text.is_empty()),
        };
        assert!(typed, "{name}: {value}");
    }
    claims
}

async fn userinfo(provider: &Provider, tokens: &Tokens) -> Map<String, Value> {
    checked_userinfo(&provider.userinfo(tokens.text("access_token")).await, tokens)
}

/// One module of the `oidcc-scope-*` family: the claims are all there, in UserInfo alone.
async fn scope_module(provider: &Provider, scopes: &str, expected: &[&str]) {
    let supported =
        provider.browser().get("/.well-known/openid-configuration").await.json()["scopes_supported"].clone();
    for scope in scopes.split('+') {
        assert!(supported.as_array().expect("a list").contains(&json!(scope)), "{scope}");
    }
    let tokens = flow(provider, &mut provider.browser(), "web", &format!("scope=openid+{scopes}")).await;
    let told = userinfo(provider, &tokens).await;
    let names: BTreeSet<&str> = told.keys().map(String::as_str).collect();
    assert_eq!(names, expected.iter().copied().chain(["sub"]).collect());
    assert_eq!(tokens.text("scope"), format!("openid {}", scopes.replace('+', " ")));
}

on_both_databases! {
    async fn oidcc_server(provider: Provider) {
        let page = provider.authorize(&mut provider.browser(), &provider.authorize_url_for("web", "nonce=n")).await;
        let code = code_at_app(&page);
        assert!(code.len() >= 22 && entropy(&code) >= 96.0, "{code}");
        let tokens = redeemed(&provider, "web", &page, Some("n")).await;
        assert!(!tokens.id.contains_key("name"));
        userinfo(&provider, &tokens).await;
        // A second code is another one.
        let page = provider.authorize(&mut provider.browser(), &provider.authorize_url_for("web", "nonce=n")).await;
        assert_ne!(code_at_app(&page), code);
    }

    async fn oidcc_response_type_missing(provider: Provider) {
        let mut browser = provider.browser();
        let url = provider.authorize_url("").replace("response_type=code&", "");
        let page = browser.get(&url).await;
        assert!(!page.location().contains('#'));
        assert_eq!(error_at_app(&page), "invalid_request");
        assert!(is_sign_in(&open(&mut browser, &provider.authorize_url("")).await));
    }

    async fn oidcc_idtoken_signature(provider: Provider) {
        let tokens = flow(&provider, &mut provider.browser(), "first", "").await;
        let (header, _) = verified(&provider, tokens.text("id_token")).await;
        assert_eq!(header["alg"], "RS256");
        assert!(header["kid"].as_str().is_some_and(|kid| !kid.is_empty()));
        // A client that registered another algorithm gets that one.
        add_client(&provider, "es", |client| client.id_token_signed_response_alg = Some(SigningAlg::Es256)).await;
        let code = provider.code(&mut provider.browser(), &provider.authorize_url_for("es", "")).await;
        let fields = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", CALLBACK)];
        let answer = provider.token("es", &fields).await;
        let (header, id) = verified(&provider, &answer.text("id_token")).await;
        assert_eq!((&header["alg"], &id["aud"]), (&json!("ES256"), &json!("es")));
    }

    /// Skipped by the suite where `none` is not offered; so it is not.
    async fn oidcc_idtoken_unsigned(provider: Provider) {
        let document = provider.browser().get("/.well-known/openid-configuration").await.json();
        let algs = document["id_token_signing_alg_values_supported"].as_array().expect("a list");
        assert!(algs.contains(&json!("RS256")) && !algs.contains(&json!("none")));
        let registration = r#"{"id_token_signed_response_alg":"none"}"#;
        assert!(serde_json::from_str::<ClientMetadata>(registration).is_err());
        assert!(serde_json::from_str::<ClientMetadata>(&registration.replace("none", "RS256")).is_ok());
    }

    async fn oidcc_userinfo_get(provider: Provider) {
        let scope = "scope=openid+profile+email+address+phone";
        let tokens = flow(&provider, &mut provider.browser(), "web", scope).await;
        let told = userinfo(&provider, &tokens).await;
        assert_eq!(told["email"], "alice@example.com");
        // The scheme's case does not matter, a wrong token does.
        let lower = format!("bearer {}", tokens.text("access_token"));
        let page = provider.browser().send(Method::GET, "/userinfo", None, &[("authorization", &lower)]).await;
        assert_eq!(checked_userinfo(&page, &tokens), told);
        let page = provider.userinfo(&tokens.text("access_token").replace(".", ".A")).await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED);
        assert!(page.header("www-authenticate").is_some_and(|value| value.contains("error=\"invalid_token\"")));
    }

    async fn oidcc_userinfo_post_header(provider: Provider) {
        let tokens = flow(&provider, &mut provider.browser(), "web", "scope=openid+profile").await;
        let bearer = format!("Bearer {}", tokens.text("access_token"));
        let form: &[(&str, &str)] = &[];
        for body in [None, Some(form)] {
            let page = provider.browser().send(Method::POST, "/userinfo", body, &[("authorization", &bearer)]).await;
            assert_eq!(checked_userinfo(&page, &tokens), userinfo(&provider, &tokens).await);
        }
    }

    async fn oidcc_userinfo_post_body(provider: Provider) {
        let tokens = flow(&provider, &mut provider.browser(), "web", "scope=openid+profile").await;
        let page = provider.browser().post("/userinfo", &[("access_token", tokens.text("access_token"))]).await;
        assert_eq!(checked_userinfo(&page, &tokens), userinfo(&provider, &tokens).await);
        let page = provider.browser().post("/userinfo", &[("access_token", "nonsense")]).await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED);
    }

    async fn oidcc_ensure_request_without_nonce_succeeds_for_code_flow(provider: Provider) {
        let page = provider.authorize(&mut provider.browser(), &provider.authorize_url_for("web", "")).await;
        let tokens = redeemed(&provider, "web", &page, None).await;
        assert!(!tokens.id.contains_key("nonce"));
    }

    async fn oidcc_scope_profile(provider: Provider) {
        scope_module(&provider, "profile", &PROFILE).await;
    }

    async fn oidcc_scope_email(provider: Provider) {
        scope_module(&provider, "email", &["email", "email_verified"]).await;
    }

    async fn oidcc_scope_address(provider: Provider) {
        scope_module(&provider, "address", &["address"]).await;
    }

    async fn oidcc_scope_phone(provider: Provider) {
        scope_module(&provider, "phone", &["phone_number", "phone_number_verified"]).await;
    }

    async fn oidcc_scope_all(provider: Provider) {
        let others = ["email", "email_verified", "address", "phone_number", "phone_number_verified"];
        scope_module(&provider, "profile+email+address+phone", &[&PROFILE[..], &others].concat()).await;
    }

    async fn oidcc_alternate_happy_flow(provider: Provider) {
        let redirect_uri = enc(CALLBACK);
        let url = format!(
            "/authorize?nonce={NONCE}&state=xyz&scope=email+openid&redirect_uri={redirect_uri}&response_type=code&client_id=web"
        );
        let page = provider.authorize(&mut provider.browser(), &url).await;
        let tokens = redeemed(&provider, "web", &page, Some(NONCE)).await;
        assert_eq!(userinfo(&provider, &tokens).await["email"], "alice@example.com");
    }

    async fn oidcc_display_page(provider: Provider) {
        flow(&provider, &mut provider.browser(), "web", "display=page").await;
    }

    async fn oidcc_display_popup(provider: Provider) {
        flow(&provider, &mut provider.browser(), "web", "display=popup").await;
    }

    async fn oidcc_prompt_login(provider: Provider) {
        let mut browser = provider.browser();
        let first = flow(&provider, &mut browser, "web", "").await;
        provider.pass(Span::from_secs(1));
        let url = provider.authorize_url_for("web", &format!("prompt=login&nonce={NONCE}"));
        let page = open(&mut browser, &url).await;
        assert!(is_sign_in(&page), "the second sign-in is shown");
        let second = redeemed(&provider, "web", &type_password(&mut browser, &page).await, Some(NONCE)).await;
        assert!(second.id["auth_time"].as_i64() > first.id["auth_time"].as_i64());
        assert_eq!(second.id["sub"], first.id["sub"]);
    }

    async fn oidcc_prompt_none_not_logged_in(provider: Provider) {
        let state = "aZ09-._~".repeat(16);
        let url = provider.authorize_url_for("web", &format!("prompt=none&state={state}"));
        let page = provider.browser().get(&url).await;
        let params = page.location_params();
        assert_eq!((params["error"].as_str(), params["state"].as_str()), ("login_required", state.as_str()));
        assert!(!params.contains_key("code"));
    }

    async fn oidcc_prompt_none_logged_in(provider: Provider) {
        let mut browser = provider.browser();
        let first = flow(&provider, &mut browser, "web", "").await;
        provider.pass(Span::from_secs(2));
        // Consent is remembered, so the answer comes at once.
        let url = provider.authorize_url_for("web", &format!("prompt=none&nonce={NONCE}"));
        let second = redeemed(&provider, "web", &browser.get(&url).await, Some(NONCE)).await;
        assert_eq!((&second.id["sub"], &second.id["auth_time"]), (&first.id["sub"], &first.id["auth_time"]));
        assert!(second.id["iat"].as_i64() > first.id["iat"].as_i64());
    }

    async fn oidcc_max_age_1(provider: Provider) {
        let mut browser = provider.browser();
        let first = flow(&provider, &mut browser, "web", "").await;
        provider.pass(Span::from_secs(2));
        let page = open(&mut browser, &provider.authorize_url_for("web", &format!("max_age=1&nonce={NONCE}"))).await;
        assert!(is_sign_in(&page));
        // However long the person takes to type.
        provider.pass(Span::from_secs(20));
        let second = redeemed(&provider, "web", &type_password(&mut browser, &page).await, Some(NONCE)).await;
        let (earlier, later) = (first.id["auth_time"].as_i64().unwrap(), second.id["auth_time"].as_i64().unwrap());
        assert!(later >= earlier + 22);
        assert!(provider.app.now().numeric_date() - later <= 2, "recent");
    }

    async fn oidcc_max_age_10000(provider: Provider) {
        let mut browser = provider.browser();
        let first = flow(&provider, &mut browser, "web", "max_age=15000").await;
        provider.pass(Span::from_secs(9990));
        let url = provider.authorize_url_for("web", &format!("max_age=10000&nonce={NONCE}"));
        let second = redeemed(&provider, "web", &browser.get(&url).await, Some(NONCE)).await;
        assert!(first.id["auth_time"].is_i64());
        assert_eq!(second.id["auth_time"], first.id["auth_time"]);
        provider.pass(Span::from_secs(11));
        assert!(is_sign_in(&open(&mut browser, &url).await), "and not a moment longer");
    }

    async fn oidcc_ensure_request_with_unknown_parameter_succeeds(provider: Provider) {
        flow(&provider, &mut provider.browser(), "web", "extra=foobar").await;
    }

    async fn oidcc_id_token_hint(provider: Provider) {
        let mut browser = provider.browser();
        let first = flow(&provider, &mut browser, "web", "").await;
        let silent = |hint: &str| provider.authorize_url_for("web", &format!("prompt=none&nonce={NONCE}&id_token_hint={hint}"));
        let page = browser.get(&silent(first.text("id_token"))).await;
        assert_eq!(redeemed(&provider, "web", &page, Some(NONCE)).await.id["sub"], first.id["sub"]);

        // A hint of somebody else is not met by alice, and one that is none of ours by nobody.
        let mut bob = provider.browser();
        provider.sign_in_as(&mut bob, "bob", "battery staple").await;
        assert_eq!(error_at_app(&bob.get(&silent(first.text("id_token"))).await), "login_required");
        let (signed, _) = first.text("id_token").rsplit_once('.').expect("a JWT");
        for hint in [format!("{signed}."), format!("{signed}.AAAA"), first.text("access_token").to_owned(), "x".to_owned()] {
            assert_eq!(error_at_app(&browser.get(&silent(&hint)).await), "invalid_request");
        }
        let page = provider.authorize(&mut browser, &provider.authorize_url("")).await;
        let foreign = redeemed(&provider, "first", &page, None).await;
        assert_eq!(error_at_app(&browser.get(&silent(foreign.text("id_token"))).await), "invalid_request");
        // An old one still says who is meant.
        provider.pass(Span::hours(2));
        code_at_app(&browser.get(&silent(first.text("id_token"))).await);
    }

    async fn oidcc_login_hint(provider: Provider) {
        let mut browser = provider.browser();
        let url = provider.authorize_url_for("web", &format!("nonce={NONCE}&login_hint=buffy%40id.test"));
        let page = open(&mut browser, &url).await;
        assert!(is_sign_in(&page) && page.body.contains("value=\"buffy@id.test\""), "{}", page.body);
        let consent = type_password(&mut browser, &page).await;
        assert!(is_consent(&consent));
        let page = browser.submit(&consent, &[("decision", "allow")]).await;
        redeemed(&provider, "web", &browser.follow(page).await, Some(NONCE)).await;
    }

    async fn oidcc_ui_locales(provider: Provider) {
        for more in ["ui_locales=se", "ui_locales=nb-NO+en+xx-nonsense"] {
            flow(&provider, &mut provider.browser(), "web", more).await;
        }
    }

    async fn oidcc_claims_locales(provider: Provider) {
        flow(&provider, &mut provider.browser(), "web", "claims_locales=se").await;
    }

    async fn oidcc_ensure_request_with_acr_values_succeeds(provider: Provider) {
        let document = provider.browser().get("/.well-known/openid-configuration").await.json();
        let supported: Vec<&str> =
            document["acr_values_supported"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        let more = format!("acr_values={}", enc(&supported.join(" ")));
        let tokens = flow(&provider, &mut provider.browser(), "web", &more).await;
        assert!(tokens.id["acr"].as_str().is_some_and(|acr| supported.contains(&acr)), "{:?}", tokens.id);
        flow(&provider, &mut provider.browser(), "web", "acr_values=1+2").await;
        // One that is essential and out of reach is not pretended.
        let claims = enc(r#"{"id_token":{"acr":{"essential":true,"values":["urn:mace:incommon:iap:silver"]}}}"#);
        let mut browser = provider.browser();
        let page = provider.authorize(&mut browser, &provider.authorize_url_for("web", &format!("claims={claims}"))).await;
        assert_eq!(error_at_app(&page), "unmet_authentication_requirements");
    }

    async fn oidcc_codereuse(provider: Provider) {
        let code = provider.code(&mut provider.browser(), &provider.authorize_url_for("web", "")).await;
        let fields = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", CALLBACK)];
        assert_eq!(token_call(&provider, "web", &fields).await.status, StatusCode::OK);
        let page = token_call(&provider, "web", &fields).await;
        assert_eq!((page.status, page.header("content-type")), (StatusCode::BAD_REQUEST, Some("application/json")));
        assert_eq!(page.json()["error"], "invalid_grant");
        assert!(page.json().get("access_token").is_none());
    }

    async fn oidcc_codereuse_30seconds(provider: Provider) {
        let page = provider.authorize(&mut provider.browser(), &provider.authorize_url_for("web", "")).await;
        let tokens = redeemed(&provider, "web", &page, None).await;
        userinfo(&provider, &tokens).await;
        provider.pass(Span::from_secs(30));
        userinfo(&provider, &tokens).await;
        let code = code_at_app(&page);
        let fields = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", CALLBACK)];
        let page = token_call(&provider, "web", &fields).await;
        assert_eq!((page.status, &page.json()["error"]), (StatusCode::BAD_REQUEST, &json!("invalid_grant")));
        assert_eq!(provider.userinfo(tokens.text("access_token")).await.status, StatusCode::UNAUTHORIZED);
    }

    /// `fapi2-…-ensure-token-endpoint-fails-with-expired-auth-code`: dead after 62 s, alive just before 60.
    async fn ensure_token_endpoint_fails_with_expired_auth_code(provider: Provider) {
        for (seconds, expected) in [(58, 200), (62, 400)] {
            let code = provider.code(&mut provider.browser(), &provider.authorize_url_for("web", "")).await;
            provider.pass(Span::from_secs(seconds));
            let fields = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", CALLBACK)];
            let answer = provider.token("web", &fields).await;
            assert_eq!(answer.status, expected, "after {seconds} s: {}", answer.body);
            assert!(expected == 200 || answer.error() == "invalid_grant");
        }
    }

    async fn oidcc_ensure_registered_redirect_uri(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let url = provider.authorize_url_for("web", &format!("redirect_uri={}", enc("https://app.test/cb/x8Jk2")));
        let page = browser.get(&url).await;
        assert_eq!((page.status, page.header("location")), (StatusCode::BAD_REQUEST, None));
        assert!(text_of(&page.body).contains("redirect_uri is not registered"));
        assert!(!page.body.contains("<form"));
        flow(&provider, &mut browser, "web", &format!("redirect_uri={}", enc(CALLBACK))).await;
    }

    async fn oidcc_ensure_post_request_succeeds(provider: Provider) {
        let fields = [
            ("client_id", "web"),
            ("response_type", "code"),
            ("redirect_uri", CALLBACK),
            ("scope", "openid"),
            ("state", "xyz"),
            ("nonce", NONCE),
        ];
        let mut browser = provider.browser();
        let headers = [("origin", "https://app.test"), ("sec-fetch-site", "cross-site")];
        let page = browser.send(Method::POST, "/authorize", Some(&fields), &headers).await;
        let sign_in = browser.follow(page).await;
        let consent = type_password(&mut browser, &sign_in).await;
        let page = browser.submit(&consent, &[("decision", "allow")]).await;
        redeemed(&provider, "web", &browser.follow(page).await, Some(NONCE)).await;
        // Errors find their way as well.
        let page = browser.post("/authorize", &[&fields[..], &[("prompt", "nonsense")]].concat()).await;
        assert_eq!(error_at_app(&page), "invalid_request");
    }

    async fn oidcc_server_client_secret_post(provider: Provider) {
        add_client(&provider, "post", |client| {
            client.token_endpoint_auth_method = Some(AuthMethod::ClientSecretPost);
        })
        .await;
        let page = provider.authorize(&mut provider.browser(), &provider.authorize_url_for("post", "")).await;
        let code = code_at_app(&page);
        let fields = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", CALLBACK)];
        // Not by the method that it did not register, and not with a wrong secret.
        let refused = token_call(&provider, "post", &fields).await;
        assert_eq!((refused.status, &refused.json()["error"]), (StatusCode::UNAUTHORIZED, &json!("invalid_client")));
        for (secret, expected) in [("wrong", 401), ("post-secret", 200)] {
            let fields = [&fields[..], &[("client_id", "post"), ("client_secret", secret)]].concat();
            let page = provider.browser().post("/token", &fields).await;
            assert_eq!(page.status, expected, "{}", page.body);
            if expected == 200 {
                checked_tokens(&provider, "post", &page, None).await;
            }
        }
    }

    /// Answered by an error, in the way that lets the suite skip the module: silence would fail it.
    async fn oidcc_request_uri_unsigned_supported_correctly_or_rejected_as_unsupported(provider: Provider) {
        let document = provider.browser().get("/.well-known/openid-configuration").await.json();
        assert_eq!(document["request_uri_parameter_supported"], false);
        assert_eq!(document.get("request_object_signing_alg_values_supported"), None);
        let mut browser = provider.browser();
        let more = format!("request_uri={}", enc("https://app.test/request.jwt#hash"));
        let page = browser.get(&provider.authorize_url_for("web", &more)).await;
        assert_eq!(error_at_app(&page), "request_uri_not_supported");
        flow(&provider, &mut browser, "web", "").await;
    }

    async fn oidcc_unsigned_request_object_supported_correctly_or_rejected_as_unsupported(provider: Provider) {
        let document = provider.browser().get("/.well-known/openid-configuration").await.json();
        assert_eq!(document["request_parameter_supported"], false);
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let inside = json!({"client_id": "web", "redirect_uri": CALLBACK, "response_type": "code", "scope": "openid",
            "state": "inside", "nonce": "inside"});
        let object = format!("{}.{}.", part(json!({"alg": "none"})), part(inside));
        let mut browser = provider.browser();
        let page = browser.get(&provider.authorize_url_for("web", &format!("request={object}"))).await;
        assert_eq!(error_at_app(&page), "request_not_supported");
    }

    async fn oidcc_ensure_request_object_with_redirect_uri(provider: Provider) {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let object = format!("{}.{}.", part(json!({"alg": "none"})), part(json!({"redirect_uri": CALLBACK})));
        let more = format!("redirect_uri={}&request={object}", enc("https://app.test/cb/invalid"));
        let page = provider.browser().get(&provider.authorize_url_for("web", &more)).await;
        assert_eq!((page.status, page.header("location")), (StatusCode::BAD_REQUEST, None));
    }

    async fn oidcc_claims_essential(provider: Provider) {
        let claims = enc(r#"{"userinfo":{"name":{"essential":true}}}"#);
        let tokens = flow(&provider, &mut provider.browser(), "web", &format!("claims={claims}")).await;
        let told = userinfo(&provider, &tokens).await;
        assert_eq!(told["name"], "Alice Archer");
        assert_eq!(told.len(), 2, "no more than was asked for: {told:?}");
        assert!(!tokens.id.contains_key("name"));
        // Asked for in the ID token, it stands there.
        let claims = enc(r#"{"id_token":{"name":null}}"#);
        let mut browser = provider.browser();
        let code = provider.code(&mut browser, &provider.authorize_url(&format!("claims={claims}"))).await;
        assert_eq!(claims_of(&provider.redeem(&code).await.text("id_token"))["name"], "Alice Archer");
    }

    async fn oidcc_refresh_token(provider: Provider) {
        let mut browser = provider.browser();
        let first = flow(&provider, &mut browser, "web", "scope=openid+offline_access&prompt=consent").await;
        let token = first.text("refresh_token").to_owned();
        assert!(entropy(&token) >= 96.0);
        provider.pass(Span::from_secs(5));
        let fields = [("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
        let mut access_tokens = BTreeSet::from([first.text("access_token").to_owned()]);
        for scope in ["", "openid offline_access", "openid"] {
            // An empty parameter counts as absent.
            let page = token_call(&provider, "web", &[&fields[..], &[("scope", scope)]].concat()).await;
            let again = checked_tokens(&provider, "web", &page, None).await;
            for name in ["iss", "sub", "aud", "azp", "auth_time", "acr", "sid"] {
                assert_eq!(again.id.get(name), first.id.get(name), "{name}");
            }
            assert!(again.id["iat"].as_i64() >= first.id["iat"].as_i64().map(|iat| iat + 5), "a new iat");
            assert!(entropy(again.text("refresh_token")) >= 96.0);
            assert!(access_tokens.insert(again.text("access_token").to_owned()), "a new access token");
            userinfo(&provider, &again).await;
        }
        // The other client's token is worth nothing here, and stays good there.
        let other = flow(&provider, &mut browser, "first", "scope=openid+offline_access&prompt=consent").await;
        let fields = [("grant_type", "refresh_token"), ("refresh_token", other.text("refresh_token"))];
        let page = token_call(&provider, "web", &fields).await;
        assert_eq!((page.status, &page.json()["error"]), (StatusCode::BAD_REQUEST, &json!("invalid_grant")));
        assert_eq!(page.header("cache-control"), Some("no-store"));
        assert_eq!(token_call(&provider, "first", &fields).await.status, StatusCode::OK);
        let document = browser.get("/.well-known/openid-configuration").await.json();
        assert!(document["grant_types_supported"].as_array().expect("a list").contains(&json!("refresh_token")));
    }

    async fn oidcc_ensure_request_with_valid_pkce_succeeds(provider: Provider) {
        let url = provider.authorize_url_for("web", &format!("nonce={NONCE}&{}", challenge()));
        let page = provider.authorize(&mut provider.browser(), &url).await;
        let code = code_at_app(&page);
        let fields = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", CALLBACK)];
        let page = token_call(&provider, "web", &[&fields[..], &[("code_verifier", VERIFIER)]].concat()).await;
        checked_tokens(&provider, "web", &page, Some(NONCE)).await;
    }

    /// `oidcc-registration-logo-uri`, `-policy-uri`, `-tos-uri`, as their reviewers look at it.
    async fn oidcc_registration_logo_policy_and_tos_uri(provider: Provider) {
        let page = open(&mut provider.browser(), &provider.authorize_url_for("web", "")).await;
        assert!(is_sign_in(&page));
        assert!(page.body.contains("<img src=\"https://app.test/logo.png\""), "{}", page.body);
        assert!(page.body.contains("<a href=\"https://app.test/policy\""));
        assert!(page.body.contains("<a href=\"https://app.test/tos\""));
        let page = open(&mut provider.browser(), &provider.authorize_url("")).await;
        assert!(!page.body.contains("https://app.test/"));
    }

    async fn oidcc_redirect_uri_query(provider: Provider) {
        let registered = "https://app.test/cb?foo=bar&a=%20b";
        add_client(&provider, "query", |client| client.redirect_uris = vec![registered.to_owned()]).await;
        let mut browser = provider.browser();
        let with = |uri: &str, more: &str| provider.authorize_url_for("query", &format!("redirect_uri={}&{more}", enc(uri)));
        let page = provider.authorize(&mut browser, &with(registered, "")).await;
        assert!(page.location().starts_with(&format!("{registered}&code=")), "{}", page.location());
        let page = browser.get(&with(registered, "request=x")).await;
        assert!(page.location().starts_with(&format!("{registered}&error=request_not_supported")), "{}", page.location());
        for uri in ["https://app.test/cb?foo=baz&a=%20b", "https://app.test/cb", "https://app.test/cb?a=%20b&foo=bar"] {
            let page = browser.get(&with(uri, "")).await;
            assert_eq!((page.status, page.header("location")), (StatusCode::BAD_REQUEST, None), "{uri}");
        }
    }
}

on_both_databases! {
    async fn client_secret_basic_decodes_both_halves(provider: Provider) {
        let id = "app:1+2 %é";
        add_client(&provider, id, |_| {}).await;
        let url = provider.authorize_url("").replace("client_id=first", &format!("client_id={}", enc(id)));
        let page = provider.authorize(&mut provider.browser(), &url).await;
        let code = code_at_app(&page);
        let fields = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", CALLBACK)];
        // `%20` for a space is as good as `+`; without any encoding the colon divides in the wrong place.
        let plain = format!("Basic {}", STANDARD.encode(format!("{id}:{id}-secret")));
        let page = provider.browser().send(Method::POST, "/token", Some(&fields), &[("authorization", &plain)]).await;
        assert_eq!((page.status, &page.json()["error"]), (StatusCode::UNAUTHORIZED, &json!("invalid_client")));
        assert!(page.header("www-authenticate").is_some_and(|value| value.starts_with("Basic")));
        let encoded = |text: &str| enc(text).replace('+', "%20");
        let basic = STANDARD.encode(format!("{}:{}", encoded(id), encoded(&format!("{id}-secret"))));
        let basic = format!("basic {basic}");
        let page = provider.browser().send(Method::POST, "/token", Some(&fields), &[("authorization", &basic)]).await;
        let tokens = checked_tokens(&provider, id, &page, None).await;
        let fields = [("grant_type", "refresh_token"), ("refresh_token", tokens.text("refresh_token"))];
        assert_eq!(token_call(&provider, id, &fields).await.status, StatusCode::OK);
    }

    /// What an error of the authorization endpoint may hold, for every kind of error.
    async fn authorization_errors_say_no_more_than_they_may(provider: Provider) {
        let mut browser = provider.browser();
        let mut seen = BTreeSet::new();
        for more in [
            "prompt=none",
            "prompt=nonsense",
            "scope=unknown",
            "scope=openid%22",
            "request=x",
            "request_uri=x",
            "registration=x",
            "max_age=x",
            "claims=x",
            "claims=%7B%22id_token%22%3A1%7D",
            "id_token_hint=x",
            "resource=https://nowhere.test",
            "response_mode=x",
            "code_challenge=x",
            "%C3%A9%22%5C%0D%0A%09=1&%C3%A9%22%5C%0D%0A%09=2",
        ] {
            let page = browser.get(&provider.authorize_url(more)).await;
            let params = page.location_params();
            assert!(!page.location().contains('#'), "{}", page.location());
            seen.insert(error_at_app(&page));
            for name in params.keys() {
                let allowed = ["error", "error_description", "error_uri", "state", "session_state", "iss"];
                assert!(allowed.contains(&name.as_str()), "{more}: {name}");
            }
            let description = &params["error_description"];
            let allowed = |byte: u8| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e);
            assert!(!description.is_empty() && description.bytes().all(allowed), "{more}: {description:?}");
        }
        let expected = [
            "invalid_request",
            "invalid_scope",
            "invalid_target",
            "login_required",
            "registration_not_supported",
            "request_not_supported",
            "request_uri_not_supported",
        ];
        assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }

    async fn oidcc_discovery_endpoint_verification(provider: Provider) {
        let page = provider.browser().get("/.well-known/openid-configuration").await;
        assert_eq!((page.status, page.header("content-type")), (StatusCode::OK, Some("application/json")));
        let Value::Object(document) = page.json() else { panic!("{}", page.body) };
        assert_eq!(document["issuer"], "https://id.test");
        for (name, value) in &document {
            assert!(REGISTERED_METADATA.contains(&name.as_str()), "{name} is no registered name");
            if name.ends_with("_endpoint") || name.ends_with("_uri") || name == "check_session_iframe" {
                assert!(value.as_str().is_some_and(|url| url.starts_with("https://")), "{name}: {value}");
            } else if name.ends_with("_supported") {
                let list = value.as_array().map(|list| !list.is_empty() && list.iter().all(Value::is_string));
                assert!(value.is_boolean() || list == Some(true), "{name}: {value}");
            }
        }
        for name in [
            "authorization_endpoint",
            "token_endpoint",
            "userinfo_endpoint",
            "jwks_uri",
            "end_session_endpoint",
            "introspection_endpoint",
            "revocation_endpoint",
            "claims_supported",
        ] {
            assert!(document.contains_key(name), "{name} is missing");
        }
        let lists = |name: &str, value: &str| document[name].as_array().is_some_and(|list| list.contains(&json!(value)));
        for (name, values) in [
            ("response_types_supported", &["code"][..]),
            ("response_modes_supported", &["query", "fragment", "form_post"]),
            ("subject_types_supported", &["public"]),
            ("id_token_signing_alg_values_supported", &["RS256", "ES256"]),
            ("scopes_supported", &["openid", "profile", "email", "address", "phone", "offline_access", "quiz.read"]),
            ("grant_types_supported", &["authorization_code", "refresh_token", "client_credentials"]),
            ("token_endpoint_auth_methods_supported", &["client_secret_basic", "client_secret_post", "none"]),
            ("code_challenge_methods_supported", &["S256"]),
            ("claims_supported", &["sub", "name", "email", "email_verified", "auth_time", "acr"]),
            ("prompt_values_supported", &["none", "login", "consent", "select_account"]),
        ] {
            for value in values {
                assert!(lists(name, value), "{name} lacks {value}: {}", document[name]);
            }
        }
        assert!(!lists("code_challenge_methods_supported", "plain"));
        assert_eq!(document["authorization_response_iss_parameter_supported"], true);
        assert_eq!(document["claims_parameter_supported"], true);
    }

    /// Nothing is advertised that a request would be refused for.
    async fn what_is_advertised_is_what_works(provider: Provider) {
        let mut browser = provider.browser();
        let document = browser.get("/.well-known/openid-configuration").await.json();
        let list = |name: &str| -> Vec<String> {
            let values = document[name].as_array().unwrap_or_else(|| panic!("no {name}"));
            values.iter().map(|value| value.as_str().expect("text").to_owned()).collect()
        };
        for (parameter, name) in [
            ("response_mode", "response_modes_supported"),
            ("prompt", "prompt_values_supported"),
            ("display", "display_values_supported"),
            ("acr_values", "acr_values_supported"),
        ] {
            for value in list(name) {
                let page = open(&mut browser, &provider.authorize_url(&format!("{parameter}={value}"))).await;
                let silent = (parameter, value.as_str()) == ("prompt", "none");
                assert!(silent || is_sign_in(&page), "{parameter}={value}");
            }
        }
        // A grant that is refused is not refused for being unknown.
        for grant_type in list("grant_types_supported") {
            let page = token_call(&provider, "web", &[("grant_type", &grant_type)]).await;
            assert_ne!(page.json()["error"], "unsupported_grant_type", "{grant_type}");
        }
        let page = token_call(&provider, "web", &[("grant_type", "password")]).await;
        assert_eq!(page.json()["error"], "unsupported_grant_type");
        // Every claim that is advertised is known to be told.
        let url = provider.authorize_url_for("web", "scope=openid+profile+email+address+phone+roles+groups&nonce=n");
        let page = provider.authorize(&mut browser, &url).await;
        let tokens = redeemed(&provider, "web", &page, Some("n")).await;
        let told = userinfo(&provider, &tokens).await;
        for claim in list("claims_supported") {
            assert!(told.contains_key(&claim) || tokens.id.contains_key(&claim), "{claim} is advertised and never told");
        }
    }

    /// Both documents are of one provider; what neither specification registers stands in the second alone.
    async fn the_two_discovery_documents_agree(provider: Provider) {
        let mut browser = provider.browser();
        let openid = browser.get("/.well-known/openid-configuration").await;
        let oauth = browser.get("/.well-known/oauth-authorization-server").await;
        assert_eq!(oauth.header("content-type"), Some("application/json"));
        let (Value::Object(known), Value::Object(other)) = (openid.json(), oauth.json()) else { panic!("two objects") };
        for (name, value) in &other {
            assert!(!known.contains_key(name) || known[name] == *value, "{name}");
            assert!(known.contains_key(name) || !REGISTERED_METADATA.contains(&name.as_str()), "{name}");
        }
        assert_eq!(other["issuer"], "https://id.test");
        // Anybody may read them, and ask whether they changed.
        for (path, page) in [("/.well-known/openid-configuration", openid), ("/jwks", browser.get("/jwks").await)] {
            assert_eq!(page.header("access-control-allow-origin"), Some("*"));
            let etag = page.header("etag").expect("an ETag");
            let again = browser.send(Method::GET, path, None, &[("if-none-match", etag)]).await;
            assert_eq!((again.status, again.body.as_str()), (StatusCode::NOT_MODIFIED, ""));
        }
    }

    async fn jwks_holds_public_keys_with_names(provider: Provider) {
        let page = provider.browser().get("/jwks").await;
        assert_eq!(page.status, StatusCode::OK);
        let document = page.json();
        let keys = document["keys"].as_array().expect("keys");
        let mut names = BTreeSet::new();
        let mut algs = BTreeSet::new();
        for key in keys {
            let key = key.as_object().expect("a key");
            for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
                assert!(!key.contains_key(private), "{private}");
            }
            let kid = key["kid"].as_str().expect("a kid");
            assert!(!kid.is_empty() && names.insert(kid.to_owned()), "{kid} twice");
            assert_eq!(key["use"], "sig");
            algs.insert(key["alg"].as_str().expect("an alg").to_owned());
            let bytes = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().expect("text")).expect("base64url");
            match key["kty"].as_str() {
                Some("RSA") => assert!(bytes("n").len() >= 256 && bytes("e") == [1, 0, 1]),
                Some("EC") => assert_eq!((&key["crv"], bytes("x").len(), bytes("y").len()), (&json!("P-256"), 32, 32)),
                other => panic!("kty {other:?}"),
            }
        }
        assert_eq!(algs, BTreeSet::from(["ES256".to_owned(), "RS256".to_owned()]));
        // The same document at the next fetch, and in another process.
        assert_eq!(provider.browser().get("/jwks").await.body, page.body);
        let (_, router) = provider.second().await;
        assert_eq!(Browser::new(router, "https://id.test").get("/jwks").await.json(), document);
    }
}

/// OpenID Connect Discovery §3, RP-Initiated Logout §2.1 and the IANA registry of authorization server metadata.
const REGISTERED_METADATA: [&str; 48] = [
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "userinfo_endpoint",
    "jwks_uri",
    "registration_endpoint",
    "scopes_supported",
    "response_types_supported",
    "response_modes_supported",
    "grant_types_supported",
    "acr_values_supported",
    "subject_types_supported",
    "id_token_signing_alg_values_supported",
    "id_token_encryption_alg_values_supported",
    "id_token_encryption_enc_values_supported",
    "userinfo_signing_alg_values_supported",
    "userinfo_encryption_alg_values_supported",
    "userinfo_encryption_enc_values_supported",
    "request_object_signing_alg_values_supported",
    "request_object_encryption_alg_values_supported",
    "request_object_encryption_enc_values_supported",
    "token_endpoint_auth_methods_supported",
    "token_endpoint_auth_signing_alg_values_supported",
    "display_values_supported",
    "claim_types_supported",
    "claims_supported",
    "service_documentation",
    "claims_locales_supported",
    "ui_locales_supported",
    "claims_parameter_supported",
    "request_parameter_supported",
    "request_uri_parameter_supported",
    "require_request_uri_registration",
    "op_policy_uri",
    "op_tos_uri",
    "revocation_endpoint",
    "revocation_endpoint_auth_methods_supported",
    "revocation_endpoint_auth_signing_alg_values_supported",
    "introspection_endpoint",
    "introspection_endpoint_auth_methods_supported",
    "introspection_endpoint_auth_signing_alg_values_supported",
    "code_challenge_methods_supported",
    "authorization_response_iss_parameter_supported",
    "prompt_values_supported",
    "end_session_endpoint",
    "check_session_iframe",
    "backchannel_logout_supported",
    "frontchannel_logout_supported",
];
