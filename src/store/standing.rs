//! Whether what an access token leans on still stands, and whose session a cookie is, asked at every use of one. An
//! answer is kept for a second at most, and none survives a revocation by this process.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::poll;
use moka::sync::Cache;

use super::db::{Conn, Write, keep};
use super::grants::{StoredGrant, grant_columns, read};
use super::sessions::SignedIn;
use super::users::user_columns;
use super::{Result, Store, StoreError, column};
use crate::ambient::Stopwatch;
use crate::protocol::ids::GrantId;
use crate::protocol::time::{Span, Timestamp};
use crate::telemetry::traces;

/// No answer is older than this, so a revocation by another process holds here a second later.
const MAX_AGE_MICROS: u64 = 1_000_000;
const MOST_ANSWERS: u64 = 10_000;

/// What an access token leans on.
#[derive(Default)]
pub struct Standing {
    /// The token itself was revoked.
    pub revoked: bool,
    /// Its grant with the person; `None` where it has none, or where that is gone.
    pub grant: Option<StoredGrant>,
}

/// A live session that was looked up a moment ago.
pub struct KnownSession {
    pub signed_in: SignedIn,
    /// Its last use that was noted.
    noted_at: AtomicI64,
}

impl KnownSession {
    /// Whether this use is to be noted, the last one being older than `age`. Of many at once one is told so.
    pub fn is_to_be_noted(&self, age: Span, now: Timestamp) -> bool {
        let last = self.noted_at.load(Ordering::Acquire);
        let due = now - Timestamp(last) > age;
        due && self.noted_at.compare_exchange(last, now.millis(), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn is_live(&self, idle: Span, now: Timestamp) -> bool {
        self.signed_in.expires_at > now && Timestamp(self.noted_at.load(Ordering::Acquire)) > now - idle
    }
}

/// Recent answers.
pub(super) struct Standings {
    epoch: Stopwatch,
    /// Counts the revocations of this process.
    ended: AtomicU64,
    /// By `jti`.
    tokens: Cache<String, Answer<Standing>>,
    /// By the hash of the secret.
    sessions: Cache<[u8; 32], Answer<KnownSession>>,
}

/// When a question was asked: the count of [`Standings::ended`] and the time from before the answer was read.
#[derive(Clone, Copy)]
struct Asked {
    ended: u64,
    at_micros: u64,
}

struct Answer<V> {
    asked: Asked,
    value: Arc<V>,
}

impl<V> Clone for Answer<V> {
    fn clone(&self) -> Self {
        Self { asked: self.asked, value: Arc::clone(&self.value) }
    }
}

/// The time to live only gives the memory back; what counts is decided in [`Standings::current`].
fn recent<K: Hash + Eq + Send + Sync + 'static, V: Send + Sync + 'static>() -> Cache<K, Answer<V>> {
    Cache::builder().max_capacity(MOST_ANSWERS).time_to_live(Duration::from_micros(MAX_AGE_MICROS)).build()
}

impl Default for Standings {
    fn default() -> Self {
        Self { epoch: Stopwatch::start(), ended: AtomicU64::new(0), tokens: recent(), sessions: recent() }
    }
}

impl Standings {
    /// Called after the commit of whatever may have ended a token or a session, before anybody is told.
    pub(super) fn forget(&self) {
        self.ended.fetch_add(1, Ordering::AcqRel);
    }

    fn ask(&self) -> Asked {
        Asked { ended: self.ended.load(Ordering::Acquire), at_micros: self.epoch.elapsed_micros() }
    }

    fn current<V>(&self, answer: Answer<V>) -> Option<Arc<V>> {
        let age = self.epoch.elapsed_micros().saturating_sub(answer.asked.at_micros);
        let counts = age <= MAX_AGE_MICROS && answer.asked.ended == self.ended.load(Ordering::Acquire);
        counts.then_some(answer.value)
    }
}

impl Store {
    /// Runs a write after which no token that it ended may pass from memory. A task of its own: whoever asked may go
    /// away, but not between the commit and the forgetting.
    pub(super) async fn write_and_forget<T, F>(&self, write: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T>> + Send + 'static,
    {
        self.write_and_forget_if(|_| true, write).await
    }

    /// The same where the outcome says whether it ended any.
    pub(super) async fn write_and_forget_if<T, F>(&self, ended: fn(&T) -> bool, write: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T>> + Send + 'static,
    {
        let (write, kept) = keep(write, ended);
        self.run_and_forget(write).await?;
        kept.value()
    }

    async fn run_and_forget(&self, write: Write<bool>) -> Result<bool> {
        let (db, standings) = (self.db.clone(), Arc::clone(&self.standings));
        let work = async move {
            let outcome = db.write(write).await;
            // Also where it is not known what became of it.
            if !matches!(outcome, Ok(false) | Err(StoreError::Refused(_))) {
                standings.forget();
            }
            outcome
        };
        let mut work = Box::pin(traces::of_this_request(work));
        // Accepted before anybody can go away.
        match poll!(work.as_mut()) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => tokio::spawn(work).await.map_err(|_| StoreError::WriterStopped)?,
        }
    }

    /// What the access token `jti` of `grant` leans on.
    pub async fn standing(&self, jti: &str, grant: Option<&GrantId>) -> Result<Arc<Standing>> {
        let known = &self.standings;
        if let Some(standing) = known.tokens.get(jti).and_then(|answer| known.current(answer)) {
            return Ok(standing);
        }
        let asked = known.ask();
        let standing = Arc::new(match grant {
            None => Standing { revoked: self.is_access_token_revoked(jti).await?, grant: None },
            Some(grant) => self.read_standing(jti, grant).await?,
        });
        known.tokens.insert(jti.to_owned(), Answer { asked, value: Arc::clone(&standing) });
        Ok(standing)
    }

    /// The live session whose secret hashes to `token_hash`, seen within `idle`; as [`Store::session`] says, but from
    /// memory where it was asked a moment ago.
    pub async fn known_session(
        &self,
        token_hash: [u8; 32],
        idle: Span,
        now: Timestamp,
    ) -> Result<Option<Arc<KnownSession>>> {
        let known = &self.standings;
        let recent = known.sessions.get(&token_hash).and_then(|answer| known.current(answer));
        // One that rested too long may have been used elsewhere meanwhile.
        if let Some(session) = recent.filter(|session| session.is_live(idle, now)) {
            return Ok(Some(session));
        }
        let asked = known.ask();
        let Some(signed_in) = self.session(token_hash, idle, now).await? else { return Ok(None) };
        let noted_at = AtomicI64::new(signed_in.last_seen_at.millis());
        let session = Arc::new(KnownSession { signed_in, noted_at });
        known.sessions.insert(token_hash, Answer { asked, value: Arc::clone(&session) });
        Ok(Some(session))
    }

    async fn read_standing(&self, jti: &str, grant: &GrantId) -> Result<Standing> {
        let sql = concat!(
            "SELECT (SELECT COUNT(*) FROM used_ids WHERE kind = 'jti' AND used_ids.id = $2) AS revocations, ",
            grant_columns!(),
            ", ",
            user_columns!(),
            " FROM grants g JOIN users u ON u.id = g.user_id WHERE g.id = $1"
        );
        let statement = || sqlx::query(sql).bind(grant.as_str().to_owned()).bind(jti.to_owned());
        let Some(row) = self.db.row(statement).await? else { return Ok(Standing::default()) };
        Ok(Standing { revoked: column::<i64>(&row, "revocations")? > 0, grant: Some(read(&row)?) })
    }
}
