//! What the keys are kept by: the configuration and everybody whose tokens they sign; and an operator's orders.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::audit;
use crate::app::App;
use crate::crypto::jws::KeyPair;
use crate::keys::life::{ALWAYS, Policy};
use crate::keys::{KeyError, Prepared, Rekeyed, Retirement};
use crate::protocol::client::SigningAlg;
use crate::protocol::first_party::Api;
use crate::protocol::time::Span;
use crate::store::keys::StoredKey;

/// What is wanted of the keys now.
pub async fn policy(app: &App) -> Result<Policy, KeyError> {
    let metadata = &app.metadata;
    let mut wanted = BTreeSet::from(ALWAYS);
    wanted.extend(metadata.resources.iter().filter_map(|resource| resource.access_token_signing_alg));
    let mut longest_token = metadata.tokens.access_token_ttl.max(metadata.tokens.id_token_ttl);
    for record in app.store.clients().await? {
        // A sign-in API has lifetimes of its own for a client that has none.
        let calls =
            Api::ALL.into_iter().filter(|api| app.config.sign_in_apis.client_of(*api) == Some(&record.client.id));
        for api in calls {
            longest_token =
                longest_token.max(api.client(&record.client).metadata.access_token_ttl.unwrap_or(Span::ZERO));
        }
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
    app.keys.maintain(&app.store, &policy, &audit::keyward(app), app.now()).await?;
    Ok(())
}

/// Makes the successor of an algorithm's key, as an operator orders.
pub async fn rotate(app: &App, alg: SigningAlg, at_once: bool) -> Result<Prepared, KeyError> {
    app.keys.rotate(&app.store, alg, at_once, &audit::operator(app), app.now()).await
}

/// Takes an operator's own key into use.
pub async fn import(app: &App, pair: KeyPair, at_once: bool) -> Result<StoredKey, KeyError> {
    app.keys.import(&app.store, pair, at_once, &audit::operator(app), app.now()).await
}

/// Ends a key at once.
pub async fn retire(app: &App, kid: &str) -> Result<Retirement, KeyError> {
    app.keys.retire(&app.store, kid, &policy(app).await?, &audit::operator(app), app.now()).await
}

/// Seals everything under a new master key.
pub async fn rekey(app: &App, new: Option<PathBuf>) -> Result<Rekeyed, KeyError> {
    app.keys.rekey(&app.store, new, &audit::operator(app), app.now()).await
}
