//! The store's promises, on both databases: what races decide, what a failure leaves behind, what other processes
//! learn, and what is forgotten when.

#![allow(clippy::disallowed_methods)] // Deadlines are real time.

use std::collections::HashMap;
use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use keyward::ambient::{SystemRng, random_bytes};
use keyward::config::{Sources, load};
use keyward::crypto::secret::Secret;
use keyward::protocol::claims::{Authentication, ClaimsRequest};
use keyward::protocol::client::{Client, ClientMetadata};
use keyward::protocol::client_auth::StoredSecret;
use keyward::protocol::grant::GrantRecord;
use keyward::protocol::ids::{ClientId, GrantId, SessionId, UserId};
use keyward::protocol::time::{Span, Timestamp};
use keyward::protocol::user::LoginName;
use keyward::store::clients::ClientRecord;
use keyward::store::events::{Event, EventKind};
use keyward::store::grants::{GrantCreation, NewGrant};
use keyward::store::limits::{Ask, Reserved, Settled};
use keyward::store::sessions::{NewSession, Proof, Replaced};
use keyward::store::users::{Created, NewUser, REALM_DIRECT};
use keyward::store::{Store, StoreError};
use tempfile::TempDir;

use crate::on_both_databases;
use crate::support::audit::{an_operator, put_client};
use crate::support::process::wait_for;
use crate::support::{Backend, Provider, open_store};

pub const NOW: Timestamp = Timestamp(1_800_000_000_000);
pub const FAR: Timestamp = Timestamp(1_900_000_000_000);
const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$AAAA$AAAA";
const IDLE: Span = Span::hours(12);
/// How long events are kept.
const KEPT: Span = Span::days(90);

fn fresh() -> [u8; 16] {
    random_bytes(&SystemRng)
}

fn person(username: &str) -> NewUser {
    NewUser {
        of_partner: None,
        id: UserId::from_random(fresh()),
        username: Some(username.to_owned()),
        email: None,
        email_verified: false,
        claims: serde_json::Map::new(),
        roles: Vec::new(),
        groups: Vec::new(),
        password_hash: Some(Secret::new(HASH.to_owned())),
        disabled_at: None,
    }
}

fn with_email(username: &str, email: &str) -> NewUser {
    NewUser { email: Some(email.to_owned()), ..person(username) }
}

/// Makes a person whose name nobody has.
pub async fn somebody(store: &Store) -> UserId {
    let user = person(&format!("user-{}", UserId::from_random(fresh())));
    let id = user.id.clone();
    assert_eq!(store.create_user(user, event(NOW), NOW).await.expect("created"), Created::Yes);
    id
}

fn app_called(id: &str, name: &str) -> ClientRecord {
    let metadata = ClientMetadata {
        client_name: Some(name.to_owned()),
        redirect_uris: vec![format!("https://{}.test/cb", id.to_lowercase())],
        ..ClientMetadata::default()
    };
    ClientRecord {
        client: Client { id: ClientId::new(id), metadata, disabled_at: None },
        secrets: Vec::new(),
        declared: false,
        created_at: NOW,
    }
}

async fn name_of(store: &Store, id: &str) -> Option<String> {
    let record = store.client(&ClientId::new(id)).await.expect("an answer")?;
    record.client.metadata.client_name.clone()
}

fn authentication() -> Authentication {
    Authentication { auth_time: Some(NOW), acr: "urn:test".to_owned(), amr: vec!["pwd".to_owned()] }
}

fn session_of(user_id: &UserId, id: &SessionId, secret: u8, expires_at: Timestamp) -> NewSession {
    NewSession {
        id: id.clone(),
        token_hash: [secret; 32],
        user_id: user_id.clone(),
        proof: Proof::Password(NOW),
        authentication: authentication(),
        expires_at,
    }
}

/// A grant of the client `first` for this person; online where `session` is given.
fn grant_for(user_id: &UserId, id: &GrantId, session: Option<&SessionId>) -> NewGrant {
    let grant = GrantRecord {
        id: id.clone(),
        client_id: ClientId::new("first"),
        user_id: user_id.clone(),
        session_id: session.cloned(),
        api_key_id: None,
        facade: false,
        scope: "openid".parse().expect("a scope"),
        resources: Vec::new(),
        claims: ClaimsRequest::default(),
        authentication: authentication(),
        offline: session.is_none(),
        nonce: None,
        redirect_uri: None,
        code_challenge: None,
        code_expires_at: NOW + Span::minutes(1),
        redeemed_at: None,
        refresh: None,
        revoked_at: None,
    };
    NewGrant { grant, code_hash: Some([1; 32]), refresh_seed: [2; 32], expires_at: FAR, event: None }
}

pub async fn new_grant(store: &Store, user_id: &UserId, session: Option<&SessionId>) -> GrantId {
    let id = GrantId::from_random(fresh());
    let written = store.create_grant(grant_for(user_id, &id, session), NOW).await;
    assert_eq!(written.expect("an answer"), GrantCreation::Created);
    id
}

fn event(at: Timestamp) -> Event {
    Event {
        id: UserId::from_random(fresh()).to_string(),
        at,
        kind: EventKind::SignedIn,
        user_id: None,
        client_id: None,
        address: None,
        detail: serde_json::Map::new(),
    }
}

fn replacing(id: &SessionId) -> Replaced {
    Replaced { id: id.clone(), event: event(NOW) }
}

/// Begins the session of somebody whose password was right a moment ago.
async fn begin(store: &Store, new: NewSession, replaced: Option<&SessionId>, now: Timestamp) {
    assert!(store.begin_session(new, replaced.map(replacing), event(now), now).await.expect("an answer"));
}

async fn is_revoked(store: &Store, id: &GrantId) -> bool {
    store.grant(id).await.expect("an answer").expect("a grant").grant.revoked_at.is_some()
}

/// Runs them all at once, each as a task of its own.
async fn at_once<F>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
    join_all(tasks).await.into_iter().map(|joined| joined.expect("no panic")).collect()
}

async fn rows(provider: &Provider) -> HashMap<String, i64> {
    provider.row_counts().await.into_iter().collect()
}

mod opening {
    use super::*;

    async fn at_once_on_an_empty_database(backend: Backend, rounds: usize) {
        for _ in 0..rounds {
            let dir = TempDir::new().expect("a directory");
            let url = backend.create(dir.path()).await;
            let opened = at_once((0..8).map(|_| {
                let url = url.clone();
                async move { open_store(&url).await }
            }))
            .await;
            for store in &opened {
                let store = store.as_ref().unwrap_or_else(|error| panic!("{backend:?}: {error}"));
                assert!(store.clients().await.expect("tables").is_empty());
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn processes_that_start_at_once_on_an_empty_sqlite_take_turns() {
        at_once_on_an_empty_database(Backend::Sqlite, 40).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn processes_that_start_at_once_on_an_empty_postgres_take_turns() {
        at_once_on_an_empty_database(Backend::Postgres, 4).await;
    }

    #[tokio::test]
    async fn a_second_start_finds_everything_as_it_was() {
        for backend in Backend::BOTH {
            let dir = TempDir::new().expect("a directory");
            let url = backend.create(dir.path()).await;
            let store = open_store(&url).await.expect("the first time");
            store.create_client(app_called("kept", "Kept"), event(NOW)).await.expect("written");
            store.close().await;
            for _ in 0..2 {
                let store = open_store(&url).await.expect("another time");
                assert_eq!(name_of(&store, "kept").await.as_deref(), Some("Kept"), "{backend:?}");
                store.close().await;
            }
        }
    }

    /// During a roll-out the new release migrates while the old one still starts here and there.
    #[tokio::test]
    async fn a_database_that_a_newer_release_migrated_still_opens() {
        use sqlx::Connection as _;
        for backend in Backend::BOTH {
            let dir = TempDir::new().expect("a directory");
            let url = backend.create(dir.path()).await;
            open_store(&url).await.expect("the first time").close().await;
            let mut conn = sqlx::AnyConnection::connect(&url).await.expect("the database");
            sqlx::query(
                "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 SELECT 99991231235959, 'from the future', success, checksum, 0 FROM _sqlx_migrations LIMIT 1",
            )
            .execute(&mut conn)
            .await
            .expect("a later migration");
            conn.close().await.expect("closed");
            open_store(&url).await.unwrap_or_else(|error| panic!("{backend:?}: {error}"));
        }
    }

    #[tokio::test]
    async fn a_database_that_cannot_be_opened_is_an_error_and_not_a_new_one() {
        let dir = TempDir::new().expect("a directory");
        let file = dir.path().join("keyward.db");
        std::fs::write(&file, "this is a text, and long enough to be no empty database at all\n".repeat(50))
            .expect("written");
        let error = open_store(&format!("sqlite://{}", file.display())).await.err().expect("refused");
        assert!(error.to_string().contains("not a database"), "{error}");
        assert!(std::fs::read_to_string(&file).expect("untouched").starts_with("this is a text"));
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode()
            & 0o777
    }

    #[tokio::test]
    async fn the_files_of_sqlite_are_for_their_owner_alone() {
        let dir = TempDir::new().expect("a directory");
        let store =
            open_store(&format!("sqlite://{}/deeper/keyward.db", dir.path().display())).await.expect("an open store");
        store.create_client(app_called("a", "A"), event(NOW)).await.expect("written");
        for name in ["keyward.db", "keyward.db-wal", "keyward.db-shm", "keyward.db.lock"] {
            assert_eq!(mode(&dir.path().join("deeper").join(name)), 0o600, "{name}");
        }
    }

    /// `database.url` is a URL: a space in a directory's name stands in it as `%20`, and the configuration writes
    /// its default that way.
    #[tokio::test]
    async fn a_path_that_a_url_has_to_escape_means_the_file_it_names() {
        let dir = TempDir::new().expect("a directory");
        let place = dir.path().join("My Site 50%");
        std::fs::create_dir(&place).expect("a directory");
        let file = place.join("keyward.toml");
        std::fs::write(&file, "issuer = \"https://id.test\"\n").expect("written");
        let loaded = load(Sources { files: vec![file], ..Sources::default() }).expect("a configuration");
        let url = &loaded.config.database.url;
        let store = open_store(url).await.unwrap_or_else(|error| panic!("{url:?}: {error}"));
        store.create_client(app_called("a", "A"), event(NOW)).await.expect("written");
        assert_eq!(mode(&place.join("data").join("keyward.db")), 0o600);
        let made: Vec<_> = std::fs::read_dir(dir.path()).expect("a directory").collect();
        assert_eq!(made.len(), 1, "a directory of another name was made: {made:?}");
    }
}

/// What asking for one place came to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum One {
    /// With so many left.
    Taken(usize),
    FreeAt(Timestamp),
}

async fn reserve_one(store: &Store, bucket: &str, places: usize, window: Span, at: Timestamp) -> One {
    let ask = Ask { bucket: bucket.to_owned(), places, window, binds: true };
    match store.reserve(vec![ask], at).await.expect("an answer") {
        Reserved::Yes(taken) => One::Taken(taken[0].expect("a place that binds").left),
        Reserved::No { free_at, .. } => One::FreeAt(free_at),
    }
}

on_both_databases! {
    async fn of_fifty_people_who_want_one_username_one_gets_it(provider: Provider) {
        let before = rows(&provider).await;
        let made = at_once((0..50).map(|_| {
            let store = provider.app.store.clone();
            async move { store.create_user(person("carol"), event(NOW), NOW).await.expect("an answer") }
        }))
        .await;
        assert_eq!(made.iter().filter(|made| **made == Created::Yes).count(), 1);
        assert_eq!(made.iter().filter(|made| **made == Created::UsernameTaken).count(), 49);
        let after = rows(&provider).await;
        for table in ["subjects", "users", "identifiers", "passwords"] {
            assert_eq!(after[table] - before[table], 1, "{table}: something half-written stayed");
        }
    }

    async fn of_fifty_people_who_want_one_address_one_gets_it_and_the_others_lose_nothing(provider: Provider) {
        let before = rows(&provider).await;
        let made = at_once((0..50).map(|n| {
            let store = provider.app.store.clone();
            let user = with_email(&format!("dora-{n}"), "dora@example.com");
            async move { store.create_user(user, event(NOW), NOW).await.expect("an answer") }
        }))
        .await;
        assert_eq!(made.iter().filter(|made| **made == Created::Yes).count(), 1);
        assert_eq!(made.iter().filter(|made| **made == Created::EmailTaken).count(), 49);
        let after = rows(&provider).await;
        assert_eq!(after["identifiers"] - before["identifiers"], 2, "one username and one address");
        // The usernames that came with the refused address are free again.
        let loser = made.iter().position(|made| *made == Created::EmailTaken).expect("a loser");
        let again = provider.app.store.create_user(person(&format!("dora-{loser}")), event(NOW), NOW).await;
        assert_eq!(again.expect("an answer"), Created::Yes);
    }

    async fn a_refused_write_takes_none_of_its_neighbours_along(provider: Provider) {
        provider.app.store.create_user(with_email("taken", "taken@example.com"), event(NOW), NOW).await.expect("created");
        provider.app.store.create_client(app_called("taken", "Taken"), event(NOW)).await.expect("created");
        let before = rows(&provider).await;
        let outcomes = at_once((0..50).map(|n| {
            let store = provider.app.store.clone();
            async move {
                match n % 5 {
                    0 => store.create_user(person("taken"), event(NOW), NOW).await.map(|made| made == Created::Yes),
                    1 => {
                        let user = with_email(&format!("half-{n}"), "taken@example.com");
                        store.create_user(user, event(NOW), NOW).await.map(|made| made == Created::Yes)
                    }
                    2 => store.create_client(app_called("taken", "Again"), event(NOW)).await.map(|()| true),
                    3 => store.create_user(person(&format!("good-{n}")), event(NOW), NOW).await.map(|made| made == Created::Yes),
                    _ => store.create_client(app_called(&format!("good-{n}"), "Good"), event(NOW)).await.map(|()| true),
                }
            }
        }))
        .await;
        for (n, outcome) in outcomes.iter().enumerate() {
            match n % 5 {
                0 | 1 => assert!(matches!(outcome, Ok(false)), "{n}: {outcome:?}"),
                2 => assert!(matches!(outcome, Err(StoreError::Conflict(_))), "{n}: {outcome:?}"),
                _ => assert!(matches!(outcome, Ok(true)), "{n}: {outcome:?}"),
            }
        }
        let after = rows(&provider).await;
        assert_eq!(after["users"] - before["users"], 10);
        assert_eq!(after["clients"] - before["clients"], 10);
        assert_eq!(after["subjects"] - before["subjects"], 20);
        assert_eq!(after["identifiers"] - before["identifiers"], 10);
        // The name of a client that was refused is not the new one.
        assert_eq!(name_of(&provider.app.store, "taken").await.as_deref(), Some("Taken"));
    }

    async fn a_write_for_somebody_who_does_not_exist_is_refused_alone(provider: Provider) {
        let user = somebody(&provider.app.store).await;
        let nobody = UserId::from_random(fresh());
        let outcomes = at_once((0..20).map(|n| {
            let store = provider.app.store.clone();
            let owner = if n % 2 == 0 { user.clone() } else { nobody.clone() };
            async move { store.create_grant(grant_for(&owner, &GrantId::from_random(fresh()), None), NOW).await }
        }))
        .await;
        for (n, outcome) in outcomes.iter().enumerate() {
            match n % 2 {
                0 => assert!(matches!(outcome, Ok(GrantCreation::Created)), "{n}: {outcome:?}"),
                _ => assert!(matches!(outcome, Ok(GrantCreation::Ended)), "{n}: {outcome:?}"),
            }
        }
    }

    async fn a_caller_who_goes_away_does_not_stop_the_write(provider: Provider) {
        for n in 0..10 {
            let mut write = Box::pin(provider.app.store.create_user(person(&format!("left-{n}")), event(NOW), NOW));
            let _ = futures_util::poll!(write.as_mut());
            drop(write);
        }
        for n in 0..10 {
            let name = LoginName::Username(format!("left-{n}"));
            wait_for("the person", async || {
                provider.app.store.user_by_login(REALM_DIRECT, &name).await.expect("an answer")
            })
            .await;
        }
    }

    async fn expired_rows_go_and_live_ones_stay_while_others_are_served(provider: Provider) {
        let store = &provider.app.store;
        let user = somebody(store).await;
        let (past, at) = (NOW - Span::minutes(1), NOW);
        let before = rows(&provider).await;
        // Far more than one batch of the two cheapest kinds, more than one of the others.
        at_once((0..900).map(|n| {
            let (store, user) = (store.clone(), user.clone());
            async move {
                let name = format!("{n}");
                store.revoke_access_token(format!("old-{name}"), past, event(past - KEPT)).await.expect("written");
                if n < 250 {
                    store.park_ticket(format!("old-{name}"), name.clone(), past).await.expect("written");
                    let earlier = at - Span::hours(1);
                    reserve_one(&store, &format!("old-{name}"), 5, Span::minutes(15), earlier).await;
                    let mut session = session_of(&user, &SessionId::from_random(fresh()), 0, past);
                    session.token_hash = random_bytes(&SystemRng);
                    begin(&store, session, None, past).await;
                    let mut grant = grant_for(&user, &GrantId::from_random(fresh()), None);
                    grant.expires_at = past;
                    let written = store.create_grant(grant, past).await.expect("an answer");
                    assert_eq!(written, GrantCreation::Created);
                    store.record_event(event(past - KEPT)).await.expect("written");
                }
            }
        }))
        .await;
        store.revoke_access_token("live".to_owned(), FAR, event(NOW)).await.expect("written");
        store.park_ticket("live".to_owned(), "sealed".to_owned(), FAR).await.expect("written");
        reserve_one(store, "live", 1, Span::minutes(15), at).await;
        let session = SessionId::from_random(fresh());
        begin(store, session_of(&user, &session, 9, FAR), None, at).await;
        let grant = new_grant(store, &user, None).await;
        store.record_event(event(at - Span::days(89))).await.expect("written");

        let purge = tokio::spawn({
            let store = store.clone();
            async move { store.purge_expired(KEPT, at).await.expect("purged") }
        });
        // Reads and writes are answered between the batches, not after the last of them.
        let (mut reads, mut writes) = (0, 0);
        while !purge.is_finished() {
            assert!(store.is_access_token_revoked("live").await.expect("an answer"));
            reads += u32::from(!purge.is_finished());
            store.touch_session(session.clone(), at).await.expect("written");
            writes += u32::from(!purge.is_finished());
        }
        assert!(reads > 0 && writes > 0, "{reads} reads and {writes} writes during the purge");
        // Each token with the event of its end.
        assert_eq!(purge.await.expect("no panic"), 2 * 900 + 5 * 250);

        let after = rows(&provider).await;
        for table in ["used_ids", "pushed_requests", "limits", "sessions", "grants"] {
            assert_eq!(after[table] - before[table], 1, "{table}");
        }
        assert_eq!(after["events"] - before["events"], 251 + 2, "those of the sign-ins are young, and so are two more");
        assert!(store.is_access_token_revoked("live").await.expect("an answer"));
        assert_eq!(store.parked_ticket("live", at).await.expect("an answer").as_deref(), Some("sealed"));
        assert!(store.session([9; 32], IDLE, at).await.expect("an answer").is_some());
        assert!(store.grant(&grant).await.expect("an answer").is_some());
        let taken = reserve_one(store, "live", 1, Span::minutes(15), at).await;
        assert!(matches!(taken, One::FreeAt(_)), "{taken:?}");
        assert_eq!(store.purge_expired(KEPT, at).await.expect("purged"), 0);
    }

    /// Every process removes what expired, whenever it happens to. The rows of somebody whom an operator ends at the
    /// same moment are among them.
    async fn two_processes_that_purge_at_once_remove_each_row_once_and_stop_nobody(provider: Provider) {
        let (ours, theirs) = (provider.app.store.clone(), provider.second().await.0.store.clone());
        for round in 0..4_i64 {
            let user = somebody(&ours).await;
            let (past, at) = (NOW + Span::days(round), NOW + Span::days(round) + Span::minutes(1));
            at_once((0..330).map(|n| {
                let (store, user) = (if n % 2 == 0 { ours.clone() } else { theirs.clone() }, user.clone());
                async move {
                    store.revoke_access_token(format!("{round}-{n}"), past, event(NOW)).await.expect("written");
                    let mut session = session_of(&user, &SessionId::from_random(fresh()), 0, past);
                    session.token_hash = random_bytes(&SystemRng);
                    begin(&store, session, None, NOW).await;
                    let mut grant = grant_for(&user, &GrantId::from_random(fresh()), None);
                    // Some of them go on, so that what is ended and what is removed lie side by side.
                    grant.expires_at = if n % 3 == 0 { FAR } else { past };
                    assert_eq!(store.create_grant(grant, NOW).await.expect("an answer"), GrantCreation::Created);
                }
            }))
            .await;
            let (first, second, disabled, changed, live) = tokio::join!(
                ours.purge_expired(KEPT, at),
                theirs.purge_expired(KEPT, at),
                ours.set_user_disabled(user.clone(), Some(at), event(at), at),
                theirs.set_password(user.clone(), Secret::new("new hash".to_owned()), event(at), at),
                theirs.revoke_access_token(format!("live-{round}"), FAR, event(NOW)),
            );
            assert!(disabled.expect("disabled") && changed.expect("changed"));
            live.expect("written");
            // What those two were at stayed until the next time.
            let third = ours.purge_expired(KEPT, at).await.expect("purged");
            let removed = first.expect("purged") + second.expect("purged") + third;
            // Sessions also go with their person.
            assert!((330 + 220..=330 + 220 + 330).contains(&removed), "{removed} in round {round}");
            assert_eq!(theirs.purge_expired(KEPT, at).await.expect("purged"), 0);
            let after = rows(&provider).await;
            let rounds = round + 1;
            assert_eq!((after["used_ids"], after["sessions"], after["grants"]), (rounds, 0, 110 * rounds));
        }
    }

    async fn fifty_attempts_at_once_get_no_more_places_than_there_are(provider: Provider) {
        let outcomes = at_once((0..50).map(|_| {
            let store = provider.app.store.clone();
            async move { reserve_one(&store, "door", 5, Span::minutes(15), NOW).await }
        }))
        .await;
        let mut left: Vec<usize> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                One::Taken(left) => Some(*left),
                One::FreeAt(_) => None,
            })
            .collect();
        left.sort_unstable();
        assert_eq!(left, [0, 1, 2, 3, 4], "five places, each given once");
        let free_at = NOW + Span::minutes(15);
        let refused = outcomes.iter().filter(|outcome| **outcome == One::FreeAt(free_at)).count();
        assert_eq!(refused, 45, "{outcomes:?}");
    }

    async fn places_become_free_one_by_one_as_the_window_slides(provider: Provider) {
        let store = &provider.app.store;
        let window = Span::minutes(15);
        let reserve = async |at: Timestamp| reserve_one(store, "door", 3, window, at).await;
        let (first, second, third) = (NOW, NOW + Span::minutes(5), NOW + Span::minutes(6));
        assert_eq!(reserve(first).await, One::Taken(2));
        assert_eq!(reserve(second).await, One::Taken(1));
        assert_eq!(reserve(third).await, One::Taken(0));
        assert_eq!(reserve(NOW + Span::minutes(7)).await, One::FreeAt(first + window));
        let almost = first + window - Span::from_millis(1);
        assert_eq!(reserve(almost).await, One::FreeAt(first + window));
        assert_eq!(reserve(first + window).await, One::Taken(0), "whoever waits as told is let in");
        assert_eq!(reserve(first + window).await, One::FreeAt(second + window));
        assert_eq!(reserve(FAR).await, One::Taken(2));
    }

    async fn a_place_that_is_given_back_can_be_taken_again(provider: Provider) {
        let store = &provider.app.store;
        let window = Span::minutes(15);
        let reserve = async |at: Timestamp| reserve_one(store, "door", 2, window, at).await;
        let later = NOW + Span::minutes(1);
        assert_eq!(reserve(NOW).await, One::Taken(1));
        assert_eq!(reserve(later).await, One::Taken(0));
        store.settle(vec![Settled::Refunded("door".to_owned(), later)]).await.expect("refunded");
        // What was never taken cannot be given back.
        store.settle(vec![Settled::Refunded("door".to_owned(), later)]).await.expect("no such place");
        store.settle(vec![Settled::Refunded("nowhere".to_owned(), later)]).await.expect("no such bucket");
        assert_eq!(reserve(later).await, One::Taken(0));
        assert_eq!(reserve(later).await, One::FreeAt(NOW + window));
        store.settle(vec![Settled::Forgiven("door".to_owned())]).await.expect("forgotten");
        assert_eq!(reserve(later).await, One::Taken(1));
    }

    async fn fifty_refunds_at_once_give_back_exactly_what_they_took(provider: Provider) {
        at_once((0..50).map(|_| {
            let store = provider.app.store.clone();
            async move {
                let taken = reserve_one(&store, "busy", 100, Span::minutes(15), NOW).await;
                assert!(matches!(taken, One::Taken(_)), "{taken:?}");
                store.settle(vec![Settled::Refunded("busy".to_owned(), NOW)]).await.expect("refunded");
            }
        }))
        .await;
        let last = reserve_one(&provider.app.store, "busy", 100, Span::minutes(15), NOW).await;
        assert_eq!(last, One::Taken(99));
    }

    /// Of two requests the one that looked at its clock first may be the second to take its place; so it is all the
    /// time with two processes. What the other took can still be given back.
    async fn a_place_can_be_given_back_after_a_slower_clock_took_one(provider: Provider) {
        let store = &provider.app.store;
        let window = Span::minutes(15);
        let (behind, ahead) = (NOW, NOW + Span::from_millis(3));
        let reserve = async |at: Timestamp| reserve_one(store, "door", 5, window, at).await;
        assert_eq!(reserve(ahead).await, One::Taken(4));
        assert_eq!(reserve(behind).await, One::Taken(3));
        store.settle(vec![Settled::Refunded("door".to_owned(), ahead)]).await.expect("refunded");
        store.settle(vec![Settled::Refunded("door".to_owned(), behind)]).await.expect("refunded");
        assert_eq!(reserve(ahead).await, One::Taken(4), "nothing is taken any more");
    }

    async fn a_clock_that_was_set_back_locks_nobody_out_for_longer_than_the_window(provider: Provider) {
        let store = &provider.app.store;
        let window = Span::minutes(15);
        let reserve = async |at: Timestamp| reserve_one(store, "door", 2, window, at).await;
        reserve(NOW).await;
        reserve(NOW).await;
        let back = NOW - Span::hours(6);
        match reserve(back).await {
            One::Taken(_) => {}
            One::FreeAt(free_at) => {
                assert!(free_at <= back + window, "told to wait {}", free_at - back);
                // A minute later somebody tries again; that must not begin the wait anew.
                reserve(back + Span::minutes(1)).await;
                let after = reserve(free_at).await;
                assert!(matches!(after, One::Taken(_)), "told to come at {free_at:?}, and then: {after:?}");
            }
        }
    }

    async fn of_fifty_redemptions_of_one_code_one_succeeds(provider: Provider) {
        let user = somebody(&provider.app.store).await;
        let id = new_grant(&provider.app.store, &user, None).await;
        let outcomes = at_once((0..50).map(|_| {
            let (store, id) = (provider.app.store.clone(), id.clone());
            async move { store.redeem_code(id, Some(FAR), FAR, NOW).await.expect("an answer") }
        }))
        .await;
        assert_eq!(outcomes.iter().filter(|redeemed| **redeemed).count(), 1);
        let state = provider.app.store.grant(&id).await.expect("an answer").expect("a grant").grant;
        assert_eq!(state.redeemed_at, Some(NOW));
        assert_eq!(state.refresh.expect("a refresh token").generation, 0);
    }

    async fn of_fifty_rotations_from_one_generation_one_succeeds(provider: Provider) {
        let store = &provider.app.store;
        let user = somebody(store).await;
        let id = new_grant(store, &user, None).await;
        assert!(store.redeem_code(id.clone(), Some(FAR), FAR, NOW).await.expect("an answer"));
        for generation in 0..3 {
            let outcomes = at_once((0..50).map(|_| {
                let (store, id) = (store.clone(), id.clone());
                async move { store.rotate_refresh(id, generation, NOW).await.expect("an answer") }
            }))
            .await;
            assert_eq!(outcomes.iter().filter(|rotated| **rotated).count(), 1, "from {generation}");
        }
        let state = store.grant(&id).await.expect("an answer").expect("a grant").grant.refresh;
        assert_eq!(state.expect("a refresh token").generation, 3);
    }

    async fn of_fifty_grants_under_one_id_one_is_written(provider: Provider) {
        let user = somebody(&provider.app.store).await;
        let id = GrantId::from_random(fresh());
        let outcomes = at_once((0..50).map(|n: u8| {
            let store = provider.app.store.clone();
            let mut grant = grant_for(&user, &id, None);
            grant.code_hash = Some([n; 32]);
            async move { store.create_grant(grant, NOW).await.expect("an answer") }
        }))
        .await;
        let winners: Vec<usize> = (0..50).filter(|n| outcomes[*n] == GrantCreation::Created).collect();
        assert_eq!(winners.len(), 1);
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == GrantCreation::IdUsed).count(), 49);
        let stored = provider.app.store.grant(&id).await.expect("an answer").expect("a grant");
        assert_eq!(stored.code_hash, [u8::try_from(winners[0]).expect("small"); 32], "the winner's code counts");
    }

    async fn a_revocation_is_told_once_and_nothing_revives_the_grant(provider: Provider) {
        let store = &provider.app.store;
        let user = somebody(store).await;
        let id = new_grant(store, &user, None).await;
        let outcomes = at_once((0..50).map(|_| {
            let (store, id) = (store.clone(), id.clone());
            async move { store.revoke_grant(id, "test", event(NOW), NOW).await.expect("an answer") }
        }))
        .await;
        assert_eq!(outcomes.iter().filter(|ended| **ended).count(), 1);
        assert!(!store.redeem_code(id.clone(), Some(FAR), FAR, NOW).await.expect("an answer"));
        assert!(!store.rotate_refresh(id.clone(), 0, NOW).await.expect("an answer"));
        assert!(!store.touch_refresh(id.clone(), NOW).await.expect("an answer"));
        assert!(is_revoked(store, &id).await);
    }

    /// Whatever comes first: a grant whose code is redeemed and which is revoked at the same time ends revoked.
    async fn a_redemption_that_races_with_a_revocation_never_outlives_it(provider: Provider) {
        let store = &provider.app.store;
        let user = somebody(store).await;
        for _ in 0..20 {
            let id = new_grant(store, &user, None).await;
            let (redeem, revoke) =
                tokio::join!(store.redeem_code(id.clone(), Some(FAR), FAR, NOW), store.revoke_grant(id.clone(), "test", event(NOW), NOW));
            redeem.expect("an answer");
            assert!(revoke.expect("an answer"));
            assert!(is_revoked(store, &id).await);
        }
    }

    async fn signing_out_ends_the_session_and_its_online_grants_alone(provider: Provider) {
        let store = &provider.app.store;
        let user = somebody(store).await;
        let (here, elsewhere) = (SessionId::from_random(fresh()), SessionId::from_random(fresh()));
        begin(store, session_of(&user, &here, 1, FAR), None, NOW).await;
        begin(store, session_of(&user, &elsewhere, 2, FAR), None, NOW).await;
        let online = new_grant(store, &user, Some(&here)).await;
        let online_elsewhere = new_grant(store, &user, Some(&elsewhere)).await;
        let offline = GrantId::from_random(fresh());
        let mut grant = grant_for(&user, &offline, Some(&here));
        grant.grant.offline = true;
        let written = store.create_grant(grant, NOW).await.expect("an answer");
        assert_eq!(written, GrantCreation::Created);

        store.end_session(here.clone(), event(NOW), NOW).await.expect("ended");
        assert!(store.session([1; 32], IDLE, NOW).await.expect("an answer").is_none());
        assert!(store.session([2; 32], IDLE, NOW).await.expect("an answer").is_some());
        assert!(is_revoked(store, &online).await);
        assert!(!is_revoked(store, &offline).await);
        assert!(!is_revoked(store, &online_elsewhere).await);
        // Twice is no error.
        store.end_session(here, event(NOW), NOW).await.expect("ended before");
    }

    async fn a_session_that_goes_on_gets_a_new_secret_and_one_that_is_replaced_ends(provider: Provider) {
        let store = &provider.app.store;
        let (user, other) = (somebody(store).await, somebody(store).await);
        let id = SessionId::from_random(fresh());
        begin(store, session_of(&user, &id, 1, FAR), None, NOW).await;
        let grant = new_grant(store, &user, Some(&id)).await;
        // The same person signs in again: the same `sid`, and what hangs on it lives.
        begin(store, session_of(&user, &id, 2, FAR), Some(&id), NOW).await;
        assert!(store.session([1; 32], IDLE, NOW).await.expect("an answer").is_none(), "the old cookie still opens");
        let same = store.session([2; 32], IDLE, NOW).await.expect("an answer").expect("the session");
        assert_eq!((&same.session.id, &same.user.id), (&id, &user));
        assert!(!is_revoked(store, &grant).await);
        // Somebody else signs in at the same browser.
        let next = SessionId::from_random(fresh());
        begin(store, session_of(&other, &next, 3, FAR), Some(&id), NOW).await;
        assert!(store.session([2; 32], IDLE, NOW).await.expect("an answer").is_none());
        assert!(is_revoked(store, &grant).await);
        let now_here = store.session([3; 32], IDLE, NOW).await.expect("an answer").expect("the session");
        assert_eq!(now_here.user.id, other);
    }

    async fn a_session_ends_by_rest_by_age_and_with_its_person(provider: Provider) {
        let store = &provider.app.store;
        let user = somebody(store).await;
        let id = SessionId::from_random(fresh());
        let end = NOW + Span::days(2);
        begin(store, session_of(&user, &id, 1, end), None, NOW).await;
        let open = async |at: Timestamp| store.session([1; 32], IDLE, at).await.expect("an answer").is_some();
        assert!(open(NOW + IDLE - Span::from_millis(1)).await);
        assert!(!open(NOW + IDLE).await, "it rested too long");
        let mut seen = NOW;
        while seen + Span::hours(11) < end {
            seen = seen + Span::hours(11);
            store.touch_session(id.clone(), seen).await.expect("written");
        }
        // A touch that arrives late does not take back a newer one.
        store.touch_session(id.clone(), NOW).await.expect("written");
        assert!(open(end - Span::from_millis(1)).await);
        assert!(!open(end).await, "use does not extend it beyond its end");

        assert!(store.set_user_disabled(user.clone(), Some(NOW), event(NOW), NOW).await.expect("an answer"));
        assert!(!open(seen).await);
        assert!(store.set_user_disabled(user, None, event(NOW), NOW).await.expect("an answer"));
        assert!(!open(seen).await, "a session came back from the dead");
    }

    /// The password was right when it was checked; hashing takes a while, and much can happen in it.
    async fn a_session_does_not_begin_on_a_password_that_is_no_more(provider: Provider) {
        let store = &provider.app.store;
        let (changed, disabled, deleted) = (somebody(store).await, somebody(store).await, somebody(store).await);
        assert!(store.set_password(changed.clone(), Secret::new("new hash".to_owned()), event(NOW), NOW).await.expect("set"));
        assert!(store.set_user_disabled(disabled.clone(), Some(NOW), event(NOW), NOW).await.expect("disabled"));
        assert!(store.delete_user(deleted.clone(), event(NOW)).await.expect("deleted"));
        for user in [&changed, &disabled, &deleted] {
            let session = session_of(user, &SessionId::from_random(fresh()), 1, FAR);
            assert!(!store.begin_session(session, None, event(NOW), NOW).await.expect("an answer"));
            assert!(store.session([1; 32], IDLE, NOW).await.expect("an answer").is_none());
        }
        // What another person had in this browser goes on: nobody took their place.
        let user = somebody(store).await;
        let here = SessionId::from_random(fresh());
        begin(store, session_of(&user, &here, 2, FAR), None, NOW).await;
        let refused = session_of(&changed, &SessionId::from_random(fresh()), 3, FAR);
        assert!(!store.begin_session(refused, Some(replacing(&here)), event(NOW), NOW).await.expect("an answer"));
        assert!(store.session([2; 32], IDLE, NOW).await.expect("an answer").is_some());
    }

    async fn a_sign_in_that_races_with_a_new_password_leaves_no_session(provider: Provider) {
        let store = &provider.app.store;
        for n in 0..30_u8 {
            let user = somebody(store).await;
            let session = session_of(&user, &SessionId::from_random(fresh()), n, FAR);
            let (begun, set) = tokio::join!(
                store.begin_session(session, None, event(NOW), NOW),
                store.set_password(user.clone(), Secret::new("new hash".to_owned()), event(NOW), NOW),
            );
            begun.expect("an answer");
            assert!(set.expect("an answer"));
            assert!(store.session([n; 32], IDLE, NOW).await.expect("an answer").is_none(), "round {n}");
        }
    }

    async fn a_code_that_races_with_a_sign_out_is_revoked_or_never_made(provider: Provider) {
        let store = &provider.app.store;
        let user = somebody(store).await;
        for n in 0..30_u8 {
            let session = SessionId::from_random(fresh());
            begin(store, session_of(&user, &session, n, FAR), None, NOW).await;
            let id = GrantId::from_random(fresh());
            let (made, ended) = tokio::join!(
                store.create_grant(grant_for(&user, &id, Some(&session)), NOW),
                store.end_session(session.clone(), event(NOW), NOW),
            );
            ended.expect("ended");
            match made.expect("an answer") {
                GrantCreation::Created => assert!(is_revoked(store, &id).await, "round {n}"),
                GrantCreation::Ended => assert!(store.grant(&id).await.expect("an answer").is_none()),
                GrantCreation::IdUsed => panic!("nobody used it"),
            }
            let late = store.create_grant(grant_for(&user, &GrantId::from_random(fresh()), Some(&session)), NOW).await;
            assert_eq!(late.expect("an answer"), GrantCreation::Ended);
        }
    }

    async fn a_code_that_races_with_the_deletion_of_its_person_stops_neither_for_long(provider: Provider) {
        let store = &provider.app.store;
        for n in 0..30_u8 {
            let user = somebody(store).await;
            let session = SessionId::from_random(fresh());
            begin(store, session_of(&user, &session, n, FAR), None, NOW).await;
            let id = GrantId::from_random(fresh());
            let (made, deleted) = tokio::join!(
                store.create_grant(grant_for(&user, &id, Some(&session)), NOW),
                store.delete_user(user.clone(), event(NOW)),
            );
            assert!(deleted.unwrap_or_else(|error| panic!("round {n}: {error}")));
            match made {
                Ok(GrantCreation::Created | GrantCreation::Ended) | Err(StoreError::Conflict(_)) => {}
                other => panic!("round {n}: {other:?}"),
            }
            assert!(store.grant(&id).await.expect("an answer").is_none());
        }
    }

    async fn a_new_password_and_a_disabled_account_end_everything_of_one_person_alone(provider: Provider) {
        let store = &provider.app.store;
        let (user, other) = (somebody(store).await, somebody(store).await);
        for change in ["password", "disabled"] {
            let (mine, theirs) = (SessionId::from_random(fresh()), SessionId::from_random(fresh()));
            // At the same time as the first, had nobody looked.
            let set_at = if change == "password" { NOW } else { NOW + Span::from_millis(1) };
            let new = NewSession { proof: Proof::Password(set_at), ..session_of(&user, &mine, 1, FAR) };
            begin(store, new, None, NOW).await;
            begin(store, session_of(&other, &theirs, 2, FAR), None, NOW).await;
            let grants = [
                new_grant(store, &user, Some(&mine)).await,
                new_grant(store, &user, None).await,
                new_grant(store, &other, None).await,
            ];
            let done = match change {
                "password" => store.set_password(user.clone(), Secret::new("new hash".to_owned()), event(NOW), NOW).await,
                _ => store.set_user_disabled(user.clone(), Some(NOW), event(NOW), NOW).await,
            };
            assert!(done.expect("an answer"), "{change}");
            assert!(store.session([1; 32], IDLE, NOW).await.expect("an answer").is_none(), "{change}");
            assert!(store.session([2; 32], IDLE, NOW).await.expect("an answer").is_some(), "{change}");
            assert!(is_revoked(store, &grants[0]).await && is_revoked(store, &grants[1]).await, "{change}");
            assert!(!is_revoked(store, &grants[2]).await, "{change}");
            store.end_session(theirs, event(NOW), NOW).await.expect("ended");
        }
        let nobody = UserId::from_random(fresh());
        assert!(!store.set_password(nobody.clone(), Secret::new("x".to_owned()), event(NOW), NOW).await.expect("an answer"));
        assert!(!store.set_user_disabled(nobody, Some(NOW), event(NOW), NOW).await.expect("an answer"));
    }

    /// A hash of today's cost replaces the old one only while it is still the old password's.
    async fn an_upgraded_hash_never_brings_back_an_old_password(provider: Provider) {
        let store = &provider.app.store;
        let user = person("erin");
        let id = user.id.clone();
        let old = user.password_hash.clone().expect("a hash");
        store.create_user(user, event(NOW), NOW).await.expect("created");
        store.set_password(id.clone(), Secret::new("the new password's".to_owned()), event(NOW), NOW).await.expect("set");
        store.upgrade_password_hash(id, old, Secret::new("the old password's".to_owned())).await.expect("an answer");
        let name = LoginName::Username("erin".to_owned());
        let (_, password) = store.user_by_login(REALM_DIRECT, &name).await.expect("an answer").expect("erin");
        assert_eq!(password.expect("a password").hash.expose(), "the new password's");
    }

    async fn a_deleted_person_leaves_nothing_but_the_taken_sub(provider: Provider) {
        let store = &provider.app.store;
        let empty = rows(&provider).await;
        let user = with_email("frank", "frank@example.com");
        let id = user.id.clone();
        store.create_user(user, event(NOW), NOW).await.expect("created");
        let session = SessionId::from_random(fresh());
        begin(store, session_of(&id, &session, 1, FAR), None, NOW).await;
        let grant = new_grant(store, &id, None).await;
        assert!(store.delete_user(id.clone(), event(NOW)).await.expect("an answer"));
        assert!(!store.delete_user(id.clone(), event(NOW)).await.expect("an answer"), "deleted twice");
        let after = rows(&provider).await;
        for table in ["users", "identifiers", "passwords", "sessions", "grants", "consents"] {
            assert_eq!(after[table], empty[table], "{table}");
        }
        assert_eq!(after["subjects"] - empty["subjects"], 1);
        assert!(store.grant(&grant).await.expect("an answer").is_none());
        assert!(store.session([1; 32], IDLE, NOW).await.expect("an answer").is_none());

        let as_client = store.create_client(app_called(id.as_str(), "Impostor"), event(NOW)).await;
        assert!(matches!(as_client, Err(StoreError::Conflict(_))), "{as_client:?}");
        let as_person = store.create_user(NewUser { id: id.clone(), ..person("impostor") }, event(NOW), NOW).await;
        assert_eq!(as_person.expect("an answer"), Created::IdTaken);
        // The names are free, for somebody with another `sub`.
        let again = store.create_user(with_email("frank", "frank@example.com"), event(NOW), NOW).await;
        assert_eq!(again.expect("an answer"), Created::Yes);
    }

    async fn a_deleted_person_takes_along_what_they_allowed(provider: Provider) {
        let url = provider.authorize_url_for("web", "scope=openid+email");
        provider.code(&mut provider.browser(), &url).await;
        assert_eq!(rows(&provider).await["consents"], 1);
        let name = LoginName::Username("alice".to_owned());
        let (alice, _) =
            provider.app.store.user_by_login(REALM_DIRECT, &name).await.expect("an answer").expect("alice");
        assert!(provider.app.store.delete_user(alice.id, event(NOW)).await.expect("an answer"));
        let after = rows(&provider).await;
        for table in ["consents", "grants", "sessions"] {
            assert_eq!(after[table], 0, "{table}");
        }
    }

    async fn a_deleted_client_leaves_nothing_but_the_taken_id(provider: Provider) {
        let store = &provider.app.store;
        store.create_client(app_called("gone", "Gone"), event(NOW)).await.expect("created");
        let user = somebody(store).await;
        let id = GrantId::from_random(fresh());
        let mut grant = grant_for(&user, &id, None);
        grant.grant.client_id = ClientId::new("gone");
        let written = store.create_grant(grant, NOW).await.expect("an answer");
        assert_eq!(written, GrantCreation::Created);
        assert!(store.delete_client(ClientId::new("gone"), event(NOW)).await.expect("an answer"));
        assert!(name_of(store, "gone").await.is_none());
        assert!(store.grant(&id).await.expect("an answer").is_none());
        let again = store.create_client(app_called("gone", "Back"), event(NOW)).await;
        assert!(matches!(again, Err(StoreError::Conflict(_))), "{again:?}");
        let as_person = store.create_user(NewUser { id: UserId::new("gone"), ..person("gone") }, event(NOW), NOW).await;
        assert_eq!(as_person.expect("an answer"), Created::IdTaken);
        assert!(!store.delete_client(ClientId::new("gone"), event(NOW)).await.expect("an answer"));
    }

    async fn people_are_listed_page_by_page_in_the_order_of_their_creation(provider: Provider) {
        let store = &provider.app.store;
        let mut expected = Vec::new();
        for n in (0..7).rev() {
            let user = person(&format!("page-{n}"));
            // Two of one millisecond each, so that time alone does not order them.
            let at = FAR + Span::from_millis(n / 2);
            expected.push((at, user.id.clone()));
            store.create_user(user, event(at), at).await.expect("created");
        }
        expected.sort();
        let mut listed: Vec<UserId> = Vec::new();
        loop {
            let page = store.users(listed.last(), 3).await.expect("a page");
            if page.is_empty() {
                break;
            }
            listed.extend(page.into_iter().map(|user| user.id));
        }
        let expected: Vec<UserId> = expected.into_iter().map(|(_, id)| id).collect();
        assert!(listed.ends_with(&expected), "{listed:?}");
        assert_eq!(listed.len(), 2 + 7, "alice, bob and these");
    }

    async fn a_client_disabled_by_one_process_is_refused_by_the_other_once_it_looked(provider: Provider) {
        let (other, router) = provider.second().await;
        let ours = &provider.app.store;
        let id = ClientId::new("machine");
        let fields = [("grant_type", "client_credentials"), ("scope", "quiz.read")];
        let basic = [("authorization", "Basic bWFjaGluZTptYWNoaW5lLXNlY3JldA==")];
        let ask = async || {
            let mut machine = crate::support::Browser::new(router.clone(), &provider.issuer);
            machine.send(http::Method::POST, "/token", Some(&fields), &basic).await
        };
        assert_eq!(ask().await.status, 200);

        let mut record = ours.client(&id).await.expect("an answer").expect("machine").as_ref().clone();
        record.client.disabled_at = Some(NOW);
        assert!(put_client(ours, record.clone(), NOW).await.expect("an answer"));
        assert!(!ours.client(&id).await.expect("an answer").expect("machine").client.is_enabled(), "here at once");
        other.store.poll_changes().await.expect("polled");
        let refused = ask().await;
        assert_eq!((refused.status.as_u16(), refused.json()["error"].clone()), (401, "invalid_client".into()));

        // And on again.
        record.client.disabled_at = None;
        assert!(put_client(ours, record, NOW).await.expect("an answer"));
        other.store.poll_changes().await.expect("polled");
        assert_eq!(ask().await.status, 200);
    }

    /// A leaked secret is replaced while somebody else changes the name: whoever comes second must not bring it back.
    async fn of_two_changes_of_a_client_at_once_neither_undoes_the_other(provider: Provider) {
        let (other, _) = provider.second().await;
        let id = ClientId::new("machine");
        for round in 0..20 {
            let (name, secret) = (format!("Machine {round}"), StoredSecret::of(&format!("secret-{round}"), NOW));
            let (new_name, new_secret) = (name.clone(), secret.clone());
            let renamed = provider.app.store.change_client(
                id.clone(),
                |mut record| {
                    record.client.metadata.client_name = Some(new_name);
                    Ok::<_, Infallible>(record)
                },
                an_operator(),
                NOW,
            );
            let rotated = other.store.change_client(
                id.clone(),
                |record| Ok::<_, Infallible>(ClientRecord { secrets: vec![new_secret], ..record }),
                an_operator(),
                NOW,
            );
            let (renamed, rotated) = tokio::join!(renamed, rotated);
            assert!(renamed.expect("an answer").is_some() && rotated.expect("an answer").is_some());
            let clients = other.store.clients().await.expect("clients");
            let now = clients.into_iter().find(|record| record.client.id == id).expect("it");
            assert_eq!((now.client.metadata.client_name, now.secrets), (Some(name), vec![secret]));
        }
        // What is refused changes nothing.
        let refused = |_| Err::<ClientRecord, _>("no");
        let outcome = provider.app.store.change_client(id, refused, an_operator(), NOW).await.expect("an answer");
        assert_eq!(outcome, Some(Err("no")));
    }

    /// Nobody polls here: the other process has hung, say. Then its cache is not believed for longer than a second.
    async fn a_process_that_does_not_look_for_changes_stops_believing_its_cache(provider: Provider) {
        let (other, _) = provider.second().await;
        let id = ClientId::new("machine");
        other.store.poll_changes().await.expect("polled");
        let mut record = other.store.client(&id).await.expect("an answer").expect("machine").as_ref().clone();
        record.client.disabled_at = Some(NOW);
        assert!(put_client(&provider.app.store, record, NOW).await.expect("an answer"));
        let changed = Instant::now();
        loop {
            let asked = Instant::now();
            if !other.store.client(&id).await.expect("an answer").expect("machine").client.is_enabled() {
                break;
            }
            assert!(asked - changed <= Duration::from_secs(1), "a cached answer is older than a second");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn the_origins_of_browser_apps_follow_their_clients(provider: Provider) {
        let (other, _) = provider.second().await;
        let origin = "https://late.test";
        let both = async || {
            other.store.poll_changes().await.expect("polled");
            let here = provider.app.store.is_registered_origin(origin).await.expect("an answer");
            (here, other.store.is_registered_origin(origin).await.expect("an answer"))
        };
        assert_eq!(both().await, (false, false));
        let mut record = app_called("late", "Late");
        provider.app.store.create_client(record.clone(), event(NOW)).await.expect("created");
        assert_eq!(both().await, (true, true));
        record.client.disabled_at = Some(NOW);
        put_client(&provider.app.store, record, NOW).await.expect("updated");
        assert_eq!(both().await, (false, false));
    }
}

/// The cache under load: whoever was told that a change is done reads the change, whatever other readers put into
/// the cache meanwhile.
async fn no_reader_puts_an_old_client_back_into_the_cache(backend: Backend) {
    let dir = TempDir::new().expect("a directory");
    let url = backend.create(dir.path()).await;
    let store = open_store(&url).await.expect("an open store");
    store.create_client(app_called("hot", "0"), event(NOW)).await.expect("created");
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..6)
        .map(|_| {
            let (store, stop, done) = (store.clone(), Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let at_least = done.load(Ordering::SeqCst);
                    let name = name_of(&store, "hot").await.expect("a client");
                    let seen: u64 = name.parse().expect("a number");
                    assert!(seen >= at_least, "{at_least} was done, and then {seen} was read");
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for n in 1..=400_u64 {
        if n % 50 == 0 {
            store.poll_changes().await.expect("polled");
        }
        assert!(put_client(&store, app_called("hot", &n.to_string()), NOW).await.expect("updated"));
        done.store(n, Ordering::SeqCst);
        assert_eq!(name_of(&store, "hot").await, Some(n.to_string()), "right after the update");
    }
    stop.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.expect("no reader saw an old client");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reader_puts_an_old_client_back_into_the_cache_of_sqlite() {
    no_reader_puts_an_old_client_back_into_the_cache(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reader_puts_an_old_client_back_into_the_cache_of_postgres() {
    no_reader_puts_an_old_client_back_into_the_cache(Backend::Postgres).await;
}

/// The end of a process: requests are gone, their writes were accepted, `close` waits for them. Then SQLite's log is
/// in the database, so that nobody copies the one without the other and a start needs no room for it.
#[test]
fn closing_the_store_finishes_what_was_accepted() {
    for backend in Backend::BOTH {
        let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let dir = TempDir::new().expect("a directory");
        let first = runtime().expect("a runtime");
        let url = first.block_on(async {
            let url = backend.create(dir.path()).await;
            let store = open_store(&url).await.expect("an open store");
            for n in 0..200 {
                let mut write = Box::pin(store.revoke_access_token(format!("jti-{n}"), FAR, event(NOW)));
                // Its caller leaves, unless the writer was faster.
                let _ = futures_util::poll!(write.as_mut());
                // One task may do only so much before it must let others run, and a write that is not queued is not
                // accepted.
                tokio::task::yield_now().await;
            }
            let reads = (0..20).map(|n| {
                let store = store.clone();
                tokio::spawn(async move { store.is_access_token_revoked(&format!("jti-{n}")).await.map(drop) })
            });
            let reads: Vec<_> = reads.collect();
            tokio::task::yield_now().await;
            store.close().await;
            for read in reads {
                // Those that came too late are refused.
                let _ = read.await.expect("no panic");
            }
            url
        });
        if let Some(file) = url.strip_prefix("sqlite://") {
            for end in ["-wal", "-shm"] {
                assert!(!Path::new(&format!("{file}{end}")).exists(), "the {end} file was left");
            }
        }
        drop(first);
        runtime().expect("a runtime").block_on(async {
            let store = open_store(&url).await.expect("an open store");
            let mut lost = 0;
            for n in 0..200 {
                lost += u32::from(!store.is_access_token_revoked(&format!("jti-{n}")).await.expect("an answer"));
            }
            assert_eq!(lost, 0, "{backend:?}: accepted writes were lost");
        });
    }
}

/// After a restart or a failover every connection in the pool is dead at once.
#[tokio::test]
async fn a_postgres_that_restarted_is_noticed_by_no_request() {
    use sqlx::Connection as _;
    let dir = TempDir::new().expect("a directory");
    let url = Backend::Postgres.create(dir.path()).await;
    let store = open_store(&url).await.expect("an open store");
    for round in 0..2 {
        // As many connections as there can be.
        at_once((0..200).map(|n| {
            let store = store.clone();
            async move { store.revoke_access_token(format!("{round}-{n}"), FAR, event(NOW)).await.expect("written") }
        }))
        .await;
        let mut conn = sqlx::AnyConnection::connect(&url).await.expect("the database");
        let ended = sqlx::query(
            "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
        ended.execute(&mut conn).await.expect("ended");
        conn.close().await.expect("closed");
        if round == 0 {
            assert!(store.is_access_token_revoked("0-7").await.unwrap_or_else(|error| panic!("a read: {error}")));
        } else {
            let written = store.revoke_access_token("after".to_owned(), FAR, event(NOW)).await;
            written.unwrap_or_else(|error| panic!("a write: {error}"));
        }
    }
    assert!(store.is_access_token_revoked("after").await.expect("an answer"));
}

/// Somebody copies the file, or has it open in a shell: writes wait for a while, and one that waited in vain is an
/// error and not half a write; then everything goes on.
#[tokio::test]
async fn an_sqlite_that_somebody_else_locks_for_too_long_is_an_error_that_passes() {
    use sqlx::Connection as _;
    let dir = TempDir::new().expect("a directory");
    let url = Backend::Sqlite.create(dir.path()).await;
    let store = open_store(&url).await.expect("an open store");
    let mut other = sqlx::AnyConnection::connect(&url).await.expect("the database");
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.expect("a lock");
    let waits = tokio::spawn({
        let store = store.clone();
        async move { store.revoke_access_token("patient".to_owned(), FAR, event(NOW)).await }
    });
    // Reads go on meanwhile.
    for _ in 0..20 {
        assert!(!store.is_access_token_revoked("patient").await.expect("an answer"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!waits.is_finished());
    sqlx::query("ROLLBACK").execute(&mut other).await.expect("no lock");
    waits.await.expect("no panic").expect("it was written after all");

    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.expect("a lock");
    let error = store.create_user(person("vain"), event(NOW), NOW).await.expect_err("nobody can write");
    assert!(error.to_string().contains("locked"), "it tells why: {error}");
    sqlx::query("ROLLBACK").execute(&mut other).await.expect("no lock");
    other.close().await.expect("closed");
    let name = LoginName::Username("vain".to_owned());
    assert!(store.user_by_login(REALM_DIRECT, &name).await.expect("an answer").is_none());
    assert_eq!(store.create_user(person("vain"), event(NOW), NOW).await.expect("an answer"), Created::Yes);
    assert!(store.is_access_token_revoked("patient").await.expect("an answer"));
}
