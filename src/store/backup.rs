//! A consistent copy of an SQLite database that others are writing to, on a connection of its own. PostgreSQL has
//! tools of its own for that. Where the copy goes, and under which name it becomes a backup, is for the caller.

use std::path::{Path, PathBuf};

use sqlx::{Connection as _, Row as _};

use super::db::{Conn, connect_to_copy, sqlite_file};
use super::{Result, StoreError};

/// The first ones tell enough.
const PROBLEMS_SHOWN: usize = 3;

/// The file of an SQLite database that exists; `None` for PostgreSQL.
pub fn database_file(database_url: &str) -> Result<Option<PathBuf>> {
    let Some(file) = sqlite_file(database_url)? else { return Ok(None) };
    match std::fs::metadata(&file) {
        Ok(found) if found.len() > 0 => Ok(Some(file)),
        Ok(_) => Err(StoreError::Unusable(format!("{} is empty", file.display()))),
        Err(error) => Err(StoreError::Unusable(format!("{}: {error}", file.display()))),
    }
}

/// Copies the database into `target`, an empty file, and checks the copy. Everything that was acknowledged before the
/// call is in it; writers are not held up.
pub async fn copy_sqlite(database_url: &str, target: &Path) -> Result<()> {
    let mut conn = connect_to_copy(database_url).await?;
    let target = target.to_str().ok_or_else(|| StoreError::Unusable("the file's path is not UTF-8".to_owned()))?;
    let copied = copy_and_check(&mut conn, target).await;
    conn.close().await?;
    copied
}

async fn copy_and_check(conn: &mut Conn, target: &str) -> Result<()> {
    // One read transaction on the database as it stands now; the copy comes without its journal.
    sqlx::query("VACUUM INTO $1").bind(target).execute(&mut *conn).await?;
    sqlx::query("ATTACH DATABASE $1 AS copy").bind(target).execute(&mut *conn).await?;
    let rows = sqlx::query("PRAGMA copy.integrity_check").fetch_all(&mut *conn).await?;
    let found = rows.iter().map(|row| row.try_get::<String, _>(0)).collect::<sqlx::Result<Vec<_>>>()?;
    sqlx::query("DETACH DATABASE copy").execute(&mut *conn).await?;
    if found == ["ok"] {
        return Ok(());
    }
    let problems = found.iter().take(PROBLEMS_SHOWN).cloned().collect::<Vec<_>>().join("; ");
    Err(StoreError::Unusable(format!("the database is damaged, and so would its copy be: {problems}")))
}
