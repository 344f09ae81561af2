//! Migrations and roll-outs: the release before a migration goes on working on the tables after it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use keyward::account::declared::{self, Profile, create_user};
use keyward::crypto::secret::Secret;
use keyward::protocol::ids::ClientId;
use keyward::protocol::time::Span;
use sqlx::{AssertSqlSafe, Connection as _};

use crate::attacks::leakage::walk;
use crate::attacks::races::assert_dead;
use crate::authorize::{add_client, code_at_app, open, type_password};
use crate::on_both_databases;
use crate::support::audit::{an_operator, told};
use crate::support::{Doors, Provider, tables};

/// Everything that a migration of ours may do, done by a release that does not exist yet: new tables that lean on ours,
/// new columns everywhere, new settings.
async fn migrate_from_the_future(provider: &Provider) {
    let mut conn = provider.connection().await;
    let mut statements = Vec::new();
    for table in tables(provider.backend(), &mut conn).await {
        for column in ["later_text TEXT", "later_number BIGINT NOT NULL DEFAULT 7", "later_bytes BYTEA"] {
            statements.push(format!("ALTER TABLE {table} ADD COLUMN {column}"));
        }
    }
    for statement in [
        "CREATE TABLE later (id TEXT NOT NULL PRIMARY KEY, user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
             client_id TEXT NOT NULL REFERENCES clients (id) ON DELETE CASCADE)",
        "CREATE INDEX later_by_user ON later (user_id)",
        "CREATE INDEX grants_by_later ON grants (later_number)",
        "INSERT INTO settings (name, value) VALUES ('later', 'x')",
        "INSERT INTO later SELECT u.id, u.id, c.id FROM users u, clients c WHERE c.id = 'first'",
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             SELECT 99991231235959, 'from the future', success, checksum, 0 FROM _sqlx_migrations LIMIT 1",
    ] {
        statements.push(statement.to_owned());
    }
    for sql in statements {
        sqlx::query(AssertSqlSafe(sql.as_str()))
            .execute(&mut conn)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    conn.close().await.expect("closed");
}

on_both_databases! {
    /// A roll-out: the next release migrates while this one serves and is started anew here and there.
    async fn this_release_serves_on_tables_that_the_next_one_has_migrated(provider: Provider) {
        let mut browser = provider.browser();
        let tokens = provider.spa_tokens().await;
        let code = provider.code(&mut browser, &provider.authorize_url("scope=openid+offline_access")).await;
        let large = provider.authorize_url(&format!("prompt=login&state={}", "s".repeat(2000)));
        let half_way = open(&mut browser, &large).await;

        migrate_from_the_future(&provider).await;

        // What had begun goes on, over connections that knew the tables as they were.
        let done = type_password(&mut browser, &half_way).await;
        code_at_app(&done);
        assert_eq!(provider.redeem(&code).await.status, 200);
        assert_eq!(provider.refresh("spa", &tokens.text("refresh_token")).await.status, 200);
        assert_eq!(provider.userinfo(&tokens.text("access_token")).await.status, 200);
        walk(&provider).await;

        // One that starts now: the configuration is brought in again, and people come and go.
        let (other, _) = provider.second().await;
        declared::sync(&other).await.expect("declared clients and users");
        let doors = Doors::of(&provider).await;
        for door in 0..2 {
            let mut browser = doors.wandering(door);
            let code = doors.code_for(&mut browser, "first", "openid").await;
            let tokens = doors.redeem(door, "first", &code).await;
            assert_eq!(doors.refresh(door + 1, "first", &tokens.text("refresh_token")).await.status, 200);
            let refresh = tokens.text("refresh_token");
            assert_eq!(doors.call(door, "first", "/revoke", &[("token", &refresh)]).await.status, 200);
            assert_dead(&doors, "first", &tokens).await;
        }
        let profile = Profile { username: Some("carol".to_owned()), ..Profile::default() };
        let carol = create_user(&other, profile, Some(Secret::new("a long password".to_owned())), &an_operator()).await.expect("carol");
        let page = provider.sign_in_as(&mut provider.browser(), "carol", "a long password").await;
        assert_eq!(page.status, 303);
        add_client(&provider, "app", |_| {}).await;
        provider.set_client_disabled("app", true).await;
        assert!(other.store.delete_client(ClientId::new("app"), told()).await.expect("an answer"));
        provider.set_user_disabled("carol", true).await;
        assert!(other.store.delete_user(carol, told()).await.expect("an answer"));
        // Somebody about whom the next release has written rows of its own.
        assert!(other.store.delete_user(provider.user_id("alice").await, told()).await.expect("an answer"));
        provider.pass(Span::days(100));
        assert!(other.store.purge_expired(Span::days(90), other.now()).await.expect("purged") > 0);
    }
}

/// Why a migration would disturb the release that still runs beside it; `None` where it would not. `indexes`: those of
/// earlier migrations that only make things faster; the migration's own join them.
fn problem(sql: &str, indexes: &mut BTreeSet<String>) -> Option<String> {
    let text: Vec<&str> = sql.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
    let text = text.join(" ");
    let mut own_tables = BTreeSet::new();
    // Of which the old release knows nothing, and leaves them so.
    let mut empty_columns = BTreeSet::new();
    for statement in text.split(';') {
        let words: Vec<String> = statement
            .replace(['(', ')', ','], " ")
            .split_whitespace()
            .map(|word| word.trim_matches('"').to_ascii_uppercase())
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let why = match words.as_slice() {
            [] => None,
            ["CREATE", "TABLE", table, ..] => {
                own_tables.insert((*table).to_owned());
                holds_on(&words, &own_tables)
            }
            // What the old release writes is not in it.
            ["CREATE", "UNIQUE", "INDEX", _, "ON", table, .., "WHERE", column, "IS", "NOT", "NULL"]
                if empty_columns.contains(&((*table).to_owned(), (*column).to_owned())) =>
            {
                None
            }
            // On an old table it would refuse what the old release writes.
            ["CREATE", "UNIQUE", "INDEX", _, "ON", table, ..] if !own_tables.contains(*table) => {
                Some("a unique index on a table that was there before")
            }
            ["CREATE", "UNIQUE", "INDEX", _, "ON", ..] => None,
            ["CREATE", "INDEX", index, "ON", ..] => {
                indexes.insert((*index).to_owned());
                None
            }
            ["DROP", "INDEX", index] if indexes.remove(*index) => None,
            ["ALTER", "TABLE", table, "ADD", "COLUMN", column, _, rest @ ..] => {
                if !rest.contains(&"DEFAULT") {
                    empty_columns.insert(((*table).to_owned(), (*column).to_owned()));
                }
                let strict = rest.windows(2).any(|two| two == ["NOT", "NULL"]) && !rest.contains(&"DEFAULT");
                let narrow = ["UNIQUE", "PRIMARY", "CHECK"].iter().any(|word| rest.contains(word));
                match (own_tables.contains(*table), strict, narrow) {
                    (false, true, _) => Some("a column that the old release does not fill"),
                    (false, _, true) => Some("a column that refuses what the old release writes"),
                    _ => holds_on(&words, &own_tables),
                }
            }
            ["INSERT", "INTO", table, ..] if *table == "SETTINGS" || own_tables.contains(*table) => None,
            _ => Some("not one of the additions that the old release does not notice"),
        };
        if let Some(why) = why {
            return Some(format!("{}: {why}", statement.trim()));
        }
    }
    None
}

/// The old release deletes people, clients, sessions and grants and knows nothing of who leans on them.
fn holds_on(words: &[&str], own_tables: &BTreeSet<String>) -> Option<&'static str> {
    for (at, _) in words.iter().enumerate().filter(|(_, word)| **word == "REFERENCES") {
        let table = words.get(at + 1).copied().unwrap_or_default();
        // Nobody ever deletes from `subjects`.
        let kept = table == "SUBJECTS" || own_tables.contains(table);
        let lets_go = words[at..].windows(3).take(4).any(|three| matches!(three, ["ON", "DELETE", "CASCADE" | "SET"]));
        if !kept && !lets_go {
            return Some("a reference that keeps the old release from deleting");
        }
    }
    None
}

#[test]
fn every_migration_is_an_addition() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut names: Vec<String> = fs::read_dir(&dir)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert!(names[0].starts_with("0001_") && names.iter().all(|name| name.ends_with(".sql")), "{names:?}");
    let mut indexes = BTreeSet::new();
    for (nth, name) in names.iter().enumerate() {
        let sql = fs::read_to_string(dir.join(name)).expect("a migration");
        // The first finds no release before it.
        if let Some(problem) = problem(&sql, &mut indexes).filter(|_| nth > 0) {
            panic!("{name} would break the release that runs beside it:\n{problem}");
        }
    }
}

#[test]
fn what_would_disturb_a_running_release_is_noticed() {
    for additions in [
        "",
        "-- Only a comment; nothing.\n",
        "CREATE TABLE codes (id TEXT NOT NULL PRIMARY KEY, n BIGINT NOT NULL CHECK (n > 0));\nCREATE INDEX i ON codes (n);",
        "CREATE TABLE codes (id TEXT REFERENCES users (id) ON DELETE CASCADE);\nCREATE UNIQUE INDEX i ON codes (id);",
        "CREATE TABLE codes (id TEXT REFERENCES subjects (id)); INSERT INTO codes (id) VALUES ('x');",
        "CREATE INDEX users_by_email ON users (email);",
        "ALTER TABLE users ADD COLUMN a TEXT; ALTER TABLE users ADD COLUMN b BIGINT NOT NULL DEFAULT 0;",
        "alter table users add column a text references clients (id) on delete set null;",
        "INSERT INTO settings (name, value) VALUES ('a', 'b');",
        "ALTER TABLE users ADD COLUMN a TEXT; CREATE UNIQUE INDEX i ON users (realm, a) WHERE a IS NOT NULL;",
        "CREATE TABLE a (id TEXT); ALTER TABLE a ADD COLUMN b TEXT NOT NULL UNIQUE;",
        "CREATE INDEX i ON users (email); DROP INDEX i;",
    ] {
        assert_eq!(problem(additions, &mut BTreeSet::new()), None);
    }
    for disturbance in [
        "DROP TABLE users",
        "ALTER TABLE users DROP COLUMN email",
        "ALTER TABLE users RENAME COLUMN email TO mail",
        "ALTER TABLE users RENAME TO people",
        "ALTER TABLE users ALTER COLUMN email SET NOT NULL",
        "ALTER TABLE users ADD COLUMN a TEXT NOT NULL",
        "ALTER TABLE users ADD COLUMN a TEXT UNIQUE",
        "ALTER TABLE users ADD COLUMN a BIGINT NOT NULL DEFAULT 0 CHECK (a > 0)",
        "ALTER TABLE users ADD COLUMN a TEXT REFERENCES clients (id)",
        "ALTER TABLE users ADD CONSTRAINT c UNIQUE (email)",
        "CREATE UNIQUE INDEX one ON users (email)",
        "CREATE UNIQUE INDEX one ON users (email) WHERE email IS NOT NULL",
        "ALTER TABLE users ADD COLUMN a TEXT; CREATE UNIQUE INDEX one ON users (realm, a)",
        "ALTER TABLE users ADD COLUMN a TEXT DEFAULT 'x'; CREATE UNIQUE INDEX one ON users (a) WHERE a IS NOT NULL",
        "CREATE TABLE a (user_id TEXT NOT NULL REFERENCES users (id))",
        "CREATE TABLE a (user_id TEXT REFERENCES users (id), b TEXT REFERENCES clients (id) ON DELETE CASCADE)",
        "CREATE TABLE a (id TEXT); UPDATE users SET email = NULL",
        "DELETE FROM users",
        "INSERT INTO users (id) VALUES ('x')",
        "CREATE TRIGGER t BEFORE UPDATE ON users BEGIN SELECT 1; END",
        "PRAGMA journal_mode = DELETE",
        "DROP INDEX somebody_elses",
        "CREATE TABLE a (id TEXT); CREATE UNIQUE INDEX one ON a (id); DROP INDEX one",
    ] {
        assert!(problem(disturbance, &mut BTreeSet::new()).is_some(), "{disturbance}");
    }
}
