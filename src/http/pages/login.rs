//! The sign-in page. With a ticket it is a step of an app's sign-in and returns to resume; without one it ends on a
//! page that says who is signed in.

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};

use super::error::PageError;
use super::view::{Alert, SignInPage, SignedInPage, Tone};
use super::{Forms, account_view, client_view, html, with_browser_cookie};
use crate::account::password::{self, Attempt, Outcome, Verified};
use crate::account::sessions;
use crate::crypto::secret::Secret;
use crate::http::error::{Fault, with_retry_after};
use crate::http::extract::cookie::DEVICE;
use crate::http::extract::csrf::{Browser, refuse_foreign};
use crate::http::extract::params::{FormParams, QueryParams};
use crate::http::extract::peer::ClientAddress;
use crate::http::extract::session;
use crate::http::oauth::authorize::step_to;
use crate::http::oauth::ticket::Ticket;
use crate::http::rate_limit::with_throttle;
use crate::http::{Shared, Web, respond};
use crate::limit::Quota;
use crate::protocol::metadata::path;
use crate::protocol::params::Params;
use crate::protocol::time::Span;
use crate::protocol::user::LoginName;
use crate::store::sessions::SignedIn;

/// Whom the forms of this page speak for: nobody yet, or the one whose account is offered to go on with.
fn csrf_context(ticket: Option<&Ticket>, signed_in: Option<&SignedIn>) -> String {
    match signed_in.filter(|_| ticket.is_some_and(offers_account)) {
        None => "login".to_owned(),
        Some(signed_in) => format!("login {}", signed_in.session.id),
    }
}

/// Whether the page offers to go on as who is signed in (`prompt=select_account`).
fn offers_account(ticket: &Ticket) -> bool {
    ticket.request.prompt.select_account && !ticket.request.prompt.login
}

/// A browser on this page.
struct Visit {
    browser: Browser,
    signed_in: Option<SignedIn>,
    ticket: Option<Ticket>,
    /// The ticket as it came.
    sealed: Option<String>,
}

impl Visit {
    async fn load(web: &Web, headers: &HeaderMap, params: &Params) -> Result<Self, PageError> {
        let sealed = params.get("ticket").map(str::to_owned);
        let ticket = match &sealed {
            None => None,
            Some(sealed) => Some(Ticket::open(web, Some(sealed)).await?),
        };
        let signed_in = session::current(web, headers).await.map_err(Fault::from)?;
        Ok(Self { browser: Browser::of(web, headers), signed_in, ticket, sealed })
    }

    fn csrf_context(&self) -> String {
        csrf_context(self.ticket.as_ref(), self.signed_in.as_ref())
    }
}

/// What the page says this time.
struct Word<'a> {
    status: StatusCode,
    text: &'a str,
    tone: Tone,
}

impl<'a> Word<'a> {
    /// Nothing that was typed is wrong.
    const fn remark(status: StatusCode, text: &'a str) -> Self {
        Self { status, text, tone: Tone::Remark }
    }

    const fn refusal(status: StatusCode, text: &'a str) -> Self {
        Self { status, text, tone: Tone::Refused }
    }
}

/// The issuer's own address leads people to the sign-in page.
pub async fn home(State(web): State<Shared>) -> Response {
    respond::see_other(&web.url(path::LOGIN))
}

pub async fn show(
    State(web): State<Shared>,
    headers: HeaderMap,
    QueryParams(query): QueryParams,
) -> Result<Response, PageError> {
    let query = query?;
    let visit = Visit::load(&web, &headers, &query).await?;
    if let (None, Some(signed_in)) = (&visit.ticket, &visit.signed_in) {
        return Ok(signed_in_page(&web, signed_in));
    }
    let hint = visit.ticket.as_ref().and_then(|ticket| ticket.request.login_hint.as_deref()).unwrap_or_default();
    render(&web, &visit, hint, None).await
}

pub async fn submit(
    State(web): State<Shared>,
    headers: HeaderMap,
    address: ClientAddress,
    FormParams(form): FormParams,
) -> Result<Response, PageError> {
    refuse_foreign(&web, &headers)?;
    let form = form?;
    let visit = Visit::load(&web, &headers, &form).await?;
    let username = form.get("username").unwrap_or_default();
    if form.repeated().is_some() || !visit.browser.vouches(&web, &visit.csrf_context(), form.get("csrf")) {
        let text = "This page had been open for a while, or cookies are switched off. Please sign in again.";
        return render(&web, &visit, username, Some(Word::remark(StatusCode::FORBIDDEN, text))).await;
    }
    if form.get("action") == Some("continue") {
        return continue_as_current(&web, address, visit).await;
    }
    if form.get("username").is_none() || form.get("password").is_none() {
        let text = "Type your name and your password.";
        return render(&web, &visit, username, Some(Word::refusal(StatusCode::BAD_REQUEST, text))).await;
    }
    match password::check(&web.app, attempt(&web, &headers, &form, address)).await.map_err(Fault::from)? {
        Outcome::SignedIn(verified) => welcome(&web, &headers, address, &visit, &verified).await,
        Outcome::Refused(Quota { left, .. }) => {
            // 200: the page was asked for again, by a person. Password managers take another status for an outage.
            render(&web, &visit, username, Some(Word::refusal(StatusCode::OK, &refusal(left)))).await
        }
        Outcome::Throttled(throttled) => {
            let text = format!("Too many tries. Wait {} and try again.", in_words(throttled.retry_after));
            let word = Word::remark(StatusCode::TOO_MANY_REQUESTS, &text);
            Ok(with_throttle(render(&web, &visit, username, Some(word)).await?, &throttled))
        }
        Outcome::Overloaded { retry_after } => {
            let text = "Many people are signing in just now. Wait a few seconds and try again.";
            let word = Word::remark(StatusCode::SERVICE_UNAVAILABLE, text);
            Ok(with_retry_after(render(&web, &visit, username, Some(word)).await?, retry_after))
        }
    }
}

/// The right password: a session, and on with the sign-in.
async fn welcome(
    web: &Web,
    headers: &HeaderMap,
    address: ClientAddress,
    visit: &Visit,
    verified: &Verified,
) -> Result<Response, PageError> {
    // Where it goes on is settled before anything is written.
    let next = match &visit.ticket {
        Some(ticket) => step_to(web, address, path::AUTHORIZE_RESUME, ticket).await?,
        None => respond::see_other(&web.url(path::LOGIN)),
    };
    let replaced = visit.signed_in.as_ref().map(|signed_in| &signed_in.session);
    match sessions::begin_session(&web.app, verified, replaced, address.0).await.map_err(Fault::from)? {
        Some(secret) => {
            let mut response = next;
            session::set_cookies(web, response.headers_mut(), &secret, web.app.config.sessions.absolute)?;
            session::remember_device(web, headers, response.headers_mut(), &verified.user.id)?;
            Ok(response)
        }
        None => {
            let text = "Your account was changed just now. Please sign in again.";
            render(web, visit, "", Some(Word::remark(StatusCode::OK, text))).await
        }
    }
}

fn attempt(web: &Web, headers: &HeaderMap, form: &Params, address: ClientAddress) -> Attempt {
    let typed = form.get("username").unwrap_or_default();
    Attempt {
        name: LoginName::parse(typed).map_err(|_| typed.to_owned()),
        password: Secret::new(form.get("password").unwrap_or_default().to_owned()),
        address: address.0,
        device: DEVICE.read(headers, web.secure),
        client: None,
    }
}

fn refusal(left: usize) -> String {
    match left {
        0 => "That name and password don’t match. No tries left for now.".to_owned(),
        1 => "That name and password don’t match. 1 try left.".to_owned(),
        left => format!("That name and password don’t match. {left} tries left."),
    }
}

fn in_words(wait: Span) -> String {
    match wait.secs_up() {
        seconds @ ..=90 => format!("{} seconds", seconds.max(1)),
        seconds => format!("{} minutes", (seconds + 59) / 60),
    }
}

/// The person chose the account that is signed in (`prompt=select_account`). The choice travels in the ticket and
/// names the session it was made in.
async fn continue_as_current(web: &Web, address: ClientAddress, visit: Visit) -> Result<Response, PageError> {
    let Some(mut ticket) = visit.ticket else { return Ok(respond::see_other(&web.url(path::LOGIN))) };
    ticket.select(visit.signed_in.map(|signed_in| signed_in.session.id));
    step_to(web, address, path::AUTHORIZE_RESUME, &ticket).await
}

async fn render(web: &Web, visit: &Visit, username: &str, word: Option<Word<'_>>) -> Result<Response, PageError> {
    let record = match &visit.ticket {
        None => None,
        Some(ticket) => web.app.store.client(&ticket.request.client_id).await.map_err(Fault::from)?,
    };
    let choosing = visit.ticket.as_ref().is_some_and(offers_account);
    let status = word.as_ref().map_or(StatusCode::OK, |word| word.status);
    let page = SignInPage {
        chrome: web.branding.chrome(),
        client: record.as_ref().map(|record| client_view(&record.client, None)),
        current_account: visit.signed_in.as_ref().filter(|_| choosing).map(|signed_in| account_view(&signed_in.user)),
        action: &web.url(path::LOGIN),
        username,
        alert: word.map(|word| Alert { text: word.text, tone: word.tone }),
        csrf: &visit.browser.token(web, &visit.csrf_context()),
        ticket: visit.sealed.as_deref(),
        forgot_uri: None,
        signup_uri: None,
    };
    let forms = if visit.ticket.is_some() { Forms::MayLeave } else { Forms::OwnOnly };
    Ok(with_browser_cookie(web, &visit.browser, html(status, &page, forms)))
}

fn signed_in_page(web: &Web, signed_in: &SignedIn) -> Response {
    let page = SignedInPage {
        chrome: web.branding.chrome(),
        account: account_view(&signed_in.user),
        logout_uri: &web.url(path::LOGOUT),
        account_uri: None,
    };
    html(StatusCode::OK, &page, Forms::None)
}
