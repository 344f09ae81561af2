//! Whether what an access token leans on still stands, asked at every use of one. An answer is kept for a second at
//! most, and none survives a revocation by this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::sync::Cache;

use super::grants::{StoredGrant, grant_columns, read};
use super::users::user_columns;
use super::{Result, Store, column};
use crate::ambient::Stopwatch;
use crate::protocol::ids::GrantId;

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

/// Recent answers by `jti`.
pub(super) struct Standings {
    epoch: Stopwatch,
    /// Counts the revocations of this process.
    ended: AtomicU64,
    recent: Cache<String, Answer>,
}

/// An answer with the count of [`Standings::ended`] and the time from before it was read.
#[derive(Clone)]
struct Answer {
    ended: u64,
    asked_at_micros: u64,
    standing: Arc<Standing>,
}

impl Default for Standings {
    fn default() -> Self {
        // The time to live only gives the memory back; what counts is decided in `current`.
        let recent =
            Cache::builder().max_capacity(MOST_ANSWERS).time_to_live(Duration::from_micros(MAX_AGE_MICROS)).build();
        Self { epoch: Stopwatch::start(), ended: AtomicU64::new(0), recent }
    }
}

impl Standings {
    /// Called after the commit of whatever may have ended a token, before anybody is told.
    pub(super) fn forget(&self) {
        self.ended.fetch_add(1, Ordering::AcqRel);
    }

    fn current(&self, jti: &str) -> Option<Arc<Standing>> {
        let answer = self.recent.get(jti)?;
        let age = self.epoch.elapsed_micros().saturating_sub(answer.asked_at_micros);
        let counts = age <= MAX_AGE_MICROS && answer.ended == self.ended.load(Ordering::Acquire);
        counts.then_some(answer.standing)
    }
}

impl Store {
    /// What the access token `jti` of `grant` leans on.
    pub async fn standing(&self, jti: &str, grant: Option<&GrantId>) -> Result<Arc<Standing>> {
        let known = &self.standings;
        if let Some(standing) = known.current(jti) {
            return Ok(standing);
        }
        let (ended, asked_at_micros) = (known.ended.load(Ordering::Acquire), known.epoch.elapsed_micros());
        let standing = Arc::new(match grant {
            None => Standing { revoked: self.is_access_token_revoked(jti).await?, grant: None },
            Some(grant) => self.read_standing(jti, grant).await?,
        });
        known.recent.insert(jti.to_owned(), Answer { ended, asked_at_micros, standing: Arc::clone(&standing) });
        Ok(standing)
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
