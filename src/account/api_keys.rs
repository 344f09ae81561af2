//! API keys in use and in hand: one that was presented, and what its owner does with theirs. Bad keys are counted by
//! the network that they come from, never by whose they claim to be, so nobody can lock an owner out.

use std::net::IpAddr;
use std::sync::Arc;

use crate::ambient::random_bytes;
use crate::app::App;
use crate::crypto::api_key::ApiKey;
use crate::keys::PEPPER_VERSION;
use crate::limit::{Action, Throttled};
use crate::live;
use crate::protocol::api_key::{
    ApiKeyRecord, DEFAULT_SCOPES, Kind, Owner, Terms, Unacceptable, Wish, ceiling_of, is_partner_scope, terms,
};
use crate::protocol::ids::{ApiKeyId, ClientId};
use crate::protocol::scope::{PARTNER_USERS, ScopeSet};
use crate::protocol::time::{Span, Timestamp};
use crate::protocol::user::User;
use crate::store::Result;
use crate::store::api_keys::{KeyCreation, KeyRotation, NewApiKey, StoredApiKey};
use crate::store::clients::ClientRecord;
use crate::store::events::{Author, By, Event, EventKind};

/// A key that was presented and is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// Whatever is wrong with it.
    Bad,
    /// It is bad, and so were many others from there.
    Throttled(Throttled),
}

/// The key that a text is, if it counts here and now, and `opens` says that it does this. One without the right
/// checksum costs nobody anything; any other bad one takes a place of its network.
pub async fn check(
    app: &App,
    text: &str,
    from: Option<IpAddr>,
    opens: impl Fn(&ApiKeyRecord, &User) -> bool,
) -> Result<std::result::Result<Arc<StoredApiKey>, Rejected>> {
    let now = app.now();
    let found = live::api_key(app, text, from, now).await?;
    let found = found.filter(|key| key.user.as_ref().is_some_and(|user| opens(&key.record, user)));
    taken(app, text, found, from, now).await
}

/// The same for a partner's own key, with the partner that it is of.
pub async fn check_partners(
    app: &App,
    text: &str,
    from: Option<IpAddr>,
) -> Result<std::result::Result<(Arc<StoredApiKey>, Arc<ClientRecord>), Rejected>> {
    let now = app.now();
    let found = live::partner_key(app, text, from, now).await?;
    let (key, partner) = found.unzip();
    let checked = taken(app, text, key, from, now).await?;
    Ok(checked.and_then(|key| Ok((key, partner.ok_or(Rejected::Bad)?))))
}

/// Notes the use of a good key, and counts a bad one.
async fn taken(
    app: &App,
    text: &str,
    found: Option<Arc<StoredApiKey>>,
    from: Option<IpAddr>,
    now: Timestamp,
) -> Result<std::result::Result<Arc<StoredApiKey>, Rejected>> {
    if let Some(key) = found {
        app.store.note_key_use(&key, from, now);
        return Ok(Ok(key));
    }
    if ApiKey::parse(text).is_none() {
        return Ok(Err(Rejected::Bad));
    }
    Ok(Err(match app.limits.reserve(Action::ApiKey { from }, now).await? {
        Ok(_) => Rejected::Bad,
        Err(throttled) => Rejected::Throttled(throttled),
    }))
}

/// A key that was just made. This is the only time that anybody sees it.
pub struct Minted {
    pub key: ApiKey,
    pub record: ApiKeyRecord,
}

/// Why there is no new key.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    #[error(transparent)]
    Unacceptable(#[from] Unacceptable),
    #[error("the owner is disabled or gone")]
    NoOwner,
    #[error("the owner has as many keys as may be; revoke one first")]
    TooMany,
    #[error("the key does not count any more")]
    NotLive,
    #[error("the key was rotated before, and its successor counts; rotate or revoke that one")]
    Replaced,
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

/// Makes a key for a person. `default` are its scopes where the wish names none.
pub async fn mint_for_user(
    app: &App,
    user: &User,
    wish: Wish,
    default: Option<&ScopeSet>,
    author: &Author,
) -> std::result::Result<Minted, MintError> {
    let now = app.now();
    let terms = terms_for_user(app, user, wish, default, now)?;
    mint(app, Owner::User(user.id.clone()), terms, author, now).await
}

/// A key for somebody who is about to be made, to be written together with them, with the event that tells of it.
pub(super) fn draw_for_user(
    app: &App,
    user: &User,
    wish: Wish,
    author: &Author,
    now: Timestamp,
) -> std::result::Result<(Minted, (NewApiKey, Event)), Unacceptable> {
    let terms = terms_for_user(app, user, wish, None, now)?;
    let minted = draw(app, Owner::User(user.id.clone()), terms, None, now);
    let new = (stored(app, &minted), event(author, EventKind::ApiKeyCreated, &minted.record, now));
    Ok((minted, new))
}

fn terms_for_user(
    app: &App,
    user: &User,
    wish: Wish,
    default: Option<&ScopeSet>,
    now: Timestamp,
) -> std::result::Result<Terms, Unacceptable> {
    let own = DEFAULT_SCOPES.parse().unwrap_or_default();
    let ceiling = ceiling_of(user, &app.metadata);
    terms(wish, default.unwrap_or(&own), ceiling, &app.metadata, app.config.api_keys, now)
}

/// Makes a key of a partner's own, for its administration.
pub async fn mint_for_partner(
    app: &App,
    partner: &ClientId,
    wish: Wish,
    author: &Author,
) -> std::result::Result<Minted, MintError> {
    let default = [PARTNER_USERS.to_owned()].into_iter().collect();
    let now = app.now();
    let terms = terms(wish, &default, is_partner_scope, &app.metadata, app.config.api_keys, now)?;
    mint(app, Owner::Partner(partner.clone()), terms, author, now).await
}

async fn mint(
    app: &App,
    owner: Owner,
    terms: Terms,
    author: &Author,
    now: Timestamp,
) -> std::result::Result<Minted, MintError> {
    let minted = draw(app, owner, terms, None, now);
    let event = event(author, EventKind::ApiKeyCreated, &minted.record, now);
    match app.store.create_api_key(stored(app, &minted), event, now).await? {
        KeyCreation::NoOwner => return Err(MintError::NoOwner),
        KeyCreation::TooMany => return Err(MintError::TooMany),
        KeyCreation::Created => {}
    }
    Ok(minted)
}

/// Replaces a key by one of the same terms; the old one goes on for `overlap`, or until its own end. The new one lives
/// as long as the old one was made for.
pub async fn rotate(
    app: &App,
    old: &ApiKeyRecord,
    overlap: Span,
    author: &Author,
) -> std::result::Result<Minted, MintError> {
    let now = app.now();
    let lifetime = old.lifetime.min(app.config.api_keys.max_ttl);
    let terms = Terms {
        name: old.name.clone(),
        scopes: old.scopes.clone(),
        audiences: old.audiences.clone(),
        allowed_cidrs: old.allowed_cidrs.clone(),
        exchange_only: old.exchange_only,
        expires_at: now + lifetime,
    };
    let minted = draw(app, old.owner.clone(), terms, Some(old.kid.clone()), now);
    let event = event(author, EventKind::ApiKeyRotated, &minted.record, now).with("predecessor", old.kid.as_str());
    match app.store.rotate_api_key(old.kid.clone(), stored(app, &minted), now + overlap, event, now).await? {
        KeyRotation::NotLive => return Err(MintError::NotLive),
        KeyRotation::Replaced => return Err(MintError::Replaced),
        KeyRotation::Rotated => {}
    }
    Ok(minted)
}

/// Ends a key with everything that was made from it; `false` where it had ended by hand before.
pub async fn revoke(app: &App, key: &ApiKeyRecord, author: &Author) -> Result<bool> {
    // A key that ended by hand needs no second end, and whoever holds a dead one must not move the caches of everybody.
    if key.revoked_at.is_some() {
        return Ok(false);
    }
    let reason = match author.by {
        By::Person => "revoked_by_owner",
        By::Holder => "revoked_by_holder",
        By::Client => "revoked_by_client",
        By::Partner => "revoked_by_partner",
        By::Operator | By::Declared | By::Import | By::Keyward => "operator",
    };
    let now = app.now();
    let event = event(author, EventKind::ApiKeyRevoked, key, now);
    app.store.revoke_api_key(key.kid.clone(), reason, event, now).await
}

fn draw(app: &App, owner: Owner, terms: Terms, predecessor: Option<ApiKeyId>, created_at: Timestamp) -> Minted {
    let kind = match &owner {
        Owner::User(_) => Kind::User,
        Owner::Partner(_) => Kind::Partner,
    };
    let key = ApiKey::new(kind, app.rng.id(), random_bytes(app.rng.as_ref()));
    let record = ApiKeyRecord {
        kid: key.kid.clone(),
        owner,
        name: terms.name,
        scopes: terms.scopes,
        audiences: terms.audiences,
        allowed_cidrs: terms.allowed_cidrs,
        exchange_only: terms.exchange_only,
        predecessor,
        created_at,
        lifetime: terms.expires_at - created_at,
        expires_at: terms.expires_at,
        revoked_at: None,
    };
    Minted { key, record }
}

fn stored(app: &App, minted: &Minted) -> NewApiKey {
    let mac = minted.key.mac(&app.keys.server.api_keys);
    NewApiKey { record: minted.record.clone(), mac, pepper: PEPPER_VERSION }
}

/// What is told of a key: never the key. Where it is a partner's own the event is the partner's, and another client that
/// acted stands beside it.
fn event(author: &Author, kind: EventKind, key: &ApiKeyRecord, at: Timestamp) -> Event {
    let event = author.event(kind, at).with("key_id", key.kid.as_str());
    match &key.owner {
        Owner::User(id) => event.of_user(id),
        Owner::Partner(id) => {
            let acting = author.client_id.as_ref().filter(|acting| *acting != id);
            let event = event.of_client(id);
            acting.into_iter().fold(event, |event, acting| event.with("client", acting.as_str()))
        }
    }
}
