//! What an operator does with an app that the configuration file does not declare.

use super::audit;
use crate::app::App;
use crate::protocol::ids::ClientId;
use crate::store::Result;
use crate::store::clients::ClientRecord;
use crate::store::events::EventKind;

/// Registers an app.
///
/// # Errors
/// `Conflict` where its id is taken.
pub async fn create(app: &App, record: ClientRecord) -> Result<()> {
    let event = audit::operator(app).event(EventKind::ClientCreated, record.created_at);
    app.store.create_client(record, event).await
}

/// Makes an app what `change` makes of it as it stands; what it is then, or why `change` refuses. `None` where there is
/// no such app.
pub async fn change<E: Send + 'static>(
    app: &App,
    id: &ClientId,
    change: impl FnOnce(ClientRecord) -> std::result::Result<ClientRecord, E> + Send + 'static,
) -> Result<Option<std::result::Result<ClientRecord, E>>> {
    app.store.change_client(id.clone(), change, audit::operator(app), app.now()).await
}

/// Forgets an app with its grants and consents; `false` where there is none.
pub async fn delete(app: &App, id: &ClientId) -> Result<bool> {
    let event = audit::operator(app).event(EventKind::ClientDeleted, app.now());
    app.store.delete_client(id.clone(), event).await
}
