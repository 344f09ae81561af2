//! `redirect_uri`: addresses that resemble a registered one, and answers that must not leave for any other.

use keyward::account::declared;
use keyward::protocol::client::ClientMetadata;

use crate::authorize::{assert_stopped, code_at_app, enc, error_at, error_at_app, open};
use crate::on_both_databases;
use crate::support::{CALLBACK, Provider, SPA_CALLBACK, challenge, text_of};

/// Whoever is signed in, none of these addresses is ever answered to, and nothing is written; the registered one is.
async fn each_is_stopped(provider: &Provider, client_id: &str, addresses: &[&str]) {
    let mut browser = provider.browser();
    provider.sign_in(&mut browser).await;
    let before = provider.row_counts().await;
    for address in addresses {
        for more in ["", "&prompt=none", "&response_mode=form_post", "&response_type=token"] {
            let url = provider.authorize_url_for(client_id, &format!("redirect_uri={}{more}", enc(address)));
            let page = browser.get(&url).await;
            assert_stopped(&page, "redirect_uri is not registered");
            assert!(text_of(&page.body).contains(address), "{address}");
        }
    }
    assert_eq!(provider.row_counts().await, before);
    let registered = if client_id == "spa" { SPA_CALLBACK } else { CALLBACK };
    let url = provider.authorize_url_for(client_id, &format!("redirect_uri={}&{}", enc(registered), challenge()));
    let page = browser.get(&url).await;
    assert!(page.location().starts_with(&format!("{registered}?code=")), "{}", page.location());
}

on_both_databases! {
    async fn attack_20_a_registered_address_is_not_a_prefix(provider: Provider) {
        each_is_stopped(&provider, "first", &[
            "https://app.test.evil/cb",
            "https://app.test.evil",
            "https://app.test/cb/x",
            "https://app.test/cb?x=1",
            "https://app.test/cb/",
            "https://app.test/cb ",
            "https://app.test/c",
            "https://app.test",
            "https://evil.test/https://app.test/cb",
        ])
        .await;
    }

    async fn attack_21_an_address_has_one_spelling(provider: Provider) {
        each_is_stopped(&provider, "first", &[
            "HTTPS://app.test/cb",
            "https://APP.test/cb",
            "https://app.test/CB",
            "https://app.test/%63b",
            "https://app.test/%2563b",
            "https://app.test/x/../cb",
            "https://app.test/x/%2e%2e/cb",
            "https://app.test/cb/..;/x",
            "https://app.test//cb",
            "https://app.test:443/cb",
            "https://app.test./cb",
            "http://app.test/cb",
        ])
        .await;
    }

    async fn attack_22_an_address_hides_no_other_host(provider: Provider) {
        each_is_stopped(&provider, "first", &[
            "https://app.test@evil.test/cb",
            "https://app.test\\@evil.test/cb",
            "https://evil.test\\.app.test/cb",
            "https://evil.test\\@app.test/cb",
            "https://user:password@app.test/cb",
            "https:app.test/cb",
            "//app.test/cb",
            "/cb",
        ])
        .await;
    }

    async fn attack_23_an_address_has_no_fragment(provider: Provider) {
        each_is_stopped(&provider, "first", &["https://app.test/cb#frag", "https://app.test/cb#"]).await;
    }

    async fn attack_25_only_the_port_of_a_loopback_address_is_free(provider: Provider) {
        each_is_stopped(&provider, "spa", &[
            "http://localhost.evil/cb",
            "http://localhost/cb",
            "http://127.0.0.1.evil/cb",
            "http://127.0.0.1@evil.test/cb",
            "http://127.0.0.1:80@evil.test/cb",
            "http://0x7f.1/cb",
            "http://127.1/cb",
            "http://127.0.0.2/cb",
            "http://[::1]/cb",
            "http://127.0.0.1:51004/other",
            "http://127.0.0.1:51004/cb?x=1",
            "https://127.0.0.1:51004/cb",
            "http://127.0.0.1:99999/cb",
            "http://127.0.0.1:/cb",
            "https://spa.test:8443/cb",
        ])
        .await;
        for address in ["http://127.0.0.1/cb", "http://127.0.0.1:51004/cb"] {
            let url = provider.authorize_url_for("spa", &format!("redirect_uri={address}&{}", challenge()));
            let page = provider.authorize(&mut provider.browser(), &url).await;
            assert!(page.location().starts_with(&format!("{address}?code=")), "{}", page.location());
        }
    }

    async fn attack_26_schemes_that_browsers_run_are_neither_registered_nor_answered(provider: Provider) {
        let addresses = [
            "javascript:alert(1)",
            "data:text/html,<script>alert(1)</script>",
            "vbscript:msgbox",
            "file:///etc/passwd",
            "blob:https://app.test/1",
        ];
        each_is_stopped(&provider, "first", &addresses).await;
        let registrable = |address: &str| {
            let metadata = ClientMetadata { redirect_uris: vec![address.to_owned()], ..ClientMetadata::default() };
            declared::check_client(&provider.app.metadata, "new", &metadata, true)
        };
        for address in addresses {
            assert!(registrable(address).is_err(), "{address}");
        }
        registrable("com.example.app:/cb").expect("a private-use scheme");
        registrable(CALLBACK).expect("an https address");
    }

    async fn attack_27_an_app_with_several_addresses_names_one(provider: Provider) {
        let bare = |client_id: &str, scope: &str| {
            format!("/authorize?client_id={client_id}&response_type=code&state=xyz&scope={scope}")
        };
        let mut browser = provider.browser();
        let before = provider.row_counts().await;
        assert_stopped(&browser.get(&bare("web", "openid")).await, "Web <app> didn’t say where to send you back to");
        assert_eq!(provider.row_counts().await, before);
        // OpenID Connect Core §3.1.2.1 requires it; plain OAuth falls back to the only one.
        assert_eq!(error_at_app(&browser.get(&bare("first", "openid")).await), "invalid_request");
        code_at_app(&provider.authorize(&mut browser, &bare("first", "profile")).await);
    }

    async fn attack_28_a_code_is_redeemed_with_the_address_it_was_sent_to(provider: Provider) {
        let code = provider.code(&mut provider.browser(), &provider.authorize_url_for("web", "")).await;
        let before = provider.row_counts().await;
        let grant = ("grant_type", "authorization_code");
        let elsewhere = ["https://app.test/other", "https://app.test/CB", "https://app.test/cb/", ""];
        for redirect_uri in elsewhere {
            let answer = provider.token("web", &[grant, ("code", &code), ("redirect_uri", redirect_uri)]).await;
            assert_eq!((answer.status, answer.error()), (400, "invalid_grant"), "{redirect_uri}");
        }
        let answer = provider.token("web", &[grant, ("code", &code)]).await;
        assert_eq!((answer.status, answer.error()), (400, "invalid_grant"));
        assert_eq!(provider.row_counts().await, before);
        let answer = provider.token("web", &[grant, ("code", &code), ("redirect_uri", CALLBACK)]).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    async fn attack_30_errors_travel_to_the_proven_address_only(provider: Provider) {
        let other = "https://app.test/other";
        let url = |more: &str| provider.authorize_url_for("web", &format!("redirect_uri={other}&{more}"));
        let mut browser = provider.browser();
        assert_eq!(error_at(&browser.get(&url("scope=unknown")).await, other), "invalid_scope");
        assert_eq!(error_at(&browser.get(&url("response_type=token")).await, other), "invalid_request");
        provider.sign_in(&mut browser).await;
        let page = open(&mut browser, &url("")).await;
        let page = browser.submit(&page, &[("decision", "deny")]).await;
        assert_eq!(error_at(&browser.follow(page).await, other), "access_denied");

        // The registration changed while the person was reading: the page's answer goes nowhere.
        let page = open(&mut browser, &url("")).await;
        provider.change_client("web", |web| web.client.metadata.redirect_uris.retain(|uri| uri != other)).await;
        for decision in ["allow", "deny"] {
            let page = browser.submit(&page, &[("decision", decision)]).await;
            assert_stopped(&browser.follow(page).await, "redirect_uri is not registered");
        }
    }
}
