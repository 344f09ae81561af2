//! One question for many: whoever asks while others are being answered waits for the next statement, which asks for all
//! that wait. Alone nobody waits; under load a statement, and the way to the database and back, is shared. One statement
//! of a kind at a time, as long as none is late: with two each serves half as many, and both are slower.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tracing::Instrument as _;

use super::{Result, StoreError, rows};
use crate::ambient::Stopwatch;

/// A statement that takes longer holds up nobody else: a connection may have died without a word.
const LATE_MILLIS: u64 = 1000;
/// Statements at a time, where all but the last are late.
const AT_ONCE: usize = 4;
/// How many a statement may ask for: a few texts, so that each is prepared once.
const SIZES: [usize; 4] = [1, 4, 16, 32];
/// Keys in one statement at most.
const MOST: usize = SIZES[SIZES.len() - 1];

/// A statement in each of [`SIZES`].
pub(super) struct Texts([String; SIZES.len()]);

impl Texts {
    /// `{}` stands for the keys, of `width` parameters each, as the rows of `VALUES`; for those of a single parameter,
    /// also as the list of `IN`.
    pub(super) fn new(width: usize, text: &str) -> Self {
        Self(SIZES.map(|size| text.replace("{}", &rows(0, width, size))))
    }

    /// The text for these keys, and the keys in its number: asking for one twice finds it once.
    pub(super) fn for_keys<K: Clone>(&self, keys: &mut Vec<K>) -> &str {
        let nth = SIZES.iter().position(|size| *size >= keys.len()).unwrap_or(SIZES.len() - 1);
        if let Some(last) = keys.last().cloned() {
            keys.resize(SIZES[nth].max(keys.len()), last);
        }
        &self.0[nth]
    }
}

/// That a change was made which several had asked for: it was one of them.
#[derive(Clone, Default)]
pub(super) struct Done(Arc<AtomicBool>);

impl Done {
    /// Whether it was the one that asks. `true` once.
    pub(super) fn is_mine(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }
}

/// What is found of the keys that are asked for.
pub(super) type Found<K, V> = BoxFuture<'static, Result<Vec<(K, V)>>>;

/// Answers questions of one kind.
pub(super) struct Gather<K, V> {
    waiting: Mutex<Waiting<K, V>>,
}

struct Waiting<K, V> {
    questions: Vec<(K, Answer<V>)>,
    /// Statements that run.
    running: usize,
    /// Since the last of them began.
    begun: Stopwatch,
}

type Answer<V> = oneshot::Sender<std::result::Result<Option<V>, Unanswered>>;

impl<K, V> Default for Gather<K, V> {
    fn default() -> Self {
        Self { waiting: Mutex::new(Waiting { questions: Vec::new(), running: 0, begun: Stopwatch::start() }) }
    }
}

impl<K, V> Gather<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static,
{
    /// What is found of one key, read after this call; by a statement of its own where the one failed that others share.
    pub(super) async fn find(
        self: &Arc<Self>,
        key: K,
        read: impl Fn(Vec<K>) -> Found<K, V> + Clone + Send + 'static,
    ) -> Result<Option<V>> {
        match self.ask(key.clone(), read.clone()).await {
            Ok(found) => Ok(found),
            Err(Unanswered(_)) => Ok(read(vec![key]).await?.pop().map(|(_, found)| found)),
        }
    }

    /// What comes of one key in a statement that begins after this call. `Err` where that failed.
    pub(super) async fn ask(
        self: &Arc<Self>,
        key: K,
        read: impl Fn(Vec<K>) -> Found<K, V> + Send + 'static,
    ) -> std::result::Result<Option<V>, Unanswered> {
        let (answer, answered) = oneshot::channel();
        let begins = {
            let mut waiting = self.waiting();
            waiting.questions.push((key, answer));
            let late = waiting.begun.elapsed_millis() > LATE_MILLIS && waiting.running < AT_ONCE;
            let begins = waiting.running == 0 || late;
            waiting.running += usize::from(begins);
            begins
        };
        if begins {
            // A task of its own: whoever began it may go away, and the others still wait.
            tokio::spawn(Arc::clone(self).answer(read).in_current_span());
        }
        answered.await.unwrap_or_else(|_| Err(Unanswered("nobody was at it any more".into())))
    }

    /// Answers until nobody waits.
    async fn answer(self: Arc<Self>, read: impl Fn(Vec<K>) -> Found<K, V> + Send) {
        let running = Running(&self);
        loop {
            let questions = {
                let mut waiting = self.waiting();
                if waiting.questions.is_empty() {
                    // In the same breath, so that whoever comes next knows that nobody is at it.
                    waiting.running -= 1;
                    std::mem::forget(running);
                    return;
                }
                waiting.begun = Stopwatch::start();
                let eldest = waiting.questions.len().min(MOST);
                let newer = waiting.questions.split_off(eldest);
                std::mem::replace(&mut waiting.questions, newer)
            };
            let keys = questions.iter().map(|(key, _)| key.clone()).collect();
            match read(keys).await {
                Ok(found) => {
                    let found: HashMap<K, V> = found.into_iter().collect();
                    for (key, answer) in questions {
                        // Nobody has to be there any more.
                        let _ = answer.send(Ok(found.get(&key).cloned()));
                    }
                }
                Err(error) => {
                    let why = Unanswered(error.to_string().into());
                    for (_, answer) in questions {
                        let _ = answer.send(Err(why.clone()));
                    }
                }
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<K, V>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The statement that many share failed, and why.
#[derive(Clone, Debug)]
pub(super) struct Unanswered(Arc<str>);

impl From<Unanswered> for StoreError {
    fn from(error: Unanswered) -> Self {
        Self::RolledBack(error.0.to_string())
    }
}

/// Makes room for another where one breaks off.
struct Running<'a, K, V>(&'a Gather<K, V>);

impl<K, V> Drop for Running<'_, K, V> {
    fn drop(&mut self) {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).running -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::store::StoreError;

    /// Even numbers are there, a statement waits until it is let through, and is counted.
    fn reader(
        gate: &Arc<Semaphore>,
        statements: &Arc<AtomicUsize>,
    ) -> impl Fn(Vec<u32>) -> Found<u32, u32> + Send + Clone + use<> {
        let (gate, statements) = (Arc::clone(gate), Arc::clone(statements));
        move |keys| {
            let (gate, statements) = (Arc::clone(&gate), Arc::clone(&statements));
            Box::pin(async move {
                statements.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.expect("open").forget();
                if keys.contains(&99) {
                    return Err(StoreError::WriterStopped);
                }
                Ok(keys.into_iter().filter(|key| key % 2 == 0).map(|key| (key, key * 10)).collect())
            })
        }
    }

    type Answers = Vec<tokio::task::JoinHandle<std::result::Result<Option<u32>, Unanswered>>>;

    /// Asks for this one alone in a statement, which waits at the gate, and then for the others.
    async fn ask_all(alone: u32, others: impl IntoIterator<Item = u32>) -> (Answers, usize) {
        let (gate, statements) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let gather = Arc::new(Gather::default());
        let ask = |key: u32| {
            let (gather, read) = (Arc::clone(&gather), reader(&gate, &statements));
            tokio::spawn(async move { gather.ask(key, read).await })
        };
        let mut asked = vec![ask(alone)];
        while statements.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        asked.extend(others.into_iter().map(&ask));
        while gather.waiting().questions.len() < asked.len() - 1 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(1000);
        while asked.iter().any(|asked| !asked.is_finished()) || gather.waiting().running > 0 {
            tokio::task::yield_now().await;
        }
        // Nobody is at it any more: the next one is answered as well.
        assert_eq!(ask(40).await.expect("it ran").expect("an answer"), Some(400));
        (asked, statements.load(Ordering::SeqCst) - 1)
    }

    #[tokio::test]
    async fn whoever_asks_meanwhile_shares_the_next_statement() {
        let most = u32::try_from(MOST).expect("a few");
        let (asked, statements) = ask_all(0, 1..=most + 1).await;
        for (key, answer) in (0..).zip(join_all(asked).await) {
            let expected = (key % 2 == 0).then_some(key * 10);
            assert_eq!(answer.expect("it ran").expect("an answer"), expected, "{key}");
        }
        assert_eq!(statements, 3, "one, as many as fit, and one");
    }

    #[tokio::test]
    async fn a_statement_that_fails_leaves_the_others_be() {
        let (asked, _) = ask_all(99, [2, 4]).await;
        let answers: Vec<_> = join_all(asked).await.into_iter().map(|answer| answer.expect("it ran").ok()).collect();
        assert_eq!(answers, [None, Some(Some(20)), Some(Some(40))]);
    }

    #[test]
    fn a_text_has_a_place_for_every_key() {
        let texts = Texts::new(2, "VALUES {}");
        for (count, size) in [(1, 1), (2, 4), (4, 4), (5, 16), (17, 32), (32, 32)] {
            let mut keys: Vec<usize> = (0..count).collect();
            let text = texts.for_keys(&mut keys).to_owned();
            assert_eq!(text.matches('$').count(), 2 * size, "{text}");
            assert_eq!(keys.len(), size);
            assert!(keys[count..].iter().all(|key| *key == count - 1), "{keys:?}");
        }
    }

    #[test]
    fn a_change_is_the_one_of_one() {
        let done = Done::default();
        let others = [done.clone(), done.clone()];
        assert!(done.is_mine());
        assert!(!others.iter().any(Done::is_mine));
    }
}
