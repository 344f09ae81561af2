//! What a change of a client is told as: its metadata, its secrets and its status are events of their own, so that each
//! is found by its kind.

use serde_json::{Map, Value, json};

use super::{Author, Event, EventKind};
use crate::protocol::client_auth::StoredSecret;
use crate::protocol::time::Timestamp;
use crate::store::clients::ClientRecord;
use crate::store::{Result, from_json, to_json};

/// The events of a change from `before` to `after`; none where nothing that counts is another.
pub(in crate::store) fn changes(
    before: &ClientRecord,
    after: &ClientRecord,
    author: &Author,
    now: Timestamp,
) -> Result<Vec<Event>> {
    let event = |kind| author.event(kind, now).of_client(&after.client.id);
    let mut events = Vec::new();
    let changed = differences(&members(before)?, &members(after)?);
    if !changed.is_empty() {
        events.push(event(EventKind::ClientChanged).with("changed", changed));
    }
    if proofs(before) != proofs(after) {
        events.push(event(EventKind::ClientSecretRotated).with("secrets", after.secrets.len()));
    }
    match (before.client.is_enabled(), after.client.is_enabled()) {
        (true, false) => events.push(event(EventKind::ClientDisabled)),
        (false, true) => events.push(event(EventKind::ClientEnabled)),
        _ => {}
    }
    Ok(events)
}

/// Everything about a client that anybody may know.
fn members(record: &ClientRecord) -> Result<Map<String, Value>> {
    let mut members: Map<String, Value> = from_json("client", &to_json("client", &record.client.metadata)?)?;
    members.insert("declared".to_owned(), record.declared.into());
    Ok(members)
}

fn differences(before: &Map<String, Value>, after: &Map<String, Value>) -> Map<String, Value> {
    let added = after.keys().filter(|name| !before.contains_key(*name));
    let value = |members: &Map<String, Value>, name: &String| members.get(name).cloned().unwrap_or_default();
    let pairs = before.keys().chain(added).map(|name| (name, value(before, name), value(after, name)));
    let differing = pairs.filter(|(_, from, to)| from != to);
    differing.map(|(name, from, to)| (name.clone(), json!({ "from": from, "to": to }))).collect()
}

/// What tells secrets apart. When one was noted down tells nothing: two processes that sync the same file differ in it.
fn proofs(record: &ClientRecord) -> Vec<(&str, Option<Timestamp>)> {
    record.secrets.iter().map(|StoredSecret { sha256, expires_at, .. }| (sha256.as_str(), *expires_at)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ambient::SystemRng;
    use crate::protocol::client::{Client, ClientMetadata};
    use crate::protocol::ids::ClientId;
    use crate::store::events::By;

    fn app() -> ClientRecord {
        let metadata = ClientMetadata { client_name: Some("App".to_owned()), ..ClientMetadata::default() };
        ClientRecord {
            client: Client { id: ClientId::new("app"), metadata, disabled_at: None },
            secrets: vec![StoredSecret::of("secret", Timestamp(1))],
            declared: false,
            created_at: Timestamp(1),
        }
    }

    #[test]
    fn each_side_of_a_change_is_an_event_and_nothing_is_none() {
        type Change = fn(&mut ClientRecord);
        let rename: Change = |record| record.client.metadata.client_name = Some("New".to_owned());
        let switch_off: Change = |record| record.client.disabled_at = Some(Timestamp(5));
        let another_secret: Change = |record| record.secrets.push(StoredSecret::of("another", Timestamp(2)));
        let note_anew: Change = |record| record.secrets[0].created_at = Timestamp(9);
        let expire: Change = |record| record.secrets[0].expires_at = Some(Timestamp(9));
        for (changes, told) in [
            (&[][..], &[][..]),
            (&[note_anew], &[]),
            (&[rename], &["client_changed"]),
            (&[another_secret, expire], &["client_secret_rotated"]),
            (&[switch_off], &["client_disabled"]),
            (&[rename, another_secret, switch_off], &["client_changed", "client_secret_rotated", "client_disabled"]),
        ] {
            let (before, mut after) = (app(), app());
            changes.iter().for_each(|change| change(&mut after));
            let author = Author::new(Arc::new(SystemRng), By::Operator);
            let events = super::changes(&before, &after, &author, Timestamp(5)).expect("events");
            assert_eq!(events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), told);
            assert!(events.iter().all(|event| event.client_id == Some(ClientId::new("app"))));
            let back = super::changes(&after, &before, &author, Timestamp(5)).expect("events");
            assert_eq!(
                back.iter().any(|event| event.kind == EventKind::ClientEnabled),
                told.contains(&"client_disabled")
            );
        }
    }

    #[test]
    fn a_change_of_metadata_says_from_what_to_what_and_no_secret() {
        let (before, mut after) = (app(), app());
        after.client.metadata.client_name = None;
        after.client.metadata.redirect_uris = vec!["https://app.test/cb".to_owned()];
        after.secrets = vec![StoredSecret::of("another", Timestamp(2))];
        let author = Author::new(Arc::new(SystemRng), By::Operator);
        let events = changes(&before, &after, &author, Timestamp(5)).expect("events");
        let told = serde_json::to_string(&events.iter().map(|event| &event.detail).collect::<Vec<_>>()).expect("JSON");
        let expected = r#"[{"by":"operator","changed":{"client_name":{"from":"App","to":null},"redirect_uris":{"from":[],"to":["https://app.test/cb"]}}},{"by":"operator","secrets":1}]"#;
        assert_eq!(told, expected);
    }
}
