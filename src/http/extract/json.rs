//! JSON bodies of the API. A wrong content type is refused before anything is read: a page of another site can post
//! forms and plain text to us, but no JSON without being asked for permission first (CORS).

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::params::is_media_type;
use crate::http::problem::Problem;
use crate::http::serve::BodyFate;
use crate::protocol::members::Members;

/// A body that must be there.
pub struct Json<T>(pub T);

/// A body that may be absent: then nothing was sent at all.
pub struct OptionalJson<T>(pub Option<T>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(BadBody::MediaType.into());
        }
        let body = read(request, state).await?;
        Ok(Self(parse(&body)?))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let json = is_json(request.headers());
        let body = read(request, state).await?;
        match (body.is_empty(), json) {
            (true, _) => Ok(Self(None)),
            (false, false) => Err(BadBody::MediaType.into()),
            (false, true) => Ok(Self(Some(parse(&body)?))),
        }
    }
}

/// Why a body is not what it should be; each part of the interface says it in its own form.
#[derive(Debug)]
pub enum BadBody {
    MediaType,
    /// In words for developers.
    Malformed(Cow<'static, str>),
}

impl From<BadBody> for Problem {
    fn from(bad: BadBody) -> Self {
        match bad {
            BadBody::MediaType => Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", MEDIA_TYPE),
            BadBody::Malformed(detail) => Self::invalid_request(detail),
        }
    }
}

/// What a body must be.
pub const MEDIA_TYPE: &str = "the body must be JSON, with content-type application/json";

/// The members of a body whose meaning somebody else judges: any JSON object that names each of them once.
pub async fn members<S: Send + Sync>(request: Request, state: &S) -> Result<Map<String, Value>, BadBody> {
    if !is_json(request.headers()) {
        return Err(BadBody::MediaType);
    }
    let Members(members) = parse(&read(request, state).await?)?;
    Ok(members)
}

pub(super) async fn read<S: Send + Sync>(mut request: Request, state: &S) -> Result<Bytes, BadBody> {
    let fate = BodyFate::of(&mut request);
    Bytes::from_request(request, state).await.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            fate.set_too_large();
        }
        BadBody::Malformed("the body is too large or broke off".into())
    })
}

/// The parser's words name members and places, and quote no value but where one has the wrong type.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, BadBody> {
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
        BadBody::Malformed(detail.into())
    })?;
    if body.contains(&0) || holds_escaped_nul(body) {
        return Err(BadBody::Malformed("U+0000 may stand nowhere".into()));
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

/// Whether a text in the body holds U+0000, which JSON can only spell as `\u0000`. A backslash before another one spells
/// that one.
fn holds_escaped_nul(body: &[u8]) -> bool {
    let mut rest = body;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let escape = rest.get(at + 1..).unwrap_or_default();
        if escape.starts_with(b"u0000") {
            return true;
        }
        rest = escape.get(1..).unwrap_or_default();
    }
    false
}

fn is_json(headers: &HeaderMap) -> bool {
    is_media_type(headers, "application/json")
}
