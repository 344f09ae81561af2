//! Registering somebody, once however often it is asked for.

use futures_util::future::join_all;
use keyward::protocol::time::Span;
use serde_json::{Value, json};

use super::{Platform, text};
use crate::api_keys::code_of;
use crate::on_both_databases;
use crate::support::{Browser, Page, claims_of, json as call};

const USERS: &str = "/v1/partner/users";

on_both_databases! {
    async fn somebody_is_registered_with_a_key_that_works(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let body = json!({
            "external_id": "user-42", "email": "Ada@Example.com", "name": "Ada", "locale": "en-GB",
            "api_key": { "name": "backend", "scopes": ["openid", "email", "quiz.read"], "expires_in": 3600 },
        });
        let made = acme.call("POST", USERS, body).await;
        assert_eq!(made.status, 201, "{}", made.body);
        assert_eq!(made.header("cache-control"), Some("no-store"));
        let made = made.json();
        let id = text(&made, "/user/id");
        let expected = json!({
            "id": id, "external_id": "user-42", "email": "ada@example.com", "email_verified": false, "name": "Ada",
            "locale": "en-GB", "status": "active",
        });
        assert_eq!(made["user"], expected);
        assert_eq!(made["api_key"]["scopes"], json!(["openid", "email", "quiz.read"]));
        assert!(text(&made, "/api_key/expires_at").ends_with('Z'));
        let key = text(&made, "/api_key/key");
        assert_eq!(&key[6..22], text(&made, "/api_key/id"));
        assert!(!text(&made, "/onboarding/id").is_empty());

        let me = provider.bearer("GET", "/v1/me", &key).await;
        assert_eq!((me.status.as_u16(), me.json()), (200, json!({
            "id": id, "email": "ada@example.com", "email_verified": false,
        })));
        let fields = [("grant_type", "urn:keyward:oauth:grant-type:api-key"), ("api_key", key.as_str())];
        let tokens = provider.token("acme", &fields).await;
        let access = claims_of(&tokens.text("access_token"));
        assert_eq!((&access["sub"], &access["act"]), (&json!(id), &json!({ "sub": "acme" })), "the partner acts");
        assert_eq!(acme.get(&format!("{USERS}/{id}")).await.json(), json!({ "user": expected }));
    }

    async fn what_is_left_out_has_a_default(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let made = acme.registered("1", "a@b.c").await;
        assert_eq!(made["api_key"]["scopes"], json!(["openid", "profile", "email", "roles", "groups", "offline_access"]));
        assert_eq!((&made["user"]["name"], &made["user"]["locale"]), (&Value::Null, &Value::Null));
        let keys = acme.get(&format!("{USERS}/{}/api-keys", text(&made, "/user/id"))).await.json();
        assert_eq!((&keys["items"][0]["name"], keys["items"].as_array().map(Vec::len)), (&json!("default"), Some(1)));
    }

    /// Each row of the contract's table of duplicates.
    async fn nobody_is_registered_twice(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let made = acme.registered("42", "ada@b.c").await;
        let again = acme.register("42", "ADA@b.c").await;
        assert_eq!(again.status, 200, "{}", again.body);
        let again = again.json();
        assert_eq!(again["user"], made["user"]);
        assert_eq!(again["onboarding"]["id"], made["onboarding"]["id"]);
        assert!(again.get("api_key").is_none(), "nobody sees a key twice: {again}");

        let before = provider.row_counts().await;
        let strict = json!({ "external_id": "42", "email": "ada@b.c", "on_existing": "error" });
        let refused = acme.call("POST", USERS, strict).await;
        assert_eq!((refused.status.as_u16(), code_of(&refused).as_str()), (409, "user_exists"));
        let other = acme.register("42", "new@b.c").await;
        assert_eq!((other.status.as_u16(), code_of(&other).as_str()), (409, "external_id_conflict"));
        assert_eq!(provider.row_counts().await, before);

        let taken = acme.register("43", "ada@b.c").await;
        assert_eq!((taken.status.as_u16(), code_of(&taken).as_str()), (409, "email_in_use_by_partner_user"));
        assert_eq!(acme.get(&format!("{USERS}?external_id=43")).await.json()["items"], json!([]));
    }

    /// An address that somebody has elsewhere is neither attached to nor told of: the answer has the same members, and
    /// whoever has it notices nothing.
    async fn a_stranger_with_the_same_address_stays_a_stranger(provider: Provider) {
        let (acme, globex) = (Platform::of(&provider, "acme").await, Platform::of(&provider, "globex").await);
        let free = acme.registered("1", "nobody@example.com").await;
        let direct = acme.registered("2", "alice@example.com").await;
        let elsewhere = globex.registered("2", "nobody@example.com").await;
        let members = |answer: &Value| {
            let of = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
            (of(answer), of(&answer["user"]), of(&answer["api_key"]), of(&answer["onboarding"]))
        };
        for collided in [&direct, &elsewhere] {
            assert_eq!(members(collided), members(&free));
            assert_eq!(collided["user"]["email_verified"], false);
        }
        let alice = provider.user_id("alice").await;
        assert_ne!(text(&direct, "/user/id"), alice.as_str());
        let me = provider.bearer("GET", "/v1/me", &text(&direct, "/api_key/key")).await.json();
        assert_eq!(me["id"], direct["user"]["id"]);
        // The address signs in as before, and as nobody else.
        let mut browser = provider.browser();
        provider.sign_in_as(&mut browser, "alice@example.com", "correct horse").await;
        assert_eq!(browser.get("/v1/me").await.json()["id"], alice.as_str());
    }

    async fn the_same_idempotency_key_gets_the_same_answer(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let body = json!({ "external_id": "42", "email": "ada@b.c" });
        let key = [("idempotency-key", "9f1c7a2e")];
        let first = acme.call_with("POST", USERS, body.clone(), &key).await;
        assert_eq!(first.status, 201, "{}", first.body);
        // After a restart, from another process, in another order of members and with the default spelled out.
        let (_app, router) = provider.second().await;
        let mut other = Browser::new(router, "https://id.test");
        let same = json!({
            "welcome_email": "send", "on_existing": "return", "email": "Ada@b.c", "external_id": "42",
            "api_key": { "name": "default" },
        });
        let headers = [("authorization", acme.authorization.as_str()), key[0]];
        let again = call(&mut other, "POST", USERS, same, &headers).await;
        assert_eq!((again.status, again.json()), (first.status, first.json()), "the key in it included");
        assert_eq!(again.header("content-type"), Some("application/json"));

        let another = json!({ "external_id": "43", "email": "bob@b.c" });
        let refused = acme.call_with("POST", USERS, another.clone(), &key).await;
        assert_eq!((refused.status.as_u16(), code_of(&refused).as_str()), (422, "idempotency_mismatch"));
        // The key is this partner's, and for a day.
        let globex = Platform::of(&provider, "globex").await;
        assert_eq!(globex.call_with("POST", USERS, another.clone(), &key).await.status, 201);
        provider.pass(Span::days(1));
        let acme = Platform::of(&provider, "acme").await;
        let late = acme.call_with("POST", USERS, body, &key).await;
        assert_eq!(late.status, 200, "they are there, and their key is not told again: {}", late.body);
        assert_eq!(acme.call_with("POST", USERS, another, &key).await.status, 201);
        for bad in [&[("idempotency-key", "")][..], &[("idempotency-key", "a"), ("idempotency-key", "b")]] {
            let refused = acme.call_with("POST", USERS, json!({ "external_id": "9", "email": "n@b.c" }), bad).await;
            assert_eq!((refused.status.as_u16(), code_of(&refused).as_str()), (400, "invalid_request"));
        }
    }

    /// What was refused may be asked for again under the same key, once it can be.
    async fn a_refusal_is_not_remembered(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let first = acme.registered("1", "ada@b.c").await;
        let body = json!({ "external_id": "2", "email": "ada@b.c" });
        let key = [("idempotency-key", "k")];
        assert_eq!(acme.call_with("POST", USERS, body.clone(), &key).await.status, 409);
        let path = format!("{USERS}/{}", text(&first, "/user/id"));
        assert_eq!(acme.call("PATCH", &path, json!({ "email": "other@b.c" })).await.status, 200);
        assert_eq!(acme.call_with("POST", USERS, body, &key).await.status, 201);
    }

    async fn fifty_at_once_make_one_person_and_one_key(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        for (external_id, key) in [("with", Some("the-same")), ("without", None)] {
            let email = format!("{external_id}@b.c");
            let body = json!({ "external_id": external_id, "email": email });
            let headers: Vec<(&str, &str)> = key.map(|key| ("idempotency-key", key)).into_iter().collect();
            let answers: Vec<Page> =
                join_all((0..50).map(|_| acme.call_with("POST", USERS, body.clone(), &headers))).await;
            let (made, found): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
            assert!(found.iter().all(|answer| answer.status == 200), "{:?}", found.first().map(|page| &page.body));
            assert_eq!(made.len(), if key.is_some() { 50 } else { 1 });
            let first = made[0].json();
            assert!(made.iter().all(|answer| answer.json() == first), "one answer for all");
            let people = acme.get(&format!("{USERS}?external_id={external_id}")).await.json();
            assert_eq!(people["items"], json!([first["user"]]));
            let keys = acme.get(&format!("{USERS}/{}/api-keys", text(&first, "/user/id"))).await.json();
            assert_eq!(keys["items"].as_array().map(Vec::len), Some(1));
        }
    }

    async fn what_cannot_be_is_refused_and_changes_nothing(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let before = provider.row_counts().await;
        for (body, code) in [
            (json!({}), "invalid_request"),
            (json!({ "external_id": "1" }), "invalid_request"),
            (json!({ "email": "a@b.c" }), "invalid_request"),
            (json!({ "external_id": "", "email": "a@b.c" }), "invalid_request"),
            (json!({ "external_id": "1", "email": "nonsense" }), "invalid_request"),
            (json!({ "external_id": "1", "email": "a@b.c", "name": "a\nb" }), "invalid_request"),
            (json!({ "external_id": "1", "email": "a@b.c", "locale": "??" }), "invalid_request"),
            (json!({ "external_id": "1", "email": "a@b.c", "welcome_email": "maybe" }), "invalid_request"),
            (json!({ "external_id": "1", "email": "a@b.c", "email_verified": true }), "invalid_request"),
            (json!({ "external_id": "1", "email": "a@b.c", "partner_id": "globex" }), "invalid_request"),
            (json!({ "external_id": "1", "email": "a@b.c", "id": "me" }), "invalid_request"),
            (json!({ "external_id": "1", "email": "a@b.c", "roles": ["teacher"] }), "invalid_request"),
            (json!(["1", "a@b.c"]), "invalid_request"),
            (json!({ "external_id": "1", "email": "a@b.c", "api_key": ["k"] }), "invalid_request"),
            (json!({ "external_id": "1", "email": "a@b.c", "api_key": { "name": "" } }), "invalid_request"),
            (
                json!({ "external_id": "1", "email": "a@b.c", "api_key": { "name": "k", "scopes": ["partner.users"] } }),
                "invalid_scope",
            ),
            (
                json!({ "external_id": "1", "email": "a@b.c", "api_key": { "name": "k", "scopes": ["teach"] } }),
                "invalid_scope",
            ),
            (
                json!({ "external_id": "1", "email": "a@b.c", "api_key": { "name": "k", "audiences": ["https://x.y"] } }),
                "invalid_target",
            ),
        ] {
            let refused = acme.call("POST", USERS, body.clone()).await;
            assert_eq!((refused.status.as_u16(), code_of(&refused).as_str()), (400, code), "{body}");
        }
        assert_eq!(provider.row_counts().await, before);
    }
}
