//! Imports: many registrations at once, line by line. Which process is at one is decided by its lease; that no line is
//! done twice, by the transaction that does it.

use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use super::db::{Conn, Statement};
use super::users::{read, user_columns};
use super::{Result, Store, StoreError, column, from_json, rows, to_json};
use crate::protocol::client::wire_enum;
use crate::protocol::ids::{ClientId, ImportId, OnboardingId, UserId};
use crate::protocol::partner::Registration;
use crate::protocol::time::{Span, Timestamp};
use crate::protocol::user::User;

wire_enum! {
    pub enum ImportState {
        Queued = "queued",
        Running = "running",
        Completed = "completed",
        /// It was given up; what is done stays done.
        Failed = "failed",
    }
}

/// Where an import is.
#[derive(Clone, Debug)]
pub struct Import {
    pub id: ImportId,
    pub partner: ClientId,
    pub state: ImportState,
    pub total: i64,
    /// Why it was given up.
    pub reason: Option<String>,
    pub created_at: Timestamp,
}

/// One line of one import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineId {
    pub import: ImportId,
    /// From 1.
    pub line: i64,
}

/// What a line asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Wish {
    pub onboarding: OnboardingId,
    pub registration: Registration,
}

/// A line as it comes in: what it asks for, or the code of what is wrong with it.
pub type NewLine = std::result::Result<Wish, &'static str>;

/// What became of a line.
#[derive(Clone, Debug)]
pub enum LineResult {
    User(Box<User>),
    Error(String),
}

/// A write was taken back because its line is done.
pub(super) const DONE: &str = "the line is done";

/// The code of a line whose person was deleted since.
const GONE: &str = "user_deleted";

/// Lines in one statement.
const LINES_AT_A_TIME: usize = 100;

fn read_import(row: &AnyRow) -> Result<Import> {
    let corrupt = || StoreError::Corrupt { what: "import", why: "unknown state".to_owned() };
    Ok(Import {
        id: ImportId::new(column::<String>(row, "id")?),
        partner: ClientId::new(column::<String>(row, "partner_id")?),
        state: column::<String>(row, "state")?.parse().map_err(|()| corrupt())?,
        total: column(row, "total")?,
        reason: column(row, "reason")?,
        created_at: Timestamp(column(row, "created_at")?),
    })
}

impl Store {
    /// Takes an import in, whole. Lines that are wrong have their result at once.
    pub async fn create_import(
        &self,
        id: ImportId,
        partner: ClientId,
        lines: Vec<NewLine>,
        now: Timestamp,
    ) -> Result<()> {
        let created =
            self.db.write(move |conn| Box::pin(async move { create(conn, &id, &partner, &lines, now).await }));
        created.await
    }

    /// One of a partner's; somebody else's is as good as none.
    pub async fn import(&self, partner: &ClientId, id: &ImportId) -> Result<Option<Import>> {
        let sql =
            "SELECT id, partner_id, state, total, reason, created_at FROM imports WHERE id = $1 AND partner_id = $2";
        let statement = || sqlx::query(sql).bind(id.as_str().to_owned()).bind(partner.as_str().to_owned());
        self.db.row(statement).await?.as_ref().map(read_import).transpose()
    }

    /// What became of the lines that are done, in their order.
    pub async fn import_results(&self, id: &ImportId) -> Result<Vec<(i64, LineResult)>> {
        let sql = concat!(
            "SELECT l.line, l.error, ",
            user_columns!(),
            " FROM import_lines l LEFT JOIN users u ON u.id = l.user_id
              WHERE l.import_id = $1 AND l.wish IS NULL ORDER BY l.line"
        );
        let result = |row: &AnyRow| {
            let outcome = match (column::<Option<String>>(row, "error")?, column::<Option<String>>(row, "user_id")?) {
                (Some(code), _) => LineResult::Error(code),
                (None, None) => LineResult::Error(GONE.to_owned()),
                (None, Some(_)) => LineResult::User(Box::new(read(row)?)),
            };
            Ok((column(row, "line")?, outcome))
        };
        self.db.rows(|| sqlx::query(sql).bind(id.as_str().to_owned())).await?.iter().map(result).collect()
    }

    /// Takes the oldest import that nobody is at, for as long as `lease`.
    pub async fn claim_import(&self, lease: Span, now: Timestamp) -> Result<Option<Import>> {
        // Looking costs no write, and mostly nothing is there.
        let due = "SELECT id FROM imports WHERE state IN ('queued', 'running') AND due_at <= $1 LIMIT 1";
        if self.db.row(|| sqlx::query(due).bind(now.millis())).await?.is_none() {
            return Ok(None);
        }
        let claimed = self.db.write(move |conn| {
            Box::pin(async move {
                let row = sqlx::query(
                    "UPDATE imports SET state = 'running', due_at = $2, updated_at = $1
                     WHERE state IN ('queued', 'running') AND due_at <= $1 AND id = (
                         SELECT id FROM imports WHERE state IN ('queued', 'running') AND due_at <= $1
                         ORDER BY due_at LIMIT 1)
                     RETURNING id, partner_id, state, total, reason, created_at",
                )
                .bind(now.millis())
                .bind((now + lease).millis())
                .fetch_optional(conn)
                .await?;
                row.as_ref().map(read_import).transpose()
            })
        });
        claimed.await
    }

    /// Goes on with an import for another while. `false` where it was ended meanwhile.
    pub async fn renew_import(&self, id: ImportId, lease: Span, now: Timestamp) -> Result<bool> {
        let sql = "UPDATE imports SET due_at = $3, updated_at = $2 WHERE id = $1 AND state = 'running'";
        let statement =
            move || sqlx::query(sql).bind(id.as_str().to_owned()).bind(now.millis()).bind((now + lease).millis());
        Ok(self.db.execute(statement).await? > 0)
    }

    /// Lets go of an import, ended or to be gone on with by whoever comes first. What it received and never did ends
    /// with one that is given up.
    pub async fn release_import(
        &self,
        import: Import,
        state: ImportState,
        reason: Option<&'static str>,
        now: Timestamp,
    ) -> Result<()> {
        let released = self.db.write(move |conn| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE imports SET state = $2, reason = $3, due_at = $4, updated_at = $4
                     WHERE id = $1 AND state = 'running'",
                )
                .bind(import.id.as_str())
                .bind(state.as_str())
                .bind(reason)
                .bind(now.millis())
                .execute(&mut *conn)
                .await?;
                if state == ImportState::Failed {
                    sqlx::query(
                        "UPDATE onboardings SET state = 'failed', reason = $2, updated_at = $3
                         WHERE partner_id = $1 AND state = 'received'",
                    )
                    .bind(import.partner.as_str())
                    .bind(reason)
                    .bind(now.millis())
                    .execute(conn)
                    .await?;
                }
                Ok(())
            })
        });
        released.await
    }

    /// Lets go of an import until `due_at`.
    pub async fn put_off_import(&self, id: ImportId, due_at: Timestamp) -> Result<()> {
        let sql = "UPDATE imports SET state = 'queued', due_at = $2 WHERE id = $1 AND state = 'running'";
        self.db.execute(move || sqlx::query(sql).bind(id.as_str().to_owned()).bind(due_at.millis())).await?;
        Ok(())
    }

    /// Up to `limit` lines that are not done, in their order.
    pub async fn open_lines(&self, id: &ImportId, limit: i64) -> Result<Vec<(LineId, Wish)>> {
        let sql =
            "SELECT line, wish FROM import_lines WHERE import_id = $1 AND wish IS NOT NULL ORDER BY line LIMIT $2";
        let rows = self.db.rows(|| sqlx::query(sql).bind(id.as_str().to_owned()).bind(limit)).await?;
        let line = |row: &AnyRow| {
            let id = LineId { import: id.clone(), line: column(row, "line")? };
            Ok((id, from_json("import", column(row, "wish")?)?))
        };
        rows.iter().map(line).collect()
    }

    /// Notes what became of a line that made nobody: who was there already, or a code.
    pub async fn finish_line(&self, line: LineId, result: std::result::Result<UserId, &'static str>) -> Result<()> {
        let finished = self.db.write(move |conn| {
            Box::pin(async move { finish(conn, &line, result.as_ref().map_err(|code| *code)).await })
        });
        match finished.await {
            Err(StoreError::Refused(DONE)) => Ok(()),
            other => other,
        }
    }
}

async fn create(conn: &mut Conn, id: &ImportId, partner: &ClientId, lines: &[NewLine], now: Timestamp) -> Result<()> {
    sqlx::query(
        "INSERT INTO imports (id, partner_id, state, total, due_at, created_at, updated_at)
         VALUES ($1, $2, 'queued', $3, $4, $4, $4)",
    )
    .bind(id.as_str())
    .bind(partner.as_str())
    .bind(i64::try_from(lines.len()).unwrap_or(i64::MAX))
    .bind(now.millis())
    .execute(&mut *conn)
    .await?;
    let numbered: Vec<(i64, &NewLine)> = (1_i64..).zip(lines).collect();
    for lines in numbered.chunks(LINES_AT_A_TIME) {
        let sql = format!("INSERT INTO import_lines (import_id, line, wish, error) VALUES {}", rows(1, 3, lines.len()));
        let mut statement = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.as_str().to_owned());
        for (number, line) in lines {
            let wish = line.as_ref().ok().map(|wish| to_json("import", wish)).transpose()?;
            statement = statement.bind(*number).bind(wish).bind(line.as_ref().err().map(|code| (*code).to_owned()));
        }
        statement.execute(&mut *conn).await?;
    }
    let mut wishes: Vec<&Wish> = lines.iter().flatten().collect();
    // In one order everywhere, so that no two imports wait for each other.
    wishes.sort_by(|one, other| one.registration.external_id.cmp(&other.registration.external_id));
    for wishes in wishes.chunks(LINES_AT_A_TIME) {
        receive(conn, partner, wishes, now).await?;
    }
    Ok(())
}

/// Begins the ways in of those who have none.
async fn receive(conn: &mut Conn, partner: &ClientId, wishes: &[&Wish], now: Timestamp) -> Result<()> {
    let row = |at: usize| format!("($1, 'received', $2, $2, ${}, ${})", 2 * at + 3, 2 * at + 4);
    let sql = format!(
        "INSERT INTO onboardings (partner_id, state, created_at, updated_at, id, external_id) VALUES {}
         ON CONFLICT DO NOTHING",
        (0..wishes.len()).map(row).collect::<Vec<_>>().join(", ")
    );
    let statement = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(partner.as_str().to_owned()).bind(now.millis());
    let bind = |statement: Statement<'static>, wish: &&Wish| {
        statement.bind(wish.onboarding.as_str().to_owned()).bind(wish.registration.external_id.clone())
    };
    wishes.iter().fold(statement, bind).execute(conn).await?;
    Ok(())
}

/// Ends a line, in the transaction of what it came to.
///
/// # Errors
/// `Refused` with [`DONE`] where it has ended.
pub(super) async fn finish(
    conn: &mut Conn,
    line: &LineId,
    result: std::result::Result<&UserId, &'static str>,
) -> Result<()> {
    let done = sqlx::query(
        "UPDATE import_lines SET wish = NULL, user_id = $3, error = $4
         WHERE import_id = $1 AND line = $2 AND wish IS NOT NULL",
    )
    .bind(line.import.as_str())
    .bind(line.line)
    .bind(result.ok().map(UserId::as_str))
    .bind(result.err())
    .execute(conn)
    .await?;
    if done.rows_affected() == 0 { Err(StoreError::Refused(DONE)) } else { Ok(()) }
}
