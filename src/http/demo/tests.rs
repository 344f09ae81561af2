//! The demo against a small provider of its own, which answers as each test asks: what the demo accepts and what it
//! must not. The code is `<what to do>~<nonce>`, the refresh token `<what to do>`.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::{Body, to_bytes};
use axum::http::Request;
use axum::http::header::{COOKIE, LOCATION, SET_COOKIE};
use openidconnect::core::{
    CoreEdDsaPrivateSigningKey, CoreIdToken, CoreIdTokenClaims, CoreJsonWebKeySet, CoreJwsSigningAlgorithm,
};
use openidconnect::{AccessToken, JsonWebKeyId, PrivateSigningKey};
use serde_json::{Value, json};
use tower::ServiceExt;
use url::Url;

use super::*;

const KEYS: [&str; 2] = [
    "MC4CAQAwBQYDK2VwBCIEIP1t6yaN5JdBPjJ/Rwz/2ZWWxJyWaKcWf5AhMPa1YfI2",
    "MC4CAQAwBQYDK2VwBCIEILvnE6eJ16B+y8JyttbzcHhzFtr32+ZRZj9uxR1oGsdp",
];

fn key(number: usize, kid: usize) -> CoreEdDsaPrivateSigningKey {
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", KEYS[number]);
    CoreEdDsaPrivateSigningKey::from_ed25519_pem(&pem, Some(JsonWebKeyId::new(format!("k{kid}")))).unwrap()
}

struct Provider {
    issuer: String,
    /// The number of the current key: the key set holds it alone.
    key: AtomicUsize,
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

impl Provider {
    async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let provider = Arc::new(Self { issuer, key: AtomicUsize::new(0) });
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(Self::discovery))
            .route("/jwks", get(Self::jwks))
            .route("/token", post(Self::token))
            .route("/userinfo", get(Self::userinfo))
            .with_state(Arc::clone(&provider));
        tokio::spawn(async move { axum::serve(listener, app).await });
        provider
    }

    async fn discovery(State(this): State<Arc<Self>>) -> Response {
        let issuer = &this.issuer;
        answer(
            StatusCode::OK,
            &json!({"issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"), "userinfo_endpoint": format!("{issuer}/userinfo"),
            "jwks_uri": format!("{issuer}/jwks"), "end_session_endpoint": format!("{issuer}/logout"),
            "response_types_supported": ["code"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "EdDSA"],
            "authorization_response_iss_parameter_supported": true}),
        )
    }

    async fn jwks(State(this): State<Arc<Self>>) -> Response {
        let number = this.key.load(Ordering::SeqCst);
        answer(StatusCode::OK, &json!(CoreJsonWebKeySet::new(vec![key(number, number).as_verification_key()])))
    }

    async fn userinfo() -> Response {
        answer(
            StatusCode::OK,
            &json!({"sub": "alice-id", "name": "<Alice>", "email_verified": true, "roles": ["student"]}),
        )
    }

    async fn token(State(this): State<Arc<Self>>, body: Bytes) -> Response {
        let form = Received::form(Ok(body)).unwrap();
        let one = |name| form.one(name).unwrap().unwrap();
        let (order, nonce) = match one("grant_type").as_str() {
            "authorization_code" => {
                assert!(one("code_verifier").len() >= 43);
                one("code").split_once('~').map(|(order, nonce)| (order.to_owned(), Some(nonce.to_owned()))).unwrap()
            }
            _ => (one("refresh_token"), None),
        };
        if order == "used-up" {
            let body = json!({"error": "invalid_grant", "error_description": "It is <used> up."});
            return answer(StatusCode::BAD_REQUEST, &body);
        }
        answer(StatusCode::OK, &this.tokens(&order, nonce.as_deref()))
    }

    fn tokens(&self, order: &str, nonce: Option<&str>) -> Value {
        let mut claims = json!({"iss": self.issuer, "aud": "demo", "sub": "alice-id", "iat": 1_700_000_000,
            "exp": 4_102_444_800_u64, "auth_time": 1_700_000_000, "name": "<Alice>"});
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(if order == "other-nonce" { "x" } else { nonce });
        }
        match order {
            "other-issuer" => claims["iss"] = json!("https://elsewhere.example"),
            "other-audience" => claims["aud"] = json!("somebody"),
            "other-subject" => claims["sub"] = json!("mallory-id"),
            "expired" => claims["exp"] = json!(1_700_000_001),
            "long-ago" => claims["auth_time"] = json!(1_600_000_000),
            _ => (),
        }
        let number = self.key.load(Ordering::SeqCst);
        let signer = if order == "forged" { key(1 - number, number) } else { key(number, number) };
        let hashed = AccessToken::new(if order == "other-at-hash" { "another" } else { "opaque" }.to_owned());
        let claims: CoreIdTokenClaims = serde_json::from_value(claims).unwrap();
        let id_token = CoreIdToken::new(claims, &signer, CoreJwsSigningAlgorithm::EdDsa, Some(&hashed), None).unwrap();
        // What the next refresh is to bring rides in the refresh token.
        let next = order.strip_prefix("then-").unwrap_or("refresh-token-two");
        let mut tokens = json!({"access_token": "opaque", "token_type": "Bearer", "expires_in": 900,
            "refresh_token": next, "scope": "openid offline_access", "id_token": id_token});
        if order == "no-id-token" {
            tokens.as_object_mut().unwrap().remove("id_token");
        }
        tokens
    }
}

/// A browser with one cookie, in front of a demo of its own.
struct Browser {
    app: Router,
    issuer: String,
    cookie: Option<String>,
}

struct Page {
    status: StatusCode,
    location: String,
    body: String,
}

impl Browser {
    fn new(issuer: &str) -> Self {
        let config = DemoConfig {
            issuer: issuer.to_owned(),
            base_url: "http://localhost:8081".to_owned(),
            client_id: "demo".to_owned(),
            client_secret: Secret::new("demo-secret".to_owned()),
            scopes: ["openid", "profile", "offline_access"].map(str::to_owned).to_vec(),
        };
        Self { app: router(config), issuer: issuer.to_owned(), cookie: None }
    }

    async fn send(&mut self, method: &str, path: &str, form: String) -> Page {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(cookie) = &self.cookie {
            request = request.header(COOKIE, format!("keyward=other; {cookie}"));
        }
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(Body::from(form)).unwrap();
        let response = self.app.clone().oneshot(request).await.unwrap();
        assert_eq!(
            response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().split(';').next(),
            Some("default-src 'none'")
        );
        if let Some(cookie) = response.headers().get(SET_COOKIE) {
            self.cookie = cookie.to_str().unwrap().split(';').next().map(str::to_owned);
        }
        let status = response.status();
        let location = response.headers().get(LOCATION).map(|url| url.to_str().unwrap().to_owned()).unwrap_or_default();
        let body = String::from_utf8(to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap();
        Page { status, location, body }
    }

    async fn get(&mut self, path: &str) -> Page {
        self.send("GET", path, String::new()).await
    }

    /// Presses a button of the start page.
    async fn press(&mut self, action: &str) -> Page {
        let home = self.get("/").await.body;
        let csrf = home.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        self.send("POST", action, format!("csrf={csrf}")).await
    }

    /// Starts a sign-in; gives state and nonce.
    async fn start(&mut self, query: &str) -> (String, String) {
        let url = Url::parse(&self.get(&format!("/sign-in{query}")).await.location).unwrap();
        (parameter(&url, "state"), parameter(&url, "nonce"))
    }

    /// The whole sign-in, with the provider told what to do.
    async fn sign_in(&mut self, order: &str, query: &str) -> Page {
        let (state, nonce) = self.start(query).await;
        let issuer = self.issuer.clone();
        self.get(&format!("/callback?code={order}~{nonce}&state={state}&iss={issuer}")).await
    }
}

fn parameter(url: &Url, name: &str) -> String {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
}

#[tokio::test]
async fn the_request_has_everything_and_hands_experiments_through() {
    let provider = Provider::start().await;
    let mut browser = Browser::new(&provider.issuer);
    assert!(browser.get("/").await.body.contains("id=\"demo-sign-in\""));
    let page = browser.get("/sign-in?prompt=login%20consent&max_age=7&response_mode=form_post").await;
    let url = Url::parse(&page.location).unwrap();
    assert_eq!(page.status, StatusCode::SEE_OTHER);
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "demo"),
        ("redirect_uri", "http://localhost:8081/callback"),
        ("scope", "openid profile offline_access"),
        ("code_challenge_method", "S256"),
        ("prompt", "login consent"),
        ("max_age", "7"),
        ("response_mode", "form_post"),
    ] {
        assert_eq!(parameter(&url, name), value, "{name}");
    }
    assert!(!parameter(&url, "state").is_empty() && !parameter(&url, "nonce").is_empty());
}

#[tokio::test]
async fn sign_in_refresh_and_sign_out() {
    let provider = Provider::start().await;
    let mut browser = Browser::new(&provider.issuer);
    assert_eq!(browser.sign_in("good", "").await.location, "/");
    let home = browser.get("/").await.body;
    for words in ["&#60;Alice&#62;", "alice-id", "refresh-…", "not yet", "student", "2100-01-01T00:00:00Z", "EdDSA"] {
        assert!(home.contains(words), "{words} in {home}");
    }
    assert!(!home.contains("refresh-token-two") && !home.contains("<Alice>"));
    assert_eq!(browser.press("/refresh").await.location, "/");
    assert!(browser.get("/").await.body.contains("once"));

    let url = Url::parse(&browser.press("/sign-out").await.location).unwrap();
    assert_eq!(url.path(), "/logout");
    assert_eq!(parameter(&url, "post_logout_redirect_uri"), "http://localhost:8081/signed-out");
    assert_eq!(parameter(&url, "id_token_hint").split('.').count(), 3);
    assert!(browser.get("/").await.body.contains("demo-sign-in"));
    let back = format!("/signed-out?state={}", parameter(&url, "state"));
    assert!(browser.get(&back).await.body.contains("sent you back"));
    assert!(!browser.get(&back).await.body.contains("sent you back"), "the state serves once");
}

#[tokio::test]
async fn form_post_answers_work_too() {
    let provider = Provider::start().await;
    let mut browser = Browser::new(&provider.issuer);
    let (state, nonce) = browser.start("?response_mode=form_post").await;
    let form = format!("code=good~{nonce}&state={state}&iss={}", provider.issuer);
    assert_eq!(browser.send("POST", "/callback", form).await.location, "/");
}

#[tokio::test]
async fn tokens_that_fail_a_check_sign_nobody_in() {
    let provider = Provider::start().await;
    for (order, words) in [
        ("other-nonce", "nonce"),
        ("other-issuer", "Invalid issuer"),
        ("other-audience", "Invalid audiences"),
        ("other-at-hash", "at_hash"),
        ("expired", "Expired"),
        ("forged", "Signature verification failed"),
        ("no-id-token", "no ID token"),
        ("used-up", "invalid_grant"),
    ] {
        let mut browser = Browser::new(&provider.issuer);
        let page = browser.sign_in(order, "").await;
        assert!(page.status.as_u16() >= 400 && page.body.contains(words), "{order}: {}", page.body);
        assert!(browser.get("/").await.body.contains("demo-sign-in"), "{order}");
    }
}

#[tokio::test]
async fn max_age_is_checked() {
    let provider = Provider::start().await;
    let mut browser = Browser::new(&provider.issuer);
    assert!(browser.sign_in("long-ago", "?max_age=60").await.body.contains("max_age was 60"));
    assert_eq!(browser.sign_in("long-ago", "").await.location, "/");
    assert_eq!(browser.sign_in("good", "?max_age=0").await.location, "/");
}

#[tokio::test]
async fn answers_that_are_not_for_this_browser_are_refused() {
    let provider = Provider::start().await;
    let issuer = &provider.issuer;
    let mut browser = Browser::new(issuer);
    let (state, nonce) = browser.start("").await;
    let mut other = Browser { app: browser.app.clone(), issuer: issuer.clone(), cookie: None };
    let answer = format!("/callback?code=good~{nonce}&state={state}&iss={issuer}");
    assert!(other.get(&answer).await.body.contains("did not start this sign-in"));
    other.start("").await;
    assert!(other.get(&answer).await.body.contains("did not start this sign-in"));
    assert_eq!(browser.get(&answer).await.location, "/");
    assert!(browser.get(&answer).await.body.contains("did not start this sign-in"), "a state serves once");

    for (iss, words) in [("", "does not say who"), ("&iss=https://elsewhere.example", "another issuer")] {
        let (state, nonce) = browser.start("").await;
        assert!(browser.get(&format!("/callback?code=good~{nonce}&state={state}{iss}")).await.body.contains(words));
    }
    assert!(browser.get("/callback").await.body.contains("fragment"));
    assert_eq!(browser.get("/callback?state=a&state=b").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_error_of_the_provider_is_shown_escaped() {
    let provider = Provider::start().await;
    let mut browser = Browser::new(&provider.issuer);
    let (state, _) = browser.start("?prompt=none").await;
    let answer = format!("error=login_required&error_description=No+%3Cb%3E&state={state}&iss={}", provider.issuer);
    let page = browser.get(&format!("/callback?{answer}")).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
    for words in ["id=\"demo-error\">login_required", "No &#60;b&#62;", "prompt=none forbids"] {
        assert!(page.body.contains(words), "{words} in {}", page.body);
    }
}

#[tokio::test]
async fn a_refresh_may_neither_fail_silently_nor_change_the_person() {
    let provider = Provider::start().await;
    for (order, words) in [("then-used-up", "used up, expired"), ("then-other-subject", "somebody else")] {
        let mut browser = Browser::new(&provider.issuer);
        browser.sign_in(order, "").await;
        let page = browser.press("/refresh").await;
        assert!(page.body.contains(words), "{order}: {}", page.body);
        assert!(browser.get("/").await.body.contains("not yet"), "{order}");
    }
    let mut browser = Browser::new(&provider.issuer);
    browser.sign_in("then-no-id-token", "").await;
    assert_eq!(browser.press("/refresh").await.location, "/");
}

#[tokio::test]
async fn new_keys_are_fetched_when_a_kid_is_unknown() {
    let provider = Provider::start().await;
    let mut browser = Browser::new(&provider.issuer);
    assert_eq!(browser.sign_in("good", "").await.location, "/");
    provider.key.store(1, Ordering::SeqCst);
    assert_eq!(browser.sign_in("good", "").await.location, "/");
}

#[tokio::test]
async fn forms_need_the_token_of_their_session() {
    let provider = Provider::start().await;
    let mut browser = Browser::new(&provider.issuer);
    browser.sign_in("good", "").await;
    for (action, form) in [("/refresh", "csrf=x"), ("/sign-out", "csrf="), ("/sign-out", "")] {
        assert_eq!(browser.send("POST", action, form.to_owned()).await.status, StatusCode::FORBIDDEN, "{action}");
    }
    assert!(browser.get("/").await.body.contains("demo-sign-out"));
}

#[tokio::test]
async fn signing_in_changes_the_session_id() {
    let provider = Provider::start().await;
    let mut browser = Browser::new(&provider.issuer);
    browser.start("").await;
    let before = browser.cookie.clone();
    browser.sign_in("good", "").await;
    assert!(before.is_some() && browser.cookie != before);
    browser.cookie = before;
    assert!(browser.get("/").await.body.contains("demo-sign-in"));
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_a_page_and_no_more() {
    let mut browser = Browser::new("http://127.0.0.1:1");
    let page = browser.get("/sign-in").await;
    assert_eq!(page.status, StatusCode::BAD_GATEWAY);
    assert!(
        page.body.contains("Check that the provider runs") && page.body.contains("onnection refused"),
        "{}",
        page.body
    );
    assert!(Browser::new("nonsense").get("/sign-in").await.body.contains("not a URL"));
}
