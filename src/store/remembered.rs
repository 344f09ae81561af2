//! Values that were read once and count until something changes. A value carries the count of changes from before it
//! was read: it is answered only while that stands, so what was read before a change is never answered after it,
//! whenever it was put in.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::sync::Cache;

pub(super) struct Remembered<K, V> {
    /// Counts the times it was emptied.
    emptied: AtomicU64,
    entries: Cache<K, Dated<V>>,
}

struct Dated<V> {
    emptied: u64,
    value: Arc<V>,
}

impl<V> Clone for Dated<V> {
    fn clone(&self) -> Self {
        Self { emptied: self.emptied, value: Arc::clone(&self.value) }
    }
}

/// The count of changes at one moment.
#[derive(Clone, Copy)]
pub(super) struct Before(u64);

impl<K: Hash + Eq + Send + Sync + 'static, V: Send + Sync + 'static> Remembered<K, V> {
    pub(super) fn new(most: u64) -> Self {
        Self { emptied: AtomicU64::new(0), entries: Cache::new(most) }
    }

    pub(super) fn clear(&self) {
        self.emptied.fetch_add(1, Ordering::AcqRel);
        // Only to give the memory back; the count alone decides.
        self.entries.invalidate_all();
    }

    pub(super) fn get(&self, key: &K) -> Option<Arc<V>> {
        let dated = self.entries.get(key)?;
        (dated.emptied == self.before().0).then_some(dated.value)
    }

    pub(super) fn forget(&self, key: &K) {
        self.entries.invalidate(key);
    }

    /// Taken before a value is read from the database.
    pub(super) fn before(&self) -> Before {
        Before(self.emptied.load(Ordering::Acquire))
    }

    pub(super) fn put(&self, key: K, before: Before, value: &Arc<V>) {
        self.entries.insert(key, Dated { emptied: before.0, value: Arc::clone(value) });
    }
}
