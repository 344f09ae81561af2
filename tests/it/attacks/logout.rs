//! Signing out: where it may lead, and that nobody else does it. The modules of the certification plan stand in
//! `tests/it/logout.rs`.

use http::{Method, StatusCode};
use keyward::protocol::client::ClientMetadata;

use crate::authorize::{add_client, hidden, submit_with};
use crate::login::SESSION;
use crate::logout::{BYE, NOTHING, asks, is_signed_in, logout_url, says_done, sign_in};
use crate::on_both_databases;
use crate::support::CALLBACK;

on_both_databases! {
    async fn attack_123_the_confirmation_needs_its_own_token(provider: Provider) {
        let mut browser = provider.browser();
        let before_signing_in = hidden(&browser.get("/login").await, "csrf");
        sign_in(&provider, &mut browser, "openid").await;
        let mut other = provider.browser();
        sign_in(&provider, &mut other, "openid").await;
        let elsewhere = hidden(&other.get("/logout").await, "csrf");
        let confirm = browser.get("/logout").await;
        let before = provider.row_counts().await;
        for csrf in ["", "x", elsewhere.as_str(), before_signing_in.as_str()] {
            let page = browser.submit(&confirm, &[("action", "logout"), ("csrf", csrf)]).await;
            assert_eq!(page.status, StatusCode::FORBIDDEN, "{csrf}");
            assert!(asks(&page));
        }
        for headers in [
            &[("origin", "null")][..],
            &[("origin", "https://evil.test")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site"), ("origin", "https://other.id.test")],
        ] {
            let page = submit_with(&mut browser, &confirm, "/logout", &[("action", "logout")], headers).await;
            assert_eq!(page.status, StatusCode::FORBIDDEN, "{headers:?}");
        }
        assert_eq!(provider.row_counts().await, before);
        assert!(is_signed_in(&provider, &mut browser).await);
        let own = [("sec-fetch-site", "same-origin"), ("origin", "https://id.test")];
        let page = submit_with(&mut browser, &confirm, "/logout", &[("action", "logout")], &own).await;
        assert!(says_done(&page));
        assert!(!is_signed_in(&provider, &mut browser).await);
    }

    async fn attack_146_a_sign_out_leads_only_to_a_registered_address_of_an_app_that_is_proven(provider: Provider) {
        let third = |client: &mut ClientMetadata| client.post_logout_redirect_uris.push("https://third.test/bye".to_owned());
        add_client(&provider, "third", third).await;
        let mut browser = provider.browser();
        for address in [
            "https://evil.test/bye",
            "https://third.test/bye",
            "https://app.test/bye/",
            "https://app.test/bye?x=1",
            "https://app.test/bye#x",
            "https://app.test/BYE",
            "https://app.test.evil/bye",
            "https://app.test@evil.test/bye",
            "//evil.test/bye",
            "javascript:alert(1)",
            CALLBACK,
            "",
        ] {
            let hint = sign_in(&provider, &mut browser, "openid").await.text("id_token");
            let params = [("id_token_hint", hint.as_str()), ("post_logout_redirect_uri", address), ("state", "s")];
            let page = browser.get(&logout_url(&params)).await;
            assert!(says_done(&page), "{address}: {}", page.body);
            assert!(!is_signed_in(&provider, &mut browser).await);
        }
        // The address is right, and nothing proves the app.
        let hint = sign_in(&provider, &mut browser, "openid").await.text("id_token");
        let before = provider.row_counts().await;
        for proof in [
            &[][..],
            &[("client_id", "first")],
            &[("id_token_hint", "nonsense"), ("client_id", "first")],
            &[("id_token_hint", hint.as_str()), ("client_id", "third")],
            &[("id_token_hint", hint.as_str()), ("client_id", "nobody")],
        ] {
            let url = logout_url(&[&[("post_logout_redirect_uri", BYE), ("state", "s")][..], proof].concat());
            let page = browser.get(&url).await;
            assert!(asks(&page), "{proof:?}: {}", page.body);
        }
        assert_eq!(provider.row_counts().await, before);
        assert!(is_signed_in(&provider, &mut browser).await);
        let params = [("post_logout_redirect_uri", BYE), ("client_id", "first"), ("id_token_hint", "nonsense")];
        let page = browser.get(&logout_url(&params)).await;
        let page = browser.submit(&page, &[("action", "logout")]).await;
        assert!(says_done(&page), "a click does not prove an app either");
        let hint = sign_in(&provider, &mut browser, "openid").await.text("id_token");
        let url = logout_url(&[("id_token_hint", &hint), ("post_logout_redirect_uri", BYE), ("client_id", "first")]);
        assert_eq!(browser.get(&url).await.location(), BYE);
        assert!(!is_signed_in(&provider, &mut browser).await);
    }

    /// A form of another site comes without our cookies, but its answer could take them away.
    async fn attack_147_no_form_of_another_site_signs_anybody_out(provider: Provider) {
        let mut browser = provider.browser();
        sign_in(&provider, &mut browser, "openid").await;
        let before = provider.row_counts().await;
        let headers = [("origin", "https://evil.test"), ("sec-fetch-site", "cross-site")];
        for fields in [NOTHING, &[("action", "logout")], &[("action", "stay")], &[("action", "logout"), ("csrf", "x")]] {
            // As browsers do it: without the `SameSite=Lax` cookies, keeping what the answer sets.
            let page = provider.browser().send(Method::POST, "/logout", Some(fields), &headers).await;
            assert_eq!(page.header("set-cookie"), None, "{fields:?}");
            // And as a browser would that knows no `SameSite`.
            let page = browser.send(Method::POST, "/logout", Some(fields), &headers).await;
            assert_eq!(page.header("set-cookie"), None, "{fields:?}");
        }
        assert_eq!(provider.row_counts().await, before);
        assert!(is_signed_in(&provider, &mut browser).await);
        assert!(asks(&browser.get("/logout").await), "nor does a link");
        assert!(is_signed_in(&provider, &mut browser).await);
    }

    async fn attack_147_a_sign_out_ends_this_session_only(provider: Provider) {
        let (mut here, mut there) = (provider.browser(), provider.browser());
        let hint = sign_in(&provider, &mut here, "openid").await.text("id_token");
        let elsewhere = sign_in(&provider, &mut there, "openid").await;
        let cookie = here.cookies[SESSION].clone();
        here.get(&logout_url(&[("id_token_hint", &hint)])).await;
        assert!(!is_signed_in(&provider, &mut here).await);
        here.cookies.insert(SESSION.to_owned(), cookie);
        assert!(!is_signed_in(&provider, &mut here).await, "the session is gone, not only its cookie");
        assert!(is_signed_in(&provider, &mut there).await);
        assert_eq!(provider.userinfo(&elsewhere.text("access_token")).await.status, 200);
        // That hint signs nobody out in the other browser.
        assert!(asks(&there.get(&logout_url(&[("id_token_hint", &hint)])).await));
        assert!(is_signed_in(&provider, &mut there).await);
    }
}
