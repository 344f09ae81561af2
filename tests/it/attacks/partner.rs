//! One partner against another, and against whoever is nobody's: every id of somebody else is answered as one that does
//! not exist.

use keyward::protocol::time::Span;
use serde_json::{Value, json};

use super::without_request_id;
use crate::api_keys::code_of;
use crate::on_both_databases;
use crate::partner::{Platform, text};

/// A body that each operation would take.
fn body_for(path: &str, method: &str) -> Value {
    match (method, path) {
        ("PATCH", _) => json!({ "name": "Mallory" }),
        ("POST", path) if path.ends_with("/api-keys") => json!({ "name": "k" }),
        ("POST", path) if path.ends_with("/rotate") => json!({ "overlap_seconds": 0 }),
        _ => Value::Null,
    }
}

on_both_databases! {
    async fn attack_158_every_id_of_another_partner_is_one_that_does_not_exist(provider: Provider) {
        let (acme, globex) = (Platform::of(&provider, "acme").await, Platform::of(&provider, "globex").await);
        let victim = acme.registered("42", "ada@b.c").await;
        let alice = provider.user_id("alice").await;
        let alices_key = provider.api_key("alice", "openid").await;
        let import = provider.app.store.create_import(
            keyward::protocol::ids::ImportId::new("theirs"),
            keyward::protocol::ids::ClientId::new("acme"),
            vec![Err("invalid_request")],
            provider.app.now(),
        );
        import.await.expect("an import");
        let ids = |path: &str| -> Vec<String> {
            if path.contains("/api-keys/{") {
                vec![text(&victim, "/api_key/id"), alices_key.kid.as_str().to_owned()]
            } else if path.contains("/onboarding/{") {
                vec![text(&victim, "/onboarding/id")]
            } else if path.contains("/imports/{") {
                vec!["theirs".to_owned()]
            } else {
                vec![text(&victim, "/user/id"), alice.as_str().to_owned(), "acme".to_owned()]
            }
        };
        let document = provider.browser().get("/v1/openapi.json").await.json();
        let before = provider.row_counts().await;
        let mut tried = 0;
        for (path, operations) in document["paths"].as_object().expect("paths") {
            let Some((head, rest)) = path.split_once('{').filter(|_| path.starts_with("/v1/partner/")) else { continue };
            let tail = rest.split_once('}').expect("a parameter").1;
            for method in operations.as_object().expect("operations").keys().map(|name| name.to_uppercase()) {
                let call = async |id: &str| {
                    let answer = globex.call(&method, &format!("{head}{id}{tail}"), body_for(path, &method)).await;
                    assert_eq!((answer.status.as_u16(), code_of(&answer).as_str()), (404, "not_found"), "{method} {path}");
                    without_request_id(&answer)
                };
                let unknown = call("AAAAAAAAAAAAAAAAAAAAAA").await;
                for id in ids(path) {
                    assert_eq!(call(&id).await, unknown, "{method} {path} {id}");
                    tried += 1;
                }
            }
        }
        assert!(tried >= 22, "{tried} were tried");
        assert_eq!(provider.row_counts().await, before);

        // Nor do lists and filters tell of anybody, nor cursors that another was given.
        for query in ["?external_id=42", "?email=ada@b.c", "", "?email=alice@example.com"] {
            assert_eq!(globex.get(&format!("/v1/partner/users{query}")).await.json()["items"], json!([]), "{query}");
        }
        assert_eq!(globex.get("/v1/partner/onboarding").await.json()["items"], json!([]));
        let own = globex.registered("1", "x@b.c").await;
        let keys = format!("/v1/partner/users/{}/api-keys", text(&own, "/user/id"));
        acme.registered("43", "later@b.c").await;
        let later = acme.get("/v1/partner/users?external_id=43").await.json();
        let later = acme.get(&format!("/v1/partner/users/{}/api-keys", text(&later, "/items/0/id"))).await.json();
        let [foreign, unknown] = [text(&later, "/items/0/id"), "AAAAAAAAAAAAAAAA".to_owned()];
        let foreign = globex.get(&format!("{keys}?cursor={foreign}")).await;
        assert_eq!(foreign.json(), globex.get(&format!("{keys}?cursor={unknown}")).await.json());
        // The control: the partner itself reaches every one of them.
        let own = acme.get(&format!("/v1/partner/users/{}", text(&victim, "/user/id"))).await;
        assert_eq!((own.status.as_u16(), &own.json()["user"]), (200, &victim["user"]));
        assert_eq!(acme.get("/v1/partner/imports/theirs").await.status, 200);
    }

    async fn attack_97_nobody_says_in_a_body_whose_key_it_is(provider: Provider) {
        let (acme, globex) = (Platform::of(&provider, "acme").await, Platform::of(&provider, "globex").await);
        let theirs = text(&globex.registered("1", "ada@b.c").await, "/user/id");
        let own = text(&acme.registered("1", "ada@b.c").await, "/user/id");
        let before = provider.row_counts().await;
        for member in ["user_id", "owner", "id", "partner_id", "sub", "client_id"] {
            let body = json!({ "name": "k", member: theirs });
            let refused = acme.call("POST", &format!("/v1/partner/users/{own}/api-keys"), body).await;
            assert_eq!((refused.status.as_u16(), code_of(&refused).as_str()), (400, "invalid_request"), "{member}");
        }
        assert_eq!(provider.row_counts().await, before);
        let control = acme.call("POST", &format!("/v1/partner/users/{own}/api-keys"), json!({ "name": "k" })).await;
        assert_eq!(control.status, 201);
    }

    async fn attack_102_another_partners_key_is_a_bad_key(provider: Provider) {
        let (acme, globex) = (Platform::of(&provider, "acme").await, Platform::of(&provider, "globex").await);
        let key = text(&acme.registered("1", "ada@b.c").await, "/api_key/key");
        let fields = [("grant_type", "urn:keyward:oauth:grant-type:api-key"), ("api_key", key.as_str())];
        assert_eq!(provider.token("globex", &fields).await.error(), "invalid_grant");
        assert_eq!(provider.token("acme", &fields).await.status, 200);
        assert_eq!(provider.token("platform", &fields).await.status, 200, "a client of no partner takes it");
        let inactive = provider.introspect("globex", &key).await;
        assert_eq!(inactive, json!({ "active": false }));
        let active = provider.introspect("acme", &key).await;
        assert_eq!((&active["active"], &active["external_id"]), (&json!(true), &json!("1")));
        let _ = globex;
    }

    async fn attack_160_a_link_names_nobody_but_whom_it_was_made_for(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let user = acme.registered("1", "ada@b.c").await;
        let path = format!("/v1/partner/users/{}/browser-handoff", text(&user, "/user/id"));
        let url = text(&acme.call("POST", &path, Value::Null).await.json(), "/url");
        let mut browser = provider.browser();
        let mut page = browser.get(&url).await;
        // The form edited to another link, to nothing, and doubled.
        let own = url.split_once("token=").expect("a token").1;
        for token in ["", "x", &own[1..], &format!("{own}x")] {
            let form = page.body.replace(own, token);
            let edited = crate::support::Page { body: form, ..page.clone() };
            assert_eq!(browser.submit(&edited, &[]).await.status, 410, "{token}");
        }
        assert_eq!(browser.get("/v1/me").await.status, 401);
        page = browser.get(&url).await;
        assert_eq!(browser.submit(&page, &[]).await.status, 303, "the link itself still works");
        assert_eq!(browser.submit(&page, &[]).await.status, 410, "once");
        provider.pass(Span::minutes(2));
        assert_eq!(browser.get("/v1/me").await.json()["id"], user["user"]["id"]);
    }

    async fn attack_98_a_partner_gives_no_more_than_its_people_may(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let made = acme.registered("1", "ada@b.c").await;
        let path = format!("/v1/partner/users/{}/api-keys", text(&made, "/user/id"));
        for scopes in [json!(["teach"]), json!(["partner.users"]), json!(["unheard"]), json!(["openid", "teach"])] {
            let refused = acme.call("POST", &path, json!({ "name": "k", "scopes": scopes })).await;
            assert_eq!((refused.status.as_u16(), code_of(&refused).as_str()), (400, "invalid_scope"), "{scopes}");
        }
        let long = acme.call("POST", &path, json!({ "name": "k", "expires_in": 400_000_000 })).await;
        assert_eq!(code_of(&long), "invalid_request");
        assert_eq!(acme.call("POST", &path, json!({ "name": "k", "scopes": ["quiz.read"] })).await.status, 201);
    }
}
