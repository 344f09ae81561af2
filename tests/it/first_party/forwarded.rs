//! `X-Forwarded-Authorization`: an API gateway puts its own credential into `Authorization` and the caller's beside it.
//! Its word is taken when, and only when, it is trusted and the configuration says so.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::json;

use super::registered;
use super::text;
use crate::on_both_databases;
use crate::support::{Browser, Page, Provider};

const FORWARDED: &str = "x-forwarded-authorization";
const GATEWAY: &str = "127.0.0.1";
const STRANGER: &str = "192.0.2.1";

async fn behind_a_gateway(provider: &Provider, on: bool) -> Provider {
    let more = format!("[proxy]\ntrusted = [\"{GATEWAY}\"]\nforwarded_authorization = {on}\n");
    Provider::start_with(provider.backend(), "https://id.test", &more).await
}

/// The statuses of the four kinds of endpoint that read a credential, each asked with the caller's own in `name`, and
/// with whatever else is in `more`.
async fn statuses(provider: &Provider, browser: &mut Browser, name: &str, more: &[(&str, &str)]) -> [u16; 4] {
    let device = format!("device-{}", browser_number(provider).await);
    let page =
        registered(&mut provider.browser_from("10.9.9.9"), &format!("{device}@example.com"), "s3cur3pass", &device)
            .await;
    let bearer = format!("Bearer {}", text(&page, "/data/access_token"));
    let basic = format!("Basic {}", STANDARD.encode("machine:machine-secret"));
    let with = |own: &str| -> Vec<(String, String)> {
        let own = (name.to_owned(), own.to_owned());
        std::iter::once(own).chain(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))).collect()
    };
    let mut statuses = [0; 4];
    for (n, (method, path, body, content_type, own)) in [
        (Method::GET, "/forward-auth/required", "", None, &bearer),
        (Method::PATCH, "/auth/me", "{}", Some("application/json"), &bearer),
        (Method::GET, "/userinfo", "", None, &bearer),
        (Method::POST, "/token", "grant_type=client_credentials", Some("application/x-www-form-urlencoded"), &basic),
    ]
    .into_iter()
    .enumerate()
    {
        let headers = with(own);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let page = browser.send_text(method, path, content_type, body.to_owned(), &headers).await;
        statuses[n] = page.status.as_u16();
    }
    statuses
}

async fn browser_number(provider: &Provider) -> i64 {
    super::rows_of(&provider.row_counts().await, "users")
}

const ALL_IN: [u16; 4] = [200; 4];
const NOBODY: [u16; 4] = [401; 4];

on_both_databases! {
    async fn a_trusted_gateway_speaks_for_the_caller_where_that_is_switched_on(provider: Provider) {
        let on = behind_a_gateway(&provider, true).await;
        let own = [("authorization", "Bearer of-the-gateway")];
        let mut gateway = on.browser_from(GATEWAY);
        assert_eq!(statuses(&on, &mut gateway, FORWARDED, &own).await, ALL_IN);
        assert_eq!(statuses(&on, &mut gateway, FORWARDED, &[]).await, ALL_IN);
        assert_eq!(statuses(&on, &mut gateway, "authorization", &[]).await, ALL_IN, "without it the usual one counts");
        // A good one of the gateway's own does not make good what its caller sent.
        for bad in ["Bearer nonsense", ""] {
            assert_eq!(statuses(&on, &mut gateway, "authorization", &[(FORWARDED, bad)]).await, NOBODY, "{bad:?}");
        }
    }

    async fn nobody_else_does(provider: Provider) {
        let on = behind_a_gateway(&provider, true).await;
        let mut stranger = on.browser_from(STRANGER);
        assert_eq!(statuses(&on, &mut stranger, FORWARDED, &[]).await, NOBODY, "a stranger");
        assert_eq!(statuses(&on, &mut stranger, "authorization", &[(FORWARDED, "Bearer nonsense")]).await, ALL_IN);
        let off = behind_a_gateway(&provider, false).await;
        let mut gateway = off.browser_from(GATEWAY);
        assert_eq!(statuses(&off, &mut gateway, FORWARDED, &[]).await, NOBODY, "it is switched off");
        assert_eq!(statuses(&off, &mut gateway, "authorization", &[(FORWARDED, "Bearer nonsense")]).await, ALL_IN);
        let mut direct = provider.browser();
        assert_eq!(statuses(&provider, &mut direct, FORWARDED, &[]).await, NOBODY, "no proxy is trusted");
    }

    async fn two_of_them_are_refused(provider: Provider) {
        let on = behind_a_gateway(&provider, true).await;
        let mut gateway = on.browser_from(GATEWAY);
        let seen = statuses(&on, &mut gateway, FORWARDED, &[(FORWARDED, "Bearer nonsense")]).await;
        assert!(seen.iter().all(|status| [400, 401].contains(status)), "{seen:?}");
        let page = registered(&mut gateway, "a@b.test", "s3cur3pass", "twin").await;
        let bearer = format!("Bearer {}", text(&page, "/data/access_token"));
        let twice = [(FORWARDED, bearer.as_str()), (FORWARDED, bearer.as_str())];
        let refused: Page = gateway.send(Method::GET, "/forward-auth/required", None, &twice).await;
        assert_eq!((refused.status.as_u16(), refused.header("x-auth-error")), (401, Some("invalid_request")));
        assert_eq!(gateway.send(Method::GET, "/forward-auth/required", None, &twice[..1]).await.status, 200);
        assert_eq!(refused.json()["error"], json!("invalid_request"));
    }
}
