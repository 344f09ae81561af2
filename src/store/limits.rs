//! Sliding windows of recent attempts, one row a bucket. Which buckets, how many and for how long is for `limit.rs`.

use sqlx::Row as _;

use super::db::Conn;
use super::{Result, Store, StoreError, column};
use crate::protocol::time::{Span, Timestamp};

/// A place that somebody wants: one of so many in the bucket's last `window`.
#[derive(Clone, Debug)]
pub struct Ask {
    pub bucket: String,
    pub places: usize,
    pub window: Span,
    /// Without this one none of the others is taken either. One that does not bind is told of and goes without.
    pub binds: bool,
}

/// What asking for places came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// All that bind were taken; `None` for one that does not and had none free.
    Yes(Vec<Option<Taken>>),
    /// Nothing was taken: the ask of this index has no place free before that time.
    No { which: usize, free_at: Timestamp },
}

/// A place that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// More that are free.
    pub left: usize,
    /// When the next place becomes free by itself.
    pub frees_at: Timestamp,
}

/// What becomes of a bucket once an attempt is over.
#[derive(Clone, Debug)]
pub enum Settled {
    /// All attempts are forgotten.
    Forgiven(String),
    /// The place that was taken at that time is given back: the attempt was no fault of who made it.
    Refunded(String, Timestamp),
}

/// How far the clocks of two processes may be apart.
const CLOCK_SKEW: Span = Span::minutes(1);

/// How often a reservation is tried when others change the same buckets between its read and its write.
const TRIES: usize = 64;
/// Buckets that one statement reads.
const MOST_ASKS: usize = 4;
const OVERTAKEN: &str = "somebody else changed the bucket";

impl Store {
    /// Takes a place in each bucket, or in none. At most four at a time, and everybody names them in the same order.
    pub async fn reserve(&self, asks: Vec<Ask>, now: Timestamp) -> Result<Reserved> {
        debug_assert!(asks.len() <= MOST_ASKS);
        for _ in 0..TRIES {
            let asks = asks.clone();
            match self.db.write(move |conn| Box::pin(async move { reserve(conn, &asks, now).await })).await {
                Err(StoreError::Refused(OVERTAKEN)) => {}
                other => return other,
            }
        }
        // So much contention on one bucket is itself an attack on it.
        Ok(Reserved::No { which: 0, free_at: now + Span::from_secs(1) })
    }

    /// Settles what was reserved, named in the order of the reservation: two that name the same buckets in another
    /// order would wait for each other.
    pub async fn settle(&self, settled: Vec<Settled>) -> Result<()> {
        self.db
            .write(move |conn| {
                Box::pin(async move {
                    for one in &settled {
                        match one {
                            Settled::Forgiven(bucket) => {
                                let sql = "DELETE FROM limits WHERE bucket = $1";
                                sqlx::query(sql).bind(bucket).execute(&mut *conn).await?;
                            }
                            Settled::Refunded(bucket, taken_at) => refund(conn, bucket, *taken_at).await?,
                        }
                    }
                    Ok(())
                })
            })
            .await
    }
}

/// Looks at all before it takes any, so that whoever goes on trying in vain writes nothing.
async fn reserve(conn: &mut Conn, asks: &[Ask], now: Timestamp) -> Result<Reserved> {
    let mut found = look(conn, asks).await?;
    for (which, (ask, old)) in asks.iter().zip(&found).enumerate() {
        if let (true, Some(free_at)) = (ask.binds, full_until(ask, old.as_deref(), now)) {
            return Ok(Reserved::No { which, free_at });
        }
    }
    let mut taken = Vec::with_capacity(asks.len());
    for (ask, old) in asks.iter().zip(found.drain(..)) {
        taken.push(take(conn, ask, old, now).await?);
    }
    Ok(Reserved::Yes(taken))
}

/// What the buckets hold, in the order of the asks.
async fn look(conn: &mut Conn, asks: &[Ask]) -> Result<Vec<Option<Vec<u8>>>> {
    let mut query = sqlx::query("SELECT bucket, attempts FROM limits WHERE bucket IN ($1, $2, $3, $4)");
    for n in 0..MOST_ASKS {
        query = query.bind(asks.get(n).map_or("", |ask| ask.bucket.as_str()));
    }
    let rows = query.fetch_all(conn).await?;
    let mut found = Vec::with_capacity(asks.len());
    for ask in asks {
        let mut held = None;
        for row in &rows {
            if column::<&str>(row, "bucket")? == ask.bucket {
                held = Some(column::<Vec<u8>>(row, "attempts")?);
            }
        }
        found.push(held);
    }
    Ok(found)
}

/// Takes a place in one bucket; `None` where it has none and does not bind.
async fn take(conn: &mut Conn, ask: &Ask, mut old: Option<Vec<u8>>, now: Timestamp) -> Result<Option<Taken>> {
    for _ in 0..TRIES {
        if full_until(ask, old.as_deref(), now).is_some() {
            // Somebody took the last one since it was looked at: then all of this is taken back.
            return if ask.binds { Err(StoreError::Refused(OVERTAKEN)) } else { Ok(None) };
        }
        let mut times = counted(ask, old.as_deref(), now);
        times.push(now.millis());
        if swap(conn, &ask.bucket, old.as_deref(), &times, Some(now + ask.window)).await? {
            let frees_at = times.iter().min().map_or(now, |oldest| Timestamp(*oldest)) + ask.window;
            return Ok(Some(Taken { left: ask.places - times.len(), frees_at }));
        }
        old = attempts(conn, &ask.bucket).await?;
    }
    Err(StoreError::Refused(OVERTAKEN))
}

/// When a place becomes free; `None` where one is.
fn full_until(ask: &Ask, held: Option<&[u8]>, now: Timestamp) -> Option<Timestamp> {
    let times = counted(ask, held, now);
    let oldest = times.len().checked_sub(ask.places.max(1)).and_then(|first| times.get(first))?;
    Some(Timestamp(*oldest) + ask.window)
}

/// The attempts within the window. Times of the far future are from before the clock was set back; they must not lock
/// anybody out for longer than the window.
fn counted(ask: &Ask, held: Option<&[u8]>, now: Timestamp) -> Vec<i64> {
    let mut times = held.map(decode).unwrap_or_default();
    times.retain(|time| (now - ask.window < Timestamp(*time)) && (Timestamp(*time) <= now + CLOCK_SKEW));
    times
}

async fn refund(conn: &mut Conn, bucket: &str, taken_at: Timestamp) -> Result<()> {
    for _ in 0..TRIES {
        let Some(old) = attempts(conn, bucket).await? else { return Ok(()) };
        let mut times = decode(&old);
        let Some(at) = times.iter().rposition(|time| *time == taken_at.millis()) else { return Ok(()) };
        times.remove(at);
        if swap(conn, bucket, Some(&old), &times, None).await? {
            return Ok(());
        }
    }
    Ok(())
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
