//! HTTP to a provider that may be killed in the middle of an answer: every request tells whether it was answered.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER, SET_COOKIE};

use super::browser::{Page, form_fields};
use super::process::{Site, client};
use super::provider::{VERIFIER, challenge};

/// The password of everybody in [`config`].
pub const PASSWORD: &str = "a long horse 77";
/// People in [`config`]: `u0`, `u1`, …
pub const PEOPLE: usize = 10;
/// Scopes that people are asked for one by one: `s0`, `s1`, …
pub const SCOPES: usize = 300;

fn secret_of(client_id: &str) -> String {
    format!("{client_id}-secret-0123456789-abcdefghij")
}

/// The configuration of a provider under load: cheap passwords and signatures, and waits longer than any test. The
/// clients: `web` refreshes without rotation, `strict` and the public `spa` with it, `ask` asks for consent.
pub fn config(site: &Site, database_url: &str) -> String {
    let scopes: Vec<String> = (0..SCOPES).map(|n| format!("s{n}")).collect();
    let mut config = format!(
        r#"issuer = "{}"
listen = "127.0.0.1:{}"
[database]
url = "{database_url}"
acquire_timeout = "60s"
[passwords]
memory_kib = 1024
iterations = 1
queue_timeout = "60s"
[rate_limits]
login = {{ attempts = 100000 }}
[tokens]
authorization_code_ttl = "10m"
refresh_retry_window = "10m"
"#,
        site.issuer, site.port
    );
    for name in &scopes {
        config.push_str(&format!("[[scopes]]\nname = \"{name}\"\n"));
    }
    for n in 0..PEOPLE {
        config.push_str(&format!("[[users]]\nusername = \"u{n}\"\npassword = \"{PASSWORD}\"\n"));
    }
    let secret = |id: &str| format!("client_secret = \"{}\"", secret_of(id));
    let more = scopes.join(" ");
    for (id, proof, scope, rest) in [
        ("web", secret("web"), "", "first_party = true\nintrospection = \"any\"\nrefresh_idle_ttl = \"1d\""),
        ("strict", secret("strict"), "", "first_party = true\nrefresh_token_rotation = \"always\""),
        ("spa", "token_endpoint_auth_method = \"none\"".to_owned(), "", "first_party = true"),
        ("ask", secret("ask"), more.as_str(), ""),
    ] {
        config.push_str(&format!(
            r#"[[clients]]
client_id = "{id}"
{proof}
redirect_uris = ["https://{id}.test/cb"]
grant_types = ["authorization_code", "refresh_token"]
scope = "openid profile offline_access {scope}"
access_token_signed_response_alg = "ES256"
id_token_signed_response_alg = "ES256"
{rest}
"#
        ));
    }
    config.push_str(&format!(
        "[[clients]]\nclient_id = \"machine\"\n{}\ngrant_types = [\"client_credentials\"]\n\
         access_token_signed_response_alg = \"ES256\"\n",
        secret("machine")
    ));
    config
}

/// What a redeemed code gave.
#[derive(Clone, Debug)]
pub struct Tokens {
    pub access_token: String,
    pub refresh_token: String,
}

impl Tokens {
    #[track_caller]
    pub fn of(page: &Page) -> Self {
        assert_eq!(page.status, 200, "{}", page.body);
        let text =
            |name: &str| page.json()[name].as_str().unwrap_or_else(|| panic!("no {name}: {}", page.body)).to_owned();
        Self { access_token: text("access_token"), refresh_token: text("refresh_token") }
    }
}

/// It was refused for good: an error that no retry changes.
#[track_caller]
pub fn refused(page: &Page) {
    assert_eq!((page.status.as_u16(), page.json()["error"].as_str()), (400, Some("invalid_grant")), "{}", page.body);
}

/// It was not done, and may be tried again: JSON for apps, a page for people.
#[track_caller]
pub fn unavailable(page: &Page) {
    assert_eq!(page.status, 503, "{}", page.body);
    let wait: Option<u32> = page.header(RETRY_AFTER.as_str()).and_then(|text| text.parse().ok());
    assert!(wait.is_some_and(|seconds| seconds > 0), "when to try again: {:?}", page.headers);
    match page.header(CONTENT_TYPE.as_str()).unwrap_or_default() {
        "application/json" => assert_eq!(page.json()["error"], "temporarily_unavailable", "{}", page.body),
        kind => {
            assert!(kind.starts_with("text/html"), "{kind}");
            assert!(page.body.contains("try again") || page.body.contains("Try again"), "{}", page.body);
        }
    }
}

/// A connection to one life of a provider.
pub struct Wire {
    client: reqwest::Client,
    issuer: String,
}

impl Wire {
    pub fn to(site: &Site) -> Self {
        Self { client: client(), issuer: site.issuer.clone() }
    }

    /// The answer, if it came whole. `url` may be absolute or a path.
    pub async fn send(&self, url: &str, fields: Option<&[(&str, &str)]>, headers: &[(&str, &str)]) -> Option<Page> {
        let path = url.strip_prefix(&self.issuer).unwrap_or(url);
        assert!(path.starts_with('/'), "{url} is not at the provider");
        let url = format!("{}{path}", self.issuer);
        let mut request = match fields {
            None => self.client.get(url),
            Some(fields) => self.client.post(url).form(fields),
        };
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.ok()?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer.bytes().await.ok()?;
        Some(Page { status, headers, body: String::from_utf8(body.to_vec()).expect("text") })
    }

    /// A request of a client that authenticates; the public one only says who it is.
    pub async fn call(&self, client_id: &str, path: &str, fields: &[(&str, &str)]) -> Option<Page> {
        if client_id == "spa" {
            return self.send(path, Some(&[fields, &[("client_id", client_id)]].concat()), &[]).await;
        }
        let basic = format!("Basic {}", STANDARD.encode(format!("{client_id}:{}", secret_of(client_id))));
        self.send(path, Some(fields), &[("authorization", &basic)]).await
    }

    pub async fn redeem(&self, client_id: &str, code: &str) -> Option<Page> {
        let redirect_uri = format!("https://{client_id}.test/cb");
        let mut fields = vec![("grant_type", "authorization_code"), ("code", code), ("redirect_uri", &redirect_uri)];
        if client_id == "spa" {
            fields.push(("code_verifier", VERIFIER));
        }
        self.call(client_id, "/token", &fields).await
    }

    pub async fn refresh(&self, client_id: &str, token: &str) -> Option<Page> {
        self.call(client_id, "/token", &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    pub async fn revoke(&self, client_id: &str, token: &str) -> Option<Page> {
        self.call(client_id, "/revoke", &[("token", token)]).await
    }

    /// Whether a token of any client is alive.
    pub async fn is_active(&self, token: &str) -> bool {
        let page = self.call("web", "/introspect", &[("token", token)]).await.expect("an answer");
        assert_eq!(page.status, 200, "{}", page.body);
        page.json()["active"].as_bool().expect("a boolean")
    }

    pub async fn userinfo(&self, token: &str) -> Option<Page> {
        self.send("/userinfo", None, &[("authorization", &format!("Bearer {token}"))]).await
    }

    /// Asks for a code in a session; the redirect that carries it, or whatever came instead.
    pub async fn authorize(&self, client_id: &str, person: &Person, scope: &str, more: &str) -> Option<Page> {
        let pkce = if client_id == "spa" { challenge() } else { "" };
        let scope = scope.replace(' ', "+");
        let url = format!(
            "/authorize?client_id={client_id}&response_type=code&redirect_uri=https://{client_id}.test/cb&scope={scope}&state=x&{pkce}{more}"
        );
        self.send(&url, None, &[("cookie", &person.cookies())]).await
    }

    /// Somebody at the sign-in page.
    pub async fn visitor(&self, username: &str) -> Person {
        let page = self.send("/login", None, &[]).await.expect("the sign-in page");
        let csrf = form_fields(&page.body).into_iter().find(|(name, _)| name == "csrf").expect("a form token").1;
        let browser = cookies_of(&page).remove("keyward_browser").expect("a cookie");
        Person { username: username.to_owned(), browser, csrf, session: None }
    }

    /// Somebody who is signed in.
    pub async fn signed_in(&self, username: &str) -> Person {
        let stranger = self.visitor(username).await;
        stranger.welcomed(&self.sign_in(&stranger).await.expect("an answer"))
    }

    /// The right password.
    pub async fn sign_in(&self, person: &Person) -> Option<Page> {
        let fields = [("username", person.username.as_str()), ("password", PASSWORD), ("csrf", &person.csrf)];
        let cookie = format!("keyward_browser={}", person.browser);
        self.send("/login", Some(&fields), &[("cookie", &cookie)]).await
    }

    pub async fn is_signed_in(&self, person: &Person) -> bool {
        let page = self.send("/login", None, &[("cookie", &person.cookies())]).await.expect("an answer");
        assert_eq!(page.status, 200, "{}", page.body);
        !page.body.contains("id=\"login-submit\"")
    }

    /// The confirmation page of a sign-out.
    pub async fn sign_out_page(&self, person: &Person) -> Option<Page> {
        self.send("/logout", None, &[("cookie", &person.cookies())]).await
    }

    /// Presses the button of a page of ours.
    pub async fn press(&self, page: &Page, path: &str, button: (&str, &str), person: &Person) -> Option<Page> {
        let hidden = form_fields(&page.body);
        let mut fields: Vec<(&str, &str)> =
            hidden.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        fields.push(button);
        self.send(path, Some(&fields), &[("cookie", &person.cookies())]).await
    }
}

/// A person's browser.
#[derive(Clone, Debug)]
pub struct Person {
    username: String,
    browser: String,
    csrf: String,
    session: Option<String>,
}

impl Person {
    /// The same person in the session that a sign-in began.
    #[track_caller]
    pub fn welcomed(&self, page: &Page) -> Self {
        assert_eq!(page.status, 303, "{}", page.body);
        let session = cookies_of(page).remove("keyward_session").expect("a session");
        Self { session: Some(session), ..self.clone() }
    }

    pub fn cookies(&self) -> String {
        let session = self.session.as_ref().map(|session| format!("; keyward_session={session}"));
        format!("keyward_browser={}{}", self.browser, session.unwrap_or_default())
    }
}

fn cookies_of(page: &Page) -> BTreeMap<String, String> {
    let lines = page.headers.get_all(SET_COOKIE).iter().map(|line| line.to_str().expect("a cookie"));
    let pairs = lines.filter_map(|line| line.split(';').next()?.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The code that a redirect carries.
#[track_caller]
pub fn code_of(page: &Page) -> String {
    assert_eq!(page.status, 303, "{}", page.body);
    page.location_params().remove("code").unwrap_or_else(|| panic!("no code: {:?}", page.header(LOCATION.as_str())))
}
