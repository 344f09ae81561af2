//! The partner API: registration, people and their keys, the way in, imports, and handing browsers over.

mod handoff;
mod imports;
mod onboarding;
mod people;
mod register;

use serde_json::{Value, json};

use crate::support::{Page, Provider};

/// A partner's backend with its credential.
pub struct Platform<'a> {
    provider: &'a Provider,
    pub authorization: String,
}

impl<'a> Platform<'a> {
    /// With a token of its own.
    pub async fn of(provider: &'a Provider, client_id: &str) -> Self {
        let fields = [("grant_type", "client_credentials"), ("scope", "partner.users")];
        let tokens = provider.token(client_id, &fields).await;
        assert_eq!(tokens.status, 200, "{}", tokens.body);
        Self::with(provider, &tokens.text("access_token"))
    }

    pub fn with(provider: &'a Provider, credential: &str) -> Self {
        Self { provider, authorization: format!("Bearer {credential}") }
    }

    pub async fn call(&self, method: &str, path: &str, body: Value) -> Page {
        self.call_with(method, path, body, &[]).await
    }

    pub async fn call_with(&self, method: &str, path: &str, body: Value, more: &[(&str, &str)]) -> Page {
        let headers = [&[("authorization", self.authorization.as_str())], more].concat();
        self.provider.json(method, path, body, &headers).await
    }

    pub async fn get(&self, path: &str) -> Page {
        self.call("GET", path, Value::Null).await
    }

    /// Registers somebody with everything as it comes.
    pub async fn register(&self, external_id: &str, email: &str) -> Page {
        self.call("POST", "/v1/partner/users", json!({ "external_id": external_id, "email": email })).await
    }

    /// The same; what they were answered with.
    pub async fn registered(&self, external_id: &str, email: &str) -> Value {
        let page = self.register(external_id, email).await;
        assert_eq!(page.status, 201, "{}", page.body);
        page.json()
    }

    /// The onboarding of somebody.
    pub async fn onboarding(&self, external_id: &str) -> Value {
        let list = self.get("/v1/partner/onboarding?limit=100").await.json();
        let items = list["items"].as_array().expect("items").iter();
        let mut own = items.filter(|item| item["external_id"] == external_id);
        own.next().unwrap_or_else(|| panic!("no onboarding of {external_id} in {list}")).clone()
    }
}

/// A text in an answer.
#[track_caller]
pub fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {value}")).to_owned()
}
