//! API keys as an operator and programs meet them: the command beside a running server, a restart, and two processes on
//! one PostgreSQL.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::support::process::Site;
use crate::support::{Browser, call, claims_of, json as api};

/// What turns keys into tokens.
const PLATFORM: &str = r#"
[[clients]]
client_id = "platform"
client_secret = "platform-secret"
grant_types = ["urn:keyward:oauth:grant-type:api-key", "refresh_token"]
scope = "openid profile email offline_access"
[[clients]]
client_id = "acme"
client_secret = "acme-secret"
grant_types = ["client_credentials"]
partner = true
[sign_in_apis.api_key]
client_id = "platform"
"#;

const GRANT: &str = "urn:keyward:oauth:grant-type:api-key";

async fn status_of(browser: &mut Browser, credential: &str) -> u16 {
    let bearer = format!("Bearer {credential}");
    browser.send(Method::GET, "/v1/me", None, &[("authorization", &bearer)]).await.status.as_u16()
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}")).to_owned()
}

#[tokio::test]
async fn an_operator_makes_lists_rotates_and_revokes_keys_beside_a_running_server() {
    let site = Site::new(PLATFORM);
    let running = site.serve().await;
    let mut browser = site.browser();
    let made =
        site.json(&["api-key", "create", "--user", "alice", "--name", "laptop", "--scope", "openid profile"]).await;
    let (kid, key) = (text(&made, "id"), text(&made, "key"));
    assert_eq!(status_of(&mut browser, &key).await, 200, "at once");
    let tokens = call(&mut browser, "platform", "/token", &[("grant_type", GRANT), ("api_key", &key)]).await;
    let access = tokens.text("access_token");
    assert_eq!(claims_of(&access)["key_id"], kid.as_str());

    let listed = site.json(&["api-key", "list", "--user", "alice@example.com"]).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    assert_eq!((text(&listed[0], "id"), text(&listed[0], "status")), (kid.clone(), "active".to_owned()));
    assert!(!listed.to_string().contains(&key[23..]), "{listed}");

    let rotated = site.json(&["api-key", "rotate", &kid, "--overlap", "1d"]).await;
    let (next, fresh) = (text(&rotated, "id"), text(&rotated, "key"));
    for both in [&key, &fresh] {
        assert_eq!(status_of(&mut browser, both).await, 200);
    }
    site.run(&["api-key", "rotate", &kid]).await.refused(&[&kid, "rotated before"]);
    site.run(&["api-key", "rotate", &next, "--overlap", "8d"]).await.refused(&["7d"]);
    site.run(&["api-key", "revoke", &kid, "--yes"]).await.ok();
    site.within_a_second("the key and its token to be dead", async || {
        status_of(&mut site.browser(), &key).await == 401 && status_of(&mut site.browser(), &access).await == 401
    })
    .await;
    assert_eq!(status_of(&mut browser, &fresh).await, 200, "its successor lives");
    site.run(&["api-key", "revoke", &kid]).await.refused(&["revoked before"]);
    site.run(&["api-key", "revoke", "nonsense"]).await.refused(&["nonsense", "api-key list"]);

    site.run(&["user", "disable", "alice"]).await.ok();
    site.within_a_second("its owner to be out", async || status_of(&mut site.browser(), &fresh).await == 401).await;
    site.run(&["user", "enable", "alice"]).await.ok();
    site.within_a_second("its owner to be back", async || status_of(&mut site.browser(), &fresh).await == 200).await;
    running.terminate().await.ok();
    // Its use was written at the end at the latest.
    let listed = site.json(&["api-key", "list"]).await;
    let used = listed.as_array().expect("a list").iter().find(|key| text(key, "id") == next).expect("the key");
    assert_eq!(text(used, "last_used_ip"), "127.0.0.1");
    let running = site.serve().await;
    assert_eq!(status_of(&mut site.browser(), &fresh).await, 200, "after a restart");
    running.terminate().await.ok();
}

#[tokio::test]
async fn what_a_key_may_not_be_is_said_on_the_command_line() {
    let site = Site::new(PLATFORM);
    let running = site.serve().await;
    for (args, words) in [
        (&["--user", "alice", "--name", "x", "--scope", "root"][..], &["root", "not a scope"][..]),
        (&["--user", "alice", "--name", "x", "--expires-in", "4000d"], &["expires_in"]),
        (&["--user", "alice", "--name", "x", "--audience", "https://x.test"], &["https://x.test"]),
        (&["--user", "alice", "--name", "x", "--allowed-cidr", "here"], &["here", "network"]),
        (&["--user", "nobody", "--name", "x"], &["nobody", "user list"]),
        (&["--partner", "web", "--name", "x"], &["web", "no partner"]),
        (&["--partner", "nobody", "--name", "x"], &["nobody"]),
        (&["--partner", "acme", "--name", "x", "--scope", "openid"], &["openid"]),
    ] {
        let all: Vec<&str> = ["api-key", "create"].iter().chain(args).copied().collect();
        site.run(&all).await.refused(words);
    }
    let made = site.json(&["api-key", "create", "--partner", "acme", "--name", "backend"]).await;
    let key = text(&made, "key");
    assert!(key.starts_with("kw_pk_"), "{key}");
    assert_eq!(made["scopes"], json!(["partner.users"]));
    assert_eq!(status_of(&mut site.browser(), &key).await, 401, "only the partner's calls take it");
    let listed = site.json(&["api-key", "list", "--partner", "acme"]).await;
    assert_eq!((listed.as_array().map(Vec::len), text(&listed[0], "partner_id")), (Some(1), "acme".to_owned()));
    running.terminate().await.ok();
}

#[tokio::test]
async fn roles_are_set_beside_a_running_server() {
    let site = Site::new(
        &format!("[[scopes]]\nname = \"teach\"\nrequires_role = \"teacher\"\n{PLATFORM}")
            .replace("email offline", "email teach roles offline"),
    );
    let running = site.serve().await;
    site.run(&["api-key", "create", "--user", "alice", "--name", "x", "--scope", "teach"]).await.refused(&["teach"]);
    let shown = site.json(&["user", "set-roles", "alice", "teacher", "student"]).await;
    assert_eq!(shown["roles"], json!(["teacher", "student"]));
    let key = site.json(&["api-key", "create", "--user", "alice", "--name", "x", "--scope", "roles teach"]).await;
    let key = text(&key, "key");
    let scope = async || {
        let fields = [("grant_type", GRANT), ("api_key", key.as_str())];
        call(&mut site.browser(), "platform", "/token", &fields).await.text("scope")
    };
    assert_eq!(scope().await, "roles teach");
    site.run(&["user", "set-roles", "alice"]).await.ok();
    site.within_a_second("the role's scope to be gone", async || scope().await == "roles").await;
    let groups = site.json(&["user", "set-groups", "alice", "year-7"]).await;
    assert_eq!(groups["groups"], json!(["year-7"]));
    site.run(&["user", "set-roles", "alice", "two words"]).await.refused(&["two words"]);
    running.terminate().await.ok();
}

#[tokio::test]
async fn a_key_that_ends_at_one_process_has_ended_at_all_within_a_second() {
    let mut cluster = Cluster::start().await;
    let doors = cluster.doors.clone();
    for way in ["self-revoke", "command", "disabled owner", "rotation without overlap"] {
        let name = format!("--name={way}");
        let made =
            cluster.sites[0].json(&["api-key", "create", "--user=alice", &name, "--scope=openid offline_access"]).await;
        let (kid, key) = (text(&made, "id"), text(&made, "key"));
        let login = json!({ "api_key": key });
        let tokens = api(&mut doors.browser(0), "POST", "/v1/auth/api-key/login", login, &[]).await.json();
        let (access, refresh) = (text(&tokens, "access_token"), text(&tokens, "refresh_token"));
        let mut session = doors.browser(1);
        let began = api(&mut session, "POST", "/v1/auth/session", json!({ "api_key": key }), &[]).await;
        assert_eq!(began.status, 204, "{way}: {}", began.body);
        for door in 0..2 {
            assert_eq!(status_of(&mut doors.browser(door), &key).await, 200, "{way} at {door}");
            assert_eq!(status_of(&mut doors.browser(door), &access).await, 200, "{way} at {door}");
            assert_eq!(doors.moved(&session, door).get("/v1/me").await.status, 200, "{way} at {door}");
        }
        match way {
            "self-revoke" => {
                let body = json!({ "api_key": key });
                assert_eq!(api(&mut doors.browser(0), "POST", "/v1/api-keys/self-revoke", body, &[]).await.status, 204);
            }
            "command" => cluster.operate(1, &["api-key", "revoke", &kid, "--yes"]).await,
            "disabled owner" => cluster.operate(0, &["user", "disable", "alice"]).await,
            _ => cluster.operate(1, &["api-key", "rotate", &kid, "--overlap", "0s"]).await,
        }
        cluster
            .within_a_second(&format!("{way} to hold everywhere"), async |door| {
                let refresh = json!({ "refresh_token": refresh });
                status_of(&mut doors.browser(door), &key).await == 401
                    && status_of(&mut doors.browser(door), &access).await == 401
                    && doors.moved(&session, door).get("/v1/me").await.status == 401
                    && api(&mut doors.browser(door), "POST", "/v1/auth/refresh", refresh, &[]).await.status == 401
            })
            .await;
        if way == "disabled owner" {
            cluster.operate(0, &["user", "enable", "alice"]).await;
        }
    }
    for running in cluster.running.drain(..) {
        running.terminate().await.ok();
    }
}
