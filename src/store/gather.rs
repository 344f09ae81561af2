//! One question for many: whoever asks while others are being answered waits for the next statement, which asks for all
//! that wait. Alone nobody waits; under load a statement, and the way to the database and back, is shared.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tracing::Instrument as _;

use super::Result;

/// Statements at a time.
const AT_ONCE: usize = 2;

/// What is found of the keys that are asked for.
pub(super) type Found<K, V> = BoxFuture<'static, Result<Vec<(K, V)>>>;

/// Answers questions of one kind.
pub(super) struct Gather<K, V> {
    /// Keys in one statement at most.
    most: usize,
    waiting: Mutex<Waiting<K, V>>,
}

struct Waiting<K, V> {
    questions: Vec<(K, oneshot::Sender<Option<V>>)>,
    running: usize,
}

impl<K, V> Gather<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static,
{
    pub(super) fn new(most: usize) -> Self {
        Self { most, waiting: Mutex::new(Waiting { questions: Vec::new(), running: 0 }) }
    }

    /// What is found of one key, read after this call. `Err` where the statement failed: ask for it alone then.
    pub(super) async fn ask(
        self: &Arc<Self>,
        key: K,
        read: impl Fn(Vec<K>) -> Found<K, V> + Send + 'static,
    ) -> std::result::Result<Option<V>, Unanswered> {
        let (answer, answered) = oneshot::channel();
        let begins = {
            let mut waiting = self.waiting();
            waiting.questions.push((key, answer));
            let begins = waiting.running < AT_ONCE;
            waiting.running += usize::from(begins);
            begins
        };
        if begins {
            // A task of its own: whoever began it may go away, and the others still wait.
            tokio::spawn(Arc::clone(self).answer(read).in_current_span());
        }
        answered.await.map_err(|_| Unanswered)
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
                let eldest = waiting.questions.len().min(self.most);
                let newer = waiting.questions.split_off(eldest);
                std::mem::replace(&mut waiting.questions, newer)
            };
            let keys = questions.iter().map(|(key, _)| key.clone()).collect();
            match read(keys).await {
                Ok(found) => {
                    let found: HashMap<K, V> = found.into_iter().collect();
                    for (key, answer) in questions {
                        // Nobody has to be there any more.
                        let _ = answer.send(found.get(&key).cloned());
                    }
                }
                Err(error) => tracing::debug!(%error, "a shared read failed; each asks for itself"),
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<K, V>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The statement that many share failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unanswered;

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

    #[tokio::test]
    async fn whoever_asks_meanwhile_shares_the_next_statement() {
        let (gate, statements) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let gather = Arc::new(Gather::new(8));
        let ask = |key: u32| {
            let (gather, read) = (Arc::clone(&gather), reader(&gate, &statements));
            tokio::spawn(async move { gather.ask(key, read).await })
        };
        let many = u32::try_from(AT_ONCE).expect("a few");
        let mut asked = Vec::new();
        for key in 0..many {
            asked.push(ask(key));
            // Each alone in a statement, which waits.
            while statements.load(Ordering::SeqCst) <= usize::try_from(key).expect("a few") {
                tokio::task::yield_now().await;
            }
        }
        asked.extend((many..20).map(&ask));
        while gather.waiting().questions.len() < 20 - AT_ONCE {
            tokio::task::yield_now().await;
        }
        gate.add_permits(1000);
        for (key, answer) in (0..).zip(join_all(asked).await) {
            let expected = (key % 2 == 0).then_some(key * 10);
            assert_eq!(answer.expect("it ran").expect("an answer"), expected, "{key}");
        }
        assert_eq!(statements.load(Ordering::SeqCst), AT_ONCE + 3, "eighteen in eights");
        // Nobody is at it any more: the next one is answered as well.
        assert_eq!(ask(40).await.expect("it ran").expect("an answer"), Some(400));
        while gather.waiting().running > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_statement_that_fails_leaves_the_others_be() {
        let (gate, statements) = (Arc::new(Semaphore::new(1000)), Arc::new(AtomicUsize::new(0)));
        let gather = Arc::new(Gather::new(1));
        let answers = join_all([2, 99, 4].map(|key| gather.ask(key, reader(&gate, &statements)))).await;
        assert!(answers[1].is_err());
        assert_eq!((answers[0].as_ref().ok(), answers[2].as_ref().ok()), (Some(&Some(20)), Some(&Some(40))));
    }
}
