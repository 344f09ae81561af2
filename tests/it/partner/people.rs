//! What a partner does with somebody who is there: found, changed, switched off and on, forgotten, and their keys.

use keyward::account::api_keys::mint_for_partner;
use keyward::protocol::api_key::Wish;
use keyward::protocol::client::RefreshTokenRotation;
use keyward::protocol::ids::{ClientId, UserId};
use serde_json::{Value, json};

use super::{Platform, text};
use crate::api_keys::code_of;
use crate::on_both_databases;
use crate::support::audit::{an_operator, told};

const USERS: &str = "/v1/partner/users";

on_both_databases! {
    async fn people_are_found_by_either_name_and_in_pages(provider: Provider) {
        let (acme, globex) = (Platform::of(&provider, "acme").await, Platform::of(&provider, "globex").await);
        for n in 0..5 {
            acme.registered(&format!("a{n}"), &format!("a{n}@b.c")).await;
            globex.registered(&format!("a{n}"), &format!("a{n}@b.c")).await;
        }
        let ids = |page: &Value| -> Vec<String> {
            page["items"].as_array().expect("items").iter().map(|item| text(item, "/external_id")).collect()
        };
        let one = acme.get(&format!("{USERS}?external_id=a3")).await.json();
        assert_eq!((ids(&one), &one["next_cursor"]), (vec!["a3".to_owned()], &Value::Null));
        assert_eq!(ids(&acme.get(&format!("{USERS}?email=A2@b.c")).await.json()), ["a2"]);
        assert_eq!(ids(&acme.get(&format!("{USERS}?email=a2@b.c&external_id=a3")).await.json()), [""; 0]);
        assert_eq!(ids(&acme.get(&format!("{USERS}?email=nonsense")).await.json()), [""; 0]);
        assert_eq!(ids(&acme.get(&format!("{USERS}?external_id=alice")).await.json()), [""; 0]);

        let mut seen = Vec::new();
        let mut path = format!("{USERS}?limit=2");
        loop {
            let page = acme.get(&path).await.json();
            // Whoever is forgotten between two pages takes nobody along.
            if seen.is_empty() {
                let first = text(&page, "/items/1/id");
                assert_eq!(acme.call("DELETE", &format!("{USERS}/{first}"), Value::Null).await.status, 204);
            }
            seen.extend(ids(&page));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = format!("{USERS}?limit=2&cursor={cursor}");
        }
        assert_eq!(seen, ["a0", "a1", "a2", "a3", "a4"], "in the order of their registration");
        for bad in ["limit=0", "limit=101", "limit=x", "cursor=nonsense", "limit=2&limit=3"] {
            assert_eq!(code_of(&acme.get(&format!("{USERS}?{bad}")).await), "invalid_request", "{bad}");
        }
    }

    async fn what_is_known_of_somebody_can_be_changed(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let made = acme.registered("1", "ada@b.c").await;
        acme.registered("2", "bob@b.c").await;
        let path = format!("{USERS}/{}", text(&made, "/user/id"));
        let key = text(&made, "/api_key/key");
        let changed = acme.call("PATCH", &path, json!({ "name": "Ada", "locale": "en" })).await;
        assert_eq!((changed.status.as_u16(), &changed.json()["user"]["name"]), (200, &json!("Ada")));
        assert_eq!(provider.bearer("GET", "/v1/me", &key).await.json()["name"], "Ada", "at once");
        let changed = acme.call("PATCH", &path, json!({ "name": null, "email": "New@b.c" })).await.json();
        assert_eq!(changed["user"]["name"], Value::Null);
        assert_eq!((&changed["user"]["email"], &changed["user"]["locale"]), (&json!("new@b.c"), &json!("en")));
        // The old address is free, the new one is taken.
        assert_eq!(acme.register("3", "ada@b.c").await.status, 201);
        assert_eq!(acme.register("4", "new@b.c").await.status, 409);
        let before = acme.get(&path).await.json();
        for (body, status, code) in [
            (json!({ "email": "bob@b.c", "name": "Eve" }), 409, "email_in_use_by_partner_user"),
            (json!({ "email": null }), 400, "invalid_request"),
            (json!({ "email": "x" }), 400, "invalid_request"),
            (json!({ "roles": ["teacher"] }), 400, "invalid_request"),
            (json!({ "external_id": "9" }), 400, "invalid_request"),
            (json!({ "email_verified": true }), 400, "invalid_request"),
        ] {
            let refused = acme.call("PATCH", &path, body.clone()).await;
            assert_eq!((refused.status.as_u16(), code_of(&refused).as_str()), (status, code), "{body}");
        }
        assert_eq!(acme.get(&path).await.json(), before, "nothing of a refused change is kept");
    }

    async fn a_switched_off_account_is_closed_at_once_and_opens_again(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let made = acme.registered("1", "ada@b.c").await;
        let (path, key) = (format!("{USERS}/{}", text(&made, "/user/id")), text(&made, "/api_key/key"));
        let fields = [("grant_type", "urn:keyward:oauth:grant-type:api-key"), ("api_key", key.as_str())];
        let tokens = provider.token("acme", &fields).await;
        let access = tokens.text("access_token");
        assert_eq!(provider.bearer("GET", "/v1/me", &access).await.status, 200);
        for _ in 0..2 {
            let off = acme.call("POST", &format!("{path}/disable"), Value::Null).await;
            assert_eq!((off.status.as_u16(), &off.json()["user"]["status"]), (200, &json!("disabled")));
        }
        for credential in [&key, &access] {
            assert_eq!(provider.bearer("GET", "/v1/me", credential).await.status, 401);
        }
        assert_eq!(provider.token("acme", &fields).await.error(), "invalid_grant");
        let minted = acme.call("POST", &format!("{path}/api-keys"), json!({ "name": "k" })).await;
        assert_eq!((minted.status.as_u16(), code_of(&minted).as_str()), (409, "user_disabled"));
        let on = acme.call("POST", &format!("{path}/enable"), Value::Null).await;
        assert_eq!(on.json()["user"]["status"], "active");
        assert_eq!(provider.bearer("GET", "/v1/me", &key).await.status, 200);

        // What an operator switched off, a partner does not switch on.
        let (store, id) = (&provider.app.store, UserId::new(text(&made, "/user/id")));
        let now = provider.app.now();
        store.set_user_disabled(id.clone(), Some(now), told(), now).await.expect("disabled");
        let refused = acme.call("POST", &format!("{path}/enable"), Value::Null).await;
        assert_eq!((refused.status.as_u16(), code_of(&refused).as_str()), (409, "disabled_by_operator"));
        assert_eq!(provider.bearer("GET", "/v1/me", &key).await.status, 401);
        store.set_user_disabled(id, None, told(), now).await.expect("enabled");

        assert_eq!(acme.call("DELETE", &path, Value::Null).await.status, 204);
        assert_eq!(provider.bearer("GET", "/v1/me", &key).await.status, 401);
        assert_eq!(acme.call("DELETE", &path, Value::Null).await.status, 404);
        let anew = acme.registered("1", "ada@b.c").await;
        assert_ne!(anew["user"]["id"], made["user"]["id"], "an id is never given twice");
    }

    async fn keys_are_made_listed_rotated_and_revoked(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let made = acme.registered("1", "ada@b.c").await;
        let path = format!("{USERS}/{}/api-keys", text(&made, "/user/id"));
        let (first, first_id) = (text(&made, "/api_key/key"), text(&made, "/api_key/id"));
        let second = acme.call("POST", &path, json!({ "name": "laptop", "expires_in": 60 })).await;
        assert_eq!(second.status, 201, "{}", second.body);
        let second = text(&second.json(), "/api_key/key");
        let list = acme.get(&path).await;
        let names: Vec<String> =
            list.json()["items"].as_array().expect("items").iter().map(|item| text(item, "/name")).collect();
        assert_eq!(names, ["laptop", "default"], "the newest first");
        assert!(!list.body.contains(&first[23..60]) && !list.body.contains("mac"), "{}", list.body);

        let rotate = format!("/v1/partner/api-keys/{first_id}/rotate");
        let rotated = acme.call("POST", &rotate, json!({ "overlap_seconds": 0 })).await;
        assert_eq!(rotated.status, 201, "{}", rotated.body);
        let successor = text(&rotated.json(), "/api_key/key");
        assert_eq!(provider.bearer("GET", "/v1/me", &first).await.status, 401);
        assert_eq!(provider.bearer("GET", "/v1/me", &successor).await.status, 200);
        let revoke = format!("/v1/partner/api-keys/{}", text(&rotated.json(), "/api_key/id"));
        for _ in 0..2 {
            assert_eq!(acme.call("DELETE", &revoke, Value::Null).await.status, 204);
        }
        assert_eq!(provider.bearer("GET", "/v1/me", &successor).await.status, 401);
        assert_eq!(provider.bearer("GET", "/v1/me", &second).await.status, 200, "the others go on");
    }

    async fn a_partners_own_key_administers_and_does_nothing_else(provider: Provider) {
        let (id, wish) = (ClientId::new("acme"), Wish { name: "ci".to_owned(), ..Wish::default() });
        let own = mint_for_partner(&provider.app, &id, wish, &an_operator()).await.expect("a key").key.expose().clone();
        let acme = Platform::with(&provider, &own);
        assert_eq!(acme.register("1", "ada@b.c").await.status, 201);
        assert_eq!(provider.bearer("GET", "/v1/me", &own).await.status, 401);
        provider.set_client_disabled("acme", true).await;
        assert_eq!(code_of(&acme.get(USERS).await), "invalid_token");
        provider.set_client_disabled("acme", false).await;
        assert_eq!(acme.get(USERS).await.status, 200);
        // A client that is no partner any more administers nobody.
        provider.change_client("acme", |record| record.client.metadata.partner = false).await;
        assert_eq!(acme.get(USERS).await.status, 401);
    }

    async fn only_a_partners_own_credential_opens_the_partner_api(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let made = acme.registered("1", "ada@b.c").await;
        let user_key = text(&made, "/api_key/key");
        let fields = [("grant_type", "urn:keyward:oauth:grant-type:api-key"), ("api_key", user_key.as_str())];
        let of_person = provider.token("acme", &fields).await.text("access_token");
        let plain = [("grant_type", "client_credentials")];
        let no_scope = [plain[0], ("scope", "quiz.read")];
        let no_partner = provider.token("machine", &plain).await.text("access_token");
        let no_scope = provider.token("acme", &no_scope).await.text("access_token");
        let elsewhere = [plain[0], ("resource", "https://quiz.test")];
        let elsewhere = provider.token("acme", &elsewhere).await.text("access_token");
        let alice = provider.tokens("openid profile").await.text("access_token");
        let alices_key = provider.api_key("alice", "openid").await.expose().clone();
        for (credential, status, code) in [
            (of_person.as_str(), 403, "insufficient_scope"),
            (&no_partner, 403, "insufficient_scope"),
            (&no_scope, 403, "insufficient_scope"),
            (&alice, 403, "insufficient_scope"),
            (&elsewhere, 401, "invalid_token"),
            (&user_key, 401, "invalid_token"),
            (&alices_key, 401, "invalid_token"),
            ("nonsense", 401, "invalid_token"),
        ] {
            let backend = Platform::with(&provider, credential);
            for (method, path) in [("GET", USERS), ("POST", USERS), ("GET", "/v1/partner/onboarding")] {
                let body = if method == "POST" { json!({ "external_id": "x", "email": "x@b.c" }) } else { Value::Null };
                let refused = backend.call(method, path, body).await;
                assert_eq!((refused.status.as_u16(), code_of(&refused).as_str()), (status, code), "{method} {path}");
            }
        }
        let nobody = provider.json("GET", USERS, Value::Null, &[]).await;
        assert_eq!((nobody.status.as_u16(), code_of(&nobody).as_str()), (401, "unauthorized"));
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        assert_eq!(browser.get(USERS).await.status, 401, "no cookie does");
    }

    /// Whoever is switched off takes their people along: keys, tokens and sessions.
    async fn a_partner_that_is_switched_off_takes_its_people_along(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let key = text(&acme.registered("1", "ada@b.c").await, "/api_key/key");
        let fields = [("grant_type", "urn:keyward:oauth:grant-type:api-key"), ("api_key", key.as_str())];
        let tokens = provider.token("platform", &[&fields[..], &[("scope", "openid offline_access")]].concat()).await;
        assert_eq!(tokens.status, 200, "{}", tokens.body);
        let access = tokens.text("access_token");
        assert_eq!(provider.bearer("GET", "/v1/me", &access).await.status, 200);
        // Tokens that rotate are the ones whose grant is remembered.
        let rotate = Some(RefreshTokenRotation::Always);
        provider.change_client("platform", |record| record.client.metadata.refresh_token_rotation = rotate).await;
        let rotated = provider.refresh("platform", &tokens.text("refresh_token")).await.text("refresh_token");
        assert!(provider.remembers(&rotated));
        provider.set_client_disabled("acme", true).await;
        for credential in [&key, &access] {
            assert_eq!(provider.bearer("GET", "/v1/me", credential).await.status, 401);
        }
        assert_eq!(provider.refresh("platform", &rotated).await.error(), "invalid_grant");
        provider.set_client_disabled("acme", false).await;
        assert_eq!(provider.refresh("platform", &rotated).await.status, 200, "it was not used up");
        assert_eq!(provider.bearer("GET", "/v1/me", &key).await.status, 200);
    }
}
