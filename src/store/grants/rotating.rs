//! Grants whose refresh tokens rotate, remembered from one refresh to the next: a refresh of such a grant is then one
//! write, without a read before it. What is remembered of the person counts until something changes, as with clients;
//! whether the grant itself still stands so is for the rotation to say, which is conditional and fails where anybody
//! has revoked the grant or was faster.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::StoredGrant;
use crate::protocol::grant::RefreshState;
use crate::protocol::ids::GrantId;
use crate::protocol::time::Timestamp;
use crate::store::{Result, Store};

/// A grant as it was read, and where its refresh token has come to since.
pub(in crate::store) struct RotatingGrant {
    read: StoredGrant,
    refresh: Mutex<RefreshState>,
}

impl RotatingGrant {
    /// `None` for one that cannot be refreshed.
    fn of(read: &StoredGrant) -> Option<Self> {
        let refresh = Mutex::new(read.grant.refresh?);
        Some(Self { read: read.clone(), refresh })
    }

    fn refresh(&self) -> MutexGuard<'_, RefreshState> {
        self.refresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn as_it_is(&self) -> StoredGrant {
        let mut stored = self.read.clone();
        stored.grant.refresh = Some(*self.refresh());
        stored
    }

    fn rotated(&self, from: u32, at: Timestamp) {
        let mut refresh = self.refresh();
        if refresh.generation == from {
            *refresh = RefreshState { generation: from + 1, rotated_at: at, used_at: at, ..*refresh };
        }
    }
}

impl Store {
    /// A grant whose refresh token is about to rotate, from the database.
    pub async fn grant_to_rotate(&self, id: &GrantId) -> Result<Option<StoredGrant>> {
        let known = &self.caches.rotating;
        let before = known.before();
        let stored = self.grant(id).await?;
        match stored.as_ref().and_then(RotatingGrant::of) {
            Some(rotating) => known.put(id.clone(), before, &Arc::new(rotating)),
            None => known.forget(id),
        }
        Ok(stored)
    }

    /// What is remembered of such a grant. Only a rotation may follow from it.
    pub fn remembered_grant(&self, id: &GrantId) -> Option<StoredGrant> {
        let known = self.freshness.is_fresh().then(|| self.caches.rotating.get(id)).flatten();
        known.map(|rotating| rotating.as_it_is())
    }

    pub(super) fn note_rotation(&self, id: &GrantId, from: u32, at: Timestamp) {
        if let Some(rotating) = self.caches.rotating.get(id) {
            rotating.rotated(from, at);
        }
    }
}
