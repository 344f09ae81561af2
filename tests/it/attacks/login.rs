//! Signing in: sessions that somebody planted, links and forms of others, frames, cookies.

use http::{Method, StatusCode};
use serde_json::Value;
use url::form_urlencoded;

use crate::authorize::{code_at_app, error_at_app, hidden, is_consent, is_sign_in, open, submit_with, type_password};
use crate::login::{SESSION, cookies_of, is_signed_in};
use crate::logout::{asks, says_done};
use crate::on_both_databases;
use crate::support::{Browser, Page, form_fields, text_of};

on_both_databases! {
    async fn attack_121_a_sign_in_changes_the_session_cookie(provider: Provider) {
        // A cookie that somebody planted never becomes a session.
        let mut browser = provider.browser();
        for name in [SESSION, "keyward_session"] {
            browser.cookies.insert(name.to_owned(), "planted-by-somebody-else-planted-by-some".to_owned());
        }
        assert!(!is_signed_in(&provider, &mut browser).await);
        provider.sign_in(&mut browser).await;
        let first = browser.cookies[SESSION].clone();
        assert_ne!(first, "planted-by-somebody-else-planted-by-some");
        assert!(is_signed_in(&provider, &mut browser).await);
        let mut planter = provider.browser();
        planter.cookies.insert(SESSION.to_owned(), "planted-by-somebody-else-planted-by-some".to_owned());
        assert!(!is_signed_in(&provider, &mut planter).await);

        // Whoever signs in again gets a new secret, and the old one is worth nothing.
        let page = open(&mut browser, &provider.authorize_url("prompt=login")).await;
        code_at_app(&type_password(&mut browser, &page).await);
        assert_ne!(browser.cookies[SESSION], first);
        assert!(is_signed_in(&provider, &mut browser).await);
        let mut old = provider.browser();
        old.cookies.insert(SESSION.to_owned(), first);
        assert!(!is_signed_in(&provider, &mut old).await);
    }

    async fn attack_122_a_link_signs_in_only_the_browser_that_typed_the_password(provider: Provider) {
        let mut attacker = provider.browser();
        let page = attacker.get(&provider.authorize_url("")).await;
        let link = page.location().to_owned();
        let mut victim = provider.browser();
        let page = victim.get(&link).await;
        let page = victim.submit(&page, &[("username", "alice"), ("password", "correct horse")]).await;
        let resume = page.location().to_owned();
        assert!(is_sign_in(&open(&mut attacker, &resume).await));
        assert!(!is_signed_in(&provider, &mut attacker).await);
        code_at_app(&victim.get(&resume).await);
    }

    /// The headers that a form of another site, or of a page without an origin, comes with.
    async fn attack_123_forms_of_other_sites_do_nothing(provider: Provider) {
        let mut browser = provider.browser();
        let sign_in = open(&mut browser, &provider.authorize_url_for("web", "")).await;
        let typed = [("username", "alice"), ("password", "correct horse")];
        let foreign: [&[(&str, &str)]; 5] = [
            &[("origin", "null")],
            &[("origin", "https://evil.test")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "cross-site"), ("origin", "null")],
            &[("sec-fetch-site", "same-site"), ("origin", "https://other.id.test")],
        ];
        let own: &[(&str, &str)] = &[("sec-fetch-site", "same-origin"), ("origin", "https://id.test")];
        let before = provider.row_counts().await;
        for headers in foreign {
            let page = submit_with(&mut browser, &sign_in, "/login", &typed, headers).await;
            assert_eq!(page.status, StatusCode::FORBIDDEN, "{headers:?}");
            // Such a form brings no cookies; the answer must not replace those that the browser has.
            let page = submit_with(&mut provider.browser(), &sign_in, "/login", &typed, headers).await;
            assert_eq!((page.status, page.header("set-cookie")), (StatusCode::FORBIDDEN, None), "{headers:?}");
        }
        assert_eq!(provider.row_counts().await, before);
        let page = submit_with(&mut browser, &sign_in, "/login", &typed, own).await;
        let consent = browser.follow(page).await;

        let before = provider.row_counts().await;
        for headers in foreign {
            for decision in ["allow", "deny"] {
                let page = submit_with(&mut browser, &consent, "/consent", &[("decision", decision)], headers).await;
                assert_eq!(page.status, StatusCode::FORBIDDEN, "{headers:?}");
            }
        }
        assert_eq!(provider.row_counts().await, before);
        // Our pages send no referrer, and then browsers write `null`; what they say of the site tells them apart.
        let ours = [("sec-fetch-site", "same-origin"), ("origin", "null")];
        let page = submit_with(&mut browser, &consent, "/consent", &[("decision", "allow")], &ours).await;
        code_at_app(&browser.follow(page).await);
    }

    async fn attack_123_forms_need_the_token_of_their_page(provider: Provider) {
        let mut browser = provider.browser();
        let sign_in = open(&mut browser, &provider.authorize_url_for("web", "")).await;
        let elsewhere = hidden(&open(&mut provider.browser(), "/login").await, "csrf");
        let before = provider.row_counts().await;
        for csrf in ["", "x", elsewhere.as_str()] {
            let fields = [("username", "alice"), ("password", "correct horse"), ("csrf", csrf)];
            let page = browser.submit(&sign_in, &fields).await;
            assert_eq!(page.status, StatusCode::FORBIDDEN, "{csrf}");
            assert!(text_of(&page.body).contains("Please sign in again"));
        }
        // Without the cookie that the token is bound to.
        let mut other = provider.browser();
        let fields = [("username", "alice"), ("password", "correct horse")];
        assert_eq!(other.submit(&sign_in, &fields).await.status, StatusCode::FORBIDDEN);
        assert_eq!(provider.row_counts().await, before);

        let consent = type_password(&mut browser, &sign_in).await;
        let before = provider.row_counts().await;
        for csrf in ["", "x", elsewhere.as_str(), hidden(&sign_in, "csrf").as_str()] {
            let page = browser.submit(&consent, &[("decision", "allow"), ("csrf", csrf)]).await;
            assert_eq!(page.status, StatusCode::FORBIDDEN, "{csrf}");
            assert!(is_consent(&page));
        }
        assert_eq!(provider.row_counts().await, before);
        let page = browser.submit(&consent, &[("decision", "allow")]).await;
        code_at_app(&browser.follow(page).await);
    }

    /// A page of another site can post text without asking anybody; what we take is a form.
    async fn attack_124_what_is_no_form_signs_nobody_in_allows_nothing_and_signs_nobody_out(provider: Provider) {
        let mut browser = provider.browser();
        let refused = async |browser: &mut Browser, path: &str, fields: &[(String, String)]| {
            let plain: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
            let json = Value::Object(fields.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect());
            let before = provider.row_counts().await;
            for (content_type, body) in [
                (Some("text/plain"), plain.join("\r\n")),
                (Some("text/plain"), form.clone()),
                (Some("application/json"), json.to_string()),
                (Some("text/plain"), json.to_string()),
                (Some("multipart/form-data; boundary=x"), form.clone()),
                (None, form.clone()),
            ] {
                let page = browser.send_text(Method::POST, path, content_type, body, &[]).await;
                assert!(page.status.is_client_error(), "{path} {content_type:?}: {}", page.status);
                assert_eq!(page.header("location"), None);
            }
            assert_eq!(provider.row_counts().await, before);
        };
        let with = |page: &Page, more: &[(&str, &str)]| -> Vec<(String, String)> {
            let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            form_fields(&page.body).into_iter().chain(more).collect()
        };
        let sign_in = open(&mut browser, &provider.authorize_url_for("web", "")).await;
        let typed = [("username", "alice"), ("password", "correct horse")];
        refused(&mut browser, "/login", &with(&sign_in, &typed)).await;
        assert!(!is_signed_in(&provider, &mut browser).await);
        let consent = type_password(&mut browser, &sign_in).await;
        refused(&mut browser, "/consent", &with(&consent, &[("decision", "allow")])).await;
        let silent = provider.authorize_url_for("web", "prompt=none");
        assert_eq!(error_at_app(&browser.get(&silent).await), "consent_required");
        let page = browser.submit(&consent, &[("decision", "allow")]).await;
        code_at_app(&browser.follow(page).await);
        let confirm = browser.get("/logout").await;
        refused(&mut browser, "/logout", &with(&confirm, &[("action", "logout")])).await;
        assert!(is_signed_in(&provider, &mut browser).await);
        browser.submit(&confirm, &[("action", "logout")]).await;
        assert!(!is_signed_in(&provider, &mut browser).await);
    }

    async fn attack_125_no_page_can_be_framed(provider: Provider) {
        let mut browser = provider.browser();
        let mut pages = vec![
            browser.get("/login").await,
            open(&mut browser, &provider.authorize_url_for("web", "")).await,
            browser.get(&provider.authorize_url("redirect_uri=https://evil.test")).await,
            browser.get("/authorize/resume?ticket=x").await,
            browser.get(&provider.authorize_url("response_mode=form_post&prompt=none")).await,
            browser.post("/login", &[("username", "alice"), ("password", "correct horse")]).await,
            browser.send(Method::POST, "/consent", Some(&[]), &[("sec-fetch-site", "cross-site")]).await,
            browser.send(Method::GET, "/nowhere", None, &[("accept", "text/html")]).await,
            browser.send(Method::DELETE, "/login", None, &[("accept", "text/html")]).await,
        ];
        pages.push(type_password(&mut browser, &pages[1]).await);
        assert!(is_sign_in(&pages[1]) && is_consent(&pages[9]));
        pages.push(browser.get("/login").await);
        pages.push(browser.get("/logout").await);
        pages.push(browser.submit(&pages[11], &[("action", "logout")]).await);
        assert!(asks(&pages[11]) && says_done(&pages[12]));
        let html = pages.iter().filter(|page| page.header("content-type") == Some("text/html; charset=utf-8")).count();
        assert!(html >= 12, "{html} pages");
        for page in &pages {
            assert_eq!(page.header("x-frame-options"), Some("DENY"), "{}", page.body);
            let policy = page.header("content-security-policy").expect("a policy");
            assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        }
    }

    async fn attack_126_a_cookie_that_comes_twice_is_not_believed(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let session = browser.cookies[SESSION].clone();
        let url = provider.authorize_url("prompt=none");
        for twin in [format!("{SESSION}=tossed"), format!("{SESSION}={session}")] {
            let page = browser.send(Method::GET, &url, None, &[("cookie", &twin)]).await;
            assert_eq!(error_at_app(&page), "login_required");
        }
        // One without the prefix is another cookie.
        let page = browser.send(Method::GET, &url, None, &[("cookie", "keyward_session=tossed")]).await;
        code_at_app(&page);
        let mut bare = provider.browser();
        bare.cookies.insert("keyward_session".to_owned(), session);
        assert_eq!(error_at_app(&bare.get(&url).await), "login_required");
    }

    async fn attack_126_cookies_bear_every_protection(provider: Provider) {
        let mut browser = provider.browser();
        let sign_in = browser.get("/login").await;
        let planted = cookies_of(&sign_in);
        assert_eq!(planted.len(), 1, "{planted:?}");
        let (pair, attributes) = planted[0].split_once("; ").unwrap();
        assert!(pair.starts_with("__Host-keyward_browser=") && pair.len() > 40, "{pair}");
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax; Secure");
        // A second tab does not get another one: the form of the first would be dead.
        assert_eq!(cookies_of(&browser.get("/login").await), Vec::<String>::new());

        let page = browser.submit(&sign_in, &[("username", "alice"), ("password", "correct horse")]).await;
        let planted = cookies_of(&page);
        assert_eq!(planted.len(), 2, "{planted:?}");
        for (line, name, days) in [(&planted[0], SESSION, 30), (&planted[1], "__Host-keyward_device", 180)] {
            let (pair, attributes) = line.split_once("; ").unwrap();
            assert!(pair.starts_with(&format!("{name}=")) && pair.len() - name.len() > 32, "{pair}");
            let age = days * 86_400;
            assert_eq!(attributes, format!("Path=/; HttpOnly; SameSite=Lax; Max-Age={age}; Secure"));
        }
    }
}
