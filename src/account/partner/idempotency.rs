//! Asking again for an answer that was lost. What is kept is sealed under a key that comes from the header's value and
//! the server key together: neither the database alone nor whoever guesses the value opens it.

use super::Partner;
use crate::app::App;
use crate::crypto::digest::{hmac_sha256, sha256};
use crate::crypto::seal::SealKey;
use crate::protocol::partner::ANSWERS_KEPT;
use crate::store::idempotency::NewAnswer;
use crate::store::{Result, StoreError};

/// What a request with an `Idempotency-Key` comes with.
pub struct Idempotent {
    partner: Partner,
    key_hash: [u8; 32],
    request_hash: [u8; 32],
    seal: SealKey,
}

/// What is known of the key.
#[derive(Debug, PartialEq, Eq)]
pub enum Before {
    Nothing,
    /// The answer of then.
    Answered(Vec<u8>),
    /// It came with another request then.
    Mismatch,
}

impl Idempotent {
    /// `request` says what is asked for: two that mean the same must be the same bytes.
    pub fn new(app: &App, partner: &Partner, key: &str, request: &[u8]) -> Self {
        let answers = &app.keys.server.answers;
        let part = |purpose: &[u8]| hmac_sha256(answers, &[purpose, partner.id.as_str().as_bytes(), key.as_bytes()]);
        Self {
            partner: partner.clone(),
            key_hash: part(b"name"),
            request_hash: sha256(request),
            seal: SealKey::derive(&part(b"seal"), "answer"),
        }
    }

    /// What was answered before.
    pub async fn before(&self, app: &App) -> Result<Before> {
        let Some(stored) = app.store.answer(&self.partner.id, self.key_hash, app.now()).await? else {
            return Ok(Before::Nothing);
        };
        if stored.request_hash != self.request_hash {
            return Ok(Before::Mismatch);
        }
        let corrupt = |_| StoreError::Corrupt { what: "answer", why: "it was sealed under another key".to_owned() };
        self.seal.open(&stored.sealed).map(Before::Answered).map_err(corrupt)
    }

    /// The answer, to be kept with what it tells of.
    pub fn remember(&self, app: &App, answer: &[u8]) -> Result<NewAnswer> {
        let sealed = self.seal.seal(answer);
        Ok(NewAnswer {
            partner: self.partner.id.clone(),
            key_hash: self.key_hash,
            request_hash: self.request_hash,
            sealed: sealed.map_err(|error| StoreError::Corrupt { what: "answer", why: error.to_string() })?,
            expires_at: app.now() + ANSWERS_KEPT,
        })
    }
}
