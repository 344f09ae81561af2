//! What the keys are kept by: the configuration and everybody whose tokens they sign.

use std::collections::BTreeSet;

use crate::app::App;
use crate::keys::KeyError;
use crate::keys::life::{ALWAYS, Policy};
use crate::protocol::time::Span;

/// What is wanted of the keys now.
pub async fn policy(app: &App) -> Result<Policy, KeyError> {
    let metadata = &app.metadata;
    let mut wanted = BTreeSet::from(ALWAYS);
    wanted.extend(metadata.resources.iter().filter_map(|resource| resource.access_token_signing_alg));
    let mut longest_token = metadata.tokens.access_token_ttl.max(metadata.tokens.id_token_ttl);
    for record in app.store.clients().await? {
        let client = record.client.metadata;
        wanted.extend(client.id_token_signed_response_alg);
        wanted.extend(client.access_token_signed_response_alg);
        let own = [client.access_token_ttl, client.id_token_ttl].into_iter().flatten().max().unwrap_or(Span::ZERO);
        longest_token = longest_token.max(own);
    }
    Ok(Policy { wanted, rotate_every: app.config.signing_keys.rotate_every, longest_token })
}

/// Makes keys that are wanted, prepares successors, retires what is over.
pub async fn maintain(app: &App) -> Result<(), KeyError> {
    let policy = policy(app).await?;
    app.keys.maintain(&app.store, &policy, app.now()).await?;
    Ok(())
}
