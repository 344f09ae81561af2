//! Sliding windows of recent attempts, one row a bucket. Which bucket, how many and for how long is for `limit.rs`.

use sqlx::Row as _;

use super::db::Conn;
use super::{Result, Store};
use crate::protocol::time::{Span, Timestamp};

/// What asking for a place came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// A place was taken; `left` more are free.
    Yes { left: usize },
    /// None is free before this time.
    No { free_at: Timestamp },
}

/// How far the clocks of two processes may be apart.
const CLOCK_SKEW: Span = Span::minutes(1);

/// How often a reservation is tried when others change the same bucket between its read and its write.
const TRIES: usize = 64;

impl Store {
    /// Takes one of `places` in the bucket's last `window`, or says when the next becomes free.
    pub async fn reserve(&self, bucket: String, places: usize, window: Span, now: Timestamp) -> Result<Reserved> {
        self.db.write(move |conn| Box::pin(async move { reserve(conn, &bucket, places, window, now).await })).await
    }

    /// Gives back the place that was taken at `reserved_at`, where the attempt was no fault of who made it.
    pub async fn refund(&self, bucket: String, reserved_at: Timestamp) -> Result<()> {
        self.db
            .write(move |conn| {
                Box::pin(async move {
                    for _ in 0..TRIES {
                        let Some(old) = attempts(conn, &bucket).await? else { return Ok(()) };
                        let mut times = decode(&old);
                        let Some(at) = times.iter().rposition(|time| *time == reserved_at.millis()) else {
                            return Ok(());
                        };
                        times.remove(at);
                        if swap(conn, &bucket, Some(&old), &times, None).await? {
                            return Ok(());
                        }
                    }
                    Ok(())
                })
            })
            .await
    }

    /// Forgets the bucket's attempts.
    pub async fn clear_limit(&self, bucket: String) -> Result<()> {
        self.db.execute(move || sqlx::query("DELETE FROM limits WHERE bucket = $1").bind(bucket.clone())).await?;
        Ok(())
    }
}

async fn reserve(conn: &mut Conn, bucket: &str, places: usize, window: Span, now: Timestamp) -> Result<Reserved> {
    for _ in 0..TRIES {
        let old = attempts(conn, bucket).await?;
        let mut times = old.as_deref().map(decode).unwrap_or_default();
        // Times of the far future are from before the clock was set back; they must not lock anybody out for longer
        // than the window.
        times.retain(|time| (now - window < Timestamp(*time)) && (Timestamp(*time) <= now + CLOCK_SKEW));
        if times.len() >= places {
            let oldest = times[times.len() - places.max(1)];
            return Ok(Reserved::No { free_at: Timestamp(oldest) + window });
        }
        times.push(now.millis());
        let left = places - times.len();
        if swap(conn, bucket, old.as_deref(), &times, Some(now + window)).await? {
            return Ok(Reserved::Yes { left });
        }
    }
    // So much contention on one bucket is itself an attack on it.
    Ok(Reserved::No { free_at: now + Span::from_secs(1) })
}

async fn attempts(conn: &mut Conn, bucket: &str) -> Result<Option<Vec<u8>>> {
    let row = sqlx::query("SELECT attempts FROM limits WHERE bucket = $1").bind(bucket).fetch_optional(conn).await?;
    Ok(row.map(|row| row.try_get("attempts")).transpose()?)
}

/// Writes `times` where the row still is what was read.
async fn swap(
    conn: &mut Conn,
    bucket: &str,
    old: Option<&[u8]>,
    times: &[i64],
    expires_at: Option<Timestamp>,
) -> Result<bool> {
    let new: Vec<u8> = times.iter().flat_map(|time| time.to_be_bytes()).collect();
    let done = match old {
        None => {
            sqlx::query("INSERT INTO limits (bucket, attempts, expires_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
                .bind(bucket)
                .bind(new)
                .bind(expires_at.map_or(0, Timestamp::millis))
                .execute(conn)
                .await?
        }
        Some(old) => {
            sqlx::query(
                "UPDATE limits SET attempts = $3, expires_at = COALESCE($4, expires_at)
                 WHERE bucket = $1 AND attempts = $2",
            )
            .bind(bucket)
            .bind(old.to_vec())
            .bind(new)
            .bind(expires_at.map(Timestamp::millis))
            .execute(conn)
            .await?
        }
    };
    Ok(done.rows_affected() > 0)
}

fn decode(bytes: &[u8]) -> Vec<i64> {
    bytes.chunks_exact(8).map(|eight| eight.iter().fold(0_i64, |value, byte| value << 8 | i64::from(*byte))).collect()
}
