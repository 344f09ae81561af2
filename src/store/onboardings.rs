//! How far partners' people got on their way in.

use super::Result;
use super::db::Conn;
use crate::protocol::time::Timestamp;

/// The welcome mail has left. Whoever has used their account by now stays where they are.
pub(super) async fn mail_sent(conn: &mut Conn, id: &str, now: Timestamp) -> Result<()> {
    sqlx::query(
        "UPDATE onboardings SET state = 'mail_sent', reason = NULL, updated_at = $2
         WHERE id = $1 AND state = 'mail_queued'",
    )
    .bind(id)
    .bind(now.millis())
    .execute(conn)
    .await?;
    Ok(())
}

/// The welcome mail never will. The same holds.
pub(super) async fn mail_failed(conn: &mut Conn, id: &str, reason: &'static str, now: Timestamp) -> Result<()> {
    sqlx::query(
        "UPDATE onboardings SET state = 'failed', reason = $2, updated_at = $3
         WHERE id = $1 AND state = 'mail_queued'",
    )
    .bind(id)
    .bind(reason)
    .bind(now.millis())
    .execute(conn)
    .await?;
    Ok(())
}
