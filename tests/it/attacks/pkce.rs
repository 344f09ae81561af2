//! PKCE (RFC 7636): challenges that are left out, weakened or stripped, verifiers that do not fit.

use crate::authorize::{error_at, error_at_app, is_sign_in, open};
use crate::on_both_databases;
use crate::support::{CALLBACK, VERIFIER, challenge};

on_both_databases! {
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
