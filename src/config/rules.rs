//! Rules that one value alone cannot break: what is missing, what is there twice, what names something else. All
//! of them are checked, so that one run tells everything. What makes a client's metadata acceptable is for
//! `protocol::registration`.

use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::protocol::time::Span;
use crate::protocol::user::checked_labels;

use super::draft::{Draft, join, tables};
use super::issuer::Issuer;
use super::kind::Kind;
use super::mail;
use super::settings::{Entry, Presence, SIGN_IN_APIS, entries};

/// Judges the draft; what it finds is left in it.
pub fn check(draft: &mut Draft) {
    for entry in entries() {
        if matches!(entry.presence, Presence::Required | Presence::Key) {
            missing(draft, entry);
        }
        if matches!(entry.presence, Presence::Unique | Presence::Key) {
            repeated(draft, entry);
        }
        if entry.kind == Kind::Secret {
            inline(draft, entry);
        }
    }
    listeners(draft);
    nameless_users(draft);
    resources(draft);
    sessions(draft);
    api_keys(draft);
    sign_in_apis(draft);
    labels(draft);
    partners(draft);
    tls(draft);
    mail::check(draft);
    gateway_cookie(draft);
}

/// Copies of the tables at `parent`, so that the draft can be told about them.
fn at(draft: &mut Draft, parent: &str) -> Vec<(String, Table)> {
    tables(&mut draft.values, parent, false).into_iter().map(|(path, table)| (path, table.clone())).collect()
}

fn missing(draft: &mut Draft, entry: &Entry) {
    let (parent, key) = entry.split();
    for (path, table) in at(draft, parent) {
        let path = join(&path, key);
        if !table.contains_key(key) && !draft.was_refused(&path) {
            let example = entry.example.as_deref().unwrap_or_default();
            draft.error_at(&path, &format!("is missing; add it like `{key} = {example}`"));
        }
    }
}

fn repeated(draft: &mut Draft, entry: &Entry) {
    let (parent, key) = entry.split();
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for (path, table) in at(draft, parent) {
        let Some(value) = table.get(key) else { continue };
        // Addresses compare without regard to case wherever people sign in.
        let shown = value.to_string();
        let compared = if entry.kind == Kind::Email { shown.to_lowercase() } else { shown.clone() };
        match seen.get(&compared) {
            Some(first) => {
                draft.error_at(&join(&path, key), &format!("is {shown}, as in `{first}`; it must be unique"))
            }
            None => {
                seen.insert(compared, path);
            }
        }
    }
}

fn inline(draft: &mut Draft, entry: &Entry) {
    let (parent, key) = entry.split();
    for (path, table) in at(draft, parent) {
        if table.contains_key(key) {
            draft.warn_at(&join(&path, key), &format!("stands in the file; keep it in its own with `{key}_file`"));
        }
    }
}

fn listeners(draft: &mut Draft) {
    let addresses = |key| draft.values.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let (public, admin) = (addresses("listen"), addresses("admin_listen"));
    let free = |address: &Value| address.as_str().is_some_and(|text| text.ends_with(":0"));
    for (key, own) in [("listen", &public), ("admin_listen", &admin)] {
        let again = own.iter().enumerate().find(|(at, address)| own[..*at].contains(address) && !free(address));
        if let Some((_, address)) = again {
            draft.error_at(key, &format!("names {address} twice; once is enough"));
        }
    }
    if let Some(shared) = admin.iter().find(|address| public.contains(address) && !free(address)) {
        let advice = "give health and metrics an address of their own";
        draft.error_at("admin_listen", &format!("is {shared}, as in `listen`; {advice}"));
    }
}

fn nameless_users(draft: &mut Draft) {
    for (path, table) in at(draft, "users[]") {
        let given = |key| table.contains_key(key) || draft.was_refused(&join(&path, key));
        if !given("username") && !given("email") {
            draft.error_at(&path, "has neither `username` nor `email`; add one of them");
        }
    }
}

fn resources(draft: &mut Draft) {
    let scopes = texts(&at(draft, "scopes[]"), "name");
    let clients = texts(&at(draft, "clients[]"), "client_id");
    for (path, table) in at(draft, "resources[]") {
        let listed = |key| table.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        for scope in listed("scopes").filter(|scope| !scopes.iter().any(|known| known == scope)) {
            let advice = "declare it with `[[scopes]]` and `name`";
            draft.error_at(&join(&path, "scopes"), &format!("names \"{scope}\", which is no declared scope; {advice}"));
        }
        for client in listed("introspection_clients").filter(|id| !clients.iter().any(|known| known == id)) {
            let advice = "nobody can introspect as it until somebody makes it";
            let message = format!("names \"{client}\", which is no client of this file; {advice}");
            draft.warn_at(&join(&path, "introspection_clients"), &message);
        }
    }
}

fn texts(tables: &[(String, Table)], key: &str) -> Vec<String> {
    tables.iter().filter_map(|(_, table)| table.get(key)?.as_str().map(str::to_owned)).collect()
}

fn sessions(draft: &mut Draft) {
    for (_, table) in at(draft, "sessions") {
        let span = |key| table.get(key).and_then(Value::as_str).and_then(|text| text.parse::<Span>().ok());
        if let (Some(idle), Some(absolute)) = (span("idle"), span("absolute"))
            && idle > absolute
        {
            draft.warn_at(
                "sessions.idle",
                &format!("is longer than `sessions.absolute` ({absolute}), which ends it first"),
            );
        }
    }
}

fn api_keys(draft: &mut Draft) {
    for (_, table) in at(draft, "api_keys") {
        let span = |key| table.get(key).and_then(Value::as_str).and_then(|text| text.parse::<Span>().ok());
        if let (Some(default), Some(max)) = (span("default_ttl"), span("max_ttl"))
            && default > max
        {
            draft.warn_at("api_keys.default_ttl", &format!("is longer than `api_keys.max_ttl` ({max}), which counts"));
        }
    }
}

/// Calls act as clients that somebody has to make.
fn sign_in_apis(draft: &mut Draft) {
    let length = "sign_in_apis.username.password_min_length";
    let named = !texts(&at(draft, "sign_in_apis.username"), "client_id").is_empty();
    if !named && draft.was_written(length) && !draft.was_refused("sign_in_apis.username.client_id") {
        draft.warn_at(length, "does nothing: without `client_id` beside it these calls are off");
    }
    let clients = texts(&at(draft, "clients[]"), "client_id");
    for api in SIGN_IN_APIS {
        let named = texts(&at(draft, api), "client_id");
        for client in named.iter().filter(|id| !clients.contains(id)) {
            let advice = "nobody can sign in there until somebody makes it";
            let message = format!("names \"{client}\", which is no client of this file; {advice}");
            draft.warn_at(&join(api, "client_id"), &message);
        }
    }
}

/// Roles and groups are words, wherever they stand.
fn labels(draft: &mut Draft) {
    for (parent, key) in [("users[]", "roles"), ("users[]", "groups"), ("scopes[]", "requires_role")] {
        for (path, table) in at(draft, parent) {
            let Some(value) = table.get(key) else { continue };
            let words = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            let words = words.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            if let Err(bad) = checked_labels(words) {
                let bad = bad.map_or("more than 100 of them".to_owned(), |bad| format!("\"{bad}\""));
                let message = format!("must be words of at most 64 characters without spaces, not {bad}");
                draft.error_at(&join(&path, key), &message);
            }
        }
    }
}

/// The partner that a client belongs to is one, as far as the file knows.
fn partners(draft: &mut Draft) {
    let clients = at(draft, "clients[]");
    let id = |table: &Table, key: &str| table.get(key).and_then(Value::as_str).map(str::to_owned);
    for (path, table) in &clients {
        let Some(partner) = id(table, "partner_client_id") else { continue };
        let path = join(path, "partner_client_id");
        // One that is not in the file may have been made by hand.
        let named = clients.iter().find(|(_, other)| id(other, "client_id").as_ref() == Some(&partner));
        let is_partner = |table: &Table| table.get("partner").and_then(Value::as_bool) == Some(true);
        if named.is_some_and(|(_, other)| !is_partner(other)) {
            draft.error_at(&path, &format!("names \"{partner}\", which is no partner; give it `partner = true`"));
        }
    }
}

fn tls(draft: &mut Draft) {
    for (path, table) in at(draft, "tls") {
        let (cert, key) = (join(&path, "cert_file"), join(&path, "key_file"));
        let given = |key| table.contains_key(key);
        match (given("cert_file"), given("key_file")) {
            (true, false) if !draft.was_refused(&key) => {
                draft.error_at(&key, &format!("is missing beside `{cert}`; add it, or leave both out"))
            }
            (false, true) if !draft.was_refused(&cert) => {
                draft.error_at(&cert, &format!("is missing beside `{key}`; add it, or leave both out"))
            }
            (true, true) => tls_in_use(draft, &cert),
            _ => {}
        }
    }
}

/// TLS that was set up and is not used, or not known to those who use it.
fn tls_in_use(draft: &mut Draft, cert: &str) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let listen = draft.values.get("listen").and_then(Value::as_array).cloned().unwrap_or_default();
    if !listen.is_empty() && listen.iter().filter_map(text).all(|address| address.starts_with("unix:")) {
        draft.warn_at(cert, "does nothing: `listen` has no TCP address");
    }
    if draft.values.get("issuer").and_then(text).is_some_and(|issuer| issuer.starts_with("http://")) {
        draft.warn_at(cert, "is set, but `issuer` begins with http; apps will not find it there, make it https");
    }
}

/// A browser sets a cookie for a domain only where it comes from a host below it. Such an issuer is https: the others
/// have no domain.
fn gateway_cookie(draft: &mut Draft) {
    let text = |draft: &Draft, key: &str| draft.values.get(key).and_then(Value::as_str).map(str::to_owned);
    let (Some(domain), Some(issuer)) = (text(draft, "gateway_cookie_domain"), text(draft, "issuer")) else { return };
    let Ok(issuer) = Issuer::parse(&issuer) else { return };
    let host = issuer.host();
    let covers = host.strip_suffix(&*domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if !covers {
        let message =
            format!("is \"{domain}\", which {host}, the issuer's host, is not below; browsers would refuse it");
        draft.error_at("gateway_cookie_domain", &message);
    }
}
