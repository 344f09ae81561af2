//! One question for many: whoever asks while others are being answered waits for the next statement, which asks for all
//! that wait. Alone nobody waits; under load a statement, and the way to the database and back, is shared. One statement
//! of a kind at a time, as long as none is late: with two each serves half as many, and both are slower.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Result, StoreError, rows};
use crate::telemetry::traces;

/// Behind a statement that takes longer another begins: its connection may have died without a word.
const LATE: Duration = Duration::from_secs(1);
/// Late statements at a time.
const MOST_LATE: usize = 4;
/// How many a statement may ask for: a few texts, so that each is prepared once.
const SIZES: [usize; 8] = [1, 2, 4, 8, 16, 32, 48, 64];
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

    /// The text for these keys, and the keys in its number: asking for one again changes nothing.
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
    /// As a trace names it.
    step: &'static str,
    waiting: Mutex<Waiting<K, V>>,
}

struct Waiting<K, V> {
    questions: Vec<(K, Answer<V>)>,
    /// Somebody is at it who is not late.
    answering: bool,
    late: usize,
}

type Answer<V> = oneshot::Sender<std::result::Result<Option<V>, Unanswered>>;

impl<K, V> Gather<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static,
{
    pub(super) fn of_reads() -> Arc<Self> {
        Self::new("database read")
    }

    pub(super) fn of_writes() -> Arc<Self> {
        Self::new("database write")
    }

    fn new(step: &'static str) -> Arc<Self> {
        Arc::new(Self { step, waiting: Mutex::new(Waiting { questions: Vec::new(), answering: false, late: 0 }) })
    }

    /// What is found of one key, read after this call; by a statement of its own where the one failed that others share.
    pub(super) async fn find(
        self: &Arc<Self>,
        key: K,
        read: impl Fn(Vec<K>) -> Found<K, V> + Clone + Send + 'static,
    ) -> Result<Option<V>> {
        match self.ask(key.clone(), read.clone()).await {
            Err(Unanswered { unavailable: false, .. }) => Ok(read(vec![key]).await?.pop().map(|(_, found)| found)),
            other => Ok(other?),
        }
    }

    /// What comes of one key in a statement that begins after this call; whoever goes away before is not asked for.
    /// `Err` where the statement failed.
    pub(super) async fn ask(
        self: &Arc<Self>,
        key: K,
        read: impl Fn(Vec<K>) -> Found<K, V> + Clone + Send + 'static,
    ) -> std::result::Result<Option<V>, Unanswered> {
        let _step = traces::step(self.step);
        let (answer, answered) = oneshot::channel();
        let begins = {
            let mut waiting = self.waiting();
            waiting.questions.push((key, answer));
            let begins = !waiting.answering && waiting.late < MOST_LATE;
            waiting.answering |= begins;
            begins
        };
        if begins {
            self.begin(read);
        }
        answered.await.unwrap_or_else(|_| Err(Unanswered { why: "nobody was at it".into(), unavailable: false }))
    }

    /// A task of its own, of no request: whoever began it may go away, and the others still wait.
    fn begin(self: &Arc<Self>, read: impl Fn(Vec<K>) -> Found<K, V> + Clone + Send + 'static) {
        tokio::spawn(Arc::clone(self).answer(read));
    }

    /// Answers until nobody waits.
    async fn answer(self: Arc<Self>, read: impl Fn(Vec<K>) -> Found<K, V> + Clone + Send + 'static) {
        let mut turn = Turn { gather: &self, pace: Pace::Prompt };
        while let Some(questions) = turn.questions() {
            let keys = questions.iter().map(|(key, _)| key.clone()).collect();
            let mut work = read(keys);
            let outcome = match timeout(LATE, &mut work).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    if turn.is_late() {
                        self.begin(read.clone());
                    }
                    work.await
                }
            };
            match outcome {
                Ok(found) => {
                    let found: HashMap<K, V> = found.into_iter().collect();
                    for (key, answer) in questions {
                        // Nobody has to be there any more.
                        let _ = answer.send(Ok(found.get(&key).cloned()));
                    }
                }
                Err(error) => {
                    let unavailable = matches!(error, StoreError::Unavailable(_) | StoreError::RolledBack(_));
                    let why = Unanswered { why: error.to_string().into(), unavailable };
                    for (_, answer) in questions {
                        let _ = answer.send(Err(why.clone()));
                    }
                }
            }
        }
    }
}

impl<K, V> Gather<K, V> {
    fn waiting(&self) -> MutexGuard<'_, Waiting<K, V>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The statement that many share failed, and why.
#[derive(Clone, Debug)]
pub(super) struct Unanswered {
    why: Arc<str>,
    /// Another statement would fail as well.
    unavailable: bool,
}

impl From<Unanswered> for StoreError {
    fn from(error: Unanswered) -> Self {
        Self::RolledBack(error.why.to_string())
    }
}

/// Somebody is at it. Where they break off, whoever waits is told, and the next to ask begins anew.
struct Turn<'a, K, V> {
    gather: &'a Gather<K, V>,
    pace: Pace,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Prompt,
    Late,
    Over,
}

impl<K, V> Turn<'_, K, V> {
    /// Those who wait, the eldest, as many as one statement takes; `None` where this turn is over. All in the same breath,
    /// so that whoever comes next knows whether somebody is at it.
    fn questions(&mut self) -> Option<Vec<(K, Answer<V>)>> {
        let mut waiting = self.gather.waiting();
        waiting.questions.retain(|(_, answer)| !answer.is_closed());
        self.leave(&mut waiting);
        if waiting.questions.is_empty() || waiting.answering {
            return None;
        }
        waiting.answering = true;
        self.pace = Pace::Prompt;
        let eldest = waiting.questions.len().min(MOST);
        let newer = waiting.questions.split_off(eldest);
        Some(std::mem::replace(&mut waiting.questions, newer))
    }

    /// Lets another by. Whether somebody waits for that; then the other one has begun.
    fn is_late(&mut self) -> bool {
        let mut waiting = self.gather.waiting();
        self.leave(&mut waiting);
        self.pace = Pace::Late;
        waiting.late += 1;
        waiting.answering = !waiting.questions.is_empty() && waiting.late < MOST_LATE;
        waiting.answering
    }

    fn leave(&mut self, waiting: &mut Waiting<K, V>) {
        match std::mem::replace(&mut self.pace, Pace::Over) {
            Pace::Prompt => waiting.answering = false,
            Pace::Late => waiting.late -= 1,
            Pace::Over => {}
        }
    }
}

impl<K, V> Drop for Turn<'_, K, V> {
    fn drop(&mut self) {
        if self.pace != Pace::Over {
            let mut waiting = self.gather.waiting();
            self.leave(&mut waiting);
            if !waiting.answering && waiting.late == 0 {
                waiting.questions.clear();
            }
        }
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
        let gather = Gather::of_reads();
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
        while asked.iter().any(|asked| !asked.is_finished()) || gather.waiting().answering {
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

    /// A connection that died without a word: whoever asks meanwhile is answered all the same.
    #[tokio::test]
    async fn a_statement_that_is_late_holds_up_nobody() {
        let (gate, statements) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let gather = Gather::of_reads();
        let stuck = reader(&gate, &statements);
        let open = reader(&Arc::new(Semaphore::new(1000)), &statements);
        // The first key of a statement decides which connection it meets.
        let read = move |keys: Vec<u32>| if keys[0] == 0 { stuck(keys) } else { open(keys) };
        let ask = |key: u32| {
            let (gather, read) = (Arc::clone(&gather), read.clone());
            tokio::spawn(async move { gather.ask(key, read).await })
        };
        let first = ask(0);
        while statements.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        for key in [2, 4, 6] {
            assert_eq!(ask(key).await.expect("it ran").expect("an answer"), Some(key * 10));
        }
        assert!(!first.is_finished());
        gate.add_permits(1);
        assert_eq!(first.await.expect("it ran").expect("an answer"), Some(0));
        while gather.waiting().late > 0 {
            tokio::task::yield_now().await;
        }
        assert!(!gather.waiting().answering);
    }

    #[tokio::test]
    async fn whoever_went_away_is_not_asked_for() {
        let (gate, statements) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let gather = Gather::of_writes();
        let ask = |key: u32| {
            let (gather, read) = (Arc::clone(&gather), reader(&gate, &statements));
            tokio::spawn(async move { gather.ask(key, read).await })
        };
        let first = ask(0);
        while statements.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let second = ask(2);
        while gather.waiting().questions.is_empty() {
            tokio::task::yield_now().await;
        }
        second.abort();
        assert!(second.await.is_err());
        gate.add_permits(1000);
        assert_eq!(first.await.expect("it ran").expect("an answer"), Some(0));
        while gather.waiting().answering {
            tokio::task::yield_now().await;
        }
        assert_eq!(statements.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_text_has_a_place_for_every_key() {
        let texts = Texts::new(2, "VALUES {}");
        for (count, size) in [(1, 1), (2, 2), (3, 4), (8, 8), (9, 16), (33, 48), (64, 64)] {
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
