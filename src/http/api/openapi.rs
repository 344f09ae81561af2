//! `/v1/openapi.json` (OpenAPI 3.1): what the handlers say of themselves, put together once.

use axum::response::Response;
use http::HeaderMap;
use serde_json::Value;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Components, ContentBuilder, Info, License, OpenApi, OpenApiBuilder, Ref, RefOr, ResponseBuilder, Server,
    response::Response as Described,
};
use utoipa::{IntoResponses, PartialSchema as _, ToSchema as _};

use crate::http::Shared;
use crate::http::oauth::discovery::Document;
use crate::http::problem::Body;

/// What stands above the operations.
pub fn head(web: &Shared) -> OpenApi {
    let mut info = Info::new("Keyward", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "Calls for apps, partners' backends and programs, beside the protocol endpoints that \
         `/.well-known/openid-configuration` lists. Every error is `application/problem+json` (RFC 9457) with a `code`."
            .to_owned(),
    );
    let mut license = License::new("MIT OR Apache-2.0");
    license.identifier = Some("MIT OR Apache-2.0".to_owned());
    info.license = Some(license);
    let mut components = Components::new();
    components.schemas.insert(Body::name().into_owned(), Body::schema());
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API key (`kw_uk_…`), or an access token of this issuer."))
        .build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    let cookie = ApiKeyValue::with_description(
        if web.secure { "__Host-keyward_session" } else { "keyward_session" },
        "The session of a browser that is signed in.",
    );
    components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([Server::new(web.app.metadata.issuer.clone())]))
        .components(Some(components))
        .build()
}

/// The document as it is served.
pub fn document(described: &OpenApi) -> Document {
    Document::json(&serde_json::to_value(described).unwrap_or(Value::Null))
}

pub async fn serve(document: Document, headers: HeaderMap) -> Response {
    document.answer(&headers)
}

/// The errors that any operation may answer with.
pub struct Problems;

impl IntoResponses for Problems {
    fn responses() -> std::collections::BTreeMap<String, RefOr<Described>> {
        let problem = |text: &str| {
            let schema = Ref::from_schema_name(Body::name());
            let content = ContentBuilder::new().schema(Some(schema)).build();
            let response = ResponseBuilder::new().description(text).content("application/problem+json", content);
            RefOr::T(response.build())
        };
        [
            ("400", "The request is not as it should be."),
            ("401", "No credential, a bad one, or one that is not enough; `code` says which."),
            ("403", "The credential does not reach so far, or the call came from another site."),
            ("404", "There is no such thing, or it is somebody else's."),
            ("408", "The body did not come in time."),
            ("409", "What is there already stands in the way; `code` says what."),
            ("413", "The body is too large."),
            ("415", "The body is not JSON."),
            ("429", "Too many; `Retry-After` says how long to wait."),
            ("500", "Our fault; the log has the request's id."),
            ("503", "Try again in a moment; `Retry-After` says when."),
        ]
        .into_iter()
        .map(|(status, text)| (status.to_owned(), problem(text)))
        .collect()
    }
}
