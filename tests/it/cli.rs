//! The commands that an operator needs at three in the morning: signing people out, copying the database, asking
//! whether it is well, bringing people over. As the built binary, beside a provider that runs.

#![allow(clippy::disallowed_methods)] // Deadlines are real time.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::process::{Ran, Running, SITE_PASSWORD, SITE_SECRET, Site, free_port, wait_for};
use crate::support::{Backend, Browser, CALLBACK, TokenAnswer};

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn items(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

/// A site on either database.
async fn site_on(backend: Backend) -> Site {
    let site = Site::empty();
    let url = backend.create(site.dir.path()).await;
    site.configure(&site.default_config(&format!("[database]\nurl = \"{url}\"\n")));
    site
}

/// Gets tokens of this scope for alice, who signs in unless she has.
async fn tokens(site: &Site, browser: &mut Browser, scope: &str) -> TokenAnswer {
    let page = browser.get(&site.authorize_url(scope)).await;
    let mut page = browser.follow(page).await;
    if page.body.contains("id=\"login-submit\"") {
        let next = browser.submit(&page, &[("username", "alice"), ("password", SITE_PASSWORD)]).await;
        page = browser.follow(next).await;
    }
    let code = page.location_params().remove("code").expect("a code");
    let fields = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", CALLBACK)];
    let answer = site.call("web", SITE_SECRET, "/token", &fields).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer
}

mod progress {
    use super::*;

    /// Another process prepares the database for as long as the test likes.
    #[tokio::test]
    async fn whoever_waits_at_a_terminal_sees_for_what() {
        let site = Site::new("");
        site.run(&["migrate"]).await.ok();
        let lock = std::fs::File::options().write(true).open(site.path("data/keyward.db.lock")).expect("the lock");
        lock.lock().expect("held");
        let watched = site.start_on_a_terminal(&["user", "list"], "");
        let unwatched = Running::start(site.command(&["user", "list", "--output", "json"]), "");
        let waiting = "opening the database";
        wait_for("the progress", async || watched.stdout().contains(waiting).then_some(())).await;
        drop(lock);
        watched.wait().await.ok();
        let ran = unwatched.wait().await.ok();
        assert!(ran.stdout.trim() == "[]" && !ran.stderr.contains(waiting), "{ran:?}");
    }
}

mod asking {
    use super::*;

    const QUESTION: &str = "[y/N]";

    #[tokio::test]
    async fn whoever_sits_at_a_terminal_is_asked_before_something_ends_for_good() {
        let site = Site::new("");
        site.run_with(&["user", "create", "--username", "bob", "--password-stdin"], "bobs long horse\n").await.ok();
        site.json(&["client", "create", "--client-id", "job", "--grant-type", "client_credentials"]).await;
        let made = site.json(&["api-key", "create", "--user", "bob", "--name", "laptop", "--scope", "openid"]).await;
        let of_bob = text(&made, "id").to_owned();
        let signing = text(&site.json(&["key", "rotate"]).await[0], "kid").to_owned();
        let before = everything(&site).await;

        let destructive: [&[&str]; 13] = [
            &["user", "disable", "bob"],
            &["user", "delete", "bob"],
            &["user", "set-password", "bob", "--password-file", "keyward.toml"],
            &["client", "update", "job", "--disabled"],
            &["session", "revoke", "--user", "bob"],
            &["session", "revoke", "a-session"],
            &["client", "rotate-secret", "job", "--overlap", "0s"],
            &["client", "delete", "job"],
            &["api-key", "rotate", &of_bob, "--overlap", "0s"],
            &["api-key", "revoke", &of_bob],
            &["key", "rotate", "--at-once"],
            &["key", "retire", &signing],
            &["key", "rekey"],
        ];
        for (args, keys) in destructive.into_iter().zip(["n\n", "\n", "please\n"].into_iter().cycle()) {
            let ran = site.run_on_a_terminal(args, keys).await;
            assert!(ran.code == Some(1) && ran.stdout.contains(QUESTION), "{args:?}: {ran:?}");
            assert!(ran.stdout.contains("not done"), "{args:?}: {ran:?}");
        }
        assert_eq!(everything(&site).await, before, "nothing but a yes changes anything");

        let harmless: [&[&str]; 3] =
            [&["user", "show", "bob"], &["client", "rotate-secret", "job"], &["key", "rotate"]];
        for args in harmless {
            let ran = site.run_on_a_terminal(args, "").await.ok();
            assert!(!ran.stdout.contains(QUESTION), "{args:?}: {ran:?}");
        }
        let ran = site.run_on_a_terminal(&["user", "disable", "bob"], "y\n").await.ok();
        assert!(ran.stdout.contains(QUESTION), "{ran:?}");
        assert_eq!(site.json(&["user", "show", "bob"]).await["status"], "disabled");
        let ran = site.run_on_a_terminal(&["user", "delete", "bob", "--yes"], "").await.ok();
        assert!(!ran.stdout.contains(QUESTION), "{ran:?}");
        site.run(&["user", "show", "bob"]).await.refused(&["`bob`"]);
    }

    /// What the commands above would change.
    async fn everything(site: &Site) -> Vec<Value> {
        let mut all = Vec::new();
        for list in ["user", "client", "session", "api-key", "key"] {
            all.push(site.json(&[list, "list"]).await);
        }
        all
    }
}

mod sessions {
    use super::*;

    async fn revoked_sessions_end_within_a_second(backend: Backend) {
        let site = site_on(backend).await;
        let _running = site.serve().await;
        site.run_with(&["user", "create", "--username", "bob", "--password-stdin"], "bobs long horse\n").await.ok();
        let mut bobs = site.browser();
        site.sign_in(&mut bobs, "bob", "bobs long horse").await;
        let (mut first, mut second, mut third) = (site.browser(), site.browser(), site.browser());
        let online = tokens(&site, &mut first, "openid profile").await;
        let offline = tokens(&site, &mut first, "openid offline_access").await;
        let untouched = tokens(&site, &mut second, "openid profile").await;

        let listed = site.json(&["session", "list"]).await;
        assert_eq!(items(&listed).len(), 3);
        let names: BTreeSet<&str> = listed[0].as_object().expect("members").keys().map(String::as_str).collect();
        let expected = ["auth_time", "created_at", "expires_at", "last_seen_at", "sid", "user", "user_id"];
        assert_eq!(names, BTreeSet::from(expected), "and nothing that proves a session");
        let alices = site.json(&["session", "list", "--user", "alice@example.com"]).await;
        assert_eq!(items(&alices).len(), 2);
        assert!(items(&alices).iter().all(|session| text(session, "user") == "alice"));
        let table = site.run(&["session", "list"]).await.ok().stdout;
        assert!(table.starts_with("SID") && table.lines().count() == 4, "{table}");

        // The sid of a token is the one of the list.
        let sid = crate::support::claims_of(&online.text("id_token"))["sid"].as_str().expect("a sid").to_owned();
        assert!(items(&alices).iter().any(|session| text(session, "sid") == sid), "{alices}");
        let ended = site.json(&["session", "revoke", &sid]).await;
        assert_eq!(ended, json!({ "sid": sid, "revoked": 1 }));
        site.within_a_second("the browser is out", async || !site.is_signed_in(&mut first).await).await;
        let access_token = online.text("access_token");
        site.within_a_second("the token is dead", async || site.userinfo(&access_token).await == 401).await;
        assert_eq!(site.refresh(&online.text("refresh_token")).await.error(), "invalid_grant");
        assert_eq!(site.refresh(&offline.text("refresh_token")).await.status, 200, "as after a sign-out");
        assert_eq!(site.userinfo(&untouched.text("access_token")).await, 200);
        assert!(site.is_signed_in(&mut second).await);
        site.run(&["session", "revoke", &sid]).await.refused(&[&sid, "session list"]);

        site.sign_in(&mut third, "alice", SITE_PASSWORD).await;
        let ended = site.json(&["session", "revoke", "--user", "alice", "--yes"]).await;
        assert_eq!(ended["revoked"], 2);
        let access_token = untouched.text("access_token");
        site.within_a_second("the token is dead", async || site.userinfo(&access_token).await == 401).await;
        assert!(!site.is_signed_in(&mut second).await && !site.is_signed_in(&mut third).await);
        assert!(site.is_signed_in(&mut bobs).await);
        assert_eq!(site.json(&["session", "revoke", "--user", "alice"]).await["revoked"], 0);
        assert_eq!(items(&site.json(&["session", "list"]).await).len(), 1);
    }

    #[tokio::test]
    async fn end_within_a_second_on_sqlite() {
        revoked_sessions_end_within_a_second(Backend::Sqlite).await;
    }

    #[tokio::test]
    async fn end_within_a_second_on_postgres() {
        revoked_sessions_end_within_a_second(Backend::Postgres).await;
    }

    #[tokio::test]
    async fn are_listed_page_by_page() {
        let site = Site::new("");
        let running = site.serve().await;
        for _ in 0..5 {
            site.sign_in(&mut site.browser(), "alice", SITE_PASSWORD).await;
        }
        let all = site.json(&["session", "list"]).await;
        let mut seen: Vec<String> = Vec::new();
        loop {
            let mut args = vec!["session", "list", "--limit", "2", "--output", "json"];
            if let Some(last) = seen.last() {
                args.extend(["--after", last.as_str()]);
            }
            let ran = site.run(&args).await.ok();
            let page: Vec<String> = items(&ran.json()).iter().map(|session| text(session, "sid").to_owned()).collect();
            let hint = page.last().is_some_and(|last| ran.stderr.contains(&format!("--after {last}")));
            assert_eq!(hint, page.len() == 2, "{ran:?}");
            // One that ends between two pages does not end the list.
            if seen.is_empty() {
                site.run(&["session", "revoke", &page[1]]).await.ok();
            }
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        let expected: Vec<&str> = items(&all).iter().map(|session| text(session, "sid")).collect();
        assert_eq!(seen, expected);
        running.terminate().await.ok();
    }

    #[tokio::test]
    async fn cannot_be_revoked_without_saying_which() {
        let site = Site::new("");
        for args in [&["session", "revoke"][..], &["session", "revoke", "x", "--user", "alice"]] {
            assert_eq!(site.run(args).await.code, Some(2));
        }
        site.run(&["session", "revoke", "--user", "nobody"]).await.refused(&["`nobody`", "user list"]);
        site.run(&["session", "list", "--user", "nobody"]).await.refused(&["`nobody`"]);
    }
}

mod backup {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("a file").permissions().mode() & 0o777
    }

    fn names_in(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).expect("a directory");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Sign-ins, refreshes and new clients, for as long as `more` is true; how many were answered with success.
    async fn keep_writing(site: &Site, more: &AtomicBool) -> usize {
        let refreshing = async {
            let token = tokens(site, &mut site.browser(), "openid offline_access").await.text("refresh_token");
            let mut done = 0;
            while more.load(Ordering::SeqCst) {
                assert_eq!(site.refresh(&token).await.status, 200);
                done += 1;
            }
            done
        };
        let signing_in = async {
            let mut done = 0;
            while more.load(Ordering::SeqCst) {
                tokens(site, &mut site.browser(), "openid profile").await;
                done += 1;
            }
            done
        };
        let creating = async {
            let mut done = 0;
            while more.load(Ordering::SeqCst) {
                let id = format!("during-{done}");
                site.run(&["client", "create", "--client-id", &id, "--grant-type", "client_credentials"]).await.ok();
                done += 1;
            }
            done
        };
        let (refreshed, signed_in, created) = tokio::join!(refreshing, signing_in, creating);
        refreshed + signed_in + created
    }

    #[tokio::test]
    async fn a_copy_made_under_load_holds_all_that_was_acknowledged_before() {
        let site = Arc::new(Site::new(""));
        let running = site.serve().await;
        let mut browser = site.browser();
        let before = tokens(&site, &mut browser, "openid profile offline_access").await;
        let people: String = (0..300).map(|n| format!("{{\"username\":\"p{n}\",\"password\":null}}\n")).collect();
        site.run_with(&["user", "import", "-"], &people).await.ok();

        let more = Arc::new(AtomicBool::new(true));
        let load = {
            let (site, more) = (Arc::clone(&site), Arc::clone(&more));
            tokio::spawn(async move { keep_writing(&site, &more).await })
        };
        let mut kept = Vec::new();
        let mut expected = Vec::new();
        for n in 0..3 {
            let id = format!("acknowledged-{n}");
            let create = ["client", "create", "--client-id", &id, "--grant-type", "client_credentials"];
            let secret = text(&site.json(&create).await, "client_secret").to_owned();
            expected.push((id, secret));
            let grant = tokens(&site, &mut site.browser(), "openid offline_access").await.text("refresh_token");
            let backup = site.json(&["backup", &format!("copy-{n}.db")]).await;
            assert_eq!(backup["integrity"], "ok");
            kept.push((site.path(&format!("copy-{n}.db")), expected.clone(), grant));
        }
        more.store(false, Ordering::SeqCst);
        assert!(load.await.expect("no panic") > 10, "or nothing was under load");
        running.terminate().await.ok();

        // Each restored as it tells: another directory, the same key and configuration.
        for (copy, clients, refresh_token) in kept {
            assert_eq!(mode(&copy), 0o600);
            let home = tempfile::tempdir().expect("a directory");
            std::fs::create_dir_all(home.path().join("data")).expect("made");
            std::fs::create_dir_all(home.path().join("keys")).expect("made");
            for (from, to) in [
                (copy, "data/keyward.db"),
                (site.path("keys/master.key"), "keys/master.key"),
                (site.path("keyward.toml"), "keyward.toml"),
                (site.path("web.secret"), "web.secret"),
                (site.path("alice.pw"), "alice.pw"),
            ] {
                std::fs::copy(from, home.path().join(to)).expect("copied");
            }
            let mut command = site.command(&["serve"]);
            command.current_dir(home.path());
            let mut restored = Running::start(command, "");
            site.answers(&mut restored).await;
            for (id, secret) in &clients {
                assert!(site.is_accepted(id, secret).await, "{id}");
            }
            for token in [&refresh_token, &before.text("refresh_token")] {
                assert_eq!(site.refresh(token).await.status, 200);
            }
            assert!(site.is_signed_in(&mut browser).await, "a session from before");
            let mut fresh = site.browser();
            site.sign_in(&mut fresh, "alice", SITE_PASSWORD).await;
            assert!(site.is_signed_in(&mut fresh).await);
            let mut command = site.command(&["--output", "json", "user", "list", "--limit", "10000"]);
            command.current_dir(home.path());
            let people = Running::start(command, "").wait().await.ok().json();
            assert_eq!(items(&people).len(), 301);
            restored.terminate().await.ok();
        }
        let left: Vec<String> = names_in(site.dir.path())
            .into_iter()
            .filter(|name| name.contains("backup") || name.contains("-wal"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[tokio::test]
    async fn says_what_else_to_keep_and_how_to_restore() {
        let site = Site::new("[brand]\nlogo_file = \"logo.svg\"\n");
        std::fs::write(site.path("logo.svg"), "<svg xmlns=\"http://www.w3.org/2000/svg\"/>").expect("written");
        site.run(&["migrate"]).await.ok();
        std::fs::create_dir(site.path("backups")).expect("made");
        let ran = site.run(&["backup", "backups"]).await.ok();
        let names = names_in(&site.path("backups"));
        assert!(names.len() == 1 && names[0].starts_with("keyward-2") && names[0].ends_with("Z.db"), "{names:?}");
        for word in ["keys/master.key", "keyward.toml", "web.secret", "alice.pw", "logo.svg", "To restore", "-wal"] {
            assert!(ran.stdout.contains(word), "{word}: {ran:?}");
        }
        assert_eq!(ran.stderr, "");
        for secret in [SITE_SECRET, SITE_PASSWORD] {
            assert!(!ran.stdout.contains(secret));
        }
        let mut command = site.command(&["--output", "json", "backup", "b.db"]);
        command.env("KEYWARD_TOKENS__ACCESS_TOKEN_TTL", "5m");
        let ran = Running::start(command, "").wait().await.ok();
        let told = ran.json();
        let files: Vec<&str> = items(&told["keep"]).iter().map(|keep| text(keep, "file")).collect();
        assert!(files.iter().any(|file| file.ends_with("/keys/master.key")), "{files:?}");
        assert_eq!(told["environment"], json!(["KEYWARD_TOKENS__ACCESS_TOKEN_TTL"]));
        assert!(std::fs::read(site.path("b.db")).expect("a copy").starts_with(b"SQLite format 3\0"));
        assert_eq!(names_in(&site.path("data")), ["keyward.db", "keyward.db.lock"], "nothing is left beside it");
    }

    #[tokio::test]
    async fn overwrites_nothing_unless_told_to_and_the_database_never() {
        let site = Site::new("");
        site.run(&["backup", "b.db"]).await.refused(&["data/keyward.db"]);
        assert!(!site.path("data").exists(), "asking makes nothing");
        site.run(&["migrate"]).await.ok();
        std::fs::write(site.path("b.db"), "precious").expect("written");
        site.run(&["backup", "b.db"]).await.refused(&["b.db exists", "--force"]);
        assert_eq!(std::fs::read_to_string(site.path("b.db")).expect("a file"), "precious");
        // Whatever is no database was not meant: a key, the configuration, a device, the lock beside the database.
        site.json(&["key", "list"]).await;
        for other in ["b.db", "keys/master.key", "keyward.toml", "/dev/null", "data/keyward.db.lock"] {
            let before = std::fs::read(site.path(other)).expect("a file");
            site.run(&["backup", other, "--force"]).await.refused(&["is no backup"]);
            assert_eq!(std::fs::read(site.path(other)).expect("a file"), before, "{other}");
        }
        std::fs::remove_file(site.path("b.db")).expect("removed");
        site.run(&["backup", "b.db"]).await.ok();
        let first = std::fs::metadata(site.path("b.db")).expect("a copy");
        site.run(&["backup", "b.db", "--force"]).await.ok();
        let second = std::fs::metadata(site.path("b.db")).expect("a copy");
        assert_ne!(std::os::unix::fs::MetadataExt::ino(&first), std::os::unix::fs::MetadataExt::ino(&second));
        assert!(std::fs::read(site.path("b.db")).expect("a copy").starts_with(b"SQLite format 3\0"));
        assert_eq!(mode(&site.path("b.db")), 0o600);

        std::os::unix::fs::symlink("keyward.db", site.path("data/link.db")).expect("a link");
        let before = std::fs::read(site.path("data/keyward.db")).expect("the database");
        for target in [
            "data/keyward.db",
            "data/../data/keyward.db",
            "data/link.db",
            "data/keyward.db-wal",
            "./data/keyward.db-shm",
        ] {
            site.run(&["backup", target, "--force"]).await.refused(&["the database itself"]);
        }
        assert_eq!(std::fs::read(site.path("data/keyward.db")).expect("the database"), before);
        for target in ["nowhere/b.db", "nowhere/"] {
            site.run(&["backup", target]).await.refused(&["nowhere", "make it first"]);
        }
    }

    /// A file whose middle was torn out copies only as far as it can be read; nobody should take that for a backup.
    #[tokio::test]
    async fn a_damaged_database_is_told_and_leaves_no_copy() {
        let site = Site::new("");
        let people: String = (0..2000).map(|n| format!("{{\"username\":\"somebody-{n}\"}}\n")).collect();
        site.run_with(&["user", "import", "-"], &people).await.ok();
        let database = site.path("data/keyward.db");
        site.run(&["backup", "sound.db"]).await.ok();
        let mut bytes = std::fs::read(&database).expect("the database");
        let middle = bytes.len() / 2 / 4096 * 4096;
        bytes[middle..middle + 8192].fill(0xa5);
        std::fs::write(&database, bytes).expect("written");
        let ran = site.run(&["backup", "torn.db"]).await;
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains("damaged") || ran.stderr.contains("malformed"), "{ran:?}");
        let left: Vec<String> = names_in(site.dir.path())
            .into_iter()
            .filter(|name| name.contains("torn") || name.contains("backup"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[tokio::test]
    async fn postgres_is_copied_by_its_own_tools() {
        let site = site_on(Backend::Postgres).await;
        let ran = site.run(&["backup", "b.db"]).await.refused(&["pg_dump --format=custom", "pg_restore", "master.key"]);
        assert!(ran.stdout.is_empty() && !site.path("b.db").exists(), "{ran:?}");
    }
}

mod health {
    use super::*;

    #[tokio::test]
    async fn is_told_by_the_exit_code() {
        let site = Site::new("");
        let address = format!("127.0.0.1:{}", site.port);
        site.run(&["healthcheck"]).await.refused(&["does not answer", &address, "refused"]);
        let running = site.serve().await;
        assert_eq!(site.json(&["healthcheck"]).await["healthy"], true);
        // From anywhere, without a configuration.
        let elsewhere = Site::empty();
        elsewhere.run(&["healthcheck", "--url", &format!("{}/jwks", site.issuer)]).await.ok();
        let ran = elsewhere.run(&["healthcheck", "--url", &format!("{}/nowhere", site.issuer)]).await;
        assert!(ran.refused(&["answers 404"]).stdout.is_empty());
        elsewhere.run(&["healthcheck", "--url", "ftp://127.0.0.1/"]).await.refused(&["http"]);
        assert_eq!(elsewhere.run(&["healthcheck", "--url", "nonsense"]).await.code, Some(2));
        running.terminate().await.ok();
        site.run(&["healthcheck"]).await.refused(&["refused"]);
    }

    #[tokio::test]
    async fn is_asked_through_a_socket_too_and_where_the_issuer_has_a_path() {
        let site = Site::empty();
        site.configure("issuer = \"https://id.example.com/realms/a\"\nlisten = \"unix:k.sock\"\n");
        site.run(&["healthcheck"]).await.refused(&["does not answer", "k.sock"]);
        let mut running = Running::start(site.command(&["serve"]), "");
        wait_for("its socket", async || {
            assert!(running.ended().is_none(), "it ended");
            (site.run(&["healthcheck"]).await.code == Some(0)).then_some(())
        })
        .await;
        running.terminate().await.ok();
    }

    /// Whoever accepts and says nothing is not well, and is not waited for.
    #[tokio::test]
    async fn is_not_waited_for() {
        let site = Site::new("");
        let _deaf = std::net::TcpListener::bind(("127.0.0.1", site.port)).expect("a listener");
        let begun = Instant::now();
        site.run(&["healthcheck"]).await.refused(&["no answer within 3 s"]);
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}

mod completions {
    use super::*;

    #[tokio::test]
    async fn are_there_for_every_shell_without_a_configuration() {
        let site = Site::empty();
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let script = site.run(&["completions", shell]).await.ok().stdout;
            for word in ["keyward", "backup", "revoke", "import"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
            assert!(text(&site.json(&["completions", shell]).await, "completions").contains("keyward"));
        }
        // Nor does a broken one stand in the way.
        site.configure("nonsense");
        let script = site.run(&["completions", "bash"]).await.ok().stdout;
        std::fs::write(site.path("keyward.bash"), script).expect("written");
        let checked = Command::new("bash").arg("-n").arg(site.path("keyward.bash")).output().expect("a shell");
        assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
        let line = "source ./keyward.bash; COMP_WORDS=(keyward sess); COMP_CWORD=1; _keyward keyward sess keyward; \
                    echo \"${COMPREPLY[@]}\"";
        let completed =
            Command::new("bash").arg("-c").arg(line).current_dir(site.dir.path()).output().expect("a shell");
        assert_eq!(String::from_utf8_lossy(&completed.stdout).trim(), "session", "{completed:?}");
        assert_eq!(site.run(&["completions", "cmd"]).await.code, Some(2));
    }
}

mod import {
    use super::*;

    const BCRYPT: &str = "$2y$04$vAxkDXhZEZNAKEU.tLX3yerV3SlunaDGnoKTau7ZaeTOoVkp0jAG2";

    #[tokio::test]
    async fn brings_people_over_beside_a_running_provider() {
        let site = Site::new("");
        let _running = site.serve().await;
        let lines = [
            json!({ "sub": "00u-1", "username": "carol", "email": "carol@x.test", "password_hash": BCRYPT })
                .to_string(),
            String::new(),
            json!({ "username": "dave", "password": "a long enough one" }).to_string(),
            "nonsense".to_owned(),
            json!({ "username": "erin", "pasword": "hunter2hunter2" }).to_string(),
            json!({ "username": "alice", "email": "other@x.test" }).to_string(),
        ];
        std::fs::write(site.path("people.ndjson"), lines.join("\r\n")).expect("written");
        let expected =
            |dry_run: bool| json!({ "dry_run": dry_run, "lines": 6, "created": 2, "unchanged": 0, "failed": 3 });

        let told =
            site.run(&["user", "import", "people.ndjson", "--dry-run", "--output", "json"]).await.refused(&["3 of 6"]);
        let shape = |ran: &Ran| {
            let mut told = ran.json();
            let failures = told.as_object_mut().expect("members").remove("failures").expect("failures");
            (told, failures)
        };
        let (counts, failures) = shape(&told);
        assert_eq!(counts, expected(true));
        let numbers: Vec<&Value> = items(&failures).iter().map(|failure| &failure["line"]).collect();
        assert_eq!(numbers, [4, 5, 6]);
        assert!(text(&failures[1], "error").contains("did you mean `password`?"), "{failures}");
        assert!(!told.stdout.contains("hunter2") && !told.stderr.contains("hunter2"), "{told:?}");
        assert_eq!(items(&site.json(&["user", "list"]).await).len(), 1, "nothing was done");

        let ran =
            site.run(&["user", "import", "people.ndjson"]).await.refused(&["line 4:", "line 5:", "line 6:", "3 of 6"]);
        for word in ["created    2", "failed     3"] {
            assert!(ran.stdout.contains(word), "{ran:?}");
        }
        for (name, password) in [("carol@x.test", "correct horse"), ("dave", "a long enough one")] {
            let mut browser = site.browser();
            site.sign_in(&mut browser, name, password).await;
            assert!(site.is_signed_in(&mut browser).await, "{name}");
        }
        assert_eq!(text(&site.json(&["user", "show", "00u-1"]).await, "username"), "carol");
        let again = site.run(&["user", "import", "people.ndjson", "--output", "json"]).await.refused(&[]);
        assert_eq!(shape(&again).0, json!({ "dry_run": false, "lines": 6, "created": 0, "unchanged": 2, "failed": 3 }));

        let good = site.run_with(&["user", "import", "-", "--output", "json"], "{\"username\":\"frank\"}").await.ok();
        assert_eq!(
            shape(&good),
            (json!({ "dry_run": false, "lines": 1, "created": 1, "unchanged": 0, "failed": 0 }), json!([]))
        );
        assert_eq!(good.stderr, "");
        site.run(&["user", "import", "nowhere"]).await.refused(&["cannot read nowhere"]);
        site.run(&["user", "import", "data"]).await.refused(&["is a directory"]);
        let nothing = site.run_with(&["user", "import", "-", "--output", "json"], "").await.ok();
        assert_eq!(nothing.json()["lines"], 0);
    }

    /// What people call themselves is shown, not obeyed.
    #[tokio::test]
    async fn a_name_does_not_move_the_cursor() {
        let site = Site::new("");
        let line = r#"{"username":"mallory","name":"\u001b[2Jx\nroot"}"#;
        site.run_with(&["user", "import", "-"], line).await.ok();
        let table = site.run(&["user", "list"]).await.ok().stdout;
        assert!(table.lines().count() == 2 && table.contains(r"\u{1b}[2Jx\nroot"), "{table:?}");
        assert_eq!(text(&site.json(&["user", "list"]).await[0], "name"), "\u{1b}[2Jx\nroot");
    }

    /// An id that came with somebody may be what somebody else is called.
    #[tokio::test]
    async fn an_id_that_is_another_persons_name_is_not_guessed_at() {
        let site = Site::new("");
        let lines = "{\"username\":\"carol\",\"sub\":\"dave\"}\n{\"username\":\"dave\",\"sub\":\"d-1\"}\n";
        site.run_with(&["user", "import", "-"], lines).await.ok();
        site.run(&["user", "delete", "dave", "--yes"]).await.refused(&["`carol`", "`d-1`"]);
        assert_eq!(text(&site.json(&["user", "show", "carol"]).await, "id"), "dave");
        assert_eq!(text(&site.json(&["user", "show", "d-1"]).await, "username"), "dave");
    }

    async fn an_import_that_was_killed_is_run_again(backend: Backend) {
        let site = site_on(backend).await;
        let all = 600;
        let lines: String = (0..all)
            .map(|n| {
                format!("{{\"username\":\"user-{n}\",\"email\":\"user-{n}@x.test\",\"password_hash\":\"{BCRYPT}\"}}\n")
            })
            .collect();
        std::fs::write(site.path("people.ndjson"), &lines).expect("written");
        site.run(&["migrate"]).await.ok();
        // It waits for more lines, so it cannot be done before it is killed.
        let mut command = site.command(&["user", "import", "-"]);
        let mut import = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the program starts");
        let mut input = import.stdin.take().expect("its input");
        input.write_all(lines.as_bytes()).expect("written");
        let listing = ["user", "list", "--limit", "10000"];
        wait_for("the first people", async || (!items(&site.json(&listing).await).is_empty()).then_some(())).await;
        import.kill().expect("killed");
        assert_eq!(import.wait().expect("its end").code(), None, "it was still at it");
        drop(input);
        let there = items(&site.json(&listing).await).len();
        assert!(there > 0 && there < all, "{there}");

        let again = site.json(&["user", "import", "people.ndjson"]).await;
        assert_eq!((&again["unchanged"], &again["created"]), (&json!(there), &json!(all - there)));
        let people = site.json(&listing).await;
        let names: BTreeSet<&str> = items(&people).iter().map(|user| text(user, "username")).collect();
        assert_eq!((names.len(), items(&people).len()), (all, all));
        let _running = site.serve().await;
        for n in [0, all - 1] {
            let mut browser = site.browser();
            site.sign_in(&mut browser, &format!("user-{n}"), "correct horse").await;
            assert!(site.is_signed_in(&mut browser).await, "{n}");
        }
    }

    #[tokio::test]
    async fn that_was_killed_is_run_again_on_sqlite() {
        an_import_that_was_killed_is_run_again(Backend::Sqlite).await;
    }

    #[tokio::test]
    async fn that_was_killed_is_run_again_on_postgres() {
        an_import_that_was_killed_is_run_again(Backend::Postgres).await;
    }
}

/// Whoever asks for JSON gets one document and nothing else; whoever does not reads no noise either.
#[tokio::test]
async fn every_command_answers_in_json_when_asked() {
    let site = Site::new("");
    site.run(&["user", "create", "--username", "bob"]).await.ok();
    let create = ["client", "create", "--client-id", "job", "--grant-type", "client_credentials"];
    site.run(&create).await.ok();
    let running = site.serve().await;
    for (args, stdin) in [
        (&["config", "check"][..], ""),
        (&["config", "dump"], ""),
        (&["config", "generate"], ""),
        (&["config", "reference"], ""),
        (&["migrate"], ""),
        (&["backup", "b.db"], ""),
        (&["healthcheck"], ""),
        (&["completions", "fish"], ""),
        (&["client", "create", "--grant-type", "client_credentials"], ""),
        (&["client", "list"], ""),
        (&["client", "show", "job"], ""),
        (&["client", "update", "job", "--client-name", "Job"], ""),
        (&["client", "rotate-secret", "job"], ""),
        (&["client", "delete", "job", "--yes"], ""),
        (&["user", "create", "--username", "carol", "--password-stdin"], "a long password\n"),
        (&["user", "list", "--limit", "1"], ""),
        (&["user", "show", "bob"], ""),
        (&["user", "import", "-"], "{\"username\":\"dave\"}\n"),
        (&["user", "import", "-", "--dry-run"], "{\"username\":\"erin\"}\n"),
        (&["user", "set-password", "bob"], "a long password\n"),
        (&["user", "disable", "bob"], ""),
        (&["user", "enable", "bob"], ""),
        (&["user", "delete", "bob", "--yes"], ""),
        (&["session", "list"], ""),
        (&["session", "revoke", "--user", "alice"], ""),
    ] {
        let ran = site.run_with(&[args, &["--output", "json"]].concat(), stdin).await.ok();
        let value = ran.json();
        assert!(value.is_object() || value.is_array(), "{args:?}: {value}");
        let remarks = ran.stderr.lines().filter(|line| !line.contains("--after")).count();
        assert_eq!(remarks, 0, "{args:?}: {ran:?}");
    }
    running.terminate().await.ok();
    // A failure leaves standard output empty.
    for args in [&["user", "show", "nobody"][..], &["session", "revoke", "x"], &["backup", "b.db"], &["healthcheck"]] {
        let ran = site.run(&[args, &["--output", "json"]].concat()).await.refused(&["keyward: "]);
        assert_eq!(ran.stdout, "", "{args:?}");
    }
    assert_eq!(site.run(&["config", "dump", "--output", "json"]).await.ok().json()["issuer"], site.issuer.as_str());
    let other = Site::empty();
    other.configure(&format!("issuer = \"http://127.0.0.1:{}\"\n", free_port()));
    assert_eq!(other.run(&["session", "list", "--output", "json"]).await.ok().json(), json!([]));
}

#[tokio::test]
async fn every_command_has_help() {
    let site = Site::empty();
    let mut commands = vec![Vec::<String>::new()];
    let mut seen = 0;
    while let Some(command) = commands.pop() {
        let args: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let help = site.run(&args).await.ok().stdout;
        assert!(help.contains("Usage: keyward"), "{args:?}: {help}");
        seen += 1;
        let listed = help.split("\nCommands:\n").nth(1).unwrap_or_default();
        for line in listed.lines().take_while(|line| !line.is_empty()) {
            let Some((name, about)) = line.trim().split_once("  ") else { panic!("{args:?}: no word about `{line}`") };
            assert!(about.trim().len() > 5, "{args:?}: {line}");
            if name != "help" {
                commands.push(command.iter().cloned().chain([name.to_owned()]).collect());
            }
        }
    }
    assert!(seen > 25, "{seen}");
}
