//! Signing out: RP-initiated logout (OpenID Connect RP-Initiated Logout 1.0) with the modules of its certification
//! plan, the confirmation page, and what ends with a session.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use http::{Method, StatusCode};
use keyward::protocol::time::Span;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::authorize::{code_at_app, enc, error_at_app, is_sign_in, open, rows_of, type_password};
use crate::on_both_databases;
use crate::support::audit::put_client;
use crate::support::{Backend, Browser, CALLBACK, Page, Provider, TokenAnswer, claims_of, text_of};

pub const BYE: &str = "https://app.test/bye";
const SESSION: &str = "__Host-keyward_session";
pub const NOTHING: &[(&str, &str)] = &[];

/// Signs alice in to the client `first`.
pub async fn sign_in(provider: &Provider, browser: &mut Browser, scope: &str) -> TokenAnswer {
    let code = provider.code(browser, &provider.authorize_url(&format!("scope={scope}"))).await;
    let answer = provider.redeem(&code).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer
}

/// `/logout` with these parameters, none of them encoded yet.
pub fn logout_url(params: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = params.iter().map(|(name, value)| format!("{name}={}", enc(value))).collect();
    format!("/logout?{}", pairs.join("&"))
}

pub async fn is_signed_in(provider: &Provider, browser: &mut Browser) -> bool {
    let page = browser.get(&provider.authorize_url("prompt=none")).await;
    if page.location_params().contains_key("code") {
        return true;
    }
    assert_eq!(error_at_app(&page), "login_required");
    false
}

/// The page that asks before it signs anybody out.
pub fn asks(page: &Page) -> bool {
    page.body.contains("id=\"logout-confirm\"") && page.header("location").is_none()
}

/// The page that says it is done.
pub fn says_done(page: &Page) -> bool {
    page.status == StatusCode::OK
        && page.header("location").is_none()
        && text_of(&page.body).contains("You are signed out")
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// ID tokens that are not ours, or not any more, made from one that is.
async fn forged(provider: &Provider, tokens: &TokenAnswer) -> Vec<(&'static str, String)> {
    let own = tokens.text("id_token");
    let claims = claims_of(&own);
    let (signed, signature) = own.rsplit_once('.').expect("a JWT");
    let (header, payload) = signed.split_once('.').expect("a JWT");
    let with_alg = |alg: &str| encoded(&json!({"alg": alg, "typ": "JWT", "kid": "x"}));
    let by_the_app = format!("{}.{payload}", with_alg("HS256"));
    let mut mac = Hmac::<Sha256>::new_from_slice(b"first-secret").expect("a key");
    mac.update(by_the_app.as_bytes());
    let by_the_app = format!("{by_the_app}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()));
    let mut swapped = claims.clone();
    (swapped["iss"], swapped["aud"]) = (json!("first"), json!("https://id.test"));
    let sqlite = provider.database_url.starts_with("sqlite:");
    let backend = if sqlite { Backend::Sqlite } else { Backend::Postgres };
    let elsewhere = Provider::start(backend).await.tokens("openid").await.text("id_token");
    vec![
        ("alg none", format!("{}.{payload}.", with_alg("none"))),
        ("no signature", format!("{signed}.")),
        ("signed by the app", by_the_app),
        ("iss and aud swapped", format!("{header}.{}.{signature}", encoded(&swapped))),
        ("another provider's of the same name", elsewhere),
        ("an access token", tokens.text("access_token")),
        ("nonsense", "nonsense".to_owned()),
    ]
}

on_both_databases! {
    async fn oidcc_rp_initiated_logout_discovery_endpoint_verification(provider: Provider) {
        let document = provider.browser().get("/.well-known/openid-configuration").await.json();
        assert_eq!(document["end_session_endpoint"], "https://id.test/logout");
    }

    async fn oidcc_rp_initiated_logout(provider: Provider) {
        let mut browser = provider.browser();
        let hint = sign_in(&provider, &mut browser, "openid").await.text("id_token");
        assert!(is_signed_in(&provider, &mut browser).await);
        let state = "aZ09-._~".repeat(16);
        let url = logout_url(&[("id_token_hint", &hint), ("post_logout_redirect_uri", BYE), ("state", &state)]);
        // Once, and once more from a bookmark: then there is nobody to sign out, and the app gets its browser back.
        for _ in 0..2 {
            let page = browser.get(&url).await;
            assert!(page.location().starts_with(&format!("{BYE}?")), "{}", page.location());
            assert_eq!(page.location_params(), BTreeMap::from([("state".to_owned(), state.clone())]));
            assert!(!browser.cookies.contains_key(SESSION));
            assert!(!is_signed_in(&provider, &mut browser).await);
        }
    }

    async fn oidcc_rp_initiated_logout_no_state(provider: Provider) {
        let mut browser = provider.browser();
        let hint = sign_in(&provider, &mut browser, "openid").await.text("id_token");
        let page = browser.get(&logout_url(&[("id_token_hint", &hint), ("post_logout_redirect_uri", BYE)])).await;
        assert_eq!(page.location(), BYE);
    }

    /// Attack 146: an address that is not registered gets nobody.
    async fn oidcc_rp_initiated_logout_bad_post_logout_redirect_uri(provider: Provider) {
        for address in [
            "https://evil.test/bye",
            "https://app.test/bye?foo=bar",
            "https://app.test/bye/",
            "https://app.test/bye#x",
            "https://app.test/BYE",
            "https://app.test.evil/bye",
            "javascript:alert(1)",
            CALLBACK,
        ] {
            let mut browser = provider.browser();
            let hint = sign_in(&provider, &mut browser, "openid").await.text("id_token");
            let params = [("id_token_hint", hint.as_str()), ("post_logout_redirect_uri", address), ("state", "s")];
            let page = browser.get(&logout_url(&params)).await;
            assert!(says_done(&page), "{address}: {}", page.body);
            assert!(!page.body.contains(&address.replace('&', "&#38;")), "{address}");
            assert!(!is_signed_in(&provider, &mut browser).await);
        }
    }

    async fn oidcc_rp_initiated_logout_modified_and_bad_id_token_hint(provider: Provider) {
        let mut browser = provider.browser();
        let tokens = sign_in(&provider, &mut browser, "openid").await;
        let before = provider.row_counts().await;
        for (name, hint) in forged(&provider, &tokens).await {
            let params = [("id_token_hint", hint.as_str()), ("post_logout_redirect_uri", BYE), ("state", "s")];
            for more in [NOTHING, &[("client_id", "first")]] {
                let page = browser.get(&logout_url(&[&params[..], more].concat())).await;
                assert!(asks(&page), "{name}: {}", page.body);
                assert!(!page.body.contains("asks to sign you out"), "{name}: no app is named that is not proven");
            }
        }
        assert_eq!(provider.row_counts().await, before);
        assert!(is_signed_in(&provider, &mut browser).await);
        // The click signs out and still leads nowhere.
        let url = logout_url(&[("id_token_hint", "nonsense"), ("post_logout_redirect_uri", BYE)]);
        let page = browser.get(&url).await;
        let page = browser.submit(&page, &[("action", "logout")]).await;
        assert!(says_done(&page), "{}", page.body);
        assert!(!is_signed_in(&provider, &mut browser).await);
    }

    async fn oidcc_rp_initiated_logout_no_id_token_hint(provider: Provider) {
        let mut browser = provider.browser();
        sign_in(&provider, &mut browser, "openid").await;
        for more in [NOTHING, &[("client_id", "first")], &[("client_id", "nobody")], &[("client_id", "first"), ("logout_hint", "alice")]] {
            let url = logout_url(&[&[("post_logout_redirect_uri", BYE), ("state", "s")][..], more].concat());
            assert!(asks(&browser.get(&url).await), "{more:?}");
            assert!(is_signed_in(&provider, &mut browser).await);
        }
        let page = browser.get(&logout_url(&[("post_logout_redirect_uri", BYE), ("client_id", "first")])).await;
        let page = browser.submit(&page, &[("action", "logout")]).await;
        assert!(says_done(&page), "a registered address is not used without a hint");
        assert!(!is_signed_in(&provider, &mut browser).await);
        // Nor when nobody is signed in.
        let page = browser.get(&logout_url(&[("post_logout_redirect_uri", BYE), ("client_id", "first")])).await;
        assert!(says_done(&page));
    }

    async fn oidcc_rp_initiated_logout_no_params(provider: Provider) {
        let mut browser = provider.browser();
        sign_in(&provider, &mut browser, "openid").await;
        let page = browser.get("/logout").await;
        assert!(asks(&page) && text_of(&page.body).contains("Alice Archer"));
        let page = browser.submit(&page, &[("action", "logout")]).await;
        assert!(says_done(&page) && page.body.contains("id=\"sign-in\""));
        assert!(!is_signed_in(&provider, &mut browser).await);
        assert!(says_done(&browser.get("/logout").await), "again, with nobody signed in");
    }

    async fn oidcc_rp_initiated_logout_no_post_logout_redirect_uri(provider: Provider) {
        let mut browser = provider.browser();
        let hint = sign_in(&provider, &mut browser, "openid").await.text("id_token");
        assert!(says_done(&browser.get(&logout_url(&[("id_token_hint", &hint), ("state", "s")])).await));
        assert!(!is_signed_in(&provider, &mut browser).await);
    }

    async fn oidcc_rp_initiated_logout_only_state(provider: Provider) {
        let mut browser = provider.browser();
        sign_in(&provider, &mut browser, "openid").await;
        let page = browser.get(&logout_url(&[("state", "s")])).await;
        assert!(asks(&page));
        assert!(says_done(&browser.submit(&page, &[("action", "logout")]).await));
        assert!(!is_signed_in(&provider, &mut browser).await);
    }
}

on_both_databases! {
    async fn a_hint_that_expired_still_works(provider: Provider) {
        let mut browser = provider.browser();
        let hint = sign_in(&provider, &mut browser, "openid").await.text("id_token");
        provider.pass(Span::hours(11));
        assert!(claims_of(&hint)["exp"].as_i64().unwrap() * 1000 < provider.app.now().millis());
        let page = browser.get(&logout_url(&[("id_token_hint", &hint), ("post_logout_redirect_uri", BYE)])).await;
        assert_eq!(page.location(), BYE);
        assert!(!is_signed_in(&provider, &mut browser).await);
    }

    async fn a_hint_of_another_app_proves_nothing(provider: Provider) {
        let mut browser = provider.browser();
        let code = provider.code(&mut browser, &provider.authorize_url_for("other", "")).await;
        let fields = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", CALLBACK)];
        let hint = provider.token("other", &fields).await.text("id_token");
        let params = [("id_token_hint", hint.as_str()), ("client_id", "first"), ("post_logout_redirect_uri", BYE)];
        assert!(asks(&browser.get(&logout_url(&params)).await));
        assert!(is_signed_in(&provider, &mut browser).await);
        // The other app's own registration does not have the address either.
        let page = browser.get(&logout_url(&[("id_token_hint", &hint), ("post_logout_redirect_uri", BYE)])).await;
        assert!(says_done(&page), "{}", page.body);
        assert!(!is_signed_in(&provider, &mut browser).await);
    }

    async fn a_hint_of_another_session_asks_first_and_then_leads_back(provider: Provider) {
        let mut browser = provider.browser();
        let hint = sign_in(&provider, &mut browser, "openid").await.text("id_token");
        let url = logout_url(&[("id_token_hint", &hint), ("post_logout_redirect_uri", BYE), ("state", "s")]);
        browser.get(&url).await;
        let later = sign_in(&provider, &mut browser, "openid").await.text("id_token");
        assert_ne!(claims_of(&hint)["sid"], claims_of(&later)["sid"], "a session's id is never used again");
        let page = browser.get(&url).await;
        assert!(asks(&page) && page.body.contains("asks to sign you out"), "{}", page.body);
        assert!(is_signed_in(&provider, &mut browser).await);
        let page = browser.submit(&page, &[("action", "logout")]).await;
        assert_eq!(page.location(), format!("{BYE}?state=s"));
        assert!(!is_signed_in(&provider, &mut browser).await);
    }

    async fn the_hint_of_a_session_that_was_renewed_is_still_its_own(provider: Provider) {
        let mut browser = provider.browser();
        let hint = sign_in(&provider, &mut browser, "openid").await.text("id_token");
        let page = open(&mut browser, &provider.authorize_url("prompt=login")).await;
        code_at_app(&type_password(&mut browser, &page).await);
        let page = browser.get(&logout_url(&[("id_token_hint", &hint), ("post_logout_redirect_uri", BYE)])).await;
        assert_eq!(page.location(), BYE);
        assert!(!is_signed_in(&provider, &mut browser).await);
    }

    async fn repeated_parameters_lead_nowhere(provider: Provider) {
        let mut browser = provider.browser();
        let hint = sign_in(&provider, &mut browser, "openid").await.text("id_token");
        let once = [("id_token_hint", hint.as_str()), ("post_logout_redirect_uri", BYE)];
        for twice in [("post_logout_redirect_uri", BYE), ("id_token_hint", hint.as_str()), ("x", "1")] {
            let url = logout_url(&[&once[..], &[twice, ("x", "2")]].concat());
            assert!(asks(&browser.get(&url).await), "{}", twice.0);
        }
        assert!(is_signed_in(&provider, &mut browser).await);
    }

    /// An app's form comes without cookies, so a redirect fetches them; with the right hint that is all.
    async fn a_posted_logout_finds_the_session_one_redirect_later(provider: Provider) {
        let mut browser = provider.browser();
        let hint = sign_in(&provider, &mut browser, "openid").await.text("id_token");
        let mut without_cookies = provider.browser();
        let headers = [("origin", "https://app.test"), ("sec-fetch-site", "cross-site")];
        let fields = [("id_token_hint", hint.as_str()), ("post_logout_redirect_uri", BYE), ("state", "s")];
        let page = without_cookies.send(Method::POST, "/logout", Some(&fields), &headers).await;
        assert!(page.location().starts_with("https://id.test/logout?ticket="), "{}", page.location());
        assert_eq!(page.header("set-cookie"), None);
        assert!(is_signed_in(&provider, &mut browser).await);
        let page = browser.get(page.location()).await;
        assert_eq!(page.location(), format!("{BYE}?state=s"));
        assert!(!is_signed_in(&provider, &mut browser).await);

        // Without a hint, the page asks.
        sign_in(&provider, &mut browser, "openid").await;
        let page = without_cookies.send(Method::POST, "/logout", Some(&[("state", "s")]), &headers).await;
        assert!(asks(&browser.get(page.location()).await));
        assert!(is_signed_in(&provider, &mut browser).await);
    }

    async fn a_confirmation_that_another_person_left_open_signs_nobody_out(provider: Provider) {
        let mut browser = provider.browser();
        sign_in(&provider, &mut browser, "openid").await;
        let for_alice = browser.get("/logout").await;
        let page = open(&mut browser, &provider.authorize_url("prompt=login")).await;
        let page = browser.submit(&page, &[("username", "bob"), ("password", "battery staple")]).await;
        code_at_app(&browser.follow(page).await);
        let page = browser.submit(&for_alice, &[("action", "logout")]).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN);
        assert!(asks(&page) && text_of(&page.body).contains("bob"));
        assert!(is_signed_in(&provider, &mut browser).await);
    }

    async fn a_person_may_stay(provider: Provider) {
        let mut browser = provider.browser();
        sign_in(&provider, &mut browser, "openid").await;
        let confirm = browser.get("/logout").await;
        let page = browser.submit(&confirm, &[("action", "stay")]).await;
        let page = browser.follow(page).await;
        assert!(text_of(&page.body).contains("You are signed in as Alice Archer"));
        assert!(is_signed_in(&provider, &mut browser).await);
    }

    async fn a_confirmation_left_open_for_an_hour_still_does_its_work(provider: Provider) {
        let mut browser = provider.browser();
        let hint = sign_in(&provider, &mut browser, "openid").await.text("id_token");
        browser.get(&logout_url(&[("id_token_hint", &hint)])).await;
        sign_in(&provider, &mut browser, "openid").await;
        for url in ["/logout".to_owned(), logout_url(&[("id_token_hint", &hint), ("post_logout_redirect_uri", BYE)])] {
            let page = browser.get(&url).await;
            provider.pass(Span::hours(1));
            let page = browser.submit(&page, &[("action", "logout")]).await;
            // Asking once more will do, since the app's wish may be too old to follow; an error will not.
            let page = if asks(&page) { browser.submit(&page, &[("action", "logout")]).await } else { page };
            assert!(says_done(&page) || page.header("location") == Some(BYE), "{}", text_of(&page.body));
            assert!(!is_signed_in(&provider, &mut browser).await);
            sign_in(&provider, &mut browser, "openid").await;
        }
    }

    async fn a_sign_out_ends_what_was_granted_while_the_person_was_there(provider: Provider) {
        let mut browser = provider.browser();
        let online = sign_in(&provider, &mut browser, "openid").await;
        let offline = sign_in(&provider, &mut browser, "openid+offline_access").await;
        let unredeemed = provider.code(&mut browser, &provider.authorize_url("")).await;
        for tokens in [&online, &offline] {
            assert_eq!(provider.userinfo(&tokens.text("access_token")).await.status, 200);
        }
        let hint = online.text("id_token");
        browser.get(&logout_url(&[("id_token_hint", &hint)])).await;

        let (access, refresh) = (online.text("access_token"), online.text("refresh_token"));
        assert_eq!(provider.userinfo(&access).await.status, 401);
        assert_eq!(provider.introspect("first", &access).await, json!({"active": false}));
        assert_eq!(provider.introspect("first", &refresh).await, json!({"active": false}));
        let answer = provider.refresh("first", &refresh).await;
        assert_eq!((answer.status, answer.error()), (400, "invalid_grant"));
        assert_eq!(provider.redeem(&unredeemed).await.error(), "invalid_grant");

        let access = offline.text("access_token");
        assert_eq!(provider.userinfo(&access).await.status, 200);
        assert_eq!(provider.introspect("first", &access).await["active"], true);
        let answer = provider.refresh("first", &offline.text("refresh_token")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(provider.userinfo(&answer.text("access_token")).await.status, 200);
    }

    async fn a_sign_out_is_written_down_once(provider: Provider) {
        let mut browser = provider.browser();
        let hint = sign_in(&provider, &mut browser, "openid").await.text("id_token");
        let (events, sessions) = (rows_of(&provider, "events").await, rows_of(&provider, "sessions").await);
        let url = logout_url(&[("id_token_hint", &hint)]);
        for _ in 0..3 {
            assert!(says_done(&browser.get(&url).await));
        }
        assert_eq!(rows_of(&provider, "events").await, events + 1);
        assert_eq!(rows_of(&provider, "sessions").await, sessions - 1);
    }

    async fn an_app_that_was_switched_off_is_not_led_back_to(provider: Provider) {
        use keyward::protocol::ids::ClientId;
        use keyward::store::clients::ClientRecord;
        let mut browser = provider.browser();
        let hint = sign_in(&provider, &mut browser, "openid").await.text("id_token");
        let record = provider.app.store.client(&ClientId::new("first")).await.unwrap().expect("the client");
        let mut off = ClientRecord::clone(&record);
        off.client.disabled_at = Some(provider.app.now());
        put_client(&provider.app.store, off, provider.app.now()).await.unwrap();
        let page = browser.get(&logout_url(&[("id_token_hint", &hint), ("post_logout_redirect_uri", BYE)])).await;
        assert_eq!(page.header("location"), None);
        let page = if asks(&page) { browser.submit(&page, &[("action", "logout")]).await } else { page };
        assert!(says_done(&page));
        assert!(is_sign_in(&browser.get("/login").await));
    }

    async fn what_an_app_sends_along_is_shown_and_never_run(provider: Provider) {
        let mut browser = provider.browser();
        sign_in(&provider, &mut browser, "openid").await;
        let evil = "\"><script>alert(1)</script>";
        let params: Vec<(&str, &str)> =
            ["state", "logout_hint", "ui_locales", "post_logout_redirect_uri", "client_id"].map(|name| (name, evil)).into();
        let page = browser.get(&logout_url(&params)).await;
        assert!(asks(&page) && !page.body.contains("<script"));
        // A ticket that is none of ours carries no wish, so the page asks as it does without one.
        let page = browser.get(&format!("/logout?ticket={}", enc(evil))).await;
        assert!(asks(&page) && !page.body.contains("<script"));
        assert!(is_signed_in(&provider, &mut browser).await);
    }
}
