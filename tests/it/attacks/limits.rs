//! Rate limits, and headers that every answer bears.

use http::{Method, StatusCode};
use keyward::protocol::time::Span;

use crate::authorize::{is_sign_in, open, type_password};
use crate::login::seconds_to_wait;
use crate::on_both_databases;
use crate::support::{form_fields, text_of};

on_both_databases! {
    async fn attack_148_the_sixth_try_is_not_looked_at(provider: Provider) {
        for name in ["alice", "nobody"] {
            let mut browser = provider.browser();
            for left in ["4 tries left", "3 tries left", "2 tries left", "1 try left", "No tries left"] {
                let page = provider.sign_in_as(&mut browser, name, "wrong").await;
                assert!(text_of(&page.body).contains(left), "{name} {left}");
            }
            // Whoever goes on trying leaves no trace: else a flood would fill the database.
            let before = provider.row_counts().await;
            let page = provider.sign_in_as(&mut browser, name, "correct horse").await;
            let wait = seconds_to_wait(&page);
            assert_eq!(provider.row_counts().await, before);
            assert!((890..=900).contains(&wait), "{wait}");
            assert_eq!(page.header("cache-control"), Some("no-store"));
            assert!(is_sign_in(&page) && text_of(&page.body).contains("Too many tries"));
        }
        // Another name from here, and this name from elsewhere, are not concerned.
        let mut browser = provider.browser();
        let page = provider.sign_in_as(&mut browser, "bob", "battery staple").await;
        assert_eq!(page.status, StatusCode::SEE_OTHER);
        let mut elsewhere = provider.browser_from("192.0.2.1");
        let page = provider.sign_in_as(&mut elsewhere, "alice", "correct horse").await;
        assert_eq!(page.status, StatusCode::SEE_OTHER);
        // That they got in elsewhere frees nobody here; time does.
        let page = provider.sign_in_as(&mut provider.browser(), "alice", "correct horse").await;
        provider.pass(Span::from_secs(seconds_to_wait(&page)));
        let page = provider.sign_in_as(&mut provider.browser(), "alice", "correct horse").await;
        assert_eq!(page.status, StatusCode::SEE_OTHER);
    }

    async fn attack_149_a_client_cannot_choose_its_own_network(provider: Provider) {
        let mut browser = provider.browser_from("2001:db8:1:2::1");
        let sign_in = browser.get("/login").await;
        let mut fields = form_fields(&sign_in.body);
        fields.extend([("username".to_owned(), "alice".to_owned()), ("password".to_owned(), "wrong".to_owned())]);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut statuses = Vec::new();
        for turn in 0..7 {
            let (listed, forwarded) = (format!("198.51.100.{turn}"), format!("for=198.51.100.{turn}"));
            let headers =
                [("x-forwarded-for", listed.as_str()), ("forwarded", forwarded.as_str()), ("x-real-ip", listed.as_str())];
            statuses.push(browser.send(Method::POST, "/login", Some(&fields), &headers).await.status.as_u16());
        }
        assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429]);
        // One customer has the whole /64; the neighbour is somebody else.
        let mut same = provider.browser_from("2001:db8:1:2:ffff::9");
        seconds_to_wait(&provider.sign_in_as(&mut same, "alice", "correct horse").await);
        let mut neighbour = provider.browser_from("2001:db8:1:3::1");
        let page = provider.sign_in_as(&mut neighbour, "alice", "correct horse").await;
        assert_eq!(page.status, StatusCode::SEE_OTHER);
    }

    /// One password over many names is guessing too.
    async fn attack_150_a_network_that_tries_many_names_is_stopped(provider: Provider) {
        let mut browser = provider.browser();
        for turn in 0..50 {
            // Those who know their password cost their network nothing.
            if turn % 10 == 0 {
                let page = provider.sign_in_as(&mut provider.browser(), "bob", "battery staple").await;
                assert_eq!(page.status, StatusCode::SEE_OTHER, "{turn}");
            }
            let page = provider.sign_in_as(&mut browser, &format!("name-{turn}"), "123456").await;
            assert_eq!(page.status, StatusCode::OK, "{turn}");
        }
        let before = provider.row_counts().await;
        for name in ["name-50", "bob"] {
            let page = provider.sign_in_as(&mut browser, name, "battery staple").await;
            assert!((1..=900).contains(&seconds_to_wait(&page)));
        }
        assert_eq!(provider.row_counts().await, before);
        let mut elsewhere = provider.browser_from("192.0.2.1");
        let page = provider.sign_in_as(&mut elsewhere, "bob", "battery staple").await;
        assert_eq!(page.status, StatusCode::SEE_OTHER);
        provider.pass(Span::minutes(15));
        let page = provider.sign_in_as(&mut browser, "bob", "battery staple").await;
        assert_eq!(page.status, StatusCode::SEE_OTHER);
    }

    async fn attack_155_every_answer_bears_the_headers_that_protect_it(provider: Provider) {
        let mut browser = provider.browser();
        let sign_in = open(&mut browser, &provider.authorize_url_for("web", "")).await;
        let own_sign_in = browser.get("/login").await;
        let consent = type_password(&mut browser, &sign_in).await;
        let signed_in = browser.get("/login").await;
        let sign_out = browser.get("/logout").await;
        let form_post = browser.get(&provider.authorize_url("response_mode=form_post")).await;
        let lost = browser.send(Method::GET, "/nowhere", None, &[("accept", "text/html")]).await;
        let stopped = browser.get(&provider.authorize_url("redirect_uri=https://evil.test")).await;
        let pages = [&sign_in, &own_sign_in, &consent, &signed_in, &sign_out, &form_post, &lost, &stopped];
        for page in pages {
            assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
            let policy = page.header("content-security-policy").expect("a policy");
            assert!(policy.starts_with("default-src 'none'; ") && policy.contains("frame-ancestors 'none'"), "{policy}");
            assert!(policy.contains("base-uri 'none'") && !policy.contains("unsafe"), "{policy}");
            assert!(!page.body.contains(" style=") && !page.body.contains("<style"), "the policy would refuse it");
        }
        // Pages from which a form may lead to an app must not name where forms lead; all others do.
        for (page, form_action) in [
            (&sign_in, None),
            (&consent, None),
            (&form_post, None),
            (&own_sign_in, Some("form-action 'self'")),
            (&sign_out, Some("form-action 'self'")),
            (&signed_in, Some("form-action 'none'")),
            (&lost, Some("form-action 'none'")),
            (&stopped, Some("form-action 'none'")),
        ] {
            let policy = page.header("content-security-policy").expect("a policy");
            let named = policy.split("; ").find(|directive| directive.starts_with("form-action"));
            assert_eq!(named, form_action, "{policy}");
        }

        let token = provider.tokens("openid").await.text("access_token");
        let others = [
            browser.get(&provider.authorize_url("")).await,
            browser.post("/token", &[("grant_type", "nonsense")]).await,
            browser.post("/introspect", &[("token", "x")]).await,
            provider.userinfo(&token).await,
            provider.userinfo("nonsense").await,
            browser.get("/userinfo").await,
            browser.get("/nowhere").await,
        ];
        for page in pages.into_iter().chain(&others) {
            assert_eq!(page.header("cache-control"), Some("no-store"), "{} {}", page.status, page.body);
            assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
            assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
            assert_eq!(page.header("x-frame-options"), Some("DENY"));
            assert!(page.header("strict-transport-security").is_some_and(|value| value.starts_with("max-age=")));
            assert!(page.header("content-security-policy").is_some_and(|value| value.contains("frame-ancestors 'none'")));
            assert!(page.header("x-request-id").is_some_and(|id| id.len() >= 12));
        }
    }
}
