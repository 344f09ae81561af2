//! Signing keys from their first publication to their end: no relying party meets a key that it could not have
//! fetched, and none that is gone signs or is believed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use josekit::jwk::Jwk;
use josekit::jws::{EdDSA, PS256, deserialize_compact};
use keyward::account::signing_keys;
use keyward::config::KeySource;
use keyward::crypto::pem;
use keyward::keys::life::PUBLISHED_AHEAD;
use keyward::keys::{KeyError, Keyring, Prepared};
use keyward::protocol::client::SigningAlg;
use keyward::protocol::ids::ClientId;
use keyward::protocol::time::{Span, Timestamp};
use keyward::store::clients::ClientRecord;
use openssl::rsa::Rsa;
use serde_json::Value;

use crate::on_both_databases;
use crate::support::audit::{an_operator, put_client, rng};
use crate::support::process::{SITE_PASSWORD, SITE_SECRET, Site};
use crate::support::{BRIEF_SIGN_INS, Backend, Provider, claims_of, header_of};

async fn kids(provider: &Provider) -> Vec<String> {
    let page = provider.browser().get("/jwks").await;
    let keys = page.json()["keys"].as_array().expect("keys").clone();
    keys.iter().map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect()
}

fn kid_of(token: &str) -> String {
    header_of(token)["kid"].as_str().expect("a kid").to_owned()
}

/// What the minutely work does.
async fn maintain(provider: &Provider) {
    signing_keys::maintain(&provider.app).await.expect("maintained");
}

async fn machine_token(provider: &Provider) -> String {
    let answer = provider.token("machine", &[("grant_type", "client_credentials")]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.text("access_token")
}

async fn client(provider: &Provider, id: &str) -> ClientRecord {
    let record = provider.app.store.client(&ClientId::new(id)).await.expect("read");
    record.expect("a client").as_ref().clone()
}

async fn is_active(provider: &Provider, token: &str) -> bool {
    provider.introspect("machine", token).await["active"] == true
}

/// The key of RS256 that is published and does not sign.
async fn waiting(provider: &Provider, signs: &str) -> Option<String> {
    let keys = provider.app.store.signing_keys().await.expect("keys");
    let rs256 = keys.into_iter().filter(|key| key.alg == SigningAlg::Rs256 && key.retired_at.is_none());
    rs256.map(|key| key.kid).find(|kid| kid != signs)
}

/// Another, where no token lasts for weeks.
async fn with_brief_sign_ins(provider: &Provider) -> Provider {
    Provider::start_with(provider.backend(), "https://id.test", BRIEF_SIGN_INS).await
}

on_both_databases! {
    /// Ninety days in the life of a relying party that keeps `/jwks` for as long as it may, and never asks earlier.
    async fn no_relying_party_meets_a_key_that_it_could_not_have_fetched(provider: Provider) {
        let provider = with_brief_sign_ins(&provider).await;
        let mut known = kids(&provider).await;
        let mut fetched_at = provider.app.now();
        let mut seen = Vec::new();
        // Long steps while nothing happens, short ones around the change.
        let quiet = std::iter::repeat_n(Span::days(1), 89).chain([Span::hours(23), Span::minutes(50)]);
        let close = std::iter::repeat_n(Span::minutes(4), 25);
        for step in quiet.chain(close) {
            provider.pass(step);
            maintain(&provider).await;
            if provider.app.now() - fetched_at > Span::minutes(5) {
                (known, fetched_at) = (kids(&provider).await, provider.app.now());
            }
            let token = machine_token(&provider).await;
            let kid = kid_of(&token);
            assert!(known.contains(&kid), "{kid} signs, and a copy of /jwks that is allowed lacks it");
            if seen.last() != Some(&kid) {
                seen.push(kid);
            }
        }
        assert_eq!(seen.len(), 2, "one change in ninety days");
        assert!(!kids(&provider).await.contains(&seen[0]), "the old key is gone");
    }

    async fn a_replaced_key_is_published_until_its_last_token_has_expired(provider: Provider) {
        let provider = with_brief_sign_ins(&provider).await;
        let before = machine_token(&provider).await;
        let old = kid_of(&before);
        let made = signing_keys::rotate(&provider.app, SigningAlg::Rs256, false).await;
        let Ok(Prepared::Made(next)) = made else { panic!("{made:?}") };
        assert!(kids(&provider).await.contains(&next.kid), "published before its first use");
        // Asked again, as after a lost answer, it makes no other.
        let again = signing_keys::rotate(&provider.app, SigningAlg::Rs256, false).await;
        assert!(matches!(again, Ok(Prepared::Waits(waits)) if waits.kid == next.kid));
        assert_eq!(kid_of(&machine_token(&provider).await), old, "the old one signs on");

        provider.pass(PUBLISHED_AHEAD);
        maintain(&provider).await;
        let last = provider.tokens("openid").await.text("id_token");
        assert_eq!(kid_of(&last), next.kid);
        assert!(is_active(&provider, &before).await, "a token of the old key lives its life");
        // ID tokens live an hour, and are the longest.
        provider.pass(Span::minutes(60));
        maintain(&provider).await;
        assert!(kids(&provider).await.contains(&old));
        provider.pass(Span::minutes(6));
        maintain(&provider).await;
        let published = kids(&provider).await;
        assert!(!published.contains(&old) && published.contains(&next.kid), "{published:?}");
        let stored = provider.app.store.signing_keys().await.expect("keys");
        let gone = stored.iter().find(|key| key.kid == old).expect("its row stays");
        assert_eq!(gone.sealed_private, "", "its private half is forgotten");
    }

    /// The longest that any client's tokens live counts, also when it was longer before.
    async fn a_long_lived_token_keeps_its_key(provider: Provider) {
        let provider = with_brief_sign_ins(&provider).await;
        let mut record = client(&provider, "machine").await;
        record.client.metadata.access_token_ttl = Some(Span::days(7));
        put_client(&provider.app.store, record.clone(), provider.app.now()).await.expect("changed");
        maintain(&provider).await;
        let token = machine_token(&provider).await;
        record.client.metadata.access_token_ttl = None;
        put_client(&provider.app.store, record, provider.app.now()).await.expect("changed");
        signing_keys::rotate(&provider.app, SigningAlg::Rs256, false).await.expect("made");
        for _ in 0..6 {
            provider.pass(Span::days(1));
            maintain(&provider).await;
        }
        assert!(is_active(&provider, &token).await, "its key is gone before it");
        provider.pass(Span::days(2));
        maintain(&provider).await;
        assert!(!kids(&provider).await.contains(&kid_of(&token)));
    }

    /// Attack 71: what a retired key signed is refused, everywhere, at once.
    async fn attack_71_a_key_that_was_stolen_ends_at_once(provider: Provider) {
        let mut browser = provider.browser();
        let code = provider.code(&mut browser, &provider.authorize_url("scope=openid+offline_access")).await;
        let tokens = provider.redeem(&code).await;
        let access_token = tokens.text("access_token");
        let stolen = kid_of(&access_token);
        assert_eq!(provider.userinfo(&access_token).await.status, 200);
        let (other, _) = provider.second().await;

        let retirement = signing_keys::retire(&provider.app, &stolen).await.expect("retired");
        assert!(retirement.was_active);
        assert_eq!(provider.userinfo(&access_token).await.status, 401);
        assert!(!is_active(&provider, &access_token).await);
        assert!(!kids(&provider).await.contains(&stolen));
        let page = browser.get(&format!("/logout?id_token_hint={}", tokens.text("id_token"))).await;
        assert!(page.body.contains("logout-confirm"), "a hint that may be forged counts for nothing: {}", page.body);
        // Another process, once it looked.
        assert!(other.keys.current().verify(&access_token, "at+jwt").is_ok());
        other.keys.reload(&other.store).await.expect("read");
        assert!(other.keys.current().verify(&access_token, "at+jwt").is_err());

        // Everybody goes on with a refresh.
        let fresh = provider.refresh("first", &tokens.text("refresh_token")).await;
        assert_eq!(fresh.status, 200, "{}", fresh.body);
        let kid = kid_of(&fresh.text("access_token"));
        assert_eq!(Some(&kid), retirement.successor.as_ref());
        assert!(kids(&provider).await.contains(&kid));
        assert_eq!(provider.userinfo(&fresh.text("access_token")).await.status, 200);
        // It cannot be retired twice, and no unknown one at all.
        let twice = signing_keys::retire(&provider.app, &stolen).await;
        assert!(matches!(twice, Err(KeyError::AlreadyRetired(_))));
        let unknown = signing_keys::retire(&provider.app, "nobody").await;
        assert!(matches!(unknown, Err(KeyError::UnknownKid(_))));
    }

    /// In an emergency a key that relying parties have already is better than one that they have not.
    async fn the_key_that_waits_takes_over_from_one_that_is_retired(provider: Provider) {
        let signs = kid_of(&machine_token(&provider).await);
        signing_keys::rotate(&provider.app, SigningAlg::Rs256, false).await.expect("made");
        let next = waiting(&provider, &signs).await.expect("a key that waits");
        let retirement = signing_keys::retire(&provider.app, &signs).await.expect("retired");
        assert_eq!(retirement.successor.as_deref(), Some(next.as_str()));
        assert_eq!(kid_of(&machine_token(&provider).await), next);
        // One that waits, or is passive, goes without a successor.
        signing_keys::rotate(&provider.app, SigningAlg::Rs256, false).await.expect("made");
        let unused = waiting(&provider, &next).await.expect("a key that waits");
        let retirement = signing_keys::retire(&provider.app, &unused).await.expect("retired");
        assert_eq!((retirement.was_active, retirement.successor), (false, None));
        assert_eq!(kid_of(&machine_token(&provider).await), next);
    }

    /// PS256 and EdDSA have a key once somebody asks for them, and not before.
    async fn other_algorithms_are_there_on_request(provider: Provider) {
        let algs = |page: Value| -> Vec<String> {
            let mut algs: Vec<String> =
                page["keys"].as_array().expect("keys").iter().map(|key| key["alg"].as_str().expect("alg").to_owned()).collect();
            algs.sort();
            algs
        };
        assert_eq!(algs(provider.browser().get("/jwks").await.json()), ["ES256", "RS256"]);
        let mut record = client(&provider, "first").await;
        record.client.metadata.id_token_signed_response_alg = Some(SigningAlg::EdDsa);
        record.client.metadata.access_token_signed_response_alg = Some(SigningAlg::Ps256);
        put_client(&provider.app.store, record, provider.app.now()).await.expect("changed");
        maintain(&provider).await;

        let tokens = provider.tokens("openid").await;
        let page = provider.browser().get("/jwks").await.json();
        assert_eq!(algs(page.clone()), ["ES256", "EdDSA", "PS256", "RS256"]);
        let key = |token: &str| {
            let kid = kid_of(token);
            let keys = page["keys"].as_array().expect("keys");
            let key = keys.iter().find(|key| key["kid"] == kid.as_str()).expect("published");
            Jwk::from_map(key.as_object().expect("a key").clone()).expect("a JWK")
        };
        let (id_token, access_token) = (tokens.text("id_token"), tokens.text("access_token"));
        deserialize_compact(&id_token, &EdDSA.verifier_from_jwk(&key(&id_token)).expect("a verifier")).expect("EdDSA");
        deserialize_compact(&access_token, &PS256.verifier_from_jwk(&key(&access_token)).expect("a verifier")).expect("PS256");
        // OpenID Connect Core §3.1.3.6: the hash is that of the ID token's algorithm; Ed25519's is SHA-512.
        let half = openssl::hash::hash(openssl::hash::MessageDigest::sha512(), access_token.as_bytes()).expect("a hash");
        assert_eq!(claims_of(&id_token)["at_hash"], keyward::crypto::digest::base64url(&half[..32]));
        assert_eq!(provider.userinfo(&access_token).await.status, 200);
    }

    async fn a_key_from_another_provider_signs_under_its_old_name(provider: Provider) {
        let rsa = Rsa::generate(2048).expect("a key");
        let text = String::from_utf8(rsa.private_key_to_pem().expect("PEM")).expect("text");
        let pair = || pem::key_pair(&text, None).expect("a pair").named("old-provider-1".to_owned());
        signing_keys::import(&provider.app, pair(), false).await.expect("imported");
        assert!(kids(&provider).await.contains(&"old-provider-1".to_owned()));
        assert_ne!(kid_of(&machine_token(&provider).await), "old-provider-1", "published before its first use");
        provider.pass(PUBLISHED_AHEAD);
        let token = machine_token(&provider).await;
        assert_eq!(kid_of(&token), "old-provider-1");
        // What the old provider signed with it would be recognised by anybody: it is the same key.
        let jwks = provider.browser().get("/jwks").await.json();
        let published = jwks["keys"].as_array().expect("keys").iter().find(|key| key["kid"] == "old-provider-1").expect("it").clone();
        assert_eq!(published["n"], keyward::crypto::digest::base64url(&rsa.n().to_vec()));
        let twice = signing_keys::import(&provider.app, pair(), false).await;
        assert!(matches!(twice, Err(KeyError::KnownKid(_))));
        // Nor under another name, also when it was retired: somebody has it who should not.
        for _ in 0..2 {
            let renamed = pair().named("another-name".to_owned());
            let known = signing_keys::import(&provider.app, renamed, true).await;
            assert!(matches!(&known, Err(KeyError::KnownKey(kid)) if kid == "old-provider-1"), "{known:?}");
            let _ = signing_keys::retire(&provider.app, "old-provider-1").await;
        }
        assert_ne!(kid_of(&machine_token(&provider).await), "old-provider-1");
    }

    /// An algorithm ends with its last key where nobody's tokens are signed with it.
    async fn a_key_that_nobody_wants_is_not_replaced(provider: Provider) {
        let made = signing_keys::rotate(&provider.app, SigningAlg::EdDsa, true).await;
        let Ok(Prepared::Made(made)) = made else { panic!("{made:?}") };
        let retirement = signing_keys::retire(&provider.app, &made.kid).await.expect("retired");
        assert_eq!((retirement.was_active, retirement.successor), (true, None));
        maintain(&provider).await;
        assert_eq!(kids(&provider).await.len(), 2, "RS256 and ES256");
    }

    async fn a_clock_that_was_set_back_leaves_a_key_that_signs(provider: Provider) {
        provider.pass(Span::days(-30));
        let token = machine_token(&provider).await;
        assert!(is_active(&provider, &token).await);
        maintain(&provider).await;
        assert_eq!(kids(&provider).await.len(), 2, "no key is made because of it");
    }

    /// Two processes do the same work at the same time.
    async fn processes_rotate_together(provider: Provider) {
        let (other, _) = provider.second().await;
        provider.pass(Span::days(84));
        let (here, there) = tokio::join!(signing_keys::maintain(&provider.app), signing_keys::maintain(&other));
        here.and(there).expect("maintained");
        provider.app.keys.reload(&provider.app.store).await.expect("read");
        other.keys.reload(&other.store).await.expect("read");
        assert_eq!(kids(&provider).await.len(), 4, "one successor for each of two algorithms");
        assert_eq!(provider.app.keys.current().jwks, other.keys.current().jwks);
        provider.pass(Span::days(7));
        let now = provider.app.now();
        assert_eq!(provider.app.keys.current().signing(now), other.keys.current().signing(now));
    }
}

mod master_key {
    use super::*;

    fn source(provider: &Provider) -> KeySource {
        KeySource::Dir(provider.dir.path().join("keys"))
    }

    async fn reopened(provider: &Provider, source: &KeySource) -> Result<Keyring, KeyError> {
        Keyring::open(&provider.app.store, source, &rng(), Timestamp(1_800_000_000_000)).await
    }

    on_both_databases! {
        async fn a_new_master_key_ends_nothing(provider: Provider) {
            let tokens = provider.tokens("openid offline_access").await;
            let (other, _) = provider.second().await;
            let file = provider.dir.path().join("keys/master.key");
            let before = fs::read_to_string(&file).expect("a key");
            // The group may read it, and, where we may give it away, it is somebody else's: the provider's, say.
            fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o640)).expect("a mode");
            let _ = std::os::unix::fs::chown(&file, Some(65_534), Some(65_534));
            let whose = |file: &std::path::Path| {
                let found = fs::metadata(file).expect("a key");
                (found.uid(), found.gid(), found.mode() & 0o777)
            };
            let owner = whose(&file);
            let sealed = provider.app.store.signing_keys().await.expect("keys");

            let done = signing_keys::rekey(&provider.app, None).await.expect("done");
            let after = fs::read_to_string(&file).expect("a key");
            assert_ne!(before, after);
            let old = done.old.expect("kept");
            assert_eq!(fs::read_to_string(&old).expect("a key"), before, "older backups need it");
            assert_eq!((whose(&file), whose(&old)), (owner, owner), "who may read it is as before");
            for (old, new) in sealed.iter().zip(provider.app.store.signing_keys().await.expect("keys")) {
                assert_ne!(old.sealed_private, new.sealed_private);
            }
            // Here, in a process that was running, and in one that starts.
            assert_eq!(provider.refresh("first", &tokens.text("refresh_token")).await.status, 200);
            other.keys.reload(&other.store).await.expect("the new key is found");
            signing_keys::rotate(&other, SigningAlg::Es256, false).await.expect("sealed under it");
            provider.app.keys.reload(&provider.app.store).await.expect("and opened");
            reopened(&provider, &source(&provider)).await.expect("opens");
            assert_eq!(provider.userinfo(&tokens.text("access_token")).await.status, 200);
            // The old one opens nothing any more.
            fs::remove_dir_all(provider.dir.path().join("keys")).expect("removed");
            fs::create_dir(provider.dir.path().join("keys")).expect("made");
            fs::write(&file, before).expect("written");
            fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a mode");
            assert!(matches!(reopened(&provider, &source(&provider)).await, Err(KeyError::Foreign { .. })));
        }

        /// Killed after the database was sealed anew, before the file was put in place.
        async fn a_change_that_was_cut_off_is_brought_to_its_end(provider: Provider) {
            let keys = provider.dir.path().join("keys");
            let old = fs::read_to_string(keys.join("master.key")).expect("a key");
            let done = signing_keys::rekey(&provider.app, None).await.expect("done");
            let new = fs::read_to_string(keys.join("master.key")).expect("a key");
            // As it stood at that moment: the old one in its place, the new one aside, under its id.
            let kept = done.old.expect("kept");
            let setting = provider.app.store.setting("master_key").await.expect("read").expect("set");
            let id = setting.split('.').next().expect("an id");
            fs::rename(keys.join("master.key"), keys.join(format!("master.key.{id}"))).expect("moved");
            fs::rename(kept, keys.join("master.key")).expect("moved");
            assert_eq!(fs::read_to_string(keys.join("master.key")).expect("a key"), old);
            reopened(&provider, &source(&provider)).await.expect("opens");
            assert_eq!(fs::read_to_string(keys.join("master.key")).expect("a key"), new);
        }

        async fn the_key_of_somebody_elses_file_is_replaced_by_another_file(provider: Provider) {
            let dir = provider.dir.path();
            let (mounted, next) = (dir.join("mounted"), dir.join("next"));
            fs::copy(dir.join("keys/master.key"), &mounted).expect("copied");
            let keyring = reopened(&provider, &KeySource::File(mounted.clone())).await.expect("opens");
            let none = keyring.rekey(&provider.app.store, None, &an_operator(), provider.app.now()).await;
            assert!(matches!(none, Err(KeyError::NoNewKey)), "the file is not ours to write");
            let same = keyring.rekey(&provider.app.store, Some(mounted.clone()), &an_operator(), provider.app.now()).await;
            assert!(matches!(same, Err(KeyError::SameKey)));
            fs::write(&next, keyward::crypto::digest::base64url(&[7; 32])).expect("written");
            fs::set_permissions(&next, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a mode");
            keyring.rekey(&provider.app.store, Some(next.clone()), &an_operator(), provider.app.now()).await.expect("done");
            assert!(fs::read_to_string(&mounted).expect("it") != fs::read_to_string(&next).expect("it"), "left alone");
            assert!(matches!(reopened(&provider, &KeySource::File(mounted.clone())).await, Err(KeyError::Foreign { .. })));
            // A process that runs goes on with what it knows, and finds the new one as soon as it is there.
            assert!(keyring.reload(&provider.app.store).await.is_err());
            let (store, now) = (&provider.app.store, provider.app.now());
            let signs = |keyring: &Keyring| {
                let keys = keyring.current().signing(now);
                keys.into_iter().find(|key| key.alg == SigningAlg::Rs256).map(|key| key.kid)
            };
            let stolen = signs(&keyring).expect("a key");
            // A retirement holds there all the same, and what others sign now is known there.
            let elsewhere = reopened(&provider, &KeySource::File(next.clone())).await.expect("opens");
            let policy = signing_keys::policy(&provider.app).await.expect("a policy");
            elsewhere.retire(store, &stolen, &policy, &an_operator(), now).await.expect("retired");
            assert!(keyring.reload(store).await.is_err(), "and it is said that something is missing");
            assert_eq!(signs(&keyring), None, "it cannot sign, and does not sign with that");
            assert_eq!(keyring.current().jwks, elsewhere.current().jwks);
            assert!(signs(&elsewhere).is_some_and(|kid| kid != stolen));
            fs::rename(&next, &mounted).expect("put in place");
            keyring.reload(store).await.expect("found");
            assert_eq!(signs(&keyring), signs(&elsewhere));
            reopened(&provider, &KeySource::File(mounted)).await.expect("opens");
        }

        /// A process that has not heard of the new master key seals nothing under the old one.
        async fn nothing_is_sealed_under_a_key_that_is_gone(provider: Provider) {
            let (other, _) = provider.second().await;
            signing_keys::rekey(&provider.app, None).await.expect("done");
            let late = signing_keys::rotate(&other, SigningAlg::Rs256, false).await;
            assert!(matches!(late, Err(KeyError::Overtaken)), "{late:?}");
            let late = signing_keys::rekey(&other, None).await;
            assert!(late.is_err(), "two changes at once");
            reopened(&provider, &source(&provider)).await.expect("opens");
        }
    }
}

/// The command line against a running server, which follows within a second.
#[tokio::test]
async fn a_running_server_follows_the_command_line() {
    let site = Site::new("");
    let _server = site.serve().await;
    let published = async || -> Vec<Value> {
        let page = site.browser().get("/jwks").await;
        page.json()["keys"].as_array().expect("keys").clone()
    };
    let has = async |kid: &str| published().await.iter().any(|key| key["kid"] == kid);
    let listed = site.json(&["key", "list"]).await;
    let rs256 = listed.as_array().expect("keys").iter().find(|key| key["alg"] == "RS256").expect("RS256").clone();
    assert_eq!(rs256["state"], "active");

    let made = site.json(&["key", "rotate", "--alg", "RS256"]).await;
    let next = made[0]["kid"].as_str().expect("a kid").to_owned();
    assert_eq!(made[0]["state"], "next");
    site.within_a_second("the next key is published", async || has(&next).await).await;

    let token =
        site.call("web", SITE_SECRET, "/token", &[("grant_type", "client_credentials")]).await.text("access_token");
    let stolen = rs256["kid"].as_str().expect("a kid");
    assert_eq!(header_of(&token)["kid"], stolen);
    let ran = site.run(&["key", "retire", stolen, "--yes"]).await.ok();
    for word in ["refused from now on", "/jwks", "refresh"] {
        assert!(ran.stderr.contains(word), "it says what it breaks: {}", ran.stderr);
    }
    site.within_a_second("its tokens are refused", async || {
        let answer = site.call("web", SITE_SECRET, "/introspect", &[("token", &token)]).await;
        answer.body["active"] == false
    })
    .await;
    assert!(!has(stolen).await && has(&next).await);
    let (living, all) = (site.run(&["key", "list"]).await.ok(), site.run(&["key", "list", "--all"]).await.ok());
    assert!(!living.stdout.contains(stolen) && !living.stdout.contains("RETIRED_AT"), "{living:?}");
    assert!(all.stdout.contains(stolen) && all.stdout.contains("RETIRED_AT"), "{all:?}");
    site.run(&["key", "retire", stolen, "--yes"]).await.refused(&["retired before"]);
    site.run(&["key", "retire", "nobody", "--yes"]).await.refused(&["key list"]);

    // From a file or standard input, never too weak.
    let pem =
        |bits| String::from_utf8(Rsa::generate(bits).expect("a key").private_key_to_pem().expect("PEM")).expect("text");
    let ran = site.run_with(&["key", "import", "-", "--kid", "from-before", "--at-once"], &pem(2048)).await.ok();
    assert!(!ran.stdout.contains("PRIVATE"), "{}", ran.stdout);
    // One key of 64 has a thumbprint that looks like an option.
    for (kid, retire) in [("-oath", &["-oath", "--yes"][..]), ("--help", &["--yes", "--", "--help"])] {
        let named = format!("--kid={kid}");
        site.run_with(&["key", "import", "-", "--alg", "PS256", &named], &pem(2048)).await.ok();
        let ran = site.run(&[&["key", "retire"], retire].concat()).await.ok();
        assert!(ran.stdout.contains(kid), "{ran:?}");
        site.run(&[&["key", "retire"], retire].concat()).await.refused(&["retired before"]);
    }
    site.within_a_second("the imported key signs", async || {
        let answer = site.call("web", SITE_SECRET, "/token", &[("grant_type", "client_credentials")]).await;
        header_of(&answer.text("access_token"))["kid"] == "from-before"
    })
    .await;
    site.run_with(&["key", "import", "-"], &pem(1024)).await.refused(&["1024", "2048"]);
    std::fs::write(site.path("no.pem"), "hello").expect("written");
    let der = Rsa::generate(2048).and_then(|key| key.private_key_to_der()).expect("a key");
    fs::write(site.path("key.der"), der).expect("written");
    site.run(&["key", "import", "key.der"]).await.refused(&["key.der", "no PEM", "openssl pkey"]);
    site.run(&["key", "import", "no.pem"]).await.refused(&["no.pem", "PEM"]);

    // A new master key under a running server: it goes on, and reads what is sealed under the new one.
    site.run(&["key", "rekey", "--yes"]).await.ok();
    let made = site.json(&["key", "rotate", "--alg", "EdDSA"]).await;
    let kid = made[0]["kid"].as_str().expect("a kid").to_owned();
    assert_eq!(made[0]["state"], "active", "nobody relied on this algorithm before");
    site.within_a_second("a key sealed under the new master key is published", async || has(&kid).await).await;
    let mut browser = site.browser();
    site.tokens(&mut browser, "alice", SITE_PASSWORD).await;
}

/// A client that wants another algorithm gets it from a running server at once.
#[tokio::test]
async fn a_client_brings_its_algorithm_with_it() {
    let site = Site::new("");
    let _server = site.serve().await;
    let args = [
        "client",
        "create",
        "--client-id",
        "ed",
        "--grant-type",
        "client_credentials",
        "--access-token-signed-response-alg",
        "EdDSA",
    ];
    let made = site.json(&args).await;
    let secret = made["client_secret"].as_str().expect("a secret").to_owned();
    site.within_a_second("its tokens are signed", async || {
        let answer = site.call("ed", &secret, "/token", &[("grant_type", "client_credentials")]).await;
        answer.status == 200 && header_of(&answer.text("access_token"))["alg"] == "EdDSA"
    })
    .await;
}

#[tokio::test]
async fn the_first_keys_of_a_database_are_two() {
    for backend in Backend::BOTH {
        let provider = Provider::start(backend).await;
        assert_eq!(kids(&provider).await.len(), 2);
    }
}
