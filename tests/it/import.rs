//! People of other systems: imported with the hashes they had there, and upgraded when they sign in.

use std::collections::BTreeMap;

use keyward::account::import::{BATCH, Importer, Outcome, Record};
use keyward::protocol::ids::{ClientId, UserId};
use keyward::protocol::user::LoginName;
use keyward::store::Store;
use keyward::store::users::{NewUser, REALM_DIRECT};
use serde_json::{Value, json};

use crate::on_both_databases;
use crate::support::audit::told;
use crate::support::{Browser, Provider, open_store};

const PASSWORD: &str = "correct horse";

/// One of each family and system; `crypto::password` has the whole table.
const HASHES: [(&str, &str); 12] = [
    ("argon2id", "$argon2id$v=19$m=64,t=2,p=2$c29tZXNhbHRzb21lc2FsdA$LVr/qFyJfQnLIJEsT7ZMHuD8MbMrxYDn"),
    ("argon2i", "$argon2i$v=19$m=64,t=2,p=2$c29tZXNhbHRzb21lc2FsdA$OLc+I7FGGRGBvl1OmhNj9MELdbYznbJk"),
    (
        "django-argon2",
        "argon2$argon2id$v=19$m=256,t=2,p=2$YWJjZGVmZ2hpamtsbW5vcA$GvThIDTF+FUClyJCEYSB7wtRqsvWJTCpfsTntNhpLws",
    ),
    ("bcrypt", "$2y$04$vAxkDXhZEZNAKEU.tLX3yerV3SlunaDGnoKTau7ZaeTOoVkp0jAG2"),
    ("django-bcrypt", "bcrypt_sha256$$2b$04$i73NE46t70BejcU/DjxlIu9vv4KCTq1/gXuwISs.OlVQ7F0E5k9xO"),
    ("passlib-bcrypt", "$bcrypt-sha256$v=2,t=2b,r=4$zoSwIEGRWnoqsaxBvP0bw.$tLIjFClsDDHqcRsreMYqcruNEm9PCKi"),
    ("phc-pbkdf2", "$pbkdf2-sha256$i=1000,l=32$yMnKy8zNzs/Q0dLT1NXW1w$TwRueOdCB6KCbpfU0/4XAabBqcM+xth4i3zmIlph9+Q"),
    ("passlib-pbkdf2", "$pbkdf2-sha256$1000$IKR0LmWsNeY8p5TSWqs1Jg$ssNLnZilknVoOoko0.GbnBz3xddYxhxS4tHlEpLBe.Q"),
    ("django-pbkdf2", "pbkdf2_sha256$1000$saltysalt1234$c3jOI47fuGNKFagfqyuY8742gjHULQ0mVkuxCveRFwk="),
    (
        "werkzeug",
        "pbkdf2:sha256:1000$8riccwA9plZaxdqG$3d62fb3b47477ce27799b10f81278c71484b7c839777d9c3f2fb8c895903067a",
    ),
    ("aspnet", "AQAAAAIAAAPoAAAAEMjJysvMzc7P0NHS09TV1tfjE+86U3Nx/jDzc55cuzTRwMxNn8ly6HyHCAIMFHXL0g=="),
    (
        "keycloak",
        r#"{"secretData":"{\"value\":\"TwRueOdCB6KCbpfU0/4XAabBqcM+xth4i3zmIlph9+Q=\",\"salt\":\"yMnKy8zNzs/Q0dLT1NXW1w==\"}","credentialData":"{\"hashIterations\":1000,\"algorithm\":\"pbkdf2-sha256\"}"}"#,
    ),
];

async fn import(provider: &Provider, lines: &[Value]) -> Vec<Outcome> {
    import_with(&Importer::new(&provider.app), lines).await
}

async fn import_with(importer: &Importer<'_>, lines: &[Value]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for batch in lines.chunks(BATCH) {
        let records = batch.iter().map(|line| Record::parse(line.to_string().as_bytes())).collect();
        outcomes.extend(importer.batch(records).await.expect("the database"));
    }
    outcomes
}

fn reason(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed(error) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

async fn stored_hash(store: &Store, name: &str) -> String {
    let name = LoginName::parse(name).expect("a name");
    let (_, password) = store.user_by_login(REALM_DIRECT, &name).await.expect("an answer").expect("somebody");
    password.expect("a password").hash.expose().clone()
}

async fn signs_in(provider: &Provider, browser: &mut Browser, name: &str, password: &str) -> bool {
    provider.sign_in_as(browser, name, password).await;
    let page = browser.get("/login").await;
    !page.body.contains("id=\"login-submit\"")
}

async fn counts(provider: &Provider) -> BTreeMap<String, i64> {
    provider.row_counts().await.into_iter().collect()
}

on_both_databases! {
    async fn hashes_of_other_systems_open_the_door_and_become_our_own(provider: Provider) {
        let store = &provider.app.store;
        let lines: Vec<Value> =
            HASHES.iter().map(|(system, hash)| json!({ "username": system, "password_hash": hash })).collect();
        assert_eq!(import(&provider, &lines).await, vec![Outcome::Created; HASHES.len()]);
        for (system, hash) in HASHES {
            assert_eq!(stored_hash(store, system).await, hash, "kept as it is spelled");
            assert!(!signs_in(&provider, &mut provider.browser(), system, "wrong horse").await, "{system}");
            assert_eq!(stored_hash(store, system).await, hash, "{system}: a wrong password changes nothing");

            assert!(signs_in(&provider, &mut provider.browser(), system, PASSWORD).await, "{system}");
            let upgraded = stored_hash(store, system).await;
            assert!(upgraded.starts_with("$argon2id$v=19$m=8192,t=1,p=1$"), "{system}: {upgraded}");

            assert!(!signs_in(&provider, &mut provider.browser(), system, "wrong horse").await, "{system}");
            assert!(signs_in(&provider, &mut provider.browser(), system, PASSWORD).await, "{system}");
            assert_eq!(stored_hash(store, system).await, upgraded, "{system}: once is enough");
        }
    }

    async fn a_line_becomes_a_person_with_all_that_it_says(provider: Provider) {
        let line = json!({
            "sub": "auth0|5f7c8e", "username": "zoe", "email": "Zoe@Example.com", "email_verified": true,
            "name": "Zoë Z.", "locale": "fr", "address": { "country": "FR" }, "password": "a long enough one",
        });
        let switched_off = json!({ "email": "off@example.com", "disabled": true, "password": "a long enough one" });
        assert_eq!(import(&provider, &[line, switched_off]).await, [Outcome::Created, Outcome::Created]);
        let zoe = provider.app.store.user(&UserId::new("auth0|5f7c8e")).await.expect("an answer").expect("zoe");
        assert_eq!((zoe.username.as_deref(), zoe.email.as_deref()), (Some("zoe"), Some("zoe@example.com")));
        assert!(zoe.email_verified && zoe.is_active());
        assert_eq!(zoe.claims["address"]["country"], "FR");
        let mut browser = provider.browser();
        assert!(signs_in(&provider, &mut browser, "zoe@example.com", "a long enough one").await);
        assert!(!signs_in(&provider, &mut provider.browser(), "off@example.com", "a long enough one").await);
        // What apps are told.
        let url = provider.authorize_url("scope=openid+profile");
        let code = provider.code(&mut browser, &url).await;
        let tokens = provider.redeem(&code).await;
        let userinfo = provider.userinfo(&tokens.text("access_token")).await.json();
        assert_eq!((&userinfo["sub"], &userinfo["name"]), (&json!("auth0|5f7c8e"), &json!("Zoë Z.")));
    }

    async fn a_second_import_changes_nothing(provider: Provider) {
        let people: Vec<Value> = (0..BATCH + 20)
            .map(|n| json!({ "username": format!("user-{n}"), "email": format!("user-{n}@x.test"), "name": "A" }))
            .collect();
        assert_eq!(import(&provider, &people).await, vec![Outcome::Created; people.len()]);
        let before = counts(&provider).await;
        // The person has another name since; the import does not take it back.
        let again = Outcome::Unchanged;
        assert_eq!(import(&provider, &people).await, vec![again; people.len()]);
        let mut after = counts(&provider).await;
        after.insert("changes".to_owned(), before["changes"]);
        assert_eq!(after, before);
    }

    async fn whoever_cannot_be_imported_leaves_the_others_be(provider: Provider) {
        let store = &provider.app.store;
        let gone = UserId::new("gone");
        let person = NewUser {
            of_partner: None,
            id: gone.clone(),
            username: Some("gone".to_owned()),
            email: None,
            email_verified: false,
            claims: serde_json::Map::new(),
            roles: Vec::new(),
            groups: Vec::new(),
            password_hash: None,
            disabled_at: None,
        };
        store.create_user(person, told(), provider.app.now()).await.expect("created");
        store.delete_user(gone, told()).await.expect("deleted");
        let lines = [
            json!({ "username": "first" }),
            // alice and bob stand in the configuration.
            json!({ "username": "alice", "email": "somebody@else.test" }),
            json!({ "username": "bob", "email": "alice@example.com" }),
            json!({ "username": "new", "sub": "gone" }),
            json!({ "username": "new", "sub": "web" }),
            json!({ "username": "alice", "sub": "another" }),
            json!({ "username": "twice", "email": "one@x.test" }),
            json!({ "username": "twice", "email": "two@x.test" }),
            json!({ "username": "weak", "password": "short" }),
            json!({ "username": "slow", "password_hash": "$2b$31$7MaB/Wd3MJvEmBJI2Svn2umqnPcpfUUK/PnWdnEp.9BYKi4.8vD.W" }),
            json!({ "username": "last", "sub": "s-1" }),
            json!({ "username": "other", "sub": "s-1" }),
        ];
        let outcomes = import(&provider, &lines).await;
        for at in [0, 6, 10] {
            assert_eq!(outcomes[at], Outcome::Created, "{at}");
        }
        // A sub tells for certain, whatever the line calls them.
        assert_eq!(outcomes[11], Outcome::Unchanged);
        for (at, words) in [
            (1, "email is `alice@example.com`"),
            (2, "two people"),
            (3, "`gone` is taken"),
            (4, "`web` is taken"),
            (5, "not to `another`"),
            (7, "email is `one@x.test`"),
            (8, "at least 8 characters"),
            (9, "cost 31"),
        ] {
            assert!(reason(&outcomes[at]).contains(words), "{at}: {:?}", outcomes[at]);
        }
        // Nothing is left of those who were not made: their ids and names are free.
        assert!(store.user(&UserId::new("another")).await.expect("an answer").is_none());
        let free = [json!({ "username": "new", "sub": "another" }), json!({ "username": "weak", "email": "two@x.test" })];
        assert_eq!(import(&provider, &free).await, [Outcome::Created, Outcome::Created]);
        // And an id that was given is given to no client.
        assert!(store.client(&ClientId::new("s-1")).await.expect("an answer").is_none());
    }

    async fn a_dry_run_says_the_same_and_does_nothing(provider: Provider) {
        let lines = [
            json!({ "username": "first", "email": "first@x.test", "password": "a long enough one" }),
            json!({ "username": "alice" }),
            json!({ "username": "alice", "email": "somebody@else.test" }),
            // Two lines of one file that do not go together, once their addresses are spelled alike.
            json!({ "username": "second", "email": "First@X.test" }),
            json!({ "username": "first", "email": "first@x.test" }),
            json!({ "username": "new", "sub": "web" }),
            json!({ "username": "weak", "password": "short" }),
        ];
        let before = counts(&provider).await;
        let scratch = tempfile::tempdir().expect("a directory");
        let url = format!("sqlite://{}/scratch.db", scratch.path().display());
        let store = open_store(&url).await.expect("a database");
        let told = import_with(&Importer::dry_run(&provider.app, store), &lines).await;
        assert_eq!(counts(&provider).await, before);
        let done: Vec<Outcome> = import(&provider, &lines).await;
        // A made-up id differs from run to run.
        let shape = |outcomes: &[Outcome]| -> Vec<String> {
            let word = |outcome: &Outcome| format!("{outcome:?}").chars().take_while(|c| c.is_alphabetic()).collect();
            outcomes.iter().map(word).collect()
        };
        assert_eq!(shape(&told), shape(&done));
        assert_eq!(shape(&done), ["Created", "Unchanged", "Failed", "Failed", "Unchanged", "Failed", "Failed"]);
        for (told, done) in told.iter().zip(&done).filter(|(told, _)| matches!(told, Outcome::Failed(_))) {
            assert_eq!(reason(told).split('`').next(), reason(done).split('`').next());
        }
    }

    async fn imports_that_meet_import_everybody_once(provider: Provider) {
        let mut people: Vec<Value> = (0..2 * BATCH)
            .map(|n| json!({ "username": format!("user-{n}"), "email": format!("user-{n}@x.test"), "sub": format!("s{n}") }))
            .collect();
        let (other, _) = provider.second().await;
        let forward = import(&provider, &people.clone()).await;
        assert_eq!(forward.iter().filter(|outcome| **outcome == Outcome::Created).count(), people.len());

        // Now at the same time, from both ends.
        for (n, person) in people.iter_mut().enumerate() {
            *person = json!({ "username": format!("b-{n}"), "email": format!("b-{n}@x.test"), "sub": format!("b{n}") });
        }
        let backwards: Vec<Value> = people.iter().rev().cloned().collect();
        let importer = Importer::new(&other);
        let (one, two) = tokio::join!(import(&provider, &people), import_with(&importer, &backwards));
        let created = one.iter().chain(&two).filter(|outcome| **outcome == Outcome::Created).count();
        assert_eq!(created, people.len());
        let unchanged = one.iter().chain(&two).filter(|outcome| **outcome == Outcome::Unchanged).count();
        assert_eq!(unchanged, people.len(), "{:?}", one.iter().chain(&two).find(|o| matches!(o, Outcome::Failed(_))));
    }
}
