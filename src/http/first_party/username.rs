//! `/api/auth/*`: sign-up and sign-in with a user name (inspir). Errors are `{"error": …}`, in words that its apps show.

use std::borrow::Cow;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;
use http::request::Parts;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Hints, Presented, presented};
use crate::account::first_party::{self, Caller, Newcomer, SignIn, SignUp, SignedIn};
use crate::http::error::{Fault, RETRY_SOON};
use crate::http::extract::authenticated::{Authenticated, Optional, Required};
use crate::http::extract::json::{self, BadBody};
use crate::http::extract::peer::ClientAddress;
use crate::http::rate_limit::with_quota;
use crate::http::serve::BodyProblem;
use crate::http::{Shared, Web, respond};
use crate::limit::{Place, Quota, TOO_MANY_AUTHENTICATION_ATTEMPTS, Throttled};
use crate::live::SignedToken;
use crate::protocol::client::Client;
use crate::protocol::first_party::Api;
use crate::protocol::first_party::username::{Login, Refusal, Unauthenticated};
use crate::protocol::ids::UserId;
use crate::protocol::time::Span;
use crate::protocol::user::{LoginName, User, checked_username};

const API: Api = Api::Username;

pub fn routes() -> Router<Shared> {
    Router::new()
        .route("/api/auth/signup", post(sign_up))
        .route("/api/auth/login", post(login))
        .route("/api/auth/logout", post(logout))
        .route("/api/auth/me", get(me))
        .method_not_allowed_fallback(async || Refused::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"))
        .route("/api/auth", axum::routing::any(not_found))
        .route("/api/auth/", axum::routing::any(not_found))
        .route("/api/auth/{*rest}", axum::routing::any(not_found))
}

async fn not_found() -> Refused {
    Refused::new(StatusCode::NOT_FOUND, "Not found")
}

/// `user`, as the answers have it.
#[derive(Serialize)]
struct Person<'a> {
    id: &'a str,
    username: Option<&'a str>,
}

impl<'a> Person<'a> {
    fn of(user: &'a User) -> Self {
        Self { id: user.id.as_str(), username: user.username.as_deref() }
    }
}

/// A call that counts against its network, whatever comes of it.
struct Counted {
    place: Place,
    client: Client,
    body: Map<String, Value>,
}

impl Counted {
    /// A body that is no JSON was never a call; one that lacks something is.
    async fn read(web: &Shared, address: ClientAddress, request: Request) -> Result<Self, Refused> {
        let client = client(web).await?;
        let body = json::members(request, web).await?;
        let caller = Caller { api: API, client: &client, address: address.0 };
        let taken = first_party::count(&web.app, &caller).await.map_err(Fault::from)?;
        Ok(Self { place: taken.map_err(Refused::throttled)?, client, body })
    }

    fn caller(&self, address: ClientAddress) -> Caller<'_> {
        Caller { api: API, client: &self.client, address: address.0 }
    }

    /// Nothing was tried, or it was our fault that nothing came of it.
    async fn give_back(self, web: &Web, refused: Refused) -> Refused {
        first_party::give_back(&web.app, self.place).await;
        refused
    }
}

async fn client(web: &Web) -> Result<Client, Refused> {
    super::client(web, API).await.map_err(Fault::from)?.ok_or_else(Refused::off)
}

async fn sign_up(State(web): State<Shared>, address: ClientAddress, request: Request) -> Result<Response, Refused> {
    let call = Counted::read(&web, address, request).await?;
    let quota = call.place.quota;
    let shortest = web.app.config.sign_in_apis.username.as_ref().map_or(0, |api| api.password_min_length);
    let new = match Login::parse_sign_up(&call.body, shortest) {
        Ok(new) => new,
        Err(refusal) => return Err(Refused::of(&refusal, quota)),
    };
    let newcomer = Newcomer {
        id: UserId::uuid(web.app.rng.id()),
        username: Some(new.username),
        email: None,
        password: new.password,
    };
    match first_party::sign_up(&web.app, &call.caller(address), newcomer).await {
        Ok(SignUp::Yes(signed_in)) => Ok(welcome(&signed_in, quota)),
        Ok(SignUp::Taken(_)) => Err(Refused::of(&Refusal::NameTaken, quota)),
        Ok(SignUp::Throttled(throttled)) => Err(Refused::throttled(throttled)),
        Ok(SignUp::Overloaded { retry_after }) => Err(call.give_back(&web, Refused::overloaded(retry_after)).await),
        Err(error) => Err(call.give_back(&web, Fault::from(error).into()).await),
    }
}

async fn login(State(web): State<Shared>, address: ClientAddress, request: Request) -> Result<Response, Refused> {
    let call = Counted::read(&web, address, request).await?;
    let quota = call.place.quota;
    let Login { username, password } = match Login::parse(&call.body) {
        Ok(login) => login,
        Err(refusal) => return Err(Refused::of(&refusal, quota)),
    };
    let name = match checked_username(&username) {
        Ok(name) => Ok(LoginName::Username(name.to_owned())),
        Err(_) => Err(username),
    };
    match first_party::sign_in(&web.app, &call.caller(address), name, password).await {
        Ok(SignIn::Yes(signed_in)) => Ok(welcome(&signed_in, quota)),
        Ok(SignIn::Refused(_)) => Err(Refused::of(&Refusal::Credentials, quota)),
        Ok(SignIn::Throttled(throttled)) => Err(Refused::throttled(throttled)),
        Ok(SignIn::Overloaded { retry_after }) => Err(call.give_back(&web, Refused::overloaded(retry_after)).await),
        Err(error) => Err(call.give_back(&web, Fault::from(error).into()).await),
    }
}

fn welcome(signed_in: &SignedIn, quota: Quota) -> Response {
    let body = json!({ "user": Person::of(&signed_in.user), "token": signed_in.tokens.access_token });
    with_quota(respond::json(StatusCode::OK, &body), &quota)
}

/// Somebody with a token of this API.
struct Account {
    user: User,
    token: SignedToken,
}

impl Authenticated for Account {
    type Rejection = Refused;

    async fn authenticate(web: &Shared, parts: &Parts) -> Result<Result<Self, Refused>, Fault> {
        let why = match presented(web, &parts.headers, API).await? {
            Presented::Live(live) => {
                let (live, user) = *live;
                return Ok(Ok(Self { user, token: live.token }));
            }
            Presented::Nothing => Unauthenticated::NoToken,
            Presented::Bad => Unauthenticated::InvalidToken,
            Presented::Expired => Unauthenticated::TokenExpired,
            Presented::NobodyThere => Unauthenticated::NobodyThere,
            Presented::NotAPerson => Unauthenticated::NotAPerson,
        };
        Ok(Err(Refused::new(StatusCode::UNAUTHORIZED, why.to_string())))
    }
}

async fn me(Required(account): Required<Account>) -> Response {
    respond::json(StatusCode::OK, &json!({ "user": Person::of(&account.user) }))
}

/// Whoever has no token that could be ended is signed out already.
async fn logout(
    State(web): State<Shared>,
    address: ClientAddress,
    Optional(account): Optional<Account>,
) -> Result<Response, Refused> {
    if let Some(Account { user, token }) = account {
        let client = client(&web).await?;
        let caller = Caller { api: API, client: &client, address: address.0 };
        first_party::sign_out(&web.app, &caller, &user, &token).await.map_err(Fault::from)?;
    }
    Ok(respond::json(StatusCode::OK, &json!({ "message": "Logged out successfully" })))
}

/// One error of this API.
#[derive(Debug)]
pub struct Refused(Box<Content>);

#[derive(Debug)]
struct Content {
    status: StatusCode,
    error: Cow<'static, str>,
    message: Option<String>,
    hints: Hints,
}

impl Refused {
    fn new(status: StatusCode, error: impl Into<Cow<'static, str>>) -> Self {
        let error = error.into();
        Self(Box::new(Content { status, error, message: None, hints: Hints::default() }))
    }

    fn of(refusal: &Refusal, quota: Quota) -> Self {
        let status = match refusal {
            Refusal::Credentials => StatusCode::UNAUTHORIZED,
            _ => StatusCode::BAD_REQUEST,
        };
        let mut refused = Self::new(status, refusal.to_string());
        refused.0.hints.quota = Some(quota);
        refused
    }

    /// The whole window is named, as the page has it; `Retry-After` may be sooner.
    fn throttled(throttled: Throttled) -> Self {
        let mut refused = Self::new(StatusCode::TOO_MANY_REQUESTS, TOO_MANY_AUTHENTICATION_ATTEMPTS);
        refused.0.message = Some(format!("Please try again in {}", in_words(throttled.quota.window)));
        refused.0.hints.throttled = Some(throttled);
        refused
    }

    fn overloaded(retry_after: Span) -> Self {
        let mut refused = Self::new(StatusCode::SERVICE_UNAVAILABLE, "Service busy");
        refused.0.message = Some("Please try again in a moment".to_owned());
        refused.0.hints.retry_after = Some(retry_after);
        refused
    }

    fn off() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found")
    }
}

fn in_words(window: Span) -> String {
    let counted = |n: i64, unit: &str| format!("{n} {unit}{}", if n == 1 { "" } else { "s" });
    match window.secs_up() {
        seconds @ ..=90 => counted(seconds.max(1), "second"),
        seconds => counted((seconds + 59) / 60, "minute"),
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        let mut refused = if fault.transient {
            Self::overloaded(RETRY_SOON)
        } else {
            Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error")
        };
        refused.0.hints.fault = Some(fault);
        refused
    }
}

impl From<BadBody> for Refused {
    fn from(bad: BadBody) -> Self {
        match bad {
            BadBody::MediaType => Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, json::MEDIA_TYPE),
            BadBody::Malformed(why) => Self::new(StatusCode::BAD_REQUEST, why),
        }
    }
}

impl From<BodyProblem> for Refused {
    fn from(problem: BodyProblem) -> Self {
        let error = match problem {
            BodyProblem::TooSlow => "The body did not come in time",
            BodyProblem::TooLarge => "The body is too large",
        };
        Self::new(problem.status(), error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Content { status, error, message, hints } = *self.0;
        let mut body = json!({ "error": error });
        if let Some(message) = message {
            body["message"] = message.into();
        }
        let response = respond::json(status, &body);
        hints.dress(response)
    }
}
