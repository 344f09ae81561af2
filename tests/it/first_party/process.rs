//! The built program: what other people's libraries make of the tokens, and an API that nobody has switched on.

use std::process::Command;

use serde_json::{Value, json};

use super::{post, registered, signed_up, text};
use crate::support::process::{Running, Site};
use crate::support::python::python;

/// Both APIs, as their page has them.
pub const APIS: &str = r#"
[[clients]]
client_id = "study"
token_endpoint_auth_method = "none"
scope = "openid profile"
[sign_in_apis.username]
client_id = "study"
[[clients]]
client_id = "game"
token_endpoint_auth_method = "none"
scope = "openid email profile"
[sign_in_apis.device]
client_id = "game"
"#;

#[tokio::test]
async fn pyjwt_verifies_the_tokens_of_both_by_the_published_keys() {
    let site = Site::new(APIS);
    let running = site.serve().await;
    let study = signed_up(&mut site.browser(), "ada", "engine").await;
    let game = registered(&mut site.browser(), "player@example.com", "s3cur3pass", "device-abc-123").await;
    let tokens = json!({ "study": text(&study, "/token"), "game": text(&game, "/data/access_token") });

    let mut command = Command::new(python());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/jwt/verify.py");
    command.args([script, &site.issuer]).env("NO_PROXY", "*");
    let verified = Running::start(command, &tokens.to_string()).wait().await.ok().json();
    let id = text(&study, "/user/id");
    for (name, expected) in [("sub", json!(id)), ("userId", json!(id)), ("username", json!("ada"))] {
        assert_eq!(verified["study"][name], expected, "{verified}");
    }
    assert_eq!(verified["game"]["sub"], "device-abc-123");
    for (name, days) in [("study", 7), ("game", 30)] {
        let at = |claim: &str| verified[name][claim].as_i64().expect("a time");
        assert_eq!(at("exp") - at("iat"), days * 24 * 3600, "{name}");
    }
    running.terminate().await.ok();
}

#[tokio::test]
async fn an_api_that_is_not_configured_is_an_address_like_any_other_without_anything() {
    let site = Site::new("");
    let running = site.serve().await;
    let mut browser = site.browser();
    let nowhere = post(&mut browser, "/nowhere", json!({})).await;
    assert_eq!(nowhere.status, 404);
    for path in ["/api/auth/signup", "/api/auth/login", "/auth/register", "/auth/login", "/auth/refresh"] {
        let body = json!({ "username": "alice", "email": "alice@example.com", "password": crate::support::process::SITE_PASSWORD });
        let page = post(&mut browser, path, body).await;
        assert_eq!((page.status, page.body.as_str()), (nowhere.status, nowhere.body.as_str()), "{path}");
    }
    for path in ["/api/auth/me", "/auth/me"] {
        assert_eq!(browser.get(path).await.json()["error"], Value::from("not_found"), "{path}");
    }
    running.terminate().await.ok();
}
