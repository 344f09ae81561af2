//! The built program as a process: what an operator types, what it prints, and how soon a running provider follows.

#![allow(clippy::disallowed_methods)] // Deadlines are real time.

use std::collections::HashSet;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use keyward::account::declared::{Profile, create_user};
use keyward::crypto::digest::sha256;
use serde_json::Value;

use crate::support::audit::an_operator;
use crate::support::collector::Collector;
use crate::support::database::postgres_database_with;
use crate::support::process::{Ran, Running, SITE_PASSWORD, SITE_SECRET, Site, free_port, over_the_wire, wait_for};
use crate::support::{Backend, Browser, CALLBACK, Provider, form_fields};

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

mod configuration {
    use super::*;

    #[tokio::test]
    async fn a_sound_file_passes_and_secrets_in_it_are_remarked_on() {
        let site = Site::new("");
        let ran = site.run(&["config", "check"]).await.ok();
        assert!(ran.stdout.contains("valid"), "{ran:?}");
        assert_eq!(ran.stderr, "", "nothing to remark on");

        let inline = "[[clients]]\nclient_id = \"b\"\nclient_secret = \"inline-0123456789\"\n";
        let site = Site::new(&format!("{inline}redirect_uris = [\"https://b.test/cb\"]\n"));
        let ran = site.run(&["config", "check"]).await.ok();
        assert!(ran.stderr.contains("client_secret_file"), "what to do instead: {ran:?}");
        assert!(!ran.stderr.contains("inline-0123456789"), "{ran:?}");
        // Named by hand it is the same file.
        site.run(&["--config", "keyward.toml", "config", "check"]).await.ok();
    }

    #[tokio::test]
    async fn an_unknown_setting_is_refused_with_the_one_that_was_meant() {
        let site = Site::empty();
        site.configure(&format!("isuer = \"https://x.test\"\n{}[token]\n", site.head()));
        let ran = site.run(&["config", "check"]).await.refused(&["keyward.toml:1", "isuer", "did you mean `issuer`"]);
        // Everything that is wrong, not only the first.
        assert!(ran.stderr.contains("did you mean `tokens`"), "{ran:?}");
        site.run(&["serve"]).await.refused(&["did you mean `issuer`"]);

        let site = Site::new("");
        let mut command = site.command(&["config", "check"]);
        command.env("KEYWARD_DATABASE_URL", "sqlite://x.db");
        Running::start(command, "").wait().await.refused(&["KEYWARD_DATABASE__URL"]);
        site.run(&["--set", "tokens.acces_token_ttl=5m", "config", "check"]).await.refused(&["access_token_ttl"]);
        site.run(&["--config", "elsewhere.toml", "config", "check"]).await.refused(&["elsewhere.toml", "--config"]);
    }

    #[tokio::test]
    async fn an_issuer_that_could_be_spelled_in_two_ways_is_refused() {
        for (issuer, right) in [
            ("https://id.example.com/", "https://id.example.com"),
            ("https://ID.example.com", "https://id.example.com"),
            ("https://id.example.com:443", "https://id.example.com"),
            ("https://id.example.com?a=b", "https://id.example.com"),
            ("https://id.example.com#a", "https://id.example.com"),
            ("https://id.example.com/a/../b", "https://id.example.com/b"),
            ("http://id.example.com", "https://id.example.com"),
            ("id.example.com", "https://"),
        ] {
            let site = Site::empty();
            site.configure(&format!("issuer = \"{issuer}\"\n"));
            site.run(&["config", "check"]).await.refused(&["`issuer`", &format!("\"{right}")]);
        }
        for issuer in ["https://id.example.com", "https://id.example.com/realms/a", "http://localhost:8080"] {
            let site = Site::empty();
            site.configure(&format!("issuer = \"{issuer}\"\n"));
            site.run(&["config", "check"]).await.ok();
        }
    }

    #[tokio::test]
    async fn a_client_that_could_not_be_registered_is_refused_by_name() {
        for (metadata, words) in [
            ("redirect_uris = [\"https://*.example.com/cb\"]", "https://*.example.com/cb"),
            ("redirect_uris = [\"https://app.example.com/cb#x\"]", "fragment"),
            ("redirect_uris = [\"javascript:alert(1)\"]", "javascript:alert(1)"),
            ("redirect_uris = [\"/cb\"]", "/cb"),
            ("redirect_uris = []", "redirect_uris"),
            ("redirect_uris = [\"https://a.test/cb\"]\nscope = \"openid nonsense\"", "nonsense"),
        ] {
            let site = Site::new(&format!(
                "[[clients]]\nclient_id = \"badly\"\nclient_secret_file = \"web.secret\"\n{metadata}\n"
            ));
            site.run(&["config", "check"]).await.refused(&["badly", words]);
            site.run(&["serve"]).await.refused(&["badly", words]);
        }
    }

    /// Whoever was told that the configuration is valid is not told otherwise by `serve`.
    #[tokio::test]
    async fn what_would_keep_serve_from_starting_does_not_pass_the_check() {
        let mut passed = Vec::new();
        for (more, word) in [
            ("[[users]]\nusername = \"bob\"\npassword = \"short\"\n", "password"),
            ("[[clients]]\nclient_id = \"b\"\nredirect_uris = [\"https://b.test/cb\"]\n", "client_secret"),
            ("[log]\nlevel = \"keyward=nonsense=1\"\n", "log"),
            ("[log]\nlevel = \"inof\"\n", "`inof`: must be error, warn, info"),
            ("[log]\nlevel = \"warn,keyward\"\n", "`keyward`"),
        ] {
            let site = Site::new(more);
            site.run(&["serve"]).await.refused(&[]);
            let checked = site.run(&["config", "check"]).await;
            if checked.code != Some(1) || !checked.stderr.contains(word) {
                passed.push(more);
            }
        }
        assert!(passed.is_empty(), "these pass the check and do not start: {passed:?}");
    }

    #[tokio::test]
    async fn a_master_key_that_cannot_be_read_does_not_pass_the_check() {
        let site = Site::empty();
        site.configure(&format!("master_key_file = \"elsewhere.key\"\n{}", site.default_config("")));
        site.run(&["config", "check"]).await.refused(&["elsewhere.key", "no master key"]);
        std::fs::write(site.path("elsewhere.key"), "short\n").expect("written");
        std::fs::set_permissions(site.path("elsewhere.key"), std::fs::Permissions::from_mode(0o600)).expect("a mode");
        site.run(&["config", "check"]).await.refused(&["elsewhere.key", "32 bytes"]);
        // In a directory of ours it is made at the first start.
        Site::new("").run(&["config", "check"]).await.ok();
    }

    #[tokio::test]
    async fn the_template_passes_once_the_issuer_is_set() {
        let site = Site::empty();
        let template = site.run(&["config", "generate"]).await.ok().stdout;
        site.configure(&template);
        site.run(&["config", "check"]).await.refused(&["`issuer` is missing"]);
        let line = template.lines().find(|line| line.starts_with("#issuer")).expect("a line for the issuer");
        site.configure(&template.replacen(line, "issuer = \"https://id.example.com\"", 1));
        let ran = site.run(&["config", "check"]).await.ok();
        assert_eq!(ran.stderr, "");
        for setting in ["access_token_ttl", "[[clients]]", "redirect_uris", "[proxy]"] {
            assert!(template.contains(setting), "{setting}");
        }
    }

    #[tokio::test]
    async fn the_merged_view_hides_every_secret_and_tells_which_source_won() {
        let inline = "[[clients]]\nclient_id = \"b\"\nclient_secret = \"inline-0123456789\"\n";
        let site = Site::new(&format!(
            "{inline}[[users]]\nusername = \"bob\"\npassword = \"bobs horse\"\n[tokens]\naccess_token_ttl = \"9m\"\nid_token_ttl = \"9m\"\nrefresh_token_ttl = \"9d\"\n"
        ));
        let mut command = site.command(&["--set", "tokens.access_token_ttl=5m", "config", "dump"]);
        command.env("KEYWARD_DATABASE__URL", "postgres://keyward:hunter2@db.internal/keyward");
        command.env("KEYWARD_TOKENS__ACCESS_TOKEN_TTL", "7m").env("KEYWARD_TOKENS__ID_TOKEN_TTL", "7m");
        let ran = Running::start(command, "").wait().await.ok();
        for secret in ["inline-0123456789", "bobs horse", "hunter2", SITE_SECRET, SITE_PASSWORD] {
            assert!(!ran.stdout.contains(secret) && !ran.stderr.contains(secret), "{secret}: {ran:?}");
        }
        let dump: toml::Table = toml::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        let tokens = dump["tokens"].as_table().expect("tokens");
        assert_eq!(tokens["access_token_ttl"].as_str(), Some("5m"), "the flag");
        assert_eq!(tokens["id_token_ttl"].as_str(), Some("7m"), "then the environment");
        assert_eq!(tokens["refresh_token_ttl"].as_str(), Some("9d"), "then the file");
        assert_eq!(tokens["authorization_code_ttl"].as_str(), Some("60s").or(Some("1m")), "then the default");
        assert!(ran.stdout.contains("db.internal"), "what is no secret is shown: {ran:?}");
    }
}

mod serving {
    use super::*;

    #[tokio::test]
    async fn it_starts_answers_and_ends_cleanly_when_told() {
        let site = Site::new("");
        for signal in ["TERM", "INT"] {
            let running = site.serve().await;
            let mut browser = site.browser();
            let page = browser.get("/.well-known/openid-configuration").await;
            assert_eq!(page.json()["issuer"], site.issuer.as_str());
            assert!(site.is_accepted("web", SITE_SECRET).await);
            // The browser keeps its connection open; that is no reason to stay.
            running.signal(signal);
            let ran = running.wait().await;
            assert_eq!(ran.code, Some(0), "{ran:?}");
            assert!(!ran.stderr.contains("panicked") && !ran.stderr.contains("ERROR"), "{ran:?}");
            assert!(ran.stderr.contains("listening"), "the log tells that it was there: {ran:?}");
            drop(browser);
        }
    }

    /// A stranger who sends half a request must not be able to keep the process from ending.
    #[tokio::test]
    async fn half_a_request_does_not_hold_up_the_end() {
        let site = Site::new("");
        let running = site.serve().await;
        let mut silent = std::net::TcpStream::connect(("127.0.0.1", site.port)).expect("a connection");
        let mut half = std::net::TcpStream::connect(("127.0.0.1", site.port)).expect("a connection");
        half.write_all(b"POST /token HTTP/1.1\r\nHost: id\r\nContent-Le").expect("written");
        let mut body = std::net::TcpStream::connect(("127.0.0.1", site.port)).expect("a connection");
        body.write_all(b"POST /token HTTP/1.1\r\nHost: id\r\nContent-Type: application/x-www-form-urlencoded\r\n")
            .expect("written");
        body.write_all(b"Content-Length: 100\r\n\r\ngrant_type=").expect("written");
        // The three were accepted before this one was answered.
        assert!(site.is_accepted("web", SITE_SECRET).await);
        let ran = running.terminate().await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let _ = silent.write_all(b"x");
    }

    #[tokio::test]
    async fn a_request_in_flight_is_answered_before_the_end() {
        use std::io::Read as _;
        let site = Site::new("");
        let running = site.serve().await;
        let mut slow = std::net::TcpStream::connect(("127.0.0.1", site.port)).expect("a connection");
        slow.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
        let body = format!("grant_type=client_credentials&client_id=web&client_secret={SITE_SECRET}");
        let (first, rest) = body.split_at(20);
        let head = "POST /token HTTP/1.1\r\nHost: id\r\nContent-Type: application/x-www-form-urlencoded\r\n";
        // `Expect` is answered once somebody reads the body: the request is in flight for certain.
        slow.write_all(format!("{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes())
            .expect("written");
        let mut answer = [0; 1024];
        let n = slow.read(&mut answer).expect("an interim answer");
        assert!(answer[..n].starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&answer[..n]));
        slow.write_all(first.as_bytes()).expect("written");
        running.signal("TERM");
        wait_for("the signal to be noticed", async || running.stderr().contains("stopping").then_some(())).await;
        slow.write_all(rest.as_bytes()).expect("written");
        let mut answer = String::new();
        slow.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("access_token"), "{answer}");
        assert_eq!(running.wait().await.code, Some(0));
    }

    /// A roll-out to several machines, or a nervous supervisor: all of them start on nothing.
    #[tokio::test]
    async fn processes_that_start_at_once_on_nothing_agree() {
        for backend in Backend::BOTH {
            let site = Site::empty();
            let more = match backend {
                Backend::Sqlite => String::new(),
                Backend::Postgres => {
                    format!("[database]\nurl = \"{}\"\n", backend.create(site.dir.path()).await)
                }
            };
            site.configure(&site.default_config(&more));
            let started: Vec<Running> = (0..5)
                .map(|n| Running::start(site.command(&["user", "create", "--username", &format!("user-{n}")]), ""))
                .collect();
            for running in started {
                running.wait().await.ok();
            }
            assert_eq!(site.json(&["user", "list"]).await.as_array().expect("a list").len(), 5, "{backend:?}");
            let keys = std::fs::read_dir(site.path("keys")).expect("a directory").count();
            assert_eq!(keys, 1, "{backend:?}");
        }
    }

    /// It waits for somebody who migrates, says so, and can be told to end meanwhile.
    #[tokio::test]
    async fn a_start_that_waits_for_another_can_be_ended() {
        let site = Site::new("");
        site.run(&["migrate"]).await.ok();
        let held = std::fs::File::open(site.path("data/keyward.db.lock")).expect("the lock");
        held.lock().expect("held");
        for signal in ["TERM", "INT"] {
            let running = Running::start(site.command(&["serve"]), "");
            wait_for("it to say what it waits for", async || {
                running.stderr().contains("another process").then_some(())
            })
            .await;
            running.signal(signal);
            let ran = running.wait().await;
            assert_eq!(ran.code, Some(0), "{ran:?}");
        }
        drop(held);
        site.serve().await.terminate().await.ok();
    }

    /// What is at fault is told, and not that somebody waited.
    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        let site = Site::new("");
        let port = free_port();
        let url = format!("database.url=postgres://keyward@127.0.0.1:{port}/kw");
        let ran = site.run(&["--set", &url, "migrate"]).await;
        let ran = ran.refused(&[&format!("PostgreSQL at 127.0.0.1:{port}"), "refused", "`database.url`"]);
        assert!(!ran.stderr.contains("timed out"), "{ran:?}");
        // One that could not hold every name is not begun with.
        for (encoding, fits) in [("LATIN1", false), ("SQL_ASCII", true)] {
            let options = format!("ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
            let url = format!("database.url={}", postgres_database_with(&options).await);
            let ran = site.run(&["--set", &url, "migrate"]).await;
            let _ = if fits { ran.ok() } else { ran.refused(&[encoding, "CREATE DATABASE"]) };
        }
        // A password has no business there.
        let url = format!("database.url=postgres://keyward:hunter2@127.0.0.1:{port}/kw");
        let ran = site.run(&["--set", &url, "migrate"]).await;
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.contains("holds a password"), "{ran:?}");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_told() {
        let site = Site::new("");
        let _running = site.serve().await;
        let address = format!("127.0.0.1:{}", site.port);
        site.run(&["serve"]).await.refused(&["cannot listen on", &address, "in use"]);
    }

    #[tokio::test]
    async fn a_restart_forgets_nobody() {
        let site = Site::new("");
        let running = site.serve().await;
        let mut browser = site.browser();
        let tokens = site.tokens(&mut browser, "alice", SITE_PASSWORD).await;
        running.terminate().await.ok();
        let _running = site.serve().await;
        assert!(site.is_signed_in(&mut browser).await);
        assert_eq!(site.userinfo(&tokens.text("access_token")).await, 200);
        assert_eq!(site.refresh(&tokens.text("refresh_token")).await.status, 200);
    }

    /// Killed without a word, it has kept what it acknowledged.
    #[tokio::test]
    async fn a_crash_loses_nothing_that_was_answered() {
        let site = Site::new("");
        let running = site.serve().await;
        let tokens = site.tokens(&mut site.browser(), "alice", SITE_PASSWORD).await;
        let gone = site.tokens(&mut site.browser(), "alice", SITE_PASSWORD).await;
        let fields = [("token", gone.text("refresh_token"))];
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(site.call("web", SITE_SECRET, "/revoke", &fields).await.status, 200);
        running.signal("KILL");
        assert_eq!(running.wait().await.code, None);
        let _running = site.serve().await;
        assert_eq!(site.refresh(&tokens.text("refresh_token")).await.status, 200);
        assert_eq!(site.refresh(&gone.text("refresh_token")).await.error(), "invalid_grant");
    }

    #[tokio::test]
    async fn tables_can_be_made_beforehand_and_twice() {
        let site = Site::new("");
        site.run(&["migrate"]).await.ok();
        assert!(site.path("data/keyward.db").exists());
        site.run(&["migrate"]).await.ok();
        let _running = site.serve().await;
        site.run(&["migrate"]).await.ok();
        assert!(site.is_accepted("web", SITE_SECRET).await);
    }

    #[tokio::test]
    async fn files_that_hold_secrets_are_for_their_owner() {
        let site = Site::new("");
        let _running = site.serve().await;
        for (name, expected) in [
            ("keys", 0o700),
            ("keys/master.key", 0o600),
            ("data/keyward.db", 0o600),
            ("data/keyward.db-wal", 0o600),
            ("data/keyward.db-shm", 0o600),
        ] {
            let mode = std::fs::metadata(site.path(name)).expect(name).permissions().mode() & 0o777;
            assert_eq!(mode, expected, "{name}");
        }
    }

    #[tokio::test]
    async fn secrets_stand_in_no_command_line() {
        let site = Site::new("");
        let running = site.serve().await;
        let line = std::fs::read_to_string(format!("/proc/{}/cmdline", running.id())).expect("its command line");
        assert!(line.ends_with("keyward\0serve\0"), "{line:?}");
        // Nor can anybody put one there.
        for args in [
            ["user", "create", "--username", "bob", "--password", "hunter2hunter2"],
            ["user", "set-password", "alice", "hunter2hunter2", "--password-file", "alice.pw"],
            ["client", "create", "--client-id", "b", "--client-secret", "hunter2hunter2"],
        ] {
            let ran = site.run(&args).await;
            assert_eq!(ran.code, Some(2), "{ran:?}");
        }
    }
}

mod declared_clients {
    use super::*;

    #[tokio::test]
    async fn a_client_of_the_file_is_changed_in_the_file_alone() {
        let site = Site::new("");
        let _running = site.serve().await;
        assert_eq!(site.json(&["client", "show", "web"]).await["declared"], true);
        for args in [
            &["client", "update", "web", "--client-name", "Other"][..],
            &["client", "update", "web", "--disabled", "true"],
            &["client", "rotate-secret", "web"],
            &["client", "delete", "web", "--yes"],
        ] {
            site.run(args).await.refused(&["`web`", "configuration file"]);
        }
        assert!(site.is_accepted("web", SITE_SECRET).await);
        site.run(&["client", "create", "--client-id", "web", "--redirect-uri", "https://a.test/cb"])
            .await
            .refused(&["`web`", "taken"]);
    }

    #[tokio::test]
    async fn a_client_that_left_the_file_is_disabled_at_the_next_start_and_can_come_back() {
        let extra = "[[clients]]\nclient_id = \"extra\"\nclient_secret_file = \"web.secret\"\ngrant_types = [\"client_credentials\"]\n";
        let site = Site::new(extra);
        let running = site.serve().await;
        assert!(site.is_accepted("extra", SITE_SECRET).await);
        running.terminate().await.ok();

        site.configure(&site.default_config(""));
        let running = site.serve().await;
        assert!(!site.is_accepted("extra", SITE_SECRET).await);
        assert!(site.is_accepted("web", SITE_SECRET).await);
        assert_eq!(site.json(&["client", "show", "extra"]).await["status"], "disabled");
        let ran = running.terminate().await.ok();
        assert!(ran.stderr.contains("extra"), "the log tells which: {}", ran.stderr);

        site.configure(&site.default_config(extra));
        let running = site.serve().await;
        assert!(site.is_accepted("extra", SITE_SECRET).await);
        running.terminate().await.ok();
    }

    /// The file says nothing about it any more, so the file cannot be where to forget it.
    #[tokio::test]
    async fn a_client_that_left_the_file_can_be_deleted_by_hand() {
        let site = Site::new(
            "[[clients]]\nclient_id = \"extra\"\ntoken_endpoint_auth_method = \"none\"\nredirect_uris = [\"https://a.test/cb\"]\n",
        );
        site.serve().await.terminate().await.ok();
        site.configure(&site.default_config(""));
        site.serve().await.terminate().await.ok();
        site.run(&["client", "delete", "extra", "--yes"]).await.ok();
        site.run(&["client", "show", "extra"]).await.refused(&["extra"]);
    }

    #[tokio::test]
    async fn a_new_secret_in_the_file_replaces_the_old_one() {
        let site = Site::new("");
        site.serve().await.terminate().await.ok();
        std::fs::write(site.path("web.secret"), "another-secret-0123456789-abcdef\n").expect("written");
        let _running = site.serve().await;
        assert!(site.is_accepted("web", "another-secret-0123456789-abcdef").await);
        assert!(!site.is_accepted("web", SITE_SECRET).await);
    }
}

mod people {
    use super::*;

    #[tokio::test]
    async fn a_person_is_made_listed_and_shown() {
        let site = Site::new("");
        let args = ["user", "create", "--username", "bob", "--email", "Bob@Example.com", "--name", "Bob B."];
        let with_claim = [&args[..], &["--claim", "locale=nb", "--password-stdin", "--output", "json"]].concat();
        let made = site.run_with(&with_claim, "bobs long horse\n").await.ok().json();
        assert_eq!(text(&made, "username"), "bob");
        assert_eq!(text(&made, "email"), "bob@example.com");
        assert_eq!(made["email_verified"], false);
        assert_eq!(text(&made, "status"), "enabled");
        for by in ["bob", "BOB@example.com", text(&made, "id")] {
            let shown = site.json(&["user", "show", by]).await;
            assert_eq!((&shown["id"], text(&shown, "name")), (&made["id"], "Bob B."), "{by}");
            assert_eq!(shown["claims"]["locale"], "nb");
        }
        let listed = site.json(&["user", "list"]).await;
        assert_eq!(listed.as_array().expect("a list").len(), 1);
        let table = site.run(&["user", "list"]).await.ok().stdout;
        let mut lines = table.lines();
        assert!(lines.next().is_some_and(|line| line.starts_with("ID") && line.contains("USERNAME")), "{table}");
        assert!(lines.next().is_some_and(|line| line.contains("bob@example.com")), "{table}");

        let _running = site.serve().await;
        let mut browser = site.browser();
        site.sign_in(&mut browser, "bob@example.com", "bobs long horse").await;
        assert!(site.is_signed_in(&mut browser).await);
        // alice came with the file, and is listed after bob.
        let names: Vec<Value> = site
            .json(&["user", "list"])
            .await
            .as_array()
            .expect("a list")
            .iter()
            .map(|user| user["username"].clone())
            .collect();
        assert_eq!(names, ["bob", "alice"]);
    }

    #[tokio::test]
    async fn somebody_who_cannot_be_made_is_refused_with_the_reason() {
        let site = Site::new("");
        site.run_with(&["user", "create", "--username", "bob", "--password-stdin"], "bobs long horse").await.ok();
        std::fs::write(site.path("two.pw"), "a long horse\nand another\n").expect("written");
        for (args, stdin, words) in [
            (&["user", "create", "--username", "bob"][..], "", &["`bob`", "taken"][..]),
            (&["user", "create"], "", &["username", "email"]),
            (&["user", "create", "--username", "a b"], "", &["white space"]),
            (&["user", "create", "--username", "a@b"], "", &["@"]),
            (&["user", "create", "--email", "nonsense"], "", &["e-mail"]),
            (&["user", "create", "--username", "c", "--claim", "sub=x"], "", &["`sub`"]),
            (&["user", "create", "--username", "c", "--password-stdin"], "s3cr7!\n", &["at least 8"]),
            (&["user", "create", "--username", "c", "--password-stdin"], "\n", &["empty"]),
            (&["user", "create", "--username", "c", "--password-stdin"], "a long\0horse\n", &["U+0000"]),
            (
                &["user", "create", "--username", "c", "--password-file", "two.pw"],
                "",
                &["two.pw", "more than one line"],
            ),
            (&["user", "show", "nobody"], "", &["`nobody`", "user list"]),
            (&["user", "set-password", "nobody"], "a long password\n", &["`nobody`"]),
            (&["user", "disable", "nobody"], "", &["`nobody`"]),
            (&["user", "delete", "nobody", "--yes"], "", &["`nobody`"]),
        ] {
            let ran = site.run_with(args, stdin).await.refused(words);
            assert!(stdin.trim().is_empty() || !ran.stderr.contains(stdin.trim()), "{ran:?}");
        }
        assert_eq!(site.json(&["user", "list"]).await.as_array().expect("a list").len(), 1);
    }

    #[tokio::test]
    async fn a_new_password_signs_out_everywhere_and_is_the_only_one() {
        let site = Site::new("");
        let _running = site.serve().await;
        let mut browser = site.browser();
        let tokens = site.tokens(&mut browser, "alice", SITE_PASSWORD).await;
        assert!(site.is_signed_in(&mut browser).await);
        site.run_with(&["user", "set-password", "alice"], "another long horse\r\nnot this line\n").await.ok();

        site.within_a_second("the session ends", async || !site.is_signed_in(&mut browser).await).await;
        let access_token = tokens.text("access_token");
        site.within_a_second("the token dies", async || site.userinfo(&access_token).await == 401).await;
        assert_eq!(site.refresh(&tokens.text("refresh_token")).await.error(), "invalid_grant");
        for (password, works) in [(SITE_PASSWORD, false), ("another long horse", true)] {
            let mut browser = site.browser();
            site.sign_in(&mut browser, "alice", password).await;
            assert_eq!(site.is_signed_in(&mut browser).await, works, "{password}");
        }
        // From a file, as a secret manager mounts it.
        std::fs::write(site.path("new.pw"), "a third long horse\n").expect("written");
        site.run(&["user", "set-password", "alice", "--password-file", "new.pw"]).await.ok();
        let mut browser = site.browser();
        site.sign_in(&mut browser, "alice", "a third long horse").await;
        assert!(site.is_signed_in(&mut browser).await);
    }

    #[tokio::test]
    async fn a_disabled_person_is_out_within_a_second_and_comes_back_with_nothing_of_before() {
        let site = Site::new("");
        let _running = site.serve().await;
        let mut browser = site.browser();
        let tokens = site.tokens(&mut browser, "alice", SITE_PASSWORD).await;
        let access_token = tokens.text("access_token");
        assert_eq!(site.userinfo(&access_token).await, 200);
        let disabled = site.json(&["user", "disable", "alice"]).await;
        assert_eq!(disabled["status"], "disabled");

        site.within_a_second("the token dies", async || site.userinfo(&access_token).await == 401).await;
        let inactive = site.call("web", SITE_SECRET, "/introspect", &[("token", &access_token)]).await;
        assert_eq!(inactive.body, serde_json::json!({ "active": false }));
        assert_eq!(site.refresh(&tokens.text("refresh_token")).await.error(), "invalid_grant");
        assert!(!site.is_signed_in(&mut browser).await);
        site.sign_in(&mut browser, "alice", SITE_PASSWORD).await;
        assert!(!site.is_signed_in(&mut browser).await);

        assert_eq!(site.json(&["user", "enable", "alice"]).await["status"], "enabled");
        assert_eq!(site.userinfo(&access_token).await, 401, "what had ended stays ended");
        assert_eq!(site.refresh(&tokens.text("refresh_token")).await.error(), "invalid_grant");
        let mut browser = site.browser();
        site.sign_in(&mut browser, "alice", SITE_PASSWORD).await;
        assert!(site.is_signed_in(&mut browser).await);
    }

    #[tokio::test]
    async fn a_deleted_person_is_gone_and_their_name_is_free_for_somebody_else() {
        let site = Site::new("");
        let _running = site.serve().await;
        let mut browser = site.browser();
        let tokens = site.tokens(&mut browser, "alice", SITE_PASSWORD).await;
        let access_token = tokens.text("access_token");
        let before = text(&site.json(&["user", "show", "alice"]).await, "id").to_owned();
        // Without a terminal nobody is asked.
        let ran = site.run(&["user", "delete", "alice"]).await.ok();
        assert!(ran.stdout.contains("still declared"), "the next start makes her anew: {ran:?}");
        site.within_a_second("the token dies", async || site.userinfo(&access_token).await == 401).await;
        assert!(!site.is_signed_in(&mut browser).await);
        assert_eq!(site.refresh(&tokens.text("refresh_token")).await.error(), "invalid_grant");
        site.run(&["user", "show", "alice"]).await.refused(&["`alice`"]);

        site.run_with(&["user", "create", "--username", "alice", "--password-stdin"], "somebody elses\n").await.ok();
        assert_ne!(text(&site.json(&["user", "show", "alice"]).await, "id"), before, "another person, another sub");
        assert_eq!(site.userinfo(&access_token).await, 401);
    }
}

mod apps {
    use super::*;

    /// As the README has it.
    #[tokio::test]
    async fn a_secret_is_shown_once_and_never_again() {
        let site = Site::new("");
        let _running = site.serve().await;
        let create = [
            "client",
            "create",
            "--client-name",
            "Web app",
            "--redirect-uri",
            "https://app.example.com/callback",
            "--grant-type",
            "authorization_code",
            "--grant-type",
            "refresh_token",
            "--grant-type",
            "client_credentials",
            "--scope",
            "openid profile email offline_access",
        ];
        let table = site.run(&create).await.ok().stdout;
        assert_eq!(table.lines().filter(|line| line.starts_with("client_secret ")).count(), 1, "{table}");
        let made = site.json(&[&create[..], &["--client-id", "web-app"]].concat()).await;
        let (id, secret) = (text(&made, "client_id"), text(&made, "client_secret"));
        assert!(secret.len() >= 43, "256 bits");
        assert!(site.is_accepted(id, secret).await, "at once, in the running provider");
        assert!(!site.is_accepted(id, &secret[1..]).await);

        let hash = URL_SAFE_NO_PAD.encode(sha256(secret.as_bytes()));
        for args in [&["client", "show", id][..], &["client", "list"]] {
            for output in ["table", "json"] {
                let ran = site.run(&[args, &["--output", output]].concat()).await.ok();
                assert!(ran.stdout.contains(id), "{ran:?}");
                assert!(!ran.stdout.contains(secret) && !ran.stdout.contains(&hash), "{ran:?}");
            }
        }
        let shown = site.json(&["client", "show", id]).await;
        assert!(shown.get("client_secret").is_none(), "{shown}");
        assert_eq!(shown["redirect_uris"], serde_json::json!(["https://app.example.com/callback"]));
        assert_eq!((&shown["client_name"], &shown["declared"]), (&"Web app".into(), &false.into()));

        let public =
            ["client", "create", "--token-endpoint-auth-method", "none", "--redirect-uri", "https://spa.test/cb"];
        assert!(site.json(&public).await.get("client_secret").is_none(), "a public client has none");
    }

    /// Whoever copies an id from a list pastes it behind a command: it must not look like a flag there.
    #[tokio::test]
    async fn a_made_up_id_never_looks_like_a_flag() {
        let provider = Provider::start(Backend::Sqlite).await;
        for n in 0..400 {
            let profile = Profile { username: Some(format!("user-{n}")), ..Profile::default() };
            let id = create_user(&provider.app, profile, None, &an_operator()).await.expect("a person");
            assert!(!id.as_str().starts_with('-'), "`keyward user show {id}` is no command");
        }
    }

    #[tokio::test]
    async fn an_app_that_cannot_be_registered_is_refused_with_the_reason() {
        let site = Site::new("");
        let good = ["client", "create", "--client-id", "mine", "--redirect-uri", "https://a.test/cb"];
        site.run(&good).await.ok();
        for (args, words) in [
            (&good[..], &["`mine`", "taken"][..]),
            (&["client", "create", "--redirect-uri", "https://*.test/cb"], &["https://*.test/cb", "wildcard"]),
            (&["client", "create", "--client-id", "a b", "--redirect-uri", "https://a.test/cb"], &["client_id"]),
            (&["client", "create"], &["redirect_uris"]),
            (&["client", "create", "--redirect-uri", "https://a.test/cb", "--scope", "nonsense"], &["nonsense"]),
            (&["client", "update", "mine", "--redirect-uri", "https://a.test/cb#x"], &["fragment"]),
            (&["client", "update", "nobody", "--client-name", "X"], &["`nobody`", "client list"]),
            (&["client", "show", "nobody"], &["`nobody`"]),
            (&["client", "rotate-secret", "nobody"], &["`nobody`"]),
            (&["client", "delete", "nobody", "--yes"], &["`nobody`"]),
        ] {
            site.run(args).await.refused(words);
        }
        assert_eq!(
            site.json(&["client", "show", "mine"]).await["redirect_uris"],
            serde_json::json!(["https://a.test/cb"])
        );
        assert_eq!(site.json(&["client", "list"]).await.as_array().expect("a list").len(), 1);
    }

    async fn service(site: &Site) -> (String, String) {
        let made = site.json(&["client", "create", "--client-id", "job", "--grant-type", "client_credentials"]).await;
        (text(&made, "client_id").to_owned(), text(&made, "client_secret").to_owned())
    }

    #[tokio::test]
    async fn a_rotated_secret_overlaps_as_long_as_it_was_told_to() {
        let site = Site::new("");
        let _running = site.serve().await;
        let (id, first) = service(&site).await;
        assert!(site.is_accepted(&id, &first).await);
        let rotated = site.json(&["client", "rotate-secret", &id, "--overlap", "1d"]).await;
        let second = text(&rotated, "client_secret").to_owned();
        assert!(text(&rotated, "old_secrets_valid_until").ends_with('Z'), "{rotated}");
        site.within_a_second("the new secret works", async || site.is_accepted(&id, &second).await).await;
        assert!(site.is_accepted(&id, &first).await, "and the old one for a day");
        let states = site.json(&["client", "show", &id]).await["secrets"].clone();
        assert_eq!(states.as_array().expect("a list").len(), 2);

        let rotated = site.json(&["client", "rotate-secret", &id, "--overlap", "0s"]).await;
        let third = text(&rotated, "client_secret").to_owned();
        assert!(rotated["old_secrets_valid_until"].is_null(), "{rotated}");
        for old in [&first, &second] {
            site.within_a_second("an old secret dies", async || !site.is_accepted(&id, old).await).await;
        }
        assert!(site.is_accepted(&id, &third).await);
        assert_eq!(HashSet::from([first, second, third]).len(), 3);
    }

    #[tokio::test]
    async fn a_change_reaches_the_running_provider_within_a_second() {
        let site = Site::new("");
        let _running = site.serve().await;
        let (id, secret) = service(&site).await;
        let ask = async || site.call(&id, &secret, "/token", &[("grant_type", "client_credentials")]).await;
        assert_eq!(ask().await.status, 200);
        let update = ["client", "update", &id, "--grant-type", "authorization_code", "--redirect-uri", CALLBACK];
        assert_eq!(site.json(&update).await["grant_types"], serde_json::json!(["authorization_code"]));
        site.within_a_second("the grant is gone", async || ask().await.error() == "unauthorized_client").await;
        let shown = site.json(&["client", "update", &id, "--client-name", "Nightly job"]).await;
        assert_eq!(shown["grant_types"], serde_json::json!(["authorization_code"]), "everything else stays");
        let names = site.run(&["client", "list"]).await.ok().stdout;
        assert!(names.contains("Nightly job"), "{names}");
    }

    #[tokio::test]
    async fn a_disabled_app_and_a_deleted_one_lose_their_tokens_within_a_second() {
        let site = Site::new("");
        let _running = site.serve().await;
        let (id, secret) = service(&site).await;
        let token =
            site.call(&id, &secret, "/token", &[("grant_type", "client_credentials")]).await.text("access_token");
        // `web` may not introspect the job's tokens; the job itself may.
        let introspect = async || {
            let fields = [("token", token.as_str())];
            site.call(&id, &secret, "/introspect", &fields).await.body["active"] == true
        };
        assert!(introspect().await);
        site.run(&["client", "update", &id, "--disabled", "true"]).await.ok();
        site.within_a_second("it is refused", async || !site.is_accepted(&id, &secret).await).await;
        assert!(!introspect().await);
        site.run(&["client", "update", &id, "--disabled", "false"]).await.ok();
        site.within_a_second("it is back", async || site.is_accepted(&id, &secret).await).await;

        site.run(&["client", "delete", &id]).await.ok();
        site.within_a_second("it is gone", async || !site.is_accepted(&id, &secret).await).await;
        site.run(&["client", "show", &id]).await.refused(&[&id]);
        let again = ["client", "create", "--client-id", &id, "--grant-type", "client_credentials"];
        site.run(&again).await.refused(&["taken", "never given twice"]);
    }

    #[tokio::test]
    async fn results_are_json_for_programs() {
        let site = Site::new("");
        let made = site.json(&["user", "create", "--username", "bob"]).await;
        assert!(made.is_object());
        service(&site).await;
        for args in [
            &["user", "show", "bob"][..],
            &["user", "list"],
            &["user", "disable", "bob"],
            &["user", "enable", "bob"],
            &["client", "show", "job"],
            &["client", "list"],
            &["client", "update", "job", "--client-name", "Job"],
            &["client", "rotate-secret", "job"],
        ] {
            let value = site.json(args).await;
            assert!(value.is_object() || value.is_array(), "{args:?}: {value}");
        }
    }

    /// A script that always asks for JSON reads every answer with the same parser.
    #[tokio::test]
    async fn commands_that_have_little_to_say_say_it_in_json_too() {
        let site = Site::new("");
        site.run(&["user", "create", "--username", "bob"]).await.ok();
        service(&site).await;
        let mut others = Vec::new();
        for (args, stdin) in [
            (&["user", "set-password", "bob"][..], "a long password\n"),
            (&["user", "delete", "bob", "--yes"], ""),
            (&["client", "delete", "job", "--yes"], ""),
            (&["migrate"], ""),
            (&["config", "check"], ""),
        ] {
            let ran = site.run_with(&[args, &["--output", "json"]].concat(), stdin).await.ok();
            if serde_json::from_str::<Value>(&ran.stdout).is_err() {
                others.push(args.join(" "));
            }
        }
        assert!(others.is_empty(), "these print something else: {others:?}");
    }
}

/// A whole sign-in with all that goes wrong on the way, with the log as loud as it goes.
async fn nothing_secret_is_logged(backend: Backend, format: &str) {
    let site = Site::empty();
    let url = match backend {
        Backend::Sqlite => format!("sqlite://{}/keyward.db", site.dir.path().display()),
        Backend::Postgres => backend.create(site.dir.path()).await,
    };
    site.configure(&site.default_config(&format!("[database]\nurl = \"{url}\"\n[log]\nformat = \"{format}\"\n")));
    let collector = Collector::start().await;
    let admin = format!("http://127.0.0.1:{}", free_port());
    let running = site
        .serve_with(&[
            ("KEYWARD_LOG", "trace"),
            ("KEYWARD_ADMIN_LISTEN", &admin["http://".len()..]),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20collector-2718281828"),
        ])
        .await;

    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let challenge = "code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256";
    let mut browser = site.browser();
    let page =
        browser.get(&format!("{}&{challenge}&nonce=n-7", site.authorize_url("openid profile offline_access"))).await;
    let ticket = page.location_params().remove("ticket").expect("a ticket");
    let page = browser.follow(page).await;
    let csrf = form_fields(&page.body).into_iter().find(|(name, _)| name == "csrf").expect("a form token").1;
    let page = browser.submit(&page, &[("username", "alice"), ("password", "mistyped horse 42")]).await;
    let page = browser.submit(&page, &[("username", "alice"), ("password", SITE_PASSWORD)]).await;
    let page = browser.follow(page).await;
    let code = page.location_params().remove("code").expect("a code");
    let session = browser.cookies["keyward_session"].clone();
    let redeem = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", CALLBACK),
        ("code_verifier", verifier),
    ];
    let wrong = site.call("web", "a-wrong-secret-31415926", "/token", &redeem).await;
    assert_eq!(wrong.status, 401);
    let tokens = site.call("web", SITE_SECRET, "/token", &redeem).await;
    assert_eq!(tokens.status, 200, "{}", tokens.body);
    let refreshed = site.refresh(&tokens.text("refresh_token")).await;
    assert_eq!(refreshed.status, 200, "{}", refreshed.body);
    assert_eq!(site.userinfo(&refreshed.text("access_token")).await, 200);
    for token in [refreshed.text("access_token"), refreshed.text("refresh_token")] {
        let answer = site.call("web", SITE_SECRET, "/introspect", &[("token", &token)]).await;
        assert_eq!(answer.body["active"], true, "{}", answer.body);
    }
    let secret_in_body = [&redeem[..], &[("client_id", "web"), ("client_secret", SITE_SECRET)]].concat();
    let replay = browser.post("/token", &secret_in_body).await;
    assert_eq!(replay.json()["error"], "invalid_grant");
    assert_eq!(site.userinfo(&refreshed.text("access_token")).await, 401, "the replay ended the grant");
    // Mistakes that leave a line in the log: a token in the URL, a broken ticket, a page without its form token.
    let leaked = refreshed.text("access_token");
    browser.get(&format!("/userinfo?access_token={leaked}")).await;
    let misplaced = browser.post(&format!("/token?client_id=web&client_secret={SITE_SECRET}"), &redeem).await;
    assert_eq!(misplaced.status, 400, "{}", misplaced.body);
    browser.get(&format!("/login?ticket={ticket}x")).await;
    let evil = format!(
        "/authorize?client_id=web&response_type=code&scope=openid&redirect_uri=https://evil.test/cb&code={code}"
    );
    assert_eq!(browser.get(&evil).await.status, 400);
    browser.get(&format!("/nowhere?code={code}")).await;
    browser.post("/login", &[("username", "alice"), ("password", SITE_PASSWORD)]).await;
    let logout = format!("/logout?id_token_hint={}", tokens.text("id_token"));
    let page = browser.get(&logout).await;
    if page.body.contains("logout-confirm") {
        browser.submit(&page, &[]).await;
    }
    assert!(!site.is_signed_in(&mut browser).await);
    let metrics = Browser::new(over_the_wire(&admin), &admin).get("/metrics").await.body;
    let ran = running.terminate().await.ok();
    let traces = String::from_utf8_lossy(&collector.bytes()).replace('\n', " ");
    // All that leaves the process for an operator's eyes.
    let log = format!("{}{}\n{metrics}\n{traces}", ran.stdout, ran.stderr);

    for (what, line) in [
        ("each request", "/token"),
        ("its id", "request_id"),
        ("its trace", "trace_id"),
        ("a warning", "WARN"),
        ("metrics", "keyward_sign_ins_total{"),
        ("traces", "POST /introspect"),
    ] {
        assert!(log.contains(line), "{what} should be there, or nothing was tested");
    }
    let mut secrets = vec![
        ("password", SITE_PASSWORD.to_owned()),
        ("password as a form has it", SITE_PASSWORD.replace(' ', "+")),
        ("mistyped password", "mistyped horse 42".to_owned()),
        ("mistyped password as a form has it", "mistyped+horse+42".to_owned()),
        ("client secret", SITE_SECRET.to_owned()),
        ("client secret in its header", STANDARD.encode(format!("web:{SITE_SECRET}"))),
        ("wrong client secret", "a-wrong-secret-31415926".to_owned()),
        ("code", code.rsplit('.').next().expect("a secret part").to_owned()),
        ("code verifier", verifier.to_owned()),
        ("session cookie", session),
        ("ticket", ticket[ticket.len() - 60..].to_owned()),
        ("form token", csrf),
        ("password of the collector", "collector-2718281828".to_owned()),
        ("hash of the client secret", URL_SAFE_NO_PAD.encode(sha256(SITE_SECRET.as_bytes()))),
        ("password hash", "$argon2".to_owned()),
        ("master key", std::fs::read_to_string(site.path("keys/master.key")).expect("a key").trim_end().to_owned()),
    ];
    for (name, token) in [&tokens, &refreshed].iter().flat_map(|answer| {
        ["access_token", "id_token", "refresh_token"].map(|name| (name, answer.body[name].as_str().map(str::to_owned)))
    }) {
        let Some(token) = token else { continue };
        secrets.push((name, token[token.len() - 40..].to_owned()));
        secrets.push((name, token[..].to_owned()));
    }
    for (name, secret) in secrets {
        let line = log.lines().find(|line| line.contains(&secret));
        assert!(line.is_none(), "the {name} is in the log: {}", line.unwrap_or_default());
    }
}

#[tokio::test]
async fn attack_157_the_loudest_log_on_sqlite_holds_no_secret() {
    nothing_secret_is_logged(Backend::Sqlite, "pretty").await;
}

#[tokio::test]
async fn attack_157_the_loudest_log_on_postgres_holds_no_secret() {
    nothing_secret_is_logged(Backend::Postgres, "json").await;
}

mod dev {
    use super::*;

    struct Dev {
        site: Site,
        demo_port: u16,
    }

    impl Dev {
        fn new() -> Self {
            Self { site: Site::empty(), demo_port: free_port() }
        }

        fn command(&self, dir: &str, port: u16, demo_port: u16) -> Command {
            let (port, demo_port) = (port.to_string(), demo_port.to_string());
            self.site.command(&["dev", "--dir", dir, "--port", &port, "--demo-port", &demo_port])
        }

        async fn start(&self) -> Running {
            let mut running = Running::start(self.command("home", self.site.port, self.demo_port), "");
            self.site.answers(&mut running).await;
            // What it printed before may still be on its way.
            wait_for("its last line", async || running.stdout().contains("Manage it").then_some(())).await;
            running
        }

        fn credentials(&self) -> Value {
            let text = std::fs::read_to_string(self.site.path("home/data/dev-credentials.json")).expect("credentials");
            serde_json::from_str(&text).expect("JSON")
        }
    }

    /// Runs a line as somebody who pasted it into a shell.
    fn paste(line: &str) -> String {
        let ran = Command::new("bash").arg("-c").arg(line).env("NO_PROXY", "*").output().expect("a shell");
        assert!(ran.status.success(), "{line}: {ran:?}");
        String::from_utf8(ran.stdout).expect("text")
    }

    /// Pastes a page's commands from its top to its end; what they print.
    fn paste_page(page: &str, variables: &[(&str, &str)]) -> String {
        let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split_once("```"));
        let commands: Vec<&str> = blocks.map(|(block, _)| block).collect();
        let script = format!("set -euo pipefail\n{}", commands.join("\n"));
        let variables = variables.iter().copied().chain([("NO_PROXY", "*")]);
        let ran = Command::new("bash").args(["-c", &script]).envs(variables).output().expect("a shell");
        let (said, complained) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success(), "{said}\n{complained}");
        said.into_owned()
    }

    /// Whoever pastes the page from its top to its end gets what it says.
    #[tokio::test]
    async fn the_page_for_partners_works_as_it_stands() {
        let dev = Dev::new();
        let running = dev.start().await;
        let issuer = format!("http://localhost:{}", dev.site.port);
        let credentials = dev.credentials();
        let variables = [("ISSUER", issuer.as_str()), ("PARTNER_KEY", text(&credentials, "partner_api_key"))];
        let said = paste_page(include_str!("../../docs/partners.md"), &variables);
        for part in ["user-42 is ", "409\n", "invalid_request", "mail_queued", "/handoff?token=", "grace@example.com"] {
            assert!(said.contains(part), "{part} is missing in:\n{said}");
        }
        let written = std::fs::read_dir(dev.site.path("home/data/mail")).expect("a directory").count();
        assert!(written >= 1, "somebody was welcomed");
        running.terminate().await.ok();
    }

    #[tokio::test]
    async fn the_page_about_sign_in_apis_works_as_it_stands() {
        let dev = Dev::new();
        let running = dev.start().await;
        let page = include_str!("../../docs/sign-in-apis.md");
        let issuer = format!("http://localhost:{}", dev.site.port);
        let said = paste_page(page, &[("ISSUER", &issuer)]);
        for part in [
            r#"{"user":{"id":""#,
            r#"{"message":"Logged out successfully"}"#,
            r#""pseudo":"CoolPlayer99","total_games_completed":3"#,
            "x-auth-subject: device-of-grace",
            "x-auth-status: guest",
        ] {
            assert!(said.contains(part), "{part} is missing in:\n{said}");
        }
        running.terminate().await.ok();

        // What it says to configure is enough.
        let config = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a configuration");
        assert!(config.lines().count() <= 15, "{config}");
        let site = Site::new(config);
        site.run(&["config", "check"]).await.ok();
        let running = site.serve().await;
        for path in ["/api/auth/login", "/auth/login"] {
            assert_eq!(site.browser().post(path, &[]).await.status, 415, "{path} is there");
        }
        running.terminate().await.ok();
    }

    /// As the third seed system prints them, but for the host; the last one asks whoever stands behind a gateway.
    const SEED: &str = r#"
curl -X POST https://playsmart-gateway-1w8ko864.uc.gateway.dev/auth/register \
  -H "Content-Type: application/json" \
  -d '{
    "email": "player@example.com",
    "password": "s3cur3pass",
    "deviceId": "device-abc-123"
  }'
curl -X POST https://playsmart-gateway-1w8ko864.uc.gateway.dev/auth/login \
  -H "Content-Type: application/json" \
  -d '{
    "email": "player@example.com",
    "password": "s3cur3pass"
  }'
curl https://playsmart-gateway-1w8ko864.uc.gateway.dev/v1/games \
  -H "Authorization: Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9..."
"#;

    #[tokio::test]
    async fn the_commands_of_the_seed_system_run_unchanged_but_for_the_host() {
        let dev = Dev::new();
        let running = dev.start().await;
        let here = format!("http://localhost:{}", dev.site.port);
        let script = SEED.replace("https://playsmart-gateway-1w8ko864.uc.gateway.dev", &here);
        let commands: Vec<String> = script.split("\ncurl ").skip(1).map(|rest| format!("curl -sS {rest}")).collect();
        assert_eq!(commands.len(), 3);
        let answers = commands[..2].iter().map(|command| serde_json::from_str(&paste(command)).expect("JSON"));
        let answers: Vec<Value> = answers.collect();
        let player = serde_json::json!({
            "id": "device-abc-123", "email": "player@example.com", "pseudo": "", "total_games_completed": 0,
        });
        for answer in &answers {
            assert_eq!(answer["data"]["user"], player, "{answer}");
            for token in ["access_token", "refresh_token"] {
                assert!(answer["data"][token].as_str().is_some_and(|token| token.len() > 60), "{answer}");
            }
        }
        let protected = commands[2]
            .replace("/v1/games", "/forward-auth/required")
            .replace("curl", "curl -w '%{http_code}' -o /dev/null");
        assert_eq!(paste(&protected), "401", "the page's own token is nobody's");
        let protected =
            protected.replace("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9...", text(&answers[1]["data"], "access_token"));
        assert_eq!(paste(&protected), "200");
        running.terminate().await.ok();
    }

    #[tokio::test]
    async fn it_runs_on_an_empty_directory_and_what_it_prints_works() {
        let dev = Dev::new();
        let running = dev.start().await;
        let printed = running.stdout();
        let credentials = dev.credentials();
        let issuer = format!("http://localhost:{}", dev.site.port);
        let demo = format!("http://localhost:{}", dev.demo_port);
        let (user, clients) = (&credentials["user"], &credentials["clients"]);
        for part in [
            issuer.as_str(),
            &format!("{issuer}/.well-known/openid-configuration"),
            &demo,
            text(user, "username"),
            text(user, "password"),
            text(&clients["demo"], "client_secret"),
            text(&clients["service"], "client_secret"),
            text(&clients["platform"], "client_secret"),
            text(&clients["partner"], "client_secret"),
            text(&credentials, "api_key"),
            text(&credentials, "partner_api_key"),
        ] {
            assert!(printed.contains(part), "{part} is missing in:\n{printed}");
        }
        let lines: Vec<&str> = printed.lines().map(str::trim).filter(|line| line.starts_with("curl ")).collect();
        assert_eq!(lines.len(), 12, "{printed}");
        let answers: Vec<Value> = lines
            .iter()
            .map(|line| {
                let answer = paste(line);
                serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{line}: {error}: {answer}"))
            })
            .collect();
        assert_eq!(text(&answers[0], "issuer"), issuer);
        assert_eq!(text(&answers[1], "token_type"), "Bearer");
        assert_eq!((&answers[2]["active"], text(&answers[2], "client_id")), (&true.into(), "service"));
        assert_eq!(text(&answers[3], "username"), text(user, "username"));
        assert_eq!(answers[4]["expires_in"], 7 * 24 * 3600);
        assert_eq!(
            (&answers[5]["expires_in"], &answers[5]["refresh_expires_in"]),
            (&604_800.into(), &2_592_000.into())
        );
        for answer in &answers[8..10] {
            assert_eq!(answer["user"]["username"], "ada", "{answer}");
        }
        for answer in &answers[10..] {
            assert_eq!(answer["data"]["user"]["id"], "device-abc-123", "{answer}");
        }
        let registered = &answers[6];
        assert_eq!(
            (text(&registered["user"], "external_id"), text(&registered["user"], "status")),
            ("user-1", "active")
        );
        assert!(text(&registered["api_key"], "key").starts_with("kw_uk_"));
        assert_eq!(text(&answers[7]["items"][0], "user_id"), text(&registered["user"], "id"));

        let page = paste(&format!("curl -s {demo}/"));
        assert!(page.contains("<html"), "the demo app answers: {page}");
        // And a person can sign in.
        let mut browser =
            crate::support::Browser::new(crate::support::process::over_the_wire(&dev.site.issuer), &issuer);
        dev.site.sign_in(&mut browser, text(user, "username"), text(user, "password")).await;
        assert!(dev.site.is_signed_in(&mut browser).await);

        let config = printed.lines().find_map(|line| line.split("--config ").nth(1)).expect("a line to manage it");
        let config = config.split_whitespace().next().expect("a path");
        let listed = dev.site.run(&["--config", config, "user", "list"]).await.ok();
        assert!(listed.stdout.contains("alice"), "{listed:?}");

        let line = std::fs::read_to_string(format!("/proc/{}/cmdline", running.id())).expect("its command line");
        assert!(!line.contains(text(user, "password")));
        running.terminate().await.ok();
    }

    #[tokio::test]
    async fn programs_get_what_it_prints_as_json() {
        let dev = Dev::new();
        let mut command = dev.command("home", dev.site.port, dev.demo_port);
        command.args(["--output", "json"]);
        let running = Running::start(command, "");
        let printed = async || serde_json::from_str::<Value>(&running.stdout()).ok();
        let printed = wait_for("a document", printed).await;
        assert_eq!(printed["issuer"], format!("http://localhost:{}", dev.site.port));
        assert_eq!(printed["user"], dev.credentials()["user"]);
        assert!(
            text(&printed, "api_key").starts_with("kw") && text(&printed, "demo_app").starts_with("http://localhost")
        );
        running.terminate().await.ok();
    }

    #[tokio::test]
    async fn a_second_start_finds_the_same_and_prints_the_same() {
        let dev = Dev::new();
        let running = dev.start().await;
        let (first, credentials) = (running.stdout(), dev.credentials());
        for name in ["dev-credentials.json", "dev.toml", "keyward.db"] {
            let path = dev.site.path("home/data").join(name);
            let mode = std::fs::metadata(&path).expect(name).permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{name}");
        }
        assert_eq!(
            std::fs::metadata(dev.site.path("home/keys/master.key")).expect("a key").permissions().mode() & 0o777,
            0o600
        );
        let issuer = format!("http://localhost:{}", dev.site.port);
        let mut browser =
            crate::support::Browser::new(crate::support::process::over_the_wire(&dev.site.issuer), &issuer);
        let user = &credentials["user"];
        dev.site.sign_in(&mut browser, text(user, "username"), text(user, "password")).await;
        running.terminate().await.ok();

        let running = dev.start().await;
        assert_eq!(running.stdout(), first);
        assert_eq!(dev.credentials(), credentials);
        assert!(dev.site.is_signed_in(&mut browser).await, "the session is still there");
        running.terminate().await.ok();
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_told_and_disturbs_nobody() {
        let dev = Dev::new();
        let running = dev.start().await;
        let taken = dev.site.port.to_string();
        let demo_taken = dev.demo_port.to_string();
        for (dir, port, demo_port, word) in [
            ("other", dev.site.port, free_port(), &taken),
            ("home", dev.site.port, dev.demo_port, &taken),
            ("third", free_port(), dev.demo_port, &demo_taken),
        ] {
            let ran: Ran = Running::start(dev.command(dir, port, demo_port), "").wait().await;
            let ran = ran.refused(&["cannot listen", word, "in use"]);
            assert!(!ran.stdout.contains("Keyward is running"), "{ran:?}");
        }
        let line = running.stdout().lines().rfind(|line| line.contains("/introspect")).expect("a line").to_owned();
        assert!(paste(&line).contains("\"active\":true"), "the first goes on");
    }

    /// Directories have names with spaces in them.
    #[tokio::test]
    async fn it_runs_in_a_directory_with_a_space_in_its_name() {
        let dev = Dev::new();
        let mut running = Running::start(dev.command("my home", dev.site.port, dev.demo_port), "");
        dev.site.answers(&mut running).await;
        let database = dev.site.path("my home/data/keyward.db");
        let mode = wait_for("the database", async || std::fs::metadata(&database).ok()).await.permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let stray: Vec<String> = std::fs::read_dir(dev.site.dir.path())
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .filter(|name| name.contains('%'))
            .collect();
        assert!(stray.is_empty(), "directories of another name were made: {stray:?}");
        running.terminate().await.ok();
    }
}
