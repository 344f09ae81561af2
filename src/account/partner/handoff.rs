//! A partner hands its person's browser over: a link that is good for a minute and once. Looking at it does nothing;
//! the click on its page signs that browser in.

use std::net::IpAddr;
use std::sync::Arc;

use crate::account::sessions::begin_handed_over_session;
use crate::ambient::random_token;
use crate::app::App;
use crate::crypto::digest::sha256;
use crate::crypto::secret::Secret;
use crate::live;
use crate::protocol::ids::UserId;
use crate::protocol::interaction::Session;
use crate::protocol::partner::HANDOFF_TTL;
use crate::protocol::time::Span;
use crate::protocol::user::User;
use crate::store::Result;
use crate::store::clients::ClientRecord;
use crate::store::links::{LinkKind, NewLink};

/// The secret of a new link for somebody of the partner's.
pub async fn offer(app: &App, user_id: &UserId) -> Result<Secret<String>> {
    let token = random_token::<32>(app.rng.as_ref());
    let link = NewLink {
        token_hash: sha256(token.as_bytes()),
        kind: LinkKind::HandOff,
        user_id: user_id.clone(),
        expires_at: app.now() + HANDOFF_TTL,
    };
    app.store.create_link(link).await?;
    Ok(Secret::new(token))
}

/// Whom a link that is still good would sign in.
pub struct HandedOver {
    pub user: User,
    pub partner: Arc<ClientRecord>,
}

/// Whom the link is about; `None` where it was used, is too old, or was never given out.
pub async fn about(app: &App, token: &str) -> Result<Option<HandedOver>> {
    let Some(user) = app.store.link(sha256(token.as_bytes()), LinkKind::HandOff, app.now()).await? else {
        return Ok(None);
    };
    let Some(partner) = &user.partner else { return Ok(None) };
    let Some(client) = live::partner_client(app, partner).await? else { return Ok(None) };
    Ok(Some(HandedOver { user, partner: client }))
}

/// Signs a browser in, once; the secret of its cookie with its life. `None` where somebody was faster.
pub async fn accept(
    app: &App,
    token: &str,
    handed_over: &HandedOver,
    replaced: Option<&Session>,
    address: Option<IpAddr>,
) -> Result<Option<(Secret<String>, Span)>> {
    begin_handed_over_session(app, &handed_over.user, sha256(token.as_bytes()), replaced, address).await
}
