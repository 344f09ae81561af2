//! What an operator does with somebody who is there. What partners do with their people is `partner/people.rs`.

use super::audit;
use crate::app::App;
use crate::crypto::secret::Secret;
use crate::protocol::ids::UserId;
use crate::store::Result;
use crate::store::events::{Event, EventKind};

fn event(app: &App, kind: EventKind, id: &UserId) -> Event {
    audit::operator(app).event(kind, app.now()).of_user(id)
}

/// Sets a password, by its hash, and ends all that the old one opened; `false` where there is no such person.
pub async fn set_password(app: &App, id: &UserId, hash: Secret<String>) -> Result<bool> {
    let event = event(app, EventKind::PasswordChanged, id);
    app.store.set_password(id.clone(), hash, event, app.now()).await
}

/// Switches an account off or on; `false` where there is no such person.
pub async fn set_enabled(app: &App, id: &UserId, enabled: bool) -> Result<bool> {
    let now = app.now();
    let kind = if enabled { EventKind::UserEnabled } else { EventKind::UserDisabled };
    app.store.set_user_disabled(id.clone(), (!enabled).then_some(now), event(app, kind, id), now).await
}

/// Sets what a person may do; `false` where there is no such person.
pub async fn set_roles(app: &App, id: &UserId, roles: Vec<String>) -> Result<bool> {
    let event = event(app, EventKind::UserChanged, id).with("changed", ["roles"].as_slice());
    app.store.set_roles(id.clone(), Some(roles.clone()), None, event.with("roles", roles), app.now()).await
}

/// Sets where a person belongs; `false` where there is no such person.
pub async fn set_groups(app: &App, id: &UserId, groups: Vec<String>) -> Result<bool> {
    let event = event(app, EventKind::UserChanged, id).with("changed", ["groups"].as_slice());
    app.store.set_roles(id.clone(), None, Some(groups.clone()), event.with("groups", groups), app.now()).await
}

/// Forgets a person with everything that is theirs; `false` where there is nobody.
pub async fn delete(app: &App, id: &UserId) -> Result<bool> {
    app.store.delete_user(id.clone(), event(app, EventKind::UserDeleted, id)).await
}
