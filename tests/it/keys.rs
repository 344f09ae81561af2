//! The keyring: the master key on disk, what it seals in the database, and what the world may know of it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use josekit::jwk::Jwk;
use josekit::jws::{ES256, JwsVerifier, RS256, deserialize_compact};
use keyward::config::KeySource;
use keyward::crypto::seal::SealKey;
use keyward::keys::{KeyError, Keyring};
use keyward::protocol::client::SigningAlg;
use keyward::protocol::time::Timestamp;
use keyward::store::Store;
use openssl::pkey::PKey;
use serde_json::Value;
use tempfile::TempDir;

use crate::on_both_databases;
use crate::support::audit::rng;
use crate::support::{
    Backend, Browser, CALLBACK, Page, Provider, VERIFIER, challenge, claims_of, header_of, open_store,
};

const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// An empty database and a place for keys that does not exist yet.
struct Place {
    store: Store,
    url: String,
    dir: TempDir,
}

impl Place {
    async fn new(backend: Backend) -> Self {
        let dir = TempDir::new().expect("a directory");
        let url = backend.create(dir.path()).await;
        Self { store: open_store(&url).await.expect("a store"), url, dir }
    }

    fn key_dir(&self) -> PathBuf {
        self.dir.path().join("keys")
    }

    fn key_file(&self) -> PathBuf {
        self.key_dir().join("master.key")
    }

    async fn open(&self) -> Result<Keyring, KeyError> {
        self.open_from(&KeySource::Dir(self.key_dir())).await
    }

    async fn open_from(&self, source: &KeySource) -> Result<Keyring, KeyError> {
        Keyring::open(&self.store, source, &rng(), NOW).await
    }

    /// What somebody reads who starts it.
    async fn refusal(&self) -> String {
        match self.open().await {
            Ok(_) => panic!("the keyring opened"),
            Err(error) => error.to_string(),
        }
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

#[track_caller]
fn tells(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
}

fn jwks_keys(page: &Page) -> Vec<serde_json::Map<String, Value>> {
    let body = page.json();
    let keys = body["keys"].as_array().expect("keys");
    keys.iter().map(|key| key.as_object().expect("a key").clone()).collect()
}

/// Verifies a token as a relying party does that never heard of us: by the published key that its header names.
#[track_caller]
fn verify_by_published_key(jwks: &Page, token: &str) -> String {
    let header = header_of(token);
    let keys = jwks_keys(jwks);
    let key = keys.iter().find(|key| key["kid"] == header["kid"]).expect("its key is published");
    assert_eq!(key["alg"], header["alg"]);
    let jwk = Jwk::from_map(key.clone()).expect("a JWK");
    let verifier: Box<dyn JwsVerifier> = match header["alg"].as_str() {
        Some("RS256") => Box::new(RS256.verifier_from_jwk(&jwk).expect("a verifier")),
        Some("ES256") => Box::new(ES256.verifier_from_jwk(&jwk).expect("a verifier")),
        other => panic!("signed with {other:?}"),
    };
    deserialize_compact(token, verifier.as_ref()).expect("a good signature");
    header["alg"].as_str().expect("an alg").to_owned()
}

#[tokio::test]
async fn a_first_start_makes_a_key_that_only_its_owner_reads() {
    for backend in Backend::BOTH {
        let place = Place::new(backend).await;
        place.open().await.expect("a keyring");
        assert_eq!(mode(&place.key_dir()), 0o700);
        assert_eq!(mode(&place.key_file()), 0o600);
        let text = fs::read_to_string(place.key_file()).expect("a key");
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end()).expect("base64url");
        assert_eq!(bytes.len(), 32);
        let left: Vec<_> = fs::read_dir(place.key_dir()).expect("a directory").collect();
        assert_eq!(left.len(), 1, "nothing but the key is left behind: {left:?}");
        // The second start takes what is there.
        place.open().await.expect("a keyring");
        assert_eq!(fs::read_to_string(place.key_file()).expect("a key"), text);
    }
}

#[tokio::test]
async fn a_key_that_everybody_may_read_is_refused_with_what_to_do() {
    for backend in Backend::BOTH {
        let place = Place::new(backend).await;
        place.open().await.expect("a keyring");
        for bad in [0o644, 0o604, 0o602, 0o777] {
            set_mode(&place.key_file(), bad);
            let text = place.refusal().await;
            tells(&text, &["master.key", &format!("{bad:o}"), "chmod 600"]);
        }
        // As told, and as a service account in a group has it.
        for good in [0o600, 0o400, 0o640] {
            set_mode(&place.key_file(), good);
            place.open().await.unwrap_or_else(|error| panic!("{good:o}: {error}"));
        }
    }
}

#[tokio::test]
async fn another_master_key_is_refused_and_both_are_named() {
    for backend in Backend::BOTH {
        let place = Place::new(backend).await;
        place.open().await.expect("a keyring");
        let right = fs::read_to_string(place.key_file()).expect("a key");
        let wrong = URL_SAFE_NO_PAD.encode([7_u8; 32]);
        fs::write(place.key_file(), &wrong).expect("written");
        let keys = place.store.signing_keys().await.expect("keys").len();
        let text = place.refusal().await;
        tells(&text, &["another master key", "master.key"]);
        // Two ids, which tell the keys apart and give neither away.
        let ids: Vec<&str> =
            text.split("(id ").skip(1).map(|rest| rest.split(')').next().unwrap_or_default()).collect();
        assert_eq!(ids.len(), 2, "{text}");
        assert!(ids[0] != ids[1] && ids.iter().all(|id| (6..20).contains(&id.len())), "{text}");
        assert!(!text.contains(&wrong) && !text.contains(right.trim_end()), "{text}");
        // Nothing was changed by the attempt: no key was added, and the right one still opens.
        assert_eq!(place.store.signing_keys().await.expect("keys").len(), keys);
        fs::write(place.key_file(), right).expect("written");
        place.open().await.expect("a keyring");
    }
}

#[tokio::test]
async fn a_key_that_got_lost_is_not_replaced_by_a_new_one() {
    for backend in Backend::BOTH {
        let place = Place::new(backend).await;
        place.open().await.expect("a keyring");
        let key = fs::read_to_string(place.key_file()).expect("a key");
        fs::remove_file(place.key_file()).expect("removed");
        tells(&place.refusal().await, &["master.key", "missing", "backup"]);
        assert!(!place.key_file().exists(), "a new key was made");
        fs::remove_dir_all(place.key_dir()).expect("removed");
        tells(&place.refusal().await, &["master.key", "missing", "backup"]);
        assert!(!place.key_dir().exists());
        // Put back, as told.
        fs::create_dir(place.key_dir()).expect("a directory");
        fs::write(place.key_file(), key).expect("written");
        set_mode(&place.key_file(), 0o600);
        place.open().await.expect("a keyring");
    }
}

#[tokio::test]
async fn a_file_that_is_no_key_is_refused_and_left_alone() {
    let place = Place::new(Backend::Sqlite).await;
    fs::create_dir(place.key_dir()).expect("a directory");
    let short = URL_SAFE_NO_PAD.encode([1_u8; 16]);
    let long = URL_SAFE_NO_PAD.encode([1_u8; 33]);
    let padded = STANDARD.encode([255_u8; 32]);
    for (name, content) in [
        ("empty", &b""[..]),
        ("words", b"correct horse battery staple"),
        ("short", short.as_bytes()),
        ("long", long.as_bytes()),
        ("another alphabet", padded.as_bytes()),
        ("raw bytes", &[0xff, 0xfe, 0, 1]),
    ] {
        fs::write(place.key_file(), content).expect("written");
        set_mode(&place.key_file(), 0o600);
        let text = place.refusal().await;
        tells(&text, &["master.key"]);
        assert_eq!(fs::read(place.key_file()).expect("the file"), content, "{name}: {text}");
        let secret = String::from_utf8_lossy(content);
        assert!(content.is_empty() || !text.contains(secret.as_ref()), "{name}: the content is shown: {text}");
    }
    assert!(place.store.setting("master_key").await.expect("an answer").is_none(), "a bad key sealed the database");
}

/// `master_key_file` is somebody else's file: it is never made, and a fresh database is not blamed for its absence.
#[tokio::test]
async fn a_master_key_file_is_never_made_and_its_absence_is_told_truly() {
    let place = Place::new(Backend::Sqlite).await;
    let file = place.dir.path().join("mounted.key");
    let source = KeySource::File(file.clone());
    let text = place.open_from(&source).await.err().expect("refused").to_string();
    tells(&text, &["mounted.key"]);
    assert!(!file.exists());
    assert!(!text.contains("was sealed"), "nothing was sealed yet: {text}");
    fs::write(&file, format!("{}\n", URL_SAFE_NO_PAD.encode([9_u8; 32]))).expect("written");
    set_mode(&file, 0o600);
    place.open_from(&source).await.expect("a keyring");
    // The same key from a directory is the same key.
    fs::create_dir(place.key_dir()).expect("a directory");
    fs::copy(&file, place.key_file()).expect("copied");
    place.open().await.expect("a keyring");
}

#[tokio::test]
async fn a_database_somebody_tampered_with_is_refused() {
    use sqlx::Connection as _;
    for backend in Backend::BOTH {
        let place = Place::new(backend).await;
        place.open().await.expect("a keyring");
        let mut conn = sqlx::AnyConnection::connect(&place.url).await.expect("the database");
        for sql in [
            "UPDATE signing_keys SET sealed_private = (SELECT sealed_private FROM signing_keys WHERE alg = 'ES256')",
            "UPDATE settings SET value = 'e30.e30.e30.e30.e30' WHERE name <> 'master_key'",
        ] {
            sqlx::query(sql).execute(&mut conn).await.expect("tampered");
            let text = place.refusal().await;
            assert!(!text.is_empty(), "{sql}");
        }
        conn.close().await.expect("closed");
    }
}

async fn many_at_once(backend: Backend) {
    for _ in 0..3 {
        let dir = TempDir::new().expect("a directory");
        let url = backend.create(dir.path()).await;
        let source = KeySource::Dir(dir.path().join("keys"));
        let opened = (0..6).map(|_| {
            let (url, source) = (url.clone(), source.clone());
            tokio::spawn(async move {
                let store = open_store(&url).await.expect("a store");
                let keyring = Keyring::open(&store, &source, &rng(), NOW).await;
                (store, keyring)
            })
        });
        let opened: Vec<(Store, Keyring)> = join_all(opened)
            .await
            .into_iter()
            .map(|joined| {
                let (store, keyring) = joined.expect("no panic");
                (store, keyring.unwrap_or_else(|error| panic!("{backend:?}: {error}")))
            })
            .collect();
        let (store, first) = &opened[0];
        for (_, other) in &opened {
            assert_eq!(other.current().jwks, first.current().jwks);
            assert!(other.server.csrf == first.server.csrf && other.server.refresh == first.server.refresh);
        }
        let algs: Vec<&str> = store.signing_keys().await.expect("keys").iter().map(|key| key.alg.as_str()).collect();
        assert_eq!(algs, ["ES256", "RS256"], "one key each, in the order of their names");
        let left: Vec<_> = fs::read_dir(dir.path().join("keys")).expect("a directory").collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_processes_that_start_on_an_empty_sqlite_agree_on_one_set_of_keys() {
    many_at_once(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_processes_that_start_on_an_empty_postgres_agree_on_one_set_of_keys() {
    many_at_once(Backend::Postgres).await;
}

/// Two hosts that share a database but were given no key: each makes one of its own, and only one may stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hosts_without_a_common_key_do_not_both_start() {
    let place = Place::new(Backend::Postgres).await;
    let (one, two) = (place.dir.path().join("one"), place.dir.path().join("two"));
    let (first, second) = (KeySource::Dir(one.clone()), KeySource::Dir(two.clone()));
    let (first, second) = tokio::join!(place.open_from(&first), place.open_from(&second));
    let (lost, won_dir) = match (first, second) {
        (Ok(_), Err(error)) => (error, one),
        (Err(error), Ok(_)) => (error, two),
        (Ok(_), Ok(_)) => panic!("both started, each with a key of its own"),
        (Err(first), Err(second)) => panic!("neither started: {first}; {second}"),
    };
    // Whichever it noticed first: that the database is another's, or that it lacks the key of a sealed one.
    let lost = lost.to_string();
    assert!(lost.contains("another master key") || lost.contains("the master key is missing"), "{lost}");
    place.open_from(&KeySource::Dir(won_dir)).await.expect("the winner's key is the database's");
}

on_both_databases! {
    async fn a_second_process_takes_up_the_tokens_of_the_first(provider: Provider) {
        let (_, router) = provider.second().await;
        let mut other = Browser::new(router.clone(), &provider.issuer);
        let (here, there) = (provider.browser().get("/jwks").await, other.get("/jwks").await);
        assert_eq!(here.body, there.body, "one set of keys");

        let tokens = provider.tokens("openid profile offline_access").await;
        verify_by_published_key(&there, &tokens.text("id_token"));
        verify_by_published_key(&there, &tokens.text("access_token"));
        let bearer = format!("Bearer {}", tokens.text("access_token"));
        let me = other.send(http::Method::GET, "/userinfo", None, &[("authorization", &bearer)]).await;
        assert_eq!((me.status.as_u16(), me.json()["name"].clone()), (200, "Alice Archer".into()));

        let basic = format!("Basic {}", STANDARD.encode("first:first-secret"));
        let refresh_token = tokens.text("refresh_token");
        let fields = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.as_str())];
        let refreshed = other.send(http::Method::POST, "/token", Some(&fields), &[("authorization", &basic)]).await;
        assert_eq!(refreshed.status, 200, "{}", refreshed.body);
        // And back: what the second made, the first knows.
        let made_there = refreshed.json()["access_token"].as_str().expect("a token").to_owned();
        assert_eq!(provider.userinfo(&made_there).await.status, 200);
    }

    async fn a_sign_in_that_began_at_one_process_ends_at_the_other(provider: Provider) {
        let (_, router) = provider.second().await;
        let mut here = provider.browser();
        let page = here.get(&provider.authorize_url("")).await;
        let page = here.follow(page).await;
        assert!(page.body.contains("login-submit"));
        let mut there = Browser::new(router, &provider.issuer);
        there.cookies = here.cookies.clone();
        let next = there.submit(&page, &[("username", "alice"), ("password", "correct horse")]).await;
        let done = there.follow(next).await;
        let code = done.location_params().remove("code").expect("a code");
        assert_eq!(provider.redeem(&code).await.status, 200);
    }

    async fn the_published_keys_are_public_and_complete(provider: Provider) {
        let page = provider.browser().get("/jwks").await;
        assert_eq!(page.status, 200);
        let keys = jwks_keys(&page);
        let mut algs: Vec<&str> = keys.iter().map(|key| key["alg"].as_str().expect("an alg")).collect();
        algs.sort_unstable();
        assert_eq!(algs, ["ES256", "RS256"]);
        for key in &keys {
            let mut names: Vec<&str> = key.keys().map(String::as_str).collect();
            names.sort_unstable();
            match key["kty"].as_str() {
                Some("RSA") => {
                    assert_eq!(names, ["alg", "e", "kid", "kty", "n", "use"]);
                    let n = URL_SAFE_NO_PAD.decode(key["n"].as_str().expect("n")).expect("base64url");
                    assert!(n.len() >= 256, "2048 bits at least");
                }
                Some("EC") => {
                    assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
                    for coordinate in ["x", "y"] {
                        let value = key[coordinate].as_str().expect("a coordinate");
                        let bytes = URL_SAFE_NO_PAD.decode(value).expect("base64url");
                        assert_eq!(bytes.len(), 32, "RFC 7518 §6.2.1.2: leading zeros stay");
                    }
                }
                other => panic!("a key of type {other:?}"),
            }
            assert_eq!(key["use"], "sig");
        }
        let kids: std::collections::HashSet<&str> = keys.iter().map(|key| key["kid"].as_str().expect("a kid")).collect();
        assert_eq!(kids.len(), 2);
    }

    async fn the_published_keys_may_be_cached_and_asked_for_again_cheaply(provider: Provider) {
        let first = provider.browser().get("/jwks").await;
        let cache = first.header("cache-control").expect("Cache-Control");
        assert!(cache.contains("public") && cache.contains("max-age="), "{cache}");
        assert_eq!(first.header("content-type"), Some("application/jwk-set+json"));
        assert_eq!(first.header("access-control-allow-origin"), Some("*"), "browser apps verify tokens too");
        let etag = first.header("etag").expect("ETag").to_owned();
        let ask = async |known: &str| {
            let headers = [("if-none-match", known)];
            provider.browser().send(http::Method::GET, "/jwks", None, &headers).await
        };
        let same = ask(&etag).await;
        assert_eq!((same.status.as_u16(), same.body.as_str()), (304, ""));
        assert_eq!(same.header("etag"), Some(etag.as_str()));
        assert!(same.header("cache-control").is_some(), "RFC 9110 §15.4.5");
        let other = ask("\"something-else\"").await;
        assert_eq!((other.status.as_u16(), other.body == first.body), (200, true));
    }

    /// RFC 9110 §13.1.2: a list of tags, compared weakly. A proxy that compresses makes every tag weak.
    async fn a_tag_that_a_proxy_made_weak_is_still_known(provider: Provider) {
        let first = provider.browser().get("/jwks").await;
        let etag = first.header("etag").expect("ETag").to_owned();
        for known in [format!("W/{etag}"), format!("\"older\", {etag}"), "*".to_owned()] {
            let headers = [("if-none-match", known.as_str())];
            let same = provider.browser().send(http::Method::GET, "/jwks", None, &headers).await;
            assert_eq!(same.status.as_u16(), 304, "{known}");
        }
    }

    async fn private_keys_lie_sealed_in_the_database(provider: Provider) {
        let master = fs::read_to_string(provider.dir.path().join("keys/master.key")).expect("a key");
        let master = URL_SAFE_NO_PAD.decode(master.trim_end()).expect("base64url");
        let seal = SealKey::derive(&master.try_into().expect("32 bytes"), "signing-key");
        for key in provider.app.store.signing_keys().await.expect("keys") {
            let der = seal.open(&key.sealed_private).expect("this key opens it");
            let private = PKey::private_key_from_der(&der).expect("a private key");
            let secret = match key.alg {
                SigningAlg::Rs256 => private.rsa().expect("an RSA key").d().to_vec(),
                SigningAlg::Es256 => private.ec_key().expect("an EC key").private_key().to_vec(),
                other => panic!("nobody asked for {other}"),
            };
            let row = format!("{} {}", key.sealed_private, Value::Object(key.public_jwk.clone()));
            // Neither the whole key nor a part of its secret number, in no encoding.
            for shape in encodings(&der).into_iter().chain(encodings(&secret[..24])) {
                assert!(!contains(row.as_bytes(), &shape), "the private {} key lies open", key.alg);
            }
            assert!(SealKey::derive(&[0; 32], "signing-key").open(&key.sealed_private).is_err());
        }
    }

    async fn a_resource_chooses_how_its_tokens_are_signed(provider: Provider) {
        let jwks = provider.browser().get("/jwks").await;
        let mut algs = Vec::new();
        for resource in ["https://quiz.test", "https://pay.test"] {
            let answer = provider
                .token("machine", &[("grant_type", "client_credentials"), ("resource", resource)])
                .await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            let token = answer.text("access_token");
            assert_eq!(claims_of(&token)["aud"], resource);
            algs.push(verify_by_published_key(&jwks, &token));
        }
        assert_eq!(algs, ["ES256", "RS256"]);

        // In a sign-in as well; the ID token is the client's and stays RS256.
        let url = provider.authorize_url("scope=openid+quiz.read&resource=https://quiz.test");
        let code = provider.code(&mut provider.browser(), &url).await;
        let answer = provider.redeem(&code).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(verify_by_published_key(&jwks, &answer.text("access_token")), "ES256");
        assert_eq!(verify_by_published_key(&jwks, &answer.text("id_token")), "RS256");
        // Without a resource nobody asked for anything else than the default.
        let plain = provider.tokens("openid").await;
        assert_eq!(verify_by_published_key(&jwks, &plain.text("access_token")), "RS256");
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// How bytes might lie in a file.
fn encodings(bytes: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    // Base64 of the middle of a longer text depends on where it begins; all three alignments are tried.
    let aligned = (0..3).flat_map(|skip| {
        let whole = &bytes[skip..skip + (bytes.len() - skip) / 3 * 3];
        [URL_SAFE_NO_PAD.encode(whole).into_bytes(), STANDARD.encode(whole).into_bytes()]
    });
    [bytes.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()].into_iter().chain(aligned).collect()
}

/// Everything that proves something, from a whole day of an app: none of it lies in the database, in any form that
/// a thief could use.
#[tokio::test]
async fn the_database_file_holds_no_secret_that_was_ever_issued() {
    let provider = Provider::start(Backend::Sqlite).await;
    let mut browser = provider.browser();
    // A request so large that it is parked in the database.
    let state = "s".repeat(3000);
    let url = provider.authorize_url(&format!("scope=openid+offline_access&nonce=n-7&state={state}&{}", challenge()));
    let page = browser.get(&url).await;
    let page = browser.follow(page).await;
    let mistyped = browser.submit(&page, &[("username", "alice"), ("password", "mistyped horse 42")]).await;
    let csrf = crate::support::form_fields(&page.body);
    let csrf = csrf.iter().find(|(name, _)| name == "csrf").expect("a form token").1.clone();
    let next = browser.submit(&mistyped, &[("username", "alice"), ("password", "correct horse")]).await;
    let done = browser.follow(next).await;
    let code = done.location_params().remove("code").expect("a code");
    let session = browser.cookies["__Host-keyward_session"].clone();
    let fields = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", CALLBACK),
        ("code_verifier", VERIFIER),
    ];
    let tokens = provider.token("first", &fields).await;
    assert_eq!(tokens.status, 200, "{}", tokens.body);
    let refreshed = provider.refresh("first", &tokens.text("refresh_token")).await;
    assert_eq!(refreshed.status, 200, "{}", refreshed.body);
    // One that rotates, and a revoked one.
    let spa = format!(
        "{}/authorize?client_id=spa&response_type=code&redirect_uri=https://spa.test/cb&scope=openid&{}",
        provider.issuer,
        challenge()
    );
    let spa_code = provider.code(&mut browser, &spa).await;
    let fields = [
        ("grant_type", "authorization_code"),
        ("code", spa_code.as_str()),
        ("redirect_uri", "https://spa.test/cb"),
        ("code_verifier", VERIFIER),
    ];
    let spa_tokens = provider.token("spa", &fields).await;
    assert_eq!(spa_tokens.status, 200, "{}", spa_tokens.body);
    let rotated = provider.refresh("spa", &spa_tokens.text("refresh_token")).await;
    assert_eq!(rotated.status, 200, "{}", rotated.body);
    assert_ne!(rotated.text("refresh_token"), spa_tokens.text("refresh_token"));
    let revoked = provider.call("first", "/revoke", &[("token", &refreshed.text("access_token"))]).await;
    assert_eq!(revoked.status, 200);

    let mut files = Vec::new();
    for name in ["keyward.db", "keyward.db-wal"] {
        files.extend(fs::read(provider.dir.path().join(name)).expect("a file of the database"));
    }
    for (name, known) in
        [("a username", "alice@example.com"), ("a client", "https://app.test/cb"), ("an event", "signed_in")]
    {
        assert!(contains(&files, known.as_bytes()), "{name} should be there: is this the database?");
    }

    // Of texts with public parts, the part that is secret.
    let code_secret = |code: &str| code.rsplit('.').next().expect("a secret part").to_owned();
    let tail = |token: &str| token[token.len() - 40..].to_owned();
    let mut secrets = vec![
        ("password", "correct horse".to_owned()),
        ("mistyped password", "mistyped horse 42".to_owned()),
        ("client secret", "first-secret".to_owned()),
        ("session cookie", session.clone()),
        ("form token", csrf),
        ("code", code_secret(&code)),
        ("code of the app without a secret", code_secret(&spa_code)),
        ("code verifier", VERIFIER.to_owned()),
    ];
    for answer in [&tokens, &refreshed, &spa_tokens, &rotated] {
        for name in ["access_token", "id_token", "refresh_token"] {
            if let Some(token) = answer.body[name].as_str() {
                secrets.push((name, tail(token)));
            }
        }
    }
    let master = fs::read_to_string(provider.dir.path().join("keys/master.key")).expect("a key");
    secrets.push(("master key", master.trim_end().to_owned()));
    for (name, secret) in &secrets {
        assert!(!contains(&files, secret.as_bytes()), "the {name} lies in the database");
    }
    // Nor the bytes that those texts stand for.
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).expect("base64url");
    let mut bytes = vec![
        ("session cookie", decode(&session)),
        ("code", decode(&code_secret(&code))),
        ("code of the app without a secret", decode(&code_secret(&spa_code))),
        ("master key", decode(master.trim_end())),
    ];
    for answer in [&tokens, &refreshed, &spa_tokens, &rotated] {
        if let Some(token) = answer.body["refresh_token"].as_str() {
            let whole = decode(token.strip_prefix("kw_rt_").expect("a refresh token"));
            bytes.push(("authenticity code of a refresh token", whole[whole.len() - 32..].to_vec()));
        }
    }
    for (name, bytes) in bytes {
        for shape in encodings(&bytes[..24]) {
            assert!(!contains(&files, &shape), "the {name} lies in the database in another form");
        }
    }
}
