//! `/authorize` and its way through the pages, as people and apps go it.

use std::sync::Arc;

use http::{Method, StatusCode};
use keyward::http::{Web, router};
use keyward::protocol::client::{Client, ClientMetadata, GrantType};
use keyward::protocol::client_auth::StoredSecret;
use keyward::protocol::ids::ClientId;
use keyward::protocol::time::Span;
use keyward::store::clients::ClientRecord;
use serde_json::Value;
use url::form_urlencoded;

use crate::on_both_databases;
use crate::support::audit::{put_client, told};
use crate::support::{Browser, CALLBACK, Page, Provider, challenge, claims_of, form_fields, text_of};

/// A value as it stands in a query.
pub fn enc(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Registers a client that one test needs; its secret is its id with `-secret` behind.
pub async fn add_client(provider: &Provider, id: &str, change: impl FnOnce(&mut ClientMetadata)) {
    let now = provider.app.now();
    let mut metadata = ClientMetadata {
        redirect_uris: vec![CALLBACK.to_owned()],
        grant_types: vec![GrantType::AuthorizationCode, GrantType::RefreshToken],
        scope: "openid profile email offline_access".parse().expect("scopes"),
        first_party: true,
        ..ClientMetadata::default()
    };
    change(&mut metadata);
    let record = ClientRecord {
        client: Client { id: ClientId::new(id), metadata, disabled_at: None },
        secrets: vec![StoredSecret::of(&format!("{id}-secret"), now)],
        declared: false,
        created_at: now,
    };
    provider.app.store.create_client(record, told()).await.expect("a client");
}

/// Goes to `url` and on to the page where a person has something to do, or to the answer that leaves.
pub async fn open(browser: &mut Browser, url: &str) -> Page {
    let page = browser.get(url).await;
    browser.follow(page).await
}

pub fn is_sign_in(page: &Page) -> bool {
    page.body.contains("id=\"login-submit\"")
}

pub fn is_consent(page: &Page) -> bool {
    page.body.contains("id=\"consent-allow\"")
}

/// Types alice's name and password into a sign-in page and goes on from there.
pub async fn type_password(browser: &mut Browser, page: &Page) -> Page {
    let next = browser.submit(page, &[("username", "alice"), ("password", "correct horse")]).await;
    browser.follow(next).await
}

/// Submits the form of a page with its hidden fields, as one of those that `headers` tell of.
pub async fn submit_with(
    browser: &mut Browser,
    page: &Page,
    path: &str,
    fields: &[(&str, &str)],
    headers: &[(&str, &str)],
) -> Page {
    let hidden = form_fields(&page.body);
    let own = hidden.iter().filter(|(name, _)| !fields.iter().any(|(given, _)| given == name));
    let own = own.map(|(name, value)| (name.as_str(), value.as_str()));
    let all: Vec<(&str, &str)> = own.chain(fields.iter().copied()).collect();
    browser.send(Method::POST, path, Some(&all), headers).await
}

/// A hidden field of a page.
#[track_caller]
pub fn hidden(page: &Page, name: &str) -> String {
    let fields = form_fields(&page.body);
    let found = fields.into_iter().find(|(own, _)| own == name);
    found.unwrap_or_else(|| panic!("no {name} in {}", page.body)).1
}

/// The error of an answer that travelled to `address`, which has what such an answer must have, and no code.
#[track_caller]
pub fn error_at(page: &Page, address: &str) -> String {
    assert!(page.location().starts_with(&format!("{address}?")), "{}", page.location());
    let mut params = page.location_params();
    assert_eq!(params.get("iss").map(String::as_str), Some("https://id.test"));
    assert_eq!(params.get("state").map(String::as_str), Some("xyz"));
    assert!(!params.contains_key("code"));
    params.remove("error").expect("an error")
}

#[track_caller]
pub fn error_at_app(page: &Page) -> String {
    error_at(page, CALLBACK)
}

/// The code of an answer that travelled to the app.
#[track_caller]
pub fn code_at_app(page: &Page) -> String {
    assert!(page.location().starts_with(&format!("{CALLBACK}?code=")), "{}", page.location());
    page.location_params().remove("code").expect("a code")
}

/// A request whose address is unproven ends on a page that says why, and nothing leads anywhere.
#[track_caller]
pub fn assert_stopped(page: &Page, words: &str) {
    let text = text_of(&page.body);
    assert_eq!(page.status, StatusCode::BAD_REQUEST, "{text}");
    assert_eq!(page.header("location"), None);
    assert_eq!(page.header("set-cookie"), None);
    assert!(text.contains(words), "{text}");
    assert!(text.contains(page.header("x-request-id").expect("a request id")), "{text}");
    assert!(!page.body.contains("<form") && !page.body.contains("<script"), "{}", page.body);
}

/// The ID token's claims that come of an answer to the client `first`.
pub async fn id_token_of(provider: &Provider, page: &Page) -> Value {
    let answer = provider.redeem(&code_at_app(page)).await;
    claims_of(&answer.text("id_token"))
}

/// Rows of one table.
pub async fn rows_of(provider: &Provider, table: &str) -> i64 {
    let counts = provider.row_counts().await;
    counts.iter().find(|(name, _)| name == table).expect("a table").1
}

on_both_databases! {
    /// The whole way once, as a person goes it.
    async fn a_person_signs_in_allows_and_the_app_gets_a_code(provider: Provider) {
        let mut browser = provider.browser();
        let url = provider.authorize_url_for("web", &format!("scope=openid+email&nonce=n1&{}", challenge()));
        let page = provider.authorize(&mut browser, &url).await;
        let params = page.location_params();
        assert!(page.location().starts_with(CALLBACK));
        assert_eq!(params["state"], "xyz");
        assert_eq!(params["iss"], "https://id.test");
        assert!(params["code"].len() >= 43);
    }
}

on_both_databases! {
    async fn two_hundred_anonymous_requests_leave_every_row_count_as_it_was(provider: Provider) {
        let hint = provider.tokens("openid").await.text("id_token");
        let app = |more: &str| provider.authorize_url(more);
        let urls = [
            app(""),
            app("prompt=login"),
            app("prompt=none"),
            app("prompt=consent"),
            app("prompt=select_account"),
            app("max_age=0"),
            app(&format!("id_token_hint={hint}")),
            app("id_token_hint=nonsense"),
            app("response_mode=form_post&prompt=none"),
            app("response_mode=fragment&scope=unknown"),
            app("claims=%7B%22id_token%22%3A%7B%22acr%22%3Anull%7D%7D"),
            app("redirect_uri=https://evil.test"),
            app("request_uri=https://evil.test"),
            app("state=a&state=b"),
            provider.authorize_url_for("web", "scope=openid+email"),
            provider.authorize_url_for("spa", &format!("redirect_uri=https://spa.test/cb&{}", challenge())),
            provider.authorize_url_for("nobody", ""),
            "/login?ticket=nonsense".to_owned(),
            "/consent?ticket=nonsense".to_owned(),
            format!("/logout?id_token_hint={hint}&post_logout_redirect_uri=https://app.test/bye"),
        ];
        let before = provider.row_counts().await;
        for _ in 0..10 {
            let mut browser = provider.browser();
            for url in &urls {
                let page = open(&mut browser, url).await;
                assert!(page.status.as_u16() < 500, "{url}: {}", page.status);
            }
        }
        assert_eq!(provider.row_counts().await, before);
    }
}

on_both_databases! {
    async fn a_big_request_waits_in_the_database(provider: Provider) {
        let state = "s".repeat(2000);
        let mut browser = provider.browser();
        let page = browser.get(&provider.authorize_url(&format!("state={state}"))).await;
        let parked = page.location().to_owned();
        assert!(parked.len() < 200, "{parked}");
        assert_eq!(rows_of(&provider, "pushed_requests").await, 1);
        let sign_in = browser.get(&parked).await;
        let page = type_password(&mut browser, &sign_in).await;
        assert_eq!(page.location_params()["state"], state);
        code_at_app(&page);

        provider.pass(Span::minutes(31));
        assert_stopped(&browser.get(&parked).await, "This sign-in has expired");
        provider.app.store.purge_expired(Span::days(90), provider.app.now()).await.unwrap();
        assert_eq!(rows_of(&provider, "pushed_requests").await, 0);
    }

    /// Each row is one of the few that a network may have, so a sign-in must not take a new one at every step.
    async fn a_big_request_costs_one_row_however_many_steps_it_has(provider: Provider) {
        let url = provider.authorize_url_for("web", &format!("state={}", "s".repeat(2000)));
        let mut browser = provider.browser();
        code_at_app(&provider.authorize(&mut browser, &url).await);
        assert_eq!(rows_of(&provider, "pushed_requests").await, 1);
    }

    async fn big_requests_are_counted_by_network(provider: Provider) {
        let big = provider.authorize_url(&format!("state={}", "s".repeat(2000)));
        let mut one = provider.browser_from("192.0.2.1");
        for _ in 0..30 {
            assert_eq!(one.get(&big).await.status, StatusCode::SEE_OTHER);
        }
        let before = provider.row_counts().await;
        let page = one.get(&big).await;
        assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS);
        let wait: i64 = page.header("retry-after").expect("Retry-After").parse().expect("seconds");
        assert!((1..=900).contains(&wait), "{wait}");
        assert_eq!(provider.row_counts().await, before);

        assert!(is_sign_in(&open(&mut one, &provider.authorize_url("")).await), "small requests cost nothing");
        assert_eq!(provider.browser_from("192.0.2.2").get(&big).await.status, StatusCode::SEE_OTHER);
        provider.pass(Span::from_secs(wait));
        assert_eq!(one.get(&big).await.status, StatusCode::SEE_OTHER);
    }

    /// `SameSite=Lax` keeps the cookies back when another site posts; the GET that follows has them.
    async fn a_posted_request_finds_the_session_one_redirect_later(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let mut fields = vec![("client_id", "first"), ("response_type", "code"), ("redirect_uri", CALLBACK)];
        fields.extend([("scope", "openid"), ("state", "xyz"), ("prompt", "none")]);
        let mut without_cookies = provider.browser();
        let headers = [("origin", "https://app.test"), ("sec-fetch-site", "cross-site")];
        let page = without_cookies.send(Method::POST, "/authorize", Some(&fields), &headers).await;
        assert!(page.location().starts_with("https://id.test/authorize/resume?ticket="), "{}", page.location());
        assert_eq!(page.header("set-cookie"), None);
        code_at_app(&browser.get(page.location()).await);
        // The same to somebody who is not signed in.
        let page = without_cookies.post("/authorize", &fields).await;
        assert_eq!(error_at_app(&without_cookies.follow(page).await), "login_required");
    }

    async fn an_answer_travels_as_the_app_asked(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let page = browser.get(&provider.authorize_url("response_mode=query")).await;
        code_at_app(&page);
        assert!(!page.location().contains('#'));

        let page = browser.get(&provider.authorize_url("response_mode=fragment")).await;
        let (address, fragment) = page.location().split_once('#').expect("a fragment");
        assert_eq!(address, CALLBACK);
        assert!(fragment.starts_with("code=") && fragment.contains("&state=xyz&iss="), "{fragment}");

        let state = "\"><script>alert(1)</script>&amp;'";
        let url = provider.authorize_url(&format!("response_mode=form_post&state={}", enc(state)));
        let page = browser.get(&url).await;
        assert_eq!(page.status, StatusCode::OK);
        assert_eq!(page.header("location"), None);
        assert!(page.body.contains(&format!("<form method=\"post\" action=\"{CALLBACK}\">")), "{}", page.body);
        // `unescape` of the harness resolves twice what was escaped twice, so the page itself is read.
        let escaped = "value=\"&#34;&#62;&#60;script&#62;alert(1)&#60;/script&#62;&#38;amp;&#39;\"";
        assert!(page.body.contains(escaped), "{}", page.body);
        assert!(hidden(&page, "code").len() > 43);
        let policy = page.header("content-security-policy").expect("a policy");
        assert!(!policy.contains("form-action") && !policy.contains("unsafe"), "{policy}");
        let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).expect("a nonce");
        assert_eq!(page.body.matches("<script").count(), 1);
        assert!(nonce.len() >= 16 && page.body.contains(&format!("<script nonce=\"{nonce}\">")), "{}", page.body);
        assert!(page.body.contains("id=\"form-post-continue\""), "a button for browsers without scripts");
        assert_eq!(page.header("cache-control"), Some("no-store"));
        let again = browser.get(&url).await;
        assert!(!again.body.contains(nonce), "a nonce is used once");
    }

    async fn a_sign_in_that_is_over_gives_no_second_code(provider: Provider) {
        let mut browser = provider.browser();
        let sign_in = open(&mut browser, &provider.authorize_url("")).await;
        let page = browser.submit(&sign_in, &[("username", "alice"), ("password", "correct horse")]).await;
        let resume = page.location().to_owned();
        let code = code_at_app(&browser.get(&resume).await);
        // Back and forward, a second click on the old sign-in page, a copied link in another browser.
        assert_stopped(&browser.get(&resume).await, "This sign-in was completed already");
        assert_stopped(&type_password(&mut browser, &sign_in).await, "This sign-in was completed already");
        let mut other = provider.browser();
        provider.sign_in_as(&mut other, "bob", "battery staple").await;
        assert_stopped(&other.get(&resume).await, "This sign-in was completed already");
        assert_eq!(rows_of(&provider, "grants").await, 1);
        assert_eq!(provider.redeem(&code).await.status, 200);
        assert_stopped(&browser.get(&resume).await, "This sign-in was completed already");

        // The row outlives the ticket, so nothing comes of a purge in between.
        provider.pass(Span::minutes(20));
        provider.app.store.purge_expired(Span::days(90), provider.app.now()).await.unwrap();
        assert_stopped(&browser.get(&resume).await, "This sign-in was completed already");
    }

    async fn a_code_that_nobody_redeemed_still_ends_its_sign_in(provider: Provider) {
        let mut browser = provider.browser();
        let sign_in = open(&mut browser, &provider.authorize_url("")).await;
        let page = browser.submit(&sign_in, &[("username", "alice"), ("password", "correct horse")]).await;
        let resume = page.location().to_owned();
        code_at_app(&browser.get(&resume).await);
        provider.pass(Span::minutes(29));
        provider.app.store.purge_expired(Span::days(90), provider.app.now()).await.unwrap();
        assert_stopped(&browser.get(&resume).await, "This sign-in was completed already");
    }

    async fn twenty_replays_at_once_give_one_code(provider: Provider) {
        let mut browser = provider.browser();
        let sign_in = open(&mut browser, &provider.authorize_url("")).await;
        let page = browser.submit(&sign_in, &[("username", "alice"), ("password", "correct horse")]).await;
        let resume = Arc::new(page.location().to_owned());
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let (mut browser, resume) = (browser.clone(), Arc::clone(&resume));
                tokio::spawn(async move { browser.get(&resume).await })
            })
            .collect();
        let mut codes = 0;
        for task in tasks {
            let page = task.await.expect("a task");
            match page.header("location") {
                Some(location) => codes += usize::from(location.starts_with(&format!("{CALLBACK}?code="))),
                None => assert_stopped(&page, "This sign-in was completed already"),
            }
        }
        assert_eq!(codes, 1);
        assert_eq!(rows_of(&provider, "grants").await, 1);
    }

    async fn a_sign_in_waits_for_half_an_hour(provider: Provider) {
        let mut browser = provider.browser();
        let page = open(&mut browser, &provider.authorize_url("")).await;
        provider.pass(Span::minutes(29));
        code_at_app(&type_password(&mut browser, &page).await);

        let mut browser = provider.browser();
        let page = open(&mut browser, &provider.authorize_url("")).await;
        provider.pass(Span::minutes(30));
        let before = provider.row_counts().await;
        assert_stopped(&type_password(&mut browser, &page).await, "This sign-in has expired");
        let ticket = hidden(&page, "ticket");
        for path in ["/login", "/consent", "/authorize/resume"] {
            let page = browser.get(&format!("{path}?ticket={ticket}")).await;
            assert_stopped(&page, "Go back to the app and start again");
        }
        assert_eq!(provider.row_counts().await, before);
    }

    async fn a_ticket_that_was_changed_is_no_ticket(provider: Provider) {
        let mut browser = provider.browser();
        let page = open(&mut browser, &provider.authorize_url("")).await;
        let ticket = hidden(&page, "ticket");
        let middle = ticket.len() / 2;
        let other = if ticket.as_bytes()[middle] == b'A' { "B" } else { "A" };
        let changed = format!("{}{other}{}", &ticket[..middle], &ticket[middle + 1..]);
        for broken in [changed.as_str(), &ticket[..middle], "", "~", "~AAAAAAAAAAAAAAAAAAAAAA", "....", "%00"] {
            for path in ["/authorize/resume", "/login", "/consent"] {
                if (path, broken) != ("/login", "") {
                    let page = browser.get(&format!("{path}?ticket={broken}")).await;
                    assert_eq!(page.status, StatusCode::BAD_REQUEST, "{path} {broken}");
                }
            }
        }
        assert!(is_sign_in(&browser.get(&format!("/login?ticket={ticket}")).await));
    }

    async fn a_consent_page_speaks_for_the_person_it_was_made_for(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let for_alice = open(&mut browser, &provider.authorize_url_for("web", "")).await;
        assert!(is_consent(&for_alice));
        // In another tab, bob signs in.
        let sign_in = open(&mut browser, &provider.authorize_url("prompt=login")).await;
        let page = browser.submit(&sign_in, &[("username", "bob"), ("password", "battery staple")]).await;
        code_at_app(&browser.follow(page).await);

        let before = provider.row_counts().await;
        for decision in ["allow", "deny"] {
            let page = browser.submit(&for_alice, &[("decision", decision)]).await;
            assert_eq!(page.status, StatusCode::FORBIDDEN);
            assert!(is_consent(&page) && text_of(&page.body).contains("bob"), "{}", text_of(&page.body));
        }
        assert_eq!(provider.row_counts().await, before);
        assert_eq!(error_at_app(&browser.get(&provider.authorize_url_for("web", "prompt=none")).await), "consent_required");
    }

    async fn a_person_chooses_the_account_that_is_signed_in(provider: Provider) {
        let mut browser = provider.browser();
        let page = provider.authorize(&mut browser, &provider.authorize_url("")).await;
        let earlier = id_token_of(&provider, &page).await;
        provider.pass(Span::from_secs(5));

        let choice = open(&mut browser, &provider.authorize_url("prompt=select_account")).await;
        assert!(text_of(&choice.body).contains("Continue as Alice Archer"));
        let page = browser.submit(&choice, &[("action", "continue"), ("csrf", "x")]).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN);
        let page = browser.submit(&choice, &[("action", "continue")]).await;
        let chosen = page.location().to_owned();
        let later = id_token_of(&provider, &browser.follow(page).await).await;
        assert_eq!((&later["sub"], &later["auth_time"]), (&earlier["sub"], &earlier["auth_time"]));
        assert_stopped(&browser.get(&chosen).await, "completed already");

        // A choice names the session it was made in: with somebody else's it counts for nothing.
        let mut other = provider.browser();
        provider.sign_in_as(&mut other, "bob", "battery staple").await;
        let choice = open(&mut browser, &provider.authorize_url("prompt=select_account")).await;
        let page = browser.submit(&choice, &[("action", "continue")]).await;
        let asked = open(&mut other, page.location()).await;
        assert!(text_of(&asked.body).contains("Continue as bob"), "{}", text_of(&asked.body));

        // Another account signs in on the same page.
        let page = browser.submit(&choice, &[("username", "bob"), ("password", "battery staple")]).await;
        let bob = id_token_of(&provider, &browser.follow(page).await).await;
        assert_ne!(bob["sub"], earlier["sub"]);
    }

    async fn the_account_that_was_offered_is_the_one_that_goes_on(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let choice = open(&mut browser, &provider.authorize_url("prompt=select_account")).await;
        let sign_in = open(&mut browser, &provider.authorize_url("prompt=login")).await;
        let page = browser.submit(&sign_in, &[("username", "bob"), ("password", "battery staple")]).await;
        code_at_app(&browser.follow(page).await);
        // The first tab still says "Continue as Alice Archer".
        let page = browser.submit(&choice, &[("action", "continue")]).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN);
        assert!(text_of(&page.body).contains("Continue as bob"), "{}", text_of(&page.body));
    }

    async fn two_tabs_of_one_person_both_get_through(provider: Provider) {
        let mut browser = provider.browser();
        let one = open(&mut browser, &provider.authorize_url("")).await;
        let two = open(&mut browser, &provider.authorize_url("prompt=login")).await;
        let three = open(&mut browser, &provider.authorize_url_for("web", "")).await;
        let first = code_at_app(&type_password(&mut browser, &one).await);
        let second = code_at_app(&type_password(&mut browser, &two).await);
        assert!(is_consent(&type_password(&mut browser, &three).await));
        for code in [first, second] {
            assert_eq!(provider.redeem(&code).await.status, 200);
        }
    }

    async fn a_first_party_app_asks_where_it_wants_to(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        code_at_app(&browser.get(&provider.authorize_url("")).await);
        for _ in 0..2 {
            let page = open(&mut browser, &provider.authorize_url("prompt=consent")).await;
            assert!(is_consent(&page), "each time, whatever was allowed before");
            let page = browser.submit(&page, &[("decision", "allow")]).await;
            code_at_app(&browser.follow(page).await);
        }
    }

    async fn an_app_may_register_how_old_a_sign_in_may_be(provider: Provider) {
        add_client(&provider, "bank", |client| client.default_max_age = Some(60)).await;
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        provider.pass(Span::from_secs(59));
        code_at_app(&browser.get(&provider.authorize_url_for("bank", "")).await);
        provider.pass(Span::from_secs(2));
        assert!(is_sign_in(&open(&mut browser, &provider.authorize_url_for("bank", "")).await));
        code_at_app(&browser.get(&provider.authorize_url_for("bank", "max_age=100")).await);
    }

    async fn a_person_who_is_not_alice_can_say_so(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let consent = open(&mut browser, &provider.authorize_url_for("web", "")).await;
        let link = consent.body.split("id=\"consent-switch\"").next().and_then(|before| before.rsplit("href=\"").next());
        let link = link.and_then(|rest| rest.split('"').next()).expect("a link");
        let page = browser.get(&link.replace("&#38;", "&")).await;
        assert!(is_sign_in(&page));
        let page = browser.submit(&page, &[("username", "bob"), ("password", "battery staple")]).await;
        let page = browser.follow(page).await;
        assert!(is_consent(&page) && text_of(&page.body).contains("bob"));
    }

    async fn a_refusal_can_be_taken_back_and_is_written_down_once(provider: Provider) {
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let consent = open(&mut browser, &provider.authorize_url_for("web", "")).await;
        let events = rows_of(&provider, "events").await;
        let page = browser.submit(&consent, &[("decision", "deny")]).await;
        let denied = page.location().to_owned();
        assert_eq!(error_at_app(&browser.get(&denied).await), "access_denied");
        assert_eq!(rows_of(&provider, "events").await, events + 1);

        // The link alone, in anybody's hands, must not fill the audit trail.
        let before = provider.row_counts().await;
        for _ in 0..3 {
            browser.get(&denied).await;
            provider.browser().get(&denied).await;
        }
        assert_eq!(provider.row_counts().await, before);

        let page = browser.submit(&consent, &[("decision", "allow")]).await;
        code_at_app(&browser.follow(page).await);
    }

    async fn an_unknown_address_is_explained_to_the_person_and_in_dev_to_the_developer(provider: Provider) {
        let url = provider.authorize_url_for("web", "redirect_uri=https://app.test/elsewhere");
        let page = provider.browser().get(&url).await;
        assert_stopped(&page, "redirect_uri is not registered");
        let text = text_of(&page.body);
        assert!(text.contains("Web <app>") && text.contains("https://app.test/elsewhere"));
        assert!(!text.contains("https://app.test/other"), "registered addresses are for the developer: {text}");
        assert!(page.body.contains("href=\"https://app.test\""), "a way back to the app");

        let web = Web::new(Arc::clone(&provider.app), true).expect("a web");
        let page = Browser::new(router(&web), &provider.issuer).get(&url).await;
        assert_stopped(&page, "redirect_uri is not registered");
        let text = text_of(&page.body);
        assert!(text.contains(CALLBACK) && text.contains("https://app.test/other"), "{text}");
    }

    /// An app that opens the sign-in in a popup waits for that window to come back to it. `same-origin` here would
    /// cut the two apart for good: the app then sees a window that is closed.
    async fn an_app_that_opened_a_popup_keeps_hold_of_it(provider: Provider) {
        let mut browser = provider.browser();
        let url = provider.authorize_url_for("web", "display=popup");
        let mut pages = vec![browser.get(&url).await];
        pages.push(browser.get(pages[0].location()).await);
        pages.push(browser.submit(&pages[1], &[("username", "alice"), ("password", "correct horse")]).await);
        pages.push(browser.get(pages[2].location()).await);
        pages.push(browser.get(pages[3].location()).await);
        assert!(is_sign_in(&pages[1]) && is_consent(&pages[4]));
        for page in &pages {
            let policy = page.header("cross-origin-opener-policy").unwrap_or("unsafe-none");
            assert_eq!(policy, "unsafe-none", "{}", page.status);
        }
    }

    async fn what_a_person_may_do_changes_while_they_read(provider: Provider) {
        // A scope that leaves the registration in between is not granted.
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let page = open(&mut browser, &provider.authorize_url_for("web", "scope=openid+email+phone")).await;
        let record = provider.app.store.client(&ClientId::new("web")).await.unwrap().expect("the client");
        let mut less = ClientRecord::clone(&record);
        less.client.metadata.scope = "openid email".parse().unwrap();
        put_client(&provider.app.store, less, provider.app.now()).await.unwrap();
        let page = browser.submit(&page, &[("decision", "allow")]).await;
        let code = code_at_app(&browser.follow(page).await);
        let fields = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", CALLBACK)];
        assert_eq!(provider.token("web", &fields).await.text("scope"), "openid email");

        // And a client that was switched off gets nothing.
        let page = open(&mut browser, &provider.authorize_url_for("web", "prompt=consent")).await;
        let record = provider.app.store.client(&ClientId::new("web")).await.unwrap().expect("the client");
        let mut off = ClientRecord::clone(&record);
        off.client.disabled_at = Some(provider.app.now());
        put_client(&provider.app.store, off, provider.app.now()).await.unwrap();
        let before = provider.row_counts().await;
        let page = browser.submit(&page, &[("decision", "allow")]).await;
        assert_stopped(&browser.follow(page).await, "We don’t know the app that sent you here");
        assert_eq!(provider.row_counts().await, before);
    }
}
