//! The way in: from the request to the first use, what fails on it, and another try.

use keyward::protocol::time::Span;
use keyward::store::outbox::{Cap, Caps, DeadReason};
use serde_json::{Value, json};

use super::{Platform, text};
use crate::api_keys::code_of;
use crate::on_both_databases;
use crate::support::Provider;

const ONBOARDING: &str = "/v1/partner/onboarding";

/// The letters that were written, each whole.
fn letters(provider: &Provider) -> Vec<String> {
    let Ok(files) = std::fs::read_dir(provider.dir.path().join("data/mail")) else { return Vec::new() };
    let files = files.map(|file| file.expect("a file").path());
    files.map(|path| std::fs::read_to_string(path).expect("a letter")).collect()
}

/// No server takes the letters that are due.
async fn letters_are_refused(provider: &Provider) {
    let app = &provider.app;
    let none = Cap { mails: 100, window: Span::days(1) };
    let claims = app.store.claim_mails(app.now(), Span::minutes(1), 100, Caps { address: none, partner: none });
    for mail in claims.await.expect("claimed").mails {
        app.store.finish_dead(&mail, DeadReason::Rejected, "550 no".to_owned(), app.now()).await.expect("dead");
    }
}

on_both_databases! {
    async fn from_the_request_to_the_first_use(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let made = acme.registered("1", "ada@b.c").await;
        assert_eq!(made["onboarding"]["state"], "mail_queued");
        let quiet = json!({ "external_id": "2", "email": "bob@b.c", "welcome_email": "suppress" });
        assert_eq!(acme.call("POST", "/v1/partner/users", quiet).await.json()["onboarding"]["state"], "key_issued");

        provider.app.mail.send_due().await.expect("sent");
        let written = letters(&provider);
        assert_eq!(written.len(), 1, "nobody writes to whom nobody wanted to be written");
        assert!(written[0].contains("To: ada@b.c") && written[0].contains("Acme <Learning>"), "{}", written[0]);
        let key = text(&made, "/api_key/key");
        assert!(!written[0].contains(&key[..22]), "never a key");
        let sent = acme.onboarding("1").await;
        assert_eq!((&sent["state"], &sent["reason"]), (&json!("mail_sent"), &Value::Null));
        assert_eq!((&sent["id"], &sent["user_id"]), (&made["onboarding"]["id"], &made["user"]["id"]));

        // Which of my users never got going?
        let waiting = async |state: &str| -> Vec<String> {
            let list = acme.get(&format!("{ONBOARDING}?state={state}")).await.json();
            list["items"].as_array().expect("items").iter().map(|item| text(item, "/external_id")).collect()
        };
        assert_eq!((waiting("mail_sent").await, waiting("key_issued").await), (vec!["1".to_owned()], vec!["2".to_owned()]));
        assert_eq!(waiting("first_auth").await, [""; 0]);
        assert_eq!(waiting("waiting").await, ["1", "2"]);
        assert_eq!(provider.bearer("GET", "/v1/me", &key).await.status, 200);
        provider.app.store.flush_key_uses().await.expect("noted");
        assert_eq!((waiting("mail_sent").await, waiting("first_auth").await), (vec![], vec!["1".to_owned()]));
        assert_eq!(waiting("waiting").await, ["2"]);
        assert_eq!(code_of(&acme.get(&format!("{ONBOARDING}?state=lost")).await), "invalid_request");

        // In pages, in the order in which they began.
        let first = acme.get(&format!("{ONBOARDING}?limit=1")).await.json();
        assert_eq!(first["items"][0]["external_id"], "1");
        let next = format!("{ONBOARDING}?limit=1&cursor={}", text(&first, "/next_cursor"));
        let second = acme.get(&next).await.json();
        assert_eq!((&second["items"][0]["external_id"], &second["next_cursor"]), (&json!("2"), &Value::Null));
    }

    /// A letter that arrives after the first use, or never, takes nobody back.
    async fn whoever_has_begun_has_begun(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        for (external_id, refused) in [("late", false), ("never", true)] {
            let made = acme.registered(external_id, &format!("{external_id}@b.c")).await;
            provider.bearer("GET", "/v1/me", &text(&made, "/api_key/key")).await;
            provider.app.store.flush_key_uses().await.expect("noted");
            if refused {
                letters_are_refused(&provider).await;
            } else {
                provider.app.mail.send_due().await.expect("sent");
            }
            assert_eq!(acme.onboarding(external_id).await["state"], "first_auth");
        }
    }

    async fn a_letter_that_was_refused_is_written_anew_to_the_right_address(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let made = acme.registered("1", "typo@b.c").await;
        letters_are_refused(&provider).await;
        let failed = acme.onboarding("1").await;
        assert_eq!((&failed["state"], &failed["reason"]), (&json!("failed"), &json!("mail_rejected")));
        let path = format!("/v1/partner/users/{}", text(&made, "/user/id"));
        acme.call("PATCH", &path, json!({ "email": "ada@b.c" })).await;
        let retry = format!("{ONBOARDING}/{}/retry", text(&failed, "/id"));
        let retried = acme.call("POST", &retry, Value::Null).await;
        assert_eq!((retried.status.as_u16(), &retried.json()["onboarding"]["state"]), (200, &json!("mail_queued")));
        let twice = acme.call("POST", &retry, Value::Null).await;
        assert_eq!((twice.status.as_u16(), code_of(&twice).as_str()), (409, "onboarding_not_failed"));
        provider.app.mail.send_due().await.expect("sent");
        let written = letters(&provider);
        assert!(written.len() == 1 && written[0].contains("To: ada@b.c"), "{written:?}");
        assert_eq!(acme.onboarding("1").await["state"], "mail_sent");
    }

    /// A letter that is still here follows an address that changes.
    async fn a_letter_goes_to_where_somebody_is_by_then(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let made = acme.registered("1", "old@b.c").await;
        let path = format!("/v1/partner/users/{}", text(&made, "/user/id"));
        acme.call("PATCH", &path, json!({ "email": "new@b.c" })).await;
        acme.registered("2", "gone@b.c").await;
        let gone = acme.get("/v1/partner/users?external_id=2").await.json();
        acme.call("DELETE", &format!("/v1/partner/users/{}", text(&gone, "/items/0/id")), Value::Null).await;
        provider.app.mail.send_due().await.expect("sent");
        let written = letters(&provider);
        assert!(written.len() == 1 && written[0].contains("To: new@b.c"), "{written:?}");
    }

    /// Whoever is registered and forgotten in turn is no way around what an address may get.
    async fn forgetting_people_gives_no_more_mail(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        for n in 0..8 {
            let made = acme.registered(&format!("x{n}"), "victim@b.c").await;
            provider.app.mail.send_due().await.expect("sent");
            acme.call("DELETE", &format!("/v1/partner/users/{}", text(&made, "/user/id")), Value::Null).await;
        }
        assert_eq!(letters(&provider).len(), 5, "in a day");
    }

    async fn a_registration_that_failed_is_known_and_tried_again(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let ada = acme.registered("1", "ada@b.c").await;
        assert_eq!(acme.register("2", "ada@b.c").await.status, 409);
        let failed = acme.onboarding("2").await;
        assert_eq!((&failed["state"], &failed["user_id"]), (&json!("failed"), &Value::Null));
        assert_eq!(failed["reason"], "email_in_use_by_partner_user");
        let retry = format!("{ONBOARDING}/{}/retry", text(&failed, "/id"));
        let again = acme.call("POST", &retry, Value::Null).await;
        assert_eq!((again.status.as_u16(), code_of(&again).as_str()), (409, "email_in_use_by_partner_user"));
        let path = format!("/v1/partner/users/{}", text(&ada, "/user/id"));
        acme.call("PATCH", &path, json!({ "email": "countess@b.c" })).await;
        let done = acme.call("POST", &retry, Value::Null).await;
        assert_eq!(done.status, 200, "{}", done.body);
        assert_eq!(done.json()["onboarding"]["id"], failed["id"], "the same way in goes on");
        let made = acme.get("/v1/partner/users?external_id=2").await.json();
        assert_eq!(done.json()["onboarding"]["user_id"], made["items"][0]["id"]);
        // The key is for whoever asks for it.
        let keys = format!("/v1/partner/users/{}/api-keys", text(&made, "/items/0/id"));
        assert_eq!(acme.get(&keys).await.json()["items"], json!([]));
    }

    /// A registration that is simply sent once more takes the place of its failure.
    async fn a_failure_ends_with_the_next_registration(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        acme.registered("1", "ada@b.c").await;
        assert_eq!(acme.register("2", "ada@b.c").await.status, 409);
        let made = acme.registered("2", "bob@b.c").await;
        let now = acme.onboarding("2").await;
        assert_eq!((&now["id"], &now["state"]), (&made["onboarding"]["id"], &json!("mail_queued")));
        assert_eq!((&now["user_id"], &now["reason"]), (&made["user"]["id"], &Value::Null));
    }
}
