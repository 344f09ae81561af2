//! Every route in one table, and the layers around them. Handlers translate between HTTP and the rules; what is
//! allowed is decided in `protocol`.

pub mod admin;
pub mod api;
pub mod cors;
pub mod demo;
pub mod error;
pub mod extract;
pub mod first_party;
pub mod gateway;
pub mod layers;
pub mod oauth;
pub mod pages;
pub mod partner;
pub mod problem;
pub mod rate_limit;
pub mod respond;
pub mod serve;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;

use crate::app::App;
use crate::protocol::metadata::path;
use oauth::discovery::Document;
use oauth::{authorize, discovery, introspect, revoke, token, userinfo};
use pages::chrome::Branding;
use pages::{assets, consent, handoff, login, logout};

/// Routes that `serve` can serve.
pub type Routes = Router;

/// What every handler gets: the app, and what was rendered once at start.
pub struct Web {
    pub app: Arc<App>,
    pub branding: Branding,
    pub openid_configuration: Document,
    pub oauth_metadata: Document,
    /// `https`: cookies are `Secure` and bear the `__Host-` prefix.
    pub secure: bool,
    /// `dev`: pages may tell what only an operator should know.
    pub development: bool,
}

pub type Shared = Arc<Web>;

impl Web {
    pub fn new(app: Arc<App>, development: bool) -> anyhow::Result<Shared> {
        Ok(Arc::new(Self {
            branding: Branding::new(&app.config)?,
            openid_configuration: Document::json(&app.metadata.openid_configuration()),
            oauth_metadata: Document::json(&app.metadata.oauth_metadata()),
            secure: app.config.issuer.is_https(),
            app,
            development,
        }))
    }

    /// The absolute URL of one of our paths.
    pub fn url(&self, path: &str) -> String {
        self.app.metadata.url(path)
    }
}

/// All routes of the provider.
pub fn router(web: &Shared) -> Routes {
    let called = Router::new()
        .route(path::TOKEN, axum::routing::post(token::token))
        .route(path::USERINFO, get(userinfo::get).post(userinfo::post))
        .route(path::REVOKE, axum::routing::post(revoke::revoke))
        // Before the layer, so that the layer sees a preflight, which no route answers.
        .method_not_allowed_fallback(pages::method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(web), cors::registered_origins));
    let public = Router::new()
        .route(path::OPENID_CONFIGURATION, get(discovery::openid_configuration))
        .route(path::OAUTH_METADATA, get(discovery::oauth_metadata))
        .route(path::JWKS, get(discovery::jwks))
        .method_not_allowed_fallback(pages::method_not_allowed)
        .layer(from_fn(cors::any_origin));
    let endpoints = Router::new()
        .route("/", get(login::home))
        .route(path::AUTHORIZE, get(authorize::get).post(authorize::post))
        .route(path::AUTHORIZE_RESUME, get(authorize::resume))
        .route(path::INTROSPECT, axum::routing::post(introspect::introspect))
        .route(path::LOGIN, get(login::show).post(login::submit))
        .route(path::CONSENT, get(consent::show).post(consent::submit))
        .route(path::LOGOUT, get(logout::get).post(logout::post))
        .route(path::HANDOFF, get(handoff::show).post(handoff::submit))
        .route(&format!("{}{{name}}", assets::PREFIX), get(assets::asset))
        .route(&format!("{}/{{mode}}", path::FORWARD_AUTH), axum::routing::any(gateway::check))
        .method_not_allowed_fallback(pages::method_not_allowed)
        .merge(called)
        .merge(public)
        .merge(api::router(web))
        .merge(first_party::router(web));
    let issuer_path = web.app.config.issuer.path().to_owned();
    let routes = if issuer_path.is_empty() {
        endpoints
    } else {
        // RFC 8414 §3: an issuer with a path has its metadata at the root, with the path behind the well-known name.
        let inserted = Router::new()
            .route(&format!("{}{issuer_path}", path::OAUTH_METADATA), get(discovery::oauth_metadata))
            .layer(from_fn(cors::any_origin));
        Router::new().nest(&issuer_path, endpoints).merge(inserted)
    };
    layers::wrap(routes.fallback(pages::not_found).with_state(Arc::clone(web)), web)
}
