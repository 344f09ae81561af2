//! The authorization endpoint and its pages: requests that contradict themselves, steps that somebody tries to skip,
//! and foreign text.

use std::net::TcpListener;

use http::StatusCode;
use keyward::protocol::time::Span;

use crate::authorize::{
    add_client, assert_stopped, code_at_app, enc, error_at_app, hidden, id_token_of, is_consent, is_sign_in, open,
    rows_of, submit_with, type_password,
};
use crate::on_both_databases;
use crate::support::{CALLBACK, Provider, claims_of, text_of};

on_both_databases! {
    async fn attack_01_an_unknown_client_gets_a_page(provider: Provider) {
        add_client(&provider, "gone", |_| {}).await;
        assert!(is_sign_in(&open(&mut provider.browser(), &provider.authorize_url_for("gone", "")).await));
        provider.set_client_disabled("gone", true).await;

        let before = provider.row_counts().await;
        let mut browser = provider.browser();
        for (client_id, words) in [
            ("nobody", "We don’t know the app that sent you here"),
            ("gone", "We don’t know the app that sent you here"),
            ("", "This sign-in link is incomplete"),
            ("first%00", "We couldn’t read this request"),
            ("first%FF", "We couldn’t read this request"),
        ] {
            assert_stopped(&browser.get(&provider.authorize_url_for(client_id, "")).await, words);
        }
        assert_eq!(provider.row_counts().await, before);
        assert!(is_sign_in(&open(&mut browser, &provider.authorize_url("")).await));
    }

    async fn attack_02_a_repeated_parameter_is_refused(provider: Provider) {
        let mut browser = provider.browser();
        let before = provider.row_counts().await;
        for more in [
            format!("redirect_uri={CALLBACK}&redirect_uri=https://evil.test/cb"),
            format!("redirect_uri={CALLBACK}&redirect_uri={CALLBACK}"),
            "client_id=other".to_owned(),
            "client_id=first".to_owned(),
        ] {
            assert_stopped(&browser.get(&provider.authorize_url(&more)).await, "contradicts itself");
        }
        for more in [
            "scope=openid&scope=openid+email",
            "response_type=code",
            "nonce=a&nonce=b",
            "prompt=none&prompt=login",
            "response_mode=query&response_mode=fragment",
            "extra=1&extra=2",
        ] {
            let page = browser.get(&provider.authorize_url(more)).await;
            assert_eq!(error_at_app(&page), "invalid_request", "{more}");
        }
        // Which state is the app's cannot be known, so none goes back.
        let page = browser.get(&provider.authorize_url("state=a&state=b")).await;
        let params = page.location_params();
        assert_eq!(params["error"], "invalid_request");
        assert!(!params.contains_key("state"), "{params:?}");
        // In a form it is no different.
        let form = [("client_id", "first"), ("response_type", "code"), ("redirect_uri", CALLBACK), ("scope", "openid")];
        for twice in [("client_id", "other"), ("redirect_uri", "https://evil.test/cb")] {
            assert_stopped(&browser.post("/authorize", &[&form[..], &[twice]].concat()).await, "contradicts itself");
        }
        let fields = [&form[..], &[("state", "xyz"), ("scope", "openid email")]].concat();
        assert_eq!(error_at_app(&browser.post("/authorize", &fields).await), "invalid_request");
        assert_eq!(provider.row_counts().await, before);

        // RFC 8707 lets `resource` be repeated.
        let twice = "resource=https://quiz.test&resource=https://quiz.test";
        assert!(is_sign_in(&open(&mut browser, &provider.authorize_url(twice)).await));
    }

    async fn attack_02_a_query_beside_a_form_does_not_count(provider: Provider) {
        let form = [("client_id", "first"), ("response_type", "code"), ("redirect_uri", CALLBACK), ("scope", "openid")];
        let mut browser = provider.browser();
        let url = "/authorize?redirect_uri=https://evil.test/cb&client_id=other&state=from-the-query&prompt=none";
        let page = browser.post(url, &form).await;
        let page = browser.follow(page).await;
        assert!(is_sign_in(&page), "{}", page.body);
        let page = type_password(&mut browser, &page).await;
        assert!(page.location().starts_with(CALLBACK));
        assert!(!page.location_params().contains_key("state"));
        assert_stopped(&browser.post(url, &form[1..]).await, "This sign-in link is incomplete");
    }

    async fn attack_03_only_the_code_response_type_exists(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let before = provider.row_counts().await;
        for (response_type, expected) in [
            ("token", "unsupported_response_type"),
            ("id_token", "unsupported_response_type"),
            ("code+token", "unsupported_response_type"),
            ("code+id_token", "unsupported_response_type"),
            ("none", "unsupported_response_type"),
            ("CODE", "unsupported_response_type"),
            // RFC 6749 §3.1: a parameter without a value counts as absent.
            ("", "invalid_request"),
        ] {
            let url = provider.authorize_url("").replace("response_type=code", &format!("response_type={response_type}"));
            assert_eq!(error_at_app(&browser.get(&url).await), expected, "{response_type}");
        }
        assert_eq!(provider.row_counts().await, before);
        code_at_app(&browser.get(&provider.authorize_url("")).await);
    }

    async fn attack_05_prompt_none_never_shows_a_page(provider: Provider) {
        let mut browser = provider.browser();
        let silent = provider.authorize_url_for("web", "prompt=none");
        let before = provider.row_counts().await;
        assert_eq!(error_at_app(&browser.get(&silent).await), "login_required");
        assert_eq!(provider.row_counts().await, before);

        provider.sign_in(&mut browser).await;
        let before = provider.row_counts().await;
        assert_eq!(error_at_app(&browser.get(&silent).await), "consent_required");
        assert_eq!(provider.row_counts().await, before);

        provider.authorize(&mut browser, &provider.authorize_url_for("web", "")).await;
        code_at_app(&browser.get(&silent).await);
        // More than was allowed is not granted silently.
        let more = provider.authorize_url_for("web", "prompt=none&scope=openid+email");
        assert_eq!(error_at_app(&browser.get(&more).await), "consent_required");
    }

    async fn attack_06_prompt_none_stands_alone(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        for prompt in ["none+login", "login+none", "none+consent", "none+select_account", "create", "NONE"] {
            let page = browser.get(&provider.authorize_url(&format!("prompt={prompt}"))).await;
            assert_eq!(error_at_app(&page), "invalid_request", "{prompt}");
        }
        code_at_app(&browser.get(&provider.authorize_url("prompt=none")).await);
    }

    async fn attack_07_a_fresh_sign_in_cannot_be_walked_around(provider: Provider) {
        for wish in ["prompt=login", "max_age=0"] {
            let mut browser = provider.browser();
            let page = provider.authorize(&mut browser, &provider.authorize_url("")).await;
            let earlier = id_token_of(&provider, &page).await["auth_time"].as_i64().unwrap();
            provider.pass(Span::from_secs(5));

            let sign_in = open(&mut browser, &provider.authorize_url(wish)).await;
            assert!(is_sign_in(&sign_in), "{wish}");
            // Back, or any other URL with this ticket, leads to the sign-in page again.
            let ticket = hidden(&sign_in, "ticket");
            for path in ["/authorize/resume", "/consent", "/login"] {
                let page = open(&mut browser, &format!("{path}?ticket={ticket}")).await;
                assert!(is_sign_in(&page), "{wish} {path}");
            }
            let page = browser.submit(&sign_in, &[("action", "continue")]).await;
            assert!(is_sign_in(&browser.follow(page).await), "{wish}: an account that was chosen did not sign in again");

            let page = type_password(&mut browser, &sign_in).await;
            let later = id_token_of(&provider, &page).await["auth_time"].as_i64().unwrap();
            assert!(later >= earlier + 5, "{wish}");
        }
    }

    async fn attack_08_a_max_age_that_is_no_number_is_never_ignored(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        for max_age in ["-1", "abc", "9223372036854775808", "1.5", "%2B1", "1e3", "+1", "4294967296"] {
            let page = browser.get(&provider.authorize_url(&format!("max_age={max_age}"))).await;
            assert_eq!(error_at_app(&page), "invalid_request", "{max_age}");
        }
        code_at_app(&browser.get(&provider.authorize_url("max_age=4294967295")).await);
    }

    async fn attack_10_request_objects_are_refused_and_nothing_is_fetched(provider: Provider) {
        let canary = TcpListener::bind("127.0.0.1:0").unwrap();
        canary.set_nonblocking(true).unwrap();
        let uri = format!("http://{}/request.jwt", canary.local_addr().unwrap());
        let mut browser = provider.browser();
        for (more, expected) in [
            (format!("request_uri={}", enc(&uri)), "request_uri_not_supported"),
            ("request=eyJhbGciOiJub25lIn0.e30.".to_owned(), "request_not_supported"),
            (format!("registration={}", enc("{}")), "registration_not_supported"),
        ] {
            let page = browser.get(&provider.authorize_url(&more)).await;
            assert_eq!(error_at_app(&page), expected);
            let fields = [("client_id", "first"), ("redirect_uri", CALLBACK), ("response_type", "code")];
            let (name, value) = more.split_once('=').unwrap();
            let value = value.replace("%3A", ":").replace("%2F", "/");
            let fields = [&fields[..], &[("scope", "openid"), ("state", "xyz"), (name, &value)]].concat();
            assert_eq!(error_at_app(&browser.post("/authorize", &fields).await), expected);
        }
        let accepted = canary.accept();
        assert!(accepted.is_err(), "{accepted:?} came to fetch");
    }

    async fn attack_11_a_scope_that_is_not_registered_is_never_granted(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let controls = ["openid%0Aadmin", "openid%22", "openid%5C", "op%C3%A9nid", "openid%09email"];
        for scope in ["admin", "pay.everything"].into_iter().chain(controls) {
            let page = browser.get(&provider.authorize_url(&format!("scope={scope}"))).await;
            assert_eq!(error_at_app(&page), "invalid_scope", "{scope}");
        }
        let code = code_at_app(&browser.get(&provider.authorize_url("scope=openid+admin+profile")).await);
        let answer = provider.redeem(&code).await;
        assert_eq!(answer.text("scope"), "openid profile");
        assert_eq!(claims_of(&answer.text("access_token"))["scope"], "openid profile");
    }

    async fn attack_12_a_consent_page_counts_in_its_own_browser_alone(provider: Provider) {
        let url = provider.authorize_url_for("web", "");
        let mut alice = provider.browser();
        provider.sign_in(&mut alice).await;
        let page = open(&mut alice, &url).await;
        assert!(is_consent(&page));

        let mut bob = provider.browser();
        provider.sign_in_as(&mut bob, "bob", "battery staple").await;
        let before = provider.row_counts().await;
        let stolen = bob.submit(&page, &[("decision", "allow")]).await;
        assert_eq!((stolen.status, stolen.header("location")), (StatusCode::FORBIDDEN, None));
        // One that we have never seen, and one that is not signed in.
        let mut stranger = provider.browser();
        let stolen = stranger.submit(&page, &[("decision", "allow")]).await;
        assert_eq!((stolen.status, stolen.header("location")), (StatusCode::FORBIDDEN, None));
        open(&mut stranger, &url).await;
        let stolen = stranger.submit(&page, &[("decision", "allow")]).await;
        assert!(is_sign_in(&stranger.follow(stolen).await));
        assert_eq!(provider.row_counts().await, before);
        assert_eq!(error_at_app(&bob.get(&provider.authorize_url_for("web", "prompt=none")).await), "consent_required");

        let allowed = alice.submit(&page, &[("decision", "allow")]).await;
        code_at_app(&alice.follow(allowed).await);
    }

    async fn attack_13_consent_given_twice_gives_one_code(provider: Provider) {
        for more in ["", "prompt=consent"] {
            let mut browser = provider.browser();
            provider.sign_in(&mut browser).await;
            let page = open(&mut browser, &provider.authorize_url_for("web", more)).await;
            assert!(is_consent(&page));
            let grants = rows_of(&provider, "grants").await;
            let first = browser.submit(&page, &[("decision", "allow")]).await;
            let first = browser.follow(first).await;
            code_at_app(&first);
            let second = browser.submit(&page, &[("decision", "allow")]).await;
            assert_stopped(&browser.follow(second).await, "completed already");
            assert_eq!(rows_of(&provider, "grants").await, grants + 1);
        }
    }

    async fn attack_13_consent_after_half_an_hour_is_too_late(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let page = open(&mut browser, &provider.authorize_url_for("web", "")).await;
        let before = provider.row_counts().await;
        provider.pass(Span::minutes(31));
        assert_stopped(&browser.submit(&page, &[("decision", "allow")]).await, "This sign-in has expired");
        assert_eq!(provider.row_counts().await, before);

        let page = open(&mut browser, &provider.authorize_url_for("web", "")).await;
        provider.pass(Span::minutes(29));
        let page = browser.submit(&page, &[("decision", "allow")]).await;
        code_at_app(&browser.follow(page).await);
    }

    async fn attack_14_the_consent_form_cannot_ask_for_more(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let page = open(&mut browser, &provider.authorize_url_for("web", "scope=openid+email")).await;
        let before = provider.row_counts().await;
        for decisions in [&[("decision", "deny"), ("decision", "allow")][..], &[("decision", "perhaps")], &[]] {
            let refused = submit_with(&mut browser, &page, "/consent", decisions, &[]).await;
            assert_eq!(refused.status, StatusCode::FORBIDDEN, "{decisions:?}");
        }
        assert_eq!(provider.row_counts().await, before);

        let fields = [("decision", "allow"), ("scope", "openid email phone quiz.read offline_access"), ("scopes", "phone")];
        let page = browser.submit(&page, &fields).await;
        let code = code_at_app(&browser.follow(page).await);
        let fields = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", CALLBACK)];
        assert_eq!(provider.token("web", &fields).await.text("scope"), "openid email");
        let more = browser.get(&provider.authorize_url_for("web", "prompt=none&scope=openid+phone")).await;
        assert_eq!(error_at_app(&more), "consent_required");
    }

    async fn attack_15_foreign_text_is_shown_and_never_run(provider: Provider) {
        let hint = "\"><script>alert(1)</script><b x='";
        let mut browser = provider.browser();
        let url = provider.authorize_url_for("web", &format!("login_hint={0}&ui_locales={0}&display={0}", enc(hint)));
        let sign_in = open(&mut browser, &url).await;
        let consent = type_password(&mut browser, &sign_in).await;
        let stopped = browser.get(&provider.authorize_url(&format!("redirect_uri={}", enc(hint)))).await;
        assert!(is_sign_in(&sign_in) && is_consent(&consent));
        // The operator's own words for a scope, and an app's name for itself, are text as well.
        let described = format!("[[scopes]]\nname = \"odd\"\ndescription = {hint:?}\n");
        let elsewhere = Provider::start_with(provider.backend(), "https://id.test", &described).await;
        add_client(&elsewhere, "odd", |client| {
            client.client_name = Some(hint.to_owned());
            client.scope = "openid odd".parse().expect("scopes");
            client.first_party = false;
        })
        .await;
        let mut other = elsewhere.browser();
        elsewhere.sign_in(&mut other).await;
        let named_consent = open(&mut other, &elsewhere.authorize_url_for("odd", "scope=openid+odd")).await;
        assert!(is_consent(&named_consent));
        assert!(text_of(&named_consent.body).matches(hint).count() >= 2, "{}", named_consent.body);
        for page in [&sign_in, &consent, &stopped, &named_consent] {
            assert!(!page.body.contains("<script") && !page.body.contains("<b x="), "{}", page.body);
            let policy = page.header("content-security-policy").expect("a policy");
            assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe") && !policy.contains("script"));
        }
        for page in [&sign_in, &consent] {
            assert!(page.body.contains("Web &#60;app&#62;") && !page.body.contains("Web <app>"));
        }
        assert!(sign_in.body.contains("value=\"&#34;&#62;&#60;script&#62;alert(1)"), "{}", sign_in.body);
        assert!(text_of(&stopped.body).contains(hint));

        // The name of a parameter comes back in an error_description.
        let twice = format!("{0}=1&{0}=2", enc(hint));
        let page = browser.get(&provider.authorize_url(&format!("response_mode=form_post&{twice}"))).await;
        assert_eq!(page.body.matches("<script").count(), 1, "{}", page.body);
        let page = browser.get(&provider.authorize_url(&format!("{}=1&{0}=2", enc("é\r\nSet-Cookie: x=1")))).await;
        assert_eq!(error_at_app(&page), "invalid_request");
        let description = &page.location_params()["error_description"];
        assert!(description.bytes().all(|b| matches!(b, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e)), "{description:?}");
    }

    async fn attack_16_response_modes_that_do_not_exist_are_refused(provider: Provider) {
        let mut browser = provider.browser();
        for mode in ["web_message", "form_post.jwt", "query.jwt", "jwt", "FRAGMENT", "okta_post_message"] {
            let page = browser.get(&provider.authorize_url(&format!("response_mode={mode}"))).await;
            assert_eq!(error_at_app(&page), "invalid_request", "{mode}");
        }
        assert!(is_sign_in(&open(&mut browser, &provider.authorize_url("response_mode=query")).await));
        // The one that is a page holds nothing but text.
        let state = "\"><script>alert(1)</script>";
        let more = format!("response_mode=form_post&prompt=none&state={}", enc(state));
        let page = browser.get(&provider.authorize_url(&more)).await;
        assert!(page.body.contains("value=\"&#34;&#62;&#60;script&#62;alert(1)&#60;/script&#62;\""), "{}", page.body);
        assert_eq!((page.body.matches("<script").count(), hidden(&page, "error").as_str()), (1, "login_required"));
    }

    async fn attack_17_what_was_typed_never_travels_on(provider: Provider) {
        let mut browser = provider.browser();
        let page = open(&mut browser, &provider.authorize_url_for("web", "")).await;
        let page = browser.submit(&page, &[("username", "alice"), ("password", "correct horse")]).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER);
        let consent = browser.follow(page).await;
        let page = browser.submit(&consent, &[("decision", "allow")]).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER);
        let page = browser.follow(page).await;
        assert!(!page.location().contains("correct") && page.location().starts_with(CALLBACK));
    }

    async fn attack_18_every_answer_names_its_issuer(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let iss = format!("iss={}", enc("https://id.test"));
        for mode in ["query", "fragment"] {
            for more in ["", "prompt=none&max_age=0", "request=x", "scope=unknown", "response_type=token"] {
                let page = browser.get(&provider.authorize_url(&format!("response_mode={mode}&{more}"))).await;
                assert!(page.location().ends_with(&iss), "{mode} {more}: {}", page.location());
            }
        }
        for more in ["", "request=x"] {
            let page = browser.get(&provider.authorize_url(&format!("response_mode=form_post&{more}"))).await;
            assert_eq!(hidden(&page, "iss"), "https://id.test");
        }
    }

    async fn attack_19_no_state_breaks_out_of_the_answer(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let state = "a&code=evil&iss=https://evil.test#x";
        for state in ["\r\nSet-Cookie: x=1", state, "+ %20 é😀", "\u{7f}\u{1b}[0m", "--._~"] {
            for more in ["", "&request=x"] {
                let page = browser.get(&provider.authorize_url(&format!("state={}{more}", enc(state)))).await;
                assert_eq!(page.location_params()["state"], state);
                assert_eq!(page.location_params()["iss"], "https://id.test");
                assert!(page.location().bytes().all(|b| b.is_ascii_graphic()), "{}", page.location());
                assert_eq!(page.header("set-cookie"), None);
            }
        }
        for state in ["%00", "a%FFb"] {
            let page = browser.get(&provider.authorize_url(&format!("state={state}"))).await;
            assert_stopped(&page, "We couldn’t read this request");
        }
    }
}
