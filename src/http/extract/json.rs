//! JSON bodies of the API. A wrong content type is refused before anything is read: a page of another site can post
//! forms and plain text to us, but no JSON without being asked for permission first (CORS).

use std::fmt;
use std::marker::PhantomData;

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};

use super::params::is_media_type;
use crate::http::problem::Problem;
use crate::http::serve::BodyFate;

/// A body that must be there.
pub struct Json<T>(pub T);

/// A body that may be absent: then nothing was sent at all.
pub struct OptionalJson<T>(pub Option<T>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(unsupported());
        }
        let body = read(request, state).await?;
        parse(&body).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let json = is_json(request.headers());
        let body = read(request, state).await?;
        match (body.is_empty(), json) {
            (true, _) => Ok(Self(None)),
            (false, false) => Err(unsupported()),
            (false, true) => parse(&body).map(|body| Self(Some(body))),
        }
    }
}

fn unsupported() -> Problem {
    let detail = "the body must be JSON, with content-type application/json";
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
}

pub(super) async fn read<S: Send + Sync>(mut request: Request, state: &S) -> Result<Bytes, Problem> {
    let fate = BodyFate::of(&mut request);
    Bytes::from_request(request, state).await.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            fate.set_too_large();
        }
        Problem::invalid_request("the body is too large or broke off")
    })
}

/// The parser's words name members and places, and quote no value but where one has the wrong type.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut text = serde_json::Deserializer::from_slice(body);
    let parsed = object(&mut text).and_then(|value| text.end().map(|()| value));
    let value: T = parsed.map_err(|error| {
        let detail = match error.classify() {
            serde_json::error::Category::Data => {
                let text = error.to_string();
                if text.starts_with("invalid type") || text.starts_with("invalid value") {
                    format!("a member has the wrong type (line {}, column {})", error.line(), error.column())
                } else {
                    text
                }
            }
            _ => format!("the body is no JSON (line {}, column {})", error.line(), error.column()),
        };
        Problem::invalid_request(detail)
    })?;
    if body.contains(&0) || holds_escaped_nul(body) {
        return Err(Problem::invalid_request("U+0000 may stand nowhere"));
    }
    Ok(value)
}

/// A value that is written as an object: what is derived for a struct would take a list of its members as well.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Object<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(members))
        }
    }
    deserializer.deserialize_map(Object(PhantomData))
}

/// The same for a member that may be absent or `null`.
pub fn optional_object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    struct Inner<T>(T);
    impl<'de, T: Deserialize<'de>> Deserialize<'de> for Inner<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            object(deserializer).map(Self)
        }
    }
    Ok(Option::<Inner<T>>::deserialize(deserializer)?.map(|inner| inner.0))
}

/// Whether a text in the body holds U+0000, which JSON can only spell as `\u0000`.
fn holds_escaped_nul(body: &[u8]) -> bool {
    body.windows(6).any(|window| window == b"\\u0000")
}

fn is_json(headers: &HeaderMap) -> bool {
    is_media_type(headers, "application/json")
}
