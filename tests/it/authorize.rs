//! `/authorize` and its way through the pages: the attacks of the catalogue by their numbers, then what people do.

use std::net::TcpListener;
use std::sync::Arc;

use http::{Method, StatusCode};
use keyward::account::declared;
use keyward::http::{Web, router};
use keyward::protocol::client::{Client, ClientMetadata, GrantType};
use keyward::protocol::client_auth::StoredSecret;
use keyward::protocol::ids::ClientId;
use keyward::protocol::time::Span;
use keyward::store::clients::ClientRecord;
use serde_json::Value;
use url::form_urlencoded;

use crate::on_both_databases;
use crate::support::{Browser, CALLBACK, Page, Provider, VERIFIER, challenge, claims_of, form_fields, text_of};

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
    provider.app.store.create_client(record).await.expect("a client");
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
fn assert_stopped(page: &Page, words: &str) {
    let text = text_of(&page.body);
    assert_eq!(page.status, StatusCode::BAD_REQUEST, "{text}");
    assert_eq!(page.header("location"), None);
    assert_eq!(page.header("set-cookie"), None);
    assert!(text.contains(words), "{text}");
    assert!(text.contains(page.header("x-request-id").expect("a request id")), "{text}");
    assert!(!page.body.contains("<form") && !page.body.contains("<script"), "{}", page.body);
}

/// The ID token's claims that come of an answer to the client `first`.
async fn id_token_of(provider: &Provider, page: &Page) -> Value {
    let answer = provider.redeem(&code_at_app(page)).await;
    claims_of(&answer.text("id_token"))
}

/// Rows of one table.
pub async fn rows_of(provider: &Provider, table: &str) -> i64 {
    let counts = provider.row_counts().await;
    counts.iter().find(|(name, _)| name == table).expect("a table").1
}

/// Whoever is signed in, none of these addresses is ever answered to, and nothing is written.
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

    async fn attack_01_an_unknown_client_gets_a_page(provider: Provider) {
        add_client(&provider, "gone", |_| {}).await;
        let id = ClientId::new("gone");
        let record = provider.app.store.client(&id).await.unwrap().expect("the client");
        assert!(is_sign_in(&open(&mut provider.browser(), &provider.authorize_url_for("gone", "")).await));
        let mut gone = ClientRecord::clone(&record);
        gone.client.disabled_at = Some(provider.app.now());
        provider.app.store.update_client(gone, provider.app.now()).await.unwrap();

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
        for scope in ["admin", "pay.everything", "openid%0Aadmin", "openid%22", "openid%5C", "op%C3%A9nid", "openid%09email"] {
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
        let mut stranger = provider.browser();
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
        for page in [&sign_in, &consent, &stopped] {
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
        assert_eq!(page.status, StatusCode::SEE_OTHER);
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
        for state in ["\r\nSet-Cookie: x=1", "a&code=evil&iss=https://evil.test#x", "+ %20 é😀", "\u{7f}\u{1b}[0m", "--._~"] {
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
        code_at_app(&provider.authorize(&mut provider.browser(), &provider.authorize_url("")).await);
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
        let record = provider.app.store.client(&ClientId::new("web")).await.unwrap().expect("the client");
        let mut moved = ClientRecord::clone(&record);
        moved.client.metadata.redirect_uris.retain(|uri| uri != other);
        provider.app.store.update_client(moved, provider.app.now()).await.unwrap();
        for decision in ["allow", "deny"] {
            let page = browser.submit(&page, &[("decision", decision)]).await;
            assert_stopped(&browser.follow(page).await, "redirect_uri is not registered");
        }
    }

    async fn attack_31_a_public_client_must_use_pkce(provider: Provider) {
        let spa = "https://spa.test/cb";
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let before = provider.row_counts().await;
        for more in ["", "&code_challenge=", "&code_challenge_method=S256"] {
            let page = browser.get(&provider.authorize_url_for("spa", &format!("redirect_uri={spa}{more}"))).await;
            assert_eq!(error_at(&page, spa), "invalid_request", "{more}");
        }
        assert_eq!(provider.row_counts().await, before);
        let url = provider.authorize_url_for("spa", &format!("redirect_uri={spa}&{}", challenge()));
        assert!(browser.get(&url).await.location_params().contains_key("code"));
    }

    async fn attack_32_a_challenge_is_met_or_there_are_no_tokens(provider: Provider) {
        for (client_id, redirect_uri) in [("first", CALLBACK), ("spa", "https://spa.test/cb")] {
            let url = provider.authorize_url_for(client_id, &format!("redirect_uri={redirect_uri}&{}", challenge()));
            let code = provider.code(&mut provider.browser(), &url).await;
            let fields = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", redirect_uri)];
            let absent: &[(&str, &str)] = &[];
            for verifier in [absent, &[("code_verifier", "")]] {
                let answer = provider.token(client_id, &[&fields[..], verifier].concat()).await;
                assert_eq!((answer.status, answer.error()), (400, "invalid_grant"), "{client_id} {verifier:?}");
            }
            let answer = provider.token(client_id, &[&fields[..], &[("code_verifier", VERIFIER)]].concat()).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
    }

    async fn attack_33_a_challenge_that_was_stripped_is_noticed(provider: Provider) {
        let code = provider.code(&mut provider.browser(), &provider.authorize_url("")).await;
        let fields = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", CALLBACK)];
        let answer = provider.token("first", &[&fields[..], &[("code_verifier", VERIFIER)]].concat()).await;
        assert_eq!((answer.status, answer.error()), (400, "invalid_grant"));
        assert_eq!(provider.token("first", &fields).await.status, 200);
    }

    async fn attack_34_only_s256_hides_the_verifier(provider: Provider) {
        let mut browser = provider.browser();
        let bare = challenge().split('&').next().unwrap();
        for more in [
            format!("{bare}&code_challenge_method=plain"),
            format!("{bare}&code_challenge_method=s256"),
            format!("{bare}&code_challenge_method=S512"),
            format!("{bare}&code_challenge_method="),
            bare.to_owned(),
        ] {
            let page = browser.get(&provider.authorize_url(&more)).await;
            assert_eq!(error_at_app(&page), "invalid_request", "{more}");
        }
        assert!(is_sign_in(&open(&mut browser, &provider.authorize_url(challenge())).await));
    }

    /// A presentation that fails changes nothing: else whoever saw a code could end somebody's sign-in with it.
    async fn attack_35_a_wrong_verifier_gets_nothing_and_burns_nothing(provider: Provider) {
        let code = provider.code(&mut provider.browser(), &provider.authorize_url(challenge())).await;
        let fields = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", CALLBACK)];
        let mirrored = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        let before = provider.row_counts().await;
        for verifier in [mirrored, &VERIFIER.to_uppercase(), &"a".repeat(43)] {
            let answer = provider.token("first", &[&fields[..], &[("code_verifier", verifier)]].concat()).await;
            assert_eq!((answer.status, answer.error()), (400, "invalid_grant"), "{verifier}");
        }
        assert_eq!(provider.row_counts().await, before);
        let answer = provider.token("first", &[&fields[..], &[("code_verifier", VERIFIER)]].concat()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    async fn attack_36_verifiers_and_challenges_have_a_form(provider: Provider) {
        let mut browser = provider.browser();
        let (bare, method) = challenge().split_once('&').unwrap();
        for challenge in [&bare[..bare.len() - 1], &format!("{bare}A"), "code_challenge=%2B", &bare.replace('-', "%2B")] {
            let page = browser.get(&provider.authorize_url(&format!("{challenge}&{method}"))).await;
            assert_eq!(error_at_app(&page), "invalid_request", "{challenge}");
        }
        let code = provider.code(&mut provider.browser(), &provider.authorize_url(challenge())).await;
        let fields = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", CALLBACK)];
        for verifier in [&VERIFIER[1..], &"a".repeat(129), &VERIFIER.replace('-', "+"), &VERIFIER.replace('-', "é")] {
            let answer = provider.token("first", &[&fields[..], &[("code_verifier", verifier)]].concat()).await;
            assert_eq!((answer.status, answer.error()), (400, "invalid_request"), "{verifier}");
        }
        let answer = provider.token("first", &[&fields[..], &[("code_verifier", VERIFIER)]].concat()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

on_both_databases! {
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
        provider.app.store.purge_expired(provider.app.now()).await.unwrap();
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
        provider.app.store.purge_expired(provider.app.now()).await.unwrap();
        assert_stopped(&browser.get(&resume).await, "This sign-in was completed already");
    }

    async fn a_code_that_nobody_redeemed_still_ends_its_sign_in(provider: Provider) {
        let mut browser = provider.browser();
        let sign_in = open(&mut browser, &provider.authorize_url("")).await;
        let page = browser.submit(&sign_in, &[("username", "alice"), ("password", "correct horse")]).await;
        let resume = page.location().to_owned();
        code_at_app(&browser.get(&resume).await);
        provider.pass(Span::minutes(29));
        provider.app.store.purge_expired(provider.app.now()).await.unwrap();
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
        provider.app.store.update_client(less, provider.app.now()).await.unwrap();
        let page = browser.submit(&page, &[("decision", "allow")]).await;
        let code = code_at_app(&browser.follow(page).await);
        let fields = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", CALLBACK)];
        assert_eq!(provider.token("web", &fields).await.text("scope"), "openid email");

        // And a client that was switched off gets nothing.
        let page = open(&mut browser, &provider.authorize_url_for("web", "prompt=consent")).await;
        let record = provider.app.store.client(&ClientId::new("web")).await.unwrap().expect("the client");
        let mut off = ClientRecord::clone(&record);
        off.client.disabled_at = Some(provider.app.now());
        provider.app.store.update_client(off, provider.app.now()).await.unwrap();
        let before = provider.row_counts().await;
        let page = browser.submit(&page, &[("decision", "allow")]).await;
        assert_stopped(&browser.follow(page).await, "We don’t know the app that sent you here");
        assert_eq!(provider.row_counts().await, before);
    }
}
