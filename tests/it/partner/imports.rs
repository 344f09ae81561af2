//! Many registrations at once, line by line, through restarts.

use futures_util::future::join_all;
use keyward::account::partner::imports;
use keyward::protocol::time::Span;
use serde_json::{Value, json};

use super::{Platform, text};
use crate::api_keys::code_of;
use crate::on_both_databases;
use crate::support::Page;

const IMPORTS: &str = "/v1/partner/imports";

async fn import(backend: &Platform<'_>, body: &str) -> Page {
    let headers = [("authorization", backend.authorization.as_str())];
    let mut browser = backend.provider.browser();
    let post = "POST".parse().expect("a method");
    browser.send_text(post, IMPORTS, Some("application/x-ndjson"), body.to_owned(), &headers).await
}

fn line(external_id: &str, email: &str) -> String {
    json!({ "external_id": external_id, "email": email, "welcome_email": "suppress" }).to_string()
}

on_both_databases! {
    async fn every_line_has_its_result(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let ada = acme.registered("old", "old@b.c").await;
        let lines = [
            line("1", "one@b.c"),
            String::new(),
            line("old", "OLD@b.c"),
            "nonsense".to_owned(),
            line("2", "nonsense"),
            line("old", "other@b.c"),
            line("3", "old@b.c"),
            line("1", "one@b.c"),
            line("4", "one@b.c"),
            json!({ "external_id": "5", "email": "five@b.c", "api_key": { "name": "k" } }).to_string(),
            json!({ "external_id": "old", "email": "old@b.c", "on_existing": "error" }).to_string(),
            line("6", "alice@example.com"),
        ];
        let taken = import(&acme, &lines.join("\r\n")).await;
        assert_eq!(taken.status, 202, "{}", taken.body);
        assert_eq!(taken.json()["state"], "queued");
        let path = format!("{IMPORTS}/{}", text(&taken.json(), "/id"));
        let queued = acme.get(&path).await.json();
        assert_eq!((&queued["state"], &queued["done"], &queued["total"]), (&json!("queued"), &json!(3), &json!(11)));
        assert_eq!(acme.onboarding("1").await["state"], "received");

        assert!(imports::work(&provider.app, || false).await.expect("done"));
        let done = acme.get(&path).await.json();
        assert_eq!((&done["state"], &done["done"], &done["total"]), (&json!("completed"), &json!(11), &json!(11)));
        let results: Vec<String> = done["results"].as_array().expect("results").iter().map(|result| {
            let outcome = result.pointer("/user/external_id").or(result.pointer("/error/code"));
            format!("{} {}", result["line"], outcome.and_then(Value::as_str).expect("an outcome"))
        }).collect();
        assert_eq!(results, [
            "1 1",
            "2 old",
            "3 invalid_request",
            "4 invalid_request",
            "5 external_id_conflict",
            "6 email_in_use_by_partner_user",
            "7 1",
            "8 email_in_use_by_partner_user",
            "9 api_key_not_possible",
            "10 user_exists",
            "11 6",
        ]);
        assert_eq!(done["results"][1]["user"], ada["user"]);
        assert_eq!(done["results"][0]["user"]["id"], done["results"][6]["user"]["id"]);
        assert_eq!(acme.onboarding("1").await["state"], "user_created");
        assert_eq!(acme.onboarding("3").await["reason"], "email_in_use_by_partner_user");
        assert!(!imports::work(&provider.app, || false).await.expect("looked"), "nothing is left");

        // Keys are for when somebody needs theirs.
        let keys = format!("/v1/partner/users/{}/api-keys", text(&done, "/results/0/user/id"));
        assert_eq!(acme.get(&keys).await.json()["items"], json!([]));
        assert_eq!(acme.call("POST", &keys, json!({ "name": "k" })).await.status, 201);
        assert_eq!(acme.onboarding("1").await["state"], "key_issued");
    }

    /// A process that goes away leaves what is done, and another goes on with the rest once its lease is over.
    async fn an_import_goes_on_where_it_was_left(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let lines: Vec<String> = (0..200).map(|n| line(&format!("i{n}"), &format!("i{n}@b.c"))).collect();
        let id = text(&import(&acme, &lines.join("\n")).await.json(), "/id");
        let path = format!("{IMPORTS}/{id}");
        // Told to stop after its first step.
        assert!(!imports::work(&provider.app, || true).await.expect("left"));
        let left = acme.get(&path).await.json();
        assert_eq!(left["state"], "queued");
        let done = left["done"].as_i64().expect("a count");
        assert!(done > 0 && done < 200, "{done}");

        // A process that dies with it in hand.
        let (second, _router) = provider.second().await;
        let claimed = second.store.claim_import(Span::from_secs(30), second.now()).await.expect("claimed");
        assert!(claimed.is_some());
        assert_eq!(acme.get(&path).await.json()["state"], "running");
        assert!(!imports::work(&provider.app, || false).await.expect("looked"), "it is in another's hands");
        provider.pass(Span::from_secs(31));
        assert!(imports::work(&provider.app, || false).await.expect("done"));
        let end = acme.get(&path).await.json();
        assert_eq!((&end["state"], &end["done"]), (&json!("completed"), &json!(200)));
        let mut ids: Vec<String> =
            end["results"].as_array().expect("results").iter().map(|result| text(result, "/user/external_id")).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 200);
    }

    /// Two that work at the same lines do each once.
    async fn two_processes_do_no_line_twice(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let lines: Vec<String> = (0..100).map(|n| line(&format!("i{n}"), &format!("i{n}@b.c"))).collect();
        let id = text(&import(&acme, &lines.join("\n")).await.json(), "/id");
        let (second, _router) = provider.second().await;
        let apps = [&provider.app, &second];
        let worked = join_all(apps.map(|app| imports::work(app, || false))).await;
        assert_eq!(worked.into_iter().filter(|worked| *worked.as_ref().expect("worked")).count(), 1);
        let done = acme.get(&format!("{IMPORTS}/{id}")).await.json();
        assert_eq!((&done["state"], &done["done"]), (&json!("completed"), &json!(100)));
        let users = acme.get("/v1/partner/users?limit=100").await.json();
        assert_eq!(users["items"].as_array().map(Vec::len), Some(100));
    }

    async fn what_is_no_import_is_refused_and_changes_nothing(provider: Provider) {
        let (acme, globex) = (Platform::of(&provider, "acme").await, Platform::of(&provider, "globex").await);
        let before = provider.row_counts().await;
        for body in ["", "\n\n \n"] {
            let refused = import(&acme, body).await;
            assert_eq!((refused.status.as_u16(), code_of(&refused).as_str()), (400, "invalid_request"));
        }
        let many = format!("{}\n", line("1", "a@b.c")).repeat(10_001);
        assert_eq!(code_of(&import(&acme, &many).await), "invalid_request");
        let large = import(&acme, &"x".repeat(9 * 1024 * 1024)).await;
        assert_eq!((large.status.as_u16(), code_of(&large).as_str()), (413, "payload_too_large"));
        let json = acme.call("POST", IMPORTS, json!({ "external_id": "1", "email": "a@b.c" })).await;
        assert_eq!((json.status.as_u16(), code_of(&json).as_str()), (415, "unsupported_media_type"));
        assert_eq!(provider.row_counts().await, before);

        let id = text(&import(&acme, &line("1", "a@b.c")).await.json(), "/id");
        let path = format!("{IMPORTS}/{id}");
        let (foreign, unknown) = (globex.get(&path).await, globex.get(&format!("{IMPORTS}/nothing")).await);
        assert_eq!((foreign.status.as_u16(), code_of(&foreign)), (404, code_of(&unknown)));
    }

    /// Whoever is switched off for a while finds their import where it was; whoever stays so finds it given up.
    async fn an_import_waits_for_a_partner_that_is_switched_off(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let [first, second] = [("1", "a@b.c"), ("2", "b@b.c")].map(|(id, email)| line(id, email));
        let path = format!("{IMPORTS}/{}", text(&import(&acme, &first).await.json(), "/id"));
        provider.set_client_disabled("acme", true).await;
        imports::work(&provider.app, || false).await.expect("put off");
        provider.set_client_disabled("acme", false).await;
        assert_eq!(acme.get(&path).await.json()["state"], "queued");
        provider.pass(Span::minutes(1));
        imports::work(&provider.app, || false).await.expect("done");
        assert_eq!(acme.get(&path).await.json()["state"], "completed");

        let path = format!("{IMPORTS}/{}", text(&import(&acme, &second).await.json(), "/id"));
        provider.set_client_disabled("acme", true).await;
        provider.pass(Span::days(2));
        imports::work(&provider.app, || false).await.expect("given up");
        provider.set_client_disabled("acme", false).await;
        let acme = Platform::of(&provider, "acme").await;
        let ended = acme.get(&path).await.json();
        assert_eq!((&ended["state"], &ended["reason"]), (&json!("failed"), &json!("partner_disabled")));
        let way = acme.onboarding("2").await;
        assert_eq!((&way["state"], &way["reason"]), (&json!("failed"), &json!("partner_disabled")));
        assert_eq!(acme.register("2", "b@b.c").await.status, 201, "they can still be registered");
    }

    async fn ten_thousand_lines_are_taken_in_at_once(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let lines: Vec<String> = (0..10_000).map(|n| line(&format!("i{n}"), &format!("i{n}@b.c"))).collect();
        let taken = import(&acme, &lines.join("\n")).await;
        assert_eq!(taken.status, 202, "{}", taken.body);
        let path = format!("{IMPORTS}/{}", text(&taken.json(), "/id"));
        assert_eq!(acme.get(&path).await.json()["total"], 10_000);
    }
}
