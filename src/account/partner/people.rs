//! What a partner does with somebody who is there.

use super::Partner;
use crate::account::api_keys::{self, MintError, Minted};
use crate::app::App;
use crate::protocol::api_key::{ApiKeyRecord, Owner, Wish};
use crate::protocol::ids::{ApiKeyId, UserId};
use crate::protocol::partner::Changes;
use crate::protocol::time::Span;
use crate::store::Result;
use crate::store::events::EventKind;
use crate::store::partners::{Changed, PartnerUser};

/// Changes what is known of somebody.
pub async fn change(app: &App, partner: &Partner, id: &UserId, changes: Changes) -> Result<Changed> {
    let event = partner.event(app, EventKind::UserChanged, id);
    app.store.change_partner_user(&partner.id, id.clone(), changes, event, app.now()).await
}

/// What switching an account came to.
pub enum Switched {
    /// As they are now.
    Done(Box<PartnerUser>),
    NotThere,
    /// An operator has switched it off.
    ByOperator,
}

/// Switches somebody's account off or on; whoever is so already stays it.
pub async fn set_enabled(app: &App, partner: &Partner, id: &UserId, enabled: bool) -> Result<Switched> {
    let Some(person) = app.store.partner_user(&partner.id, id).await? else { return Ok(Switched::NotThere) };
    if person.user.is_active() == enabled {
        return Ok(Switched::Done(Box::new(person)));
    }
    let now = app.now();
    let kind = if enabled { EventKind::UserEnabled } else { EventKind::UserDisabled };
    let event = partner.event(app, kind, id);
    if !app.store.set_user_disabled_by_partner(id.clone(), (!enabled).then_some(now), event, now).await? {
        return Ok(Switched::ByOperator);
    }
    let person = app.store.partner_user(&partner.id, id).await?;
    Ok(person.map_or(Switched::NotThere, |person| Switched::Done(Box::new(person))))
}

/// Forgets somebody with everything that is theirs; `false` where there is nobody.
pub async fn delete(app: &App, partner: &Partner, id: &UserId) -> Result<bool> {
    if app.store.partner_user(&partner.id, id).await?.is_none() {
        return Ok(false);
    }
    app.store.delete_user(id.clone(), partner.event(app, EventKind::UserDeleted, id)).await
}

/// Makes another key for somebody.
pub async fn mint(
    app: &App,
    partner: &Partner,
    person: &PartnerUser,
    wish: Wish,
) -> std::result::Result<Minted, MintError> {
    api_keys::mint_for_user(app, &person.user, wish, None, &partner.author(app)).await
}

/// A key of one of the partner's people; any other is as good as none.
pub async fn key(app: &App, partner: &Partner, kid: &str) -> Result<Option<ApiKeyRecord>> {
    let Some(key) = app.store.listed_api_key(&ApiKeyId::new(kid)).await? else { return Ok(None) };
    let Owner::User(owner) = &key.record.owner else { return Ok(None) };
    let own = app.store.partner_user(&partner.id, owner).await?.is_some();
    Ok(own.then_some(key.record))
}

pub async fn rotate(
    app: &App,
    partner: &Partner,
    key: &ApiKeyRecord,
    overlap: Span,
) -> std::result::Result<Minted, MintError> {
    api_keys::rotate(app, key, overlap, &partner.author(app)).await
}

pub async fn revoke(app: &App, partner: &Partner, key: &ApiKeyRecord) -> Result<bool> {
    api_keys::revoke(app, key, &partner.author(app)).await
}
