//! When API keys were last used, and whose partner hears that they have begun: noted in memory, written many at a time.

use std::net::IpAddr;
use std::sync::{LazyLock, Mutex, PoisonError};

use moka::sync::Cache;
use tokio::sync::Notify;

use super::api_keys::StoredApiKey;
use super::db::Statement;
use super::{Result, Store, StoreError, onboardings};
use crate::protocol::ids::{ApiKeyId, UserId};
use crate::protocol::partner::OnboardingState;
use crate::protocol::time::{Span, Timestamp};
use crate::telemetry::metrics;

/// How often the use of one key is noted at most: a row that every request writes would make every request slow.
const NOTE_EVERY: Span = Span::minutes(1);
/// Uses that wait before they are written without waiting for the next round.
const MANY: usize = 4096;
/// Uses in one statement, the most that fit first.
const BATCHES: [usize; 3] = [128, 16, 1];

/// Keys of which it is remembered when they were last noted; one that is forgotten is noted once more.
const REMEMBERED: u64 = 50_000;

/// Uses that were noted and are not written yet.
pub(super) struct PendingUses {
    waiting: Mutex<Vec<Use>>,
    many: Notify,
    noted_at: Cache<ApiKeyId, Timestamp>,
    /// Partners' people of whom it is written that they have begun.
    begun: Cache<UserId, ()>,
}

impl Default for PendingUses {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            many: Notify::default(),
            noted_at: Cache::new(REMEMBERED),
            begun: Cache::new(REMEMBERED),
        }
    }
}

#[derive(Clone)]
struct Use {
    kid: ApiKeyId,
    /// The person, where a partner wants to know that they have begun.
    begun: Option<UserId>,
    at: Timestamp,
    from: Option<String>,
}

/// Whether the keys of a batch are known to be there.
#[derive(Clone, Copy)]
enum Keys {
    /// Nearly always. The foreign key refuses the batch where one is not.
    Assumed,
    /// Each is looked for, which costs as much again.
    LookedFor,
}

/// Never back in time.
const UNLESS_LATER: &str = "ON CONFLICT (kid) DO UPDATE SET used_at = excluded.used_at,
         used_ip = COALESCE(excluded.used_ip, api_key_uses.used_ip)
     WHERE api_key_uses.used_at < excluded.used_at";

/// For each of [`BATCHES`].
static NOTES: LazyLock<[[String; 2]; BATCHES.len()]> = LazyLock::new(|| {
    BATCHES.map(|size| {
        let row = |at: usize| format!("(${}, ${}, ${})", 3 * at + 1, 3 * at + 2, 3 * at + 3);
        let values = (0..size).map(row).collect::<Vec<_>>().join(", ");
        let insert = "INSERT INTO api_key_uses (kid, used_at, used_ip)";
        let of_those_there = "SELECT v.kid, v.used_at, v.used_ip FROM v JOIN api_keys k ON k.kid = v.kid WHERE true";
        [
            format!("{insert} VALUES {values} {UNLESS_LATER}"),
            format!("WITH v (kid, used_at, used_ip) AS (VALUES {values}) {insert} {of_those_there} {UNLESS_LATER}"),
        ]
    })
});

/// As many uses as one of [`BATCHES`] takes.
fn note(uses: &[Use], keys: Keys) -> Statement<'static> {
    let nth = BATCHES.iter().position(|size| *size <= uses.len()).unwrap_or(BATCHES.len() - 1);
    let sql = match keys {
        Keys::Assumed => NOTES[nth][0].as_str(),
        Keys::LookedFor => NOTES[nth][1].as_str(),
    };
    uses.iter().fold(sqlx::query(sql), |statement, one| {
        statement.bind(one.kid.as_str().to_owned()).bind(one.at.millis()).bind(one.from.clone())
    })
}

impl Store {
    /// Notes that a key was used; written soon, many at a time.
    pub fn note_key_use(&self, key: &StoredApiKey, from: Option<IpAddr>, now: Timestamp) {
        let kid = &key.record.kid;
        if self.key_uses.noted_at.get(kid).is_some_and(|noted_at| now < noted_at + NOTE_EVERY) {
            return;
        }
        self.key_uses.noted_at.insert(kid.clone(), now);
        let from = from.map(|from| from.to_canonical().to_string());
        let person = key.user.as_ref().filter(|user| user.partner.is_some()).map(|user| &user.id);
        let begun = person.filter(|id| !self.key_uses.begun.contains_key(*id)).cloned();
        let mut waiting = self.key_uses.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(Use { kid: kid.clone(), begun, at: now, from });
        if waiting.len() >= MANY {
            self.key_uses.many.notify_one();
        }
    }

    /// Returns once so many uses wait that they should not wait longer.
    pub async fn many_key_uses(&self) {
        self.key_uses.many.notified().await;
    }

    /// Writes the uses that wait. What cannot be written waits on.
    pub async fn flush_key_uses(&self) -> Result<()> {
        let mut uses = std::mem::take(&mut *self.key_uses.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        // In the order of the table, so that each of its pages is written once; of one key only the last.
        uses.sort_by(|one, other| (&one.kid, other.at).cmp(&(&other.kid, one.at)));
        uses.dedup_by(|later, first| later.kid == first.kid);
        while let Some(size) = BATCHES.into_iter().find(|size| *size <= uses.len()) {
            let batch = uses.split_off(uses.len() - size);
            let again = batch.clone();
            if let Err(error) = self.write_uses(batch).await {
                let mut waiting = self.key_uses.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                waiting.extend(again);
                waiting.extend(uses);
                // A database that is away for long must not fill the memory.
                waiting.truncate(16 * MANY);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes one batch, with the news for partners in it.
    async fn write_uses(&self, batch: Vec<Use>) -> Result<()> {
        match self.write_uses_of(batch.clone(), Keys::Assumed).await {
            Err(StoreError::Conflict(_)) => self.write_uses_of(batch, Keys::LookedFor).await,
            other => other,
        }
    }

    async fn write_uses_of(&self, batch: Vec<Use>, keys: Keys) -> Result<()> {
        let mut begun: Vec<(UserId, Timestamp)> =
            batch.iter().filter_map(|one| Some((one.begun.clone()?, one.at))).collect();
        // In one order everywhere, so that no two processes wait for each other.
        begun.sort();
        if begun.is_empty() {
            return self.db.execute(move || note(&batch, keys)).await.map(drop);
        }
        let people = begun.clone();
        let news = self.db.write(move |conn| {
            Box::pin(async move {
                note(&batch, keys).execute(&mut *conn).await?;
                onboardings::first_auth(conn, &people).await
            })
        });
        for partner in news.await? {
            metrics::onboarding(partner.as_str(), OnboardingState::FirstAuth.as_str());
        }
        for (id, _) in begun {
            self.key_uses.begun.insert(id, ());
        }
        Ok(())
    }
}
