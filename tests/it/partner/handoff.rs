//! A partner hands its person's browser over.

use keyward::protocol::time::Span;
use serde_json::{Value, json};

use super::{Platform, text};
use crate::api_keys::code_of;
use crate::on_both_databases;
use crate::support::{Browser, Page, at_once, claims_of, text_of};

async fn offered(backend: &Platform<'_>, user: &Value) -> String {
    let path = format!("/v1/partner/users/{}/browser-handoff", text(user, "/user/id"));
    let offer = backend.call("POST", &path, Value::Null).await;
    assert_eq!((offer.status.as_u16(), &offer.json()["expires_in"]), (201, &json!(60)), "{}", offer.body);
    text(&offer.json(), "/url")
}

async fn accepted(browser: &mut Browser, url: &str) -> Page {
    let page = browser.get(url).await;
    assert_eq!(page.status, 200, "{}", page.body);
    browser.submit(&page, &[]).await
}

async fn is_signed_in(browser: &mut Browser) -> bool {
    browser.get("/v1/me").await.status == 200
}

on_both_databases! {
    async fn a_click_on_the_page_signs_in_once(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let body = json!({ "external_id": "1", "email": "ada@b.c", "name": "Ada <b>" });
        let user = acme.call("POST", "/v1/partner/users", body).await.json();
        let url = offered(&acme, &user).await;
        let mut browser = provider.browser();
        let mut other = provider.browser();
        // Looking does nothing, however often.
        for _ in 0..3 {
            let page = browser.get(&url).await;
            let words = text_of(&page.body);
            assert!(words.contains("Acme <Learning>") && words.contains("Ada <b>"), "{words}");
            assert_eq!(page.header("cache-control"), Some("no-store"));
            assert!(!is_signed_in(&mut browser).await);
        }
        let page = other.get(&url).await;
        let done = accepted(&mut browser, &url).await;
        assert_eq!(done.status, 303, "{}", done.body);
        assert_eq!(browser.get("/v1/me").await.json()["id"], user["user"]["id"]);
        let late = other.submit(&page, &[]).await;
        assert_eq!(late.status, 410, "a link is good once");
        assert!(!is_signed_in(&mut other).await);
        assert_eq!(browser.get(&url).await.status, 410);
        assert_eq!(acme.onboarding("1").await["state"], "first_auth");
    }

    async fn of_many_clicks_one_signs_in(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let user = acme.registered("1", "ada@b.c").await;
        let url = offered(&acme, &user).await;
        let mut browser = provider.browser();
        let page = browser.get(&url).await;
        let answers = at_once(20, |_| {
            let mut browser = browser.clone();
            let page = page.clone();
            async move { browser.submit(&page, &[]).await.status.as_u16() }
        }).await;
        assert_eq!(answers.iter().filter(|status| **status == 303).count(), 1, "{answers:?}");
        assert!(answers.iter().all(|status| [303, 410].contains(status)), "{answers:?}");
    }

    async fn a_link_ends_with_its_minute_its_person_and_its_partner(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let user = acme.registered("1", "ada@b.c").await;
        let path = format!("/v1/partner/users/{}", text(&user, "/user/id"));
        let mut browser = provider.browser();
        let url = offered(&acme, &user).await;
        let page = browser.get(&url).await;
        provider.pass(Span::minutes(1));
        assert_eq!(browser.submit(&page, &[]).await.status, 410);
        assert_eq!(browser.get(&url).await.status, 410);

        let url = offered(&acme, &user).await;
        let page = browser.get(&url).await;
        acme.call("POST", &format!("{path}/disable"), Value::Null).await;
        assert_eq!(browser.submit(&page, &[]).await.status, 410);
        let refused = acme.call("POST", &format!("{path}/browser-handoff"), Value::Null).await;
        assert_eq!((refused.status.as_u16(), code_of(&refused).as_str()), (409, "user_disabled"));
        acme.call("POST", &format!("{path}/enable"), Value::Null).await;

        let url = offered(&acme, &user).await;
        let page = browser.get(&url).await;
        provider.set_client_disabled("acme", true).await;
        assert_eq!(browser.submit(&page, &[]).await.status, 410);
        provider.set_client_disabled("acme", false).await;
        let done = browser.submit(&page, &[]).await;
        assert_eq!(done.status, 303, "{}", done.body);
        // What it began ends with either.
        provider.set_client_disabled("acme", true).await;
        assert!(!is_signed_in(&mut browser).await);
        provider.set_client_disabled("acme", false).await;
        assert!(is_signed_in(&mut browser).await);
        acme.call("POST", &format!("{path}/disable"), Value::Null).await;
        assert!(!is_signed_in(&mut browser).await);
        for nonsense in ["/handoff", "/handoff?token=", "/handoff?token=x"] {
            assert_eq!(browser.get(nonsense).await.status, 410, "{nonsense}");
        }
    }

    /// Nobody is signed in as somebody else by a page of a stranger's.
    async fn only_our_own_page_signs_in(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let user = acme.registered("1", "ada@b.c").await;
        let url = offered(&acme, &user).await;
        let token = url.split_once("token=").expect("a token").1.to_owned();
        let mut browser = provider.browser();
        let foreign = [("origin", "https://evil.test"), ("sec-fetch-site", "cross-site")];
        let posted = browser.send("POST".parse().expect("a method"), "/handoff", Some(&[("token", &token)]), &foreign).await;
        assert_eq!(posted.status, 403);
        let plain = browser.post("/handoff", &[("token", &token)]).await;
        assert_eq!(plain.status, 403, "without the page's own token it is shown once more");
        assert!(!is_signed_in(&mut browser).await);
        let done = browser.submit(&plain, &[]).await;
        assert_eq!(done.status, 303, "{}", done.body);
    }

    /// Such a session is a sign-in for the partner's own apps, and for nobody else's.
    async fn the_session_reaches_the_partners_apps_alone(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let user = acme.registered("1", "ada@b.c").await;
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let url = offered(&acme, &user).await;
        let page = browser.get(&url).await;
        assert!(text_of(&page.body).contains("signed out"), "whoever is here is told: {}", page.body);
        browser.submit(&page, &[]).await;
        let scope = "scope=openid+quiz.read+offline_access";
        let code = provider.code(&mut browser, &provider.authorize_url_for("acme-app", scope)).await;
        let tokens = provider.redeem_as("acme-app", &code).await;
        assert_eq!(tokens.status, 200, "{}", tokens.body);
        assert_eq!(tokens.text("scope"), "openid quiz.read offline_access");
        let id = claims_of(&tokens.text("id_token"));
        assert_eq!((&id["sub"], &id["acr"]), (&user["user"]["id"], &json!("urn:keyward:acr:handoff")));
        assert!(id.get("auth_time").is_none(), "nobody typed anything");

        let elsewhere = browser.get(&provider.authorize_url_for("first", "scope=openid")).await;
        let elsewhere = browser.follow(elsewhere).await;
        assert!(elsewhere.body.contains("login-submit"), "to others nobody has signed in");
        let none = provider.authorize_url_for("first", "scope=openid&prompt=none");
        let answer = browser.get(&none).await;
        assert_eq!(answer.location_params().get("error").map(String::as_str), Some("login_required"));
        // Nor does it make keys, or pass for a sign-in of a moment ago.
        let keys = browser.get("/v1/me/api-keys").await;
        assert_eq!((keys.status.as_u16(), code_of(&keys).as_str()), (401, "reauthentication_required"));
    }

    async fn somebody_has_so_many_sessions_at_a_time(provider: Provider) {
        let acme = Platform::of(&provider, "acme").await;
        let user = acme.registered("1", "ada@b.c").await;
        let mut first = provider.browser();
        accepted(&mut first, &offered(&acme, &user).await).await;
        for _ in 0..100 {
            assert!(is_signed_in(&mut first).await);
            accepted(&mut provider.browser(), &offered(&acme, &user).await).await;
        }
        assert!(!is_signed_in(&mut first).await, "the oldest ends");
    }
}
