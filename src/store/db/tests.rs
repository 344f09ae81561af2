//! What every connection is set to, asked through the connections themselves.

use tempfile::TempDir;

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

/// What durability and safety rest on, as this connection has it: journal_mode, synchronous, foreign_keys, query_only.
async fn settings(conn: &mut Conn) -> Result<(String, i64, i64, i64)> {
    let journal_mode = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *conn).await?;
    let synchronous = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut *conn).await?;
    let foreign_keys = sqlx::query_scalar("PRAGMA foreign_keys").fetch_one(&mut *conn).await?;
    let query_only = sqlx::query_scalar("PRAGMA query_only").fetch_one(&mut *conn).await?;
    Ok((journal_mode, synchronous, foreign_keys, query_only))
}

fn expected(query_only: i64) -> (String, i64, i64, i64) {
    // 2 is FULL.
    ("wal".to_owned(), 2, 1, query_only)
}

async fn ask_writer<T, F>(db: &Db, ask: F) -> Result<T>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T>> + Send + 'static,
{
    db.write(ask).await
}

#[tokio::test]
async fn every_sqlite_connection_is_set_to_keep_what_it_acknowledges() {
    let dir = TempDir::new().unwrap();
    let db = Db::open(&format!("sqlite://{}/keyward.db", dir.path().display()), PATIENCE).await.unwrap();

    // All of them at once, so that each is asked.
    let mut readers = Vec::new();
    let Ways::Sqlite { readers: own, .. } = &db.ways else { unreachable!("it is SQLite") };
    for _ in 0..READERS {
        readers.push(own.take().await.unwrap());
    }
    for reader in &mut readers {
        assert_eq!(settings(reader).await.unwrap(), expected(1));
        let written = sqlx::query("CREATE TABLE t (a TEXT)").execute(&mut *reader).await;
        assert!(written.is_err(), "a reader cannot write");
    }
    // Those that replace them are no different.
    for reader in readers {
        reader.close().await.unwrap();
    }
    assert_eq!(settings(&mut own.take().await.unwrap()).await.unwrap(), expected(1));

    assert_eq!(ask_writer(&db, |conn| Box::pin(settings(conn))).await.unwrap(), expected(0));
    db.close().await;
}

#[tokio::test]
async fn a_writer_that_was_replaced_after_an_error_is_set_like_the_first() {
    let dir = TempDir::new().unwrap();
    let db = Db::open(&format!("sqlite://{}/keyward.db", dir.path().display()), PATIENCE).await.unwrap();
    // A temporary table belongs to its connection.
    let marks = async || {
        let sql = "SELECT COUNT(*) FROM sqlite_temp_schema";
        ask_writer(&db, move |conn| Box::pin(async move { Ok(sqlx::query_scalar(sql).fetch_one(conn).await?) })).await
    };
    for statement in ["CREATE TEMP TABLE mark (a TEXT)", "CREATE TABLE kept (a TEXT)"] {
        let made = ask_writer(&db, move |conn| {
            Box::pin(async move { Ok(sqlx::query(statement).execute(conn).await.map(drop)?) })
        });
        made.await.unwrap();
    }
    let before: i64 = marks().await.unwrap();
    assert_eq!(before, 1);
    let broken = ask_writer(&db, |conn| {
        Box::pin(async move {
            sqlx::query("INSERT INTO kept VALUES ('half')").execute(&mut *conn).await?;
            Ok(sqlx::query("INSERT INTO nowhere VALUES (1)").execute(conn).await.map(drop)?)
        })
    });
    assert!(matches!(broken.await, Err(StoreError::Unavailable(_))));

    let after: i64 = marks().await.unwrap();
    assert_eq!(after, 0, "this is another connection");
    assert_eq!(ask_writer(&db, |conn| Box::pin(settings(conn))).await.unwrap(), expected(0));
    let half = ask_writer(&db, |conn| {
        Box::pin(async move { Ok(sqlx::query_scalar("SELECT COUNT(*) FROM kept").fetch_one(conn).await?) })
    });
    let half: i64 = half.await.unwrap();
    assert_eq!(half, 0, "what stood in the broken transaction is gone");
    db.close().await;
}

/// A database in memory stands for every one that has no write-ahead log on a disk.
#[tokio::test]
async fn a_connection_that_cannot_be_set_so_is_refused() {
    sqlx::any::install_default_drivers();
    let mut conn = AnyConnectOptions::from_str("sqlite::memory:").unwrap().connect().await.unwrap();
    let error = sqlite::configure(&mut conn, false).await.unwrap_err();
    assert!(error.to_string().contains("journal_mode=memory"), "{error}");
}

/// Two writes share a transaction that comes to nothing: what one found there, because of the other, is no answer.
#[tokio::test]
async fn what_a_write_found_in_a_transaction_that_came_to_nothing_is_no_answer() {
    let dir = TempDir::new().unwrap();
    let db = Db::open(&format!("sqlite://{}/keyward.db", dir.path().display()), PATIENCE).await.unwrap();
    let run = |sql: &'static str| db.execute(move || sqlx::query(sql));
    run("CREATE TABLE names (name TEXT PRIMARY KEY)").await.unwrap();
    // Queued while the writer is busy with one, the others share the next transaction.
    let (begun, begins) = tokio::sync::oneshot::channel();
    let (end, ends) = tokio::sync::oneshot::channel::<()>();
    let busy = tokio::spawn({
        let db = db.clone();
        async move {
            let wait = db.write(|_| {
                Box::pin(async move {
                    begun.send(()).unwrap();
                    ends.await.unwrap();
                    Ok(())
                })
            });
            wait.await
        }
    });
    begins.await.unwrap();
    let (first, second, breaks, ()) = tokio::join!(
        run("INSERT INTO names VALUES ('carol')"),
        run("INSERT INTO names VALUES ('carol')"),
        run("INSERT INTO nowhere VALUES (1)"),
        async { end.send(()).unwrap() },
    );
    busy.await.unwrap().unwrap();
    assert!(matches!(first, Err(StoreError::RolledBack(_))), "{first:?}");
    assert!(matches!(second, Err(StoreError::RolledBack(_))), "the name is free: {second:?}");
    assert!(matches!(breaks, Err(StoreError::Unavailable(_))), "{breaks:?}");
    // And where the transaction counts, so does the answer.
    let (first, second) =
        tokio::join!(run("INSERT INTO names VALUES ('carol')"), run("INSERT INTO names VALUES ('carol')"));
    first.unwrap();
    assert!(matches!(second, Err(StoreError::Conflict(_))), "{second:?}");
    db.close().await;
}
