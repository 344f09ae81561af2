//! Discovery: who we say we are, and that we do what we say.

use axum::body::{Body, to_bytes};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, Request};
use keyward::account::declared;
use keyward::protocol::client::{AuthMethod, ClientMetadata, GrantType, SigningAlg};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::authorize::{add_client, code_at_app, is_sign_in, type_password};
use crate::login::cookies_of;
use crate::on_both_databases;
use crate::support::{CALLBACK, Page, claims_of};

on_both_databases! {
    async fn attack_117_no_header_changes_who_we_say_we_are(provider: Provider) {
        let mut browser = provider.browser();
        let documents = ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"];
        let headers = [
            ("host", "evil.test"),
            ("x-forwarded-host", "evil.test"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-prefix", "/evil"),
            ("x-original-url", "/evil"),
            ("forwarded", "host=evil.test;proto=http"),
        ];
        for path in documents {
            let page = browser.send(Method::GET, path, None, &headers).await;
            assert_eq!(page.body, browser.get(path).await.body);
        }
        let page = browser.send(Method::GET, &provider.authorize_url(""), None, &headers).await;
        assert!(page.location().starts_with("https://id.test/login?ticket="), "{}", page.location());
        let page = browser.send(Method::GET, page.location(), None, &headers).await;
        assert!(is_sign_in(&page) && !page.body.contains("evil"));
        assert!(cookies_of(&page).iter().all(|cookie| cookie.starts_with("__Host-") && !cookie.contains("evil")));
        let page = type_password(&mut browser, &page).await;
        assert_eq!(page.location_params()["iss"], "https://id.test");

        // A request line in absolute form names its host itself.
        let request = Request::get("http://evil.test/.well-known/openid-configuration").body(Body::empty()).unwrap();
        let response = provider.router.clone().oneshot(request).await.unwrap();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        assert_eq!(body, browser.get(documents[0]).await.body);
    }
    async fn attack_120_the_issuer_is_the_same_everywhere_and_whatever_is_listed_works(provider: Provider) {
        let mut browser = provider.browser();
        let document = browser.get("/.well-known/openid-configuration").await.json();
        let issuer = document["issuer"].as_str().expect("an issuer").to_owned();
        assert_eq!(issuer, "https://id.test");
        assert_eq!(browser.get("/.well-known/oauth-authorization-server").await.json()["issuer"], issuer.as_str());
        let list = |name: &str| -> Vec<String> {
            let values = document[name].as_array().unwrap_or_else(|| panic!("no {name}")).iter();
            values.map(|value| value.as_str().expect("text").to_owned()).collect()
        };

        // Each algorithm signs, by a key that is published; and none that is not listed can be asked for.
        let algs = list("id_token_signing_alg_values_supported");
        for alg in &algs {
            let wants = |client: &mut ClientMetadata| client.id_token_signed_response_alg = alg.parse().ok();
            add_client(&provider, &format!("signed-{alg}"), wants).await;
        }
        // Whatever is made at a start is there.
        declared::sync(&provider.app).await.expect("in order");
        let jwks = browser.get("/jwks").await.json();
        for alg in &algs {
            let id = format!("signed-{alg}");
            let page = provider.authorize(&mut browser, &provider.authorize_url_for(&id, "")).await;
            assert_eq!(page.location_params()["iss"], issuer);
            let tokens = provider.redeem_as(&id, &code_at_app(&page)).await;
            let header = URL_SAFE_NO_PAD.decode(tokens.text("id_token").split('.').next().expect("a header")).unwrap();
            let header: Value = serde_json::from_slice(&header).expect("JSON");
            assert_eq!(header["alg"], alg.as_str());
            let key = jwks["keys"].as_array().expect("keys").iter().find(|key| key["kid"] == header["kid"]);
            assert_eq!(key.expect("its key")["alg"], alg.as_str());
            for token in ["id_token", "access_token"] {
                assert_eq!(claims_of(&tokens.text(token))["iss"], issuer.as_str());
            }
            for token in ["access_token", "refresh_token"] {
                assert_eq!(provider.introspect(&id, &tokens.text(token)).await["iss"], issuer.as_str());
            }
        }
        assert_eq!(algs.len(), SigningAlg::ALL.len());
        for alg in ["none", "HS256", "RS384", "nonsense"] {
            assert!(!algs.iter().any(|known| known == alg) && alg.parse::<SigningAlg>().is_err(), "{alg}");
        }

        // Each way to authenticate lets in who registered it, and each grant is known.
        let methods = list("token_endpoint_auth_methods_supported");
        assert_eq!(methods.len(), AuthMethod::ALL.len());
        for name in &methods {
            let method: AuthMethod = name.parse().expect("a method of ours");
            add_client(&provider, name, |client| client.token_endpoint_auth_method = Some(method)).await;
            let grant = [("grant_type", "refresh_token"), ("refresh_token", "x")];
            let secret = format!("{name}-secret");
            let in_body = [&grant[..], &[("client_id", name), ("client_secret", &secret)]].concat();
            let page: Page = match method {
                AuthMethod::ClientSecretPost => browser.post("/token", &in_body).await,
                AuthMethod::None => browser.post("/token", &in_body[..3]).await,
                _ => {
                    let answer = provider.token(name, &grant).await;
                    assert_eq!(answer.error(), "invalid_grant", "{name}");
                    continue;
                }
            };
            assert_eq!(page.json()["error"], "invalid_grant", "{name}");
        }
        let grants = list("grant_types_supported");
        assert_eq!(grants.len(), GrantType::ALL.len());
        for grant in &grants {
            let answer = provider.token("web", &[("grant_type", grant)]).await;
            assert_ne!(answer.error(), "unsupported_grant_type", "{grant}");
        }
        assert_eq!(provider.token("web", &[("grant_type", "password")]).await.error(), "unsupported_grant_type");
        for response_type in list("response_types_supported") {
            let asked = format!("response_type={response_type}");
            let page = browser.get(&provider.authorize_url("").replace("response_type=code", &asked)).await;
            assert!(page.location().starts_with(CALLBACK), "{response_type}");
            assert!(page.location_params().contains_key("code"), "{response_type}");
        }
        assert_eq!(document["request_parameter_supported"], json!(false));
    }
}
