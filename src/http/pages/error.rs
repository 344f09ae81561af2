//! What people see when something went wrong: what happened, whose doing it is, what to do next, and the request id
//! that the log has. Handlers return a [`PageError`]; the outermost layer, which knows the id, renders it.

use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::view::{ErrorPage, Fact, Link};
use super::{Forms, html};
use crate::http::Web;
use crate::http::error::{Fault, with_retry_after};
use crate::http::rate_limit::with_throttle;
use crate::http::serve::BodyProblem;
use crate::limit::Throttled;
use crate::protocol::authorize::Unaddressed;
use crate::protocol::client::Client;
use crate::protocol::error::Error;
use crate::protocol::time::Span;

/// An error for people. Boxed: it is rare, and large.
#[derive(Clone, Debug)]
pub struct PageError(Box<Content>);

#[derive(Clone, Debug)]
struct Content {
    status: StatusCode,
    title: &'static str,
    heading: String,
    lead: String,
    facts: Vec<(&'static str, String)>,
    /// The way back to the app: address and name.
    back: Option<(String, String)>,
    retry_after: Option<Span>,
    throttled: Option<Throttled>,
    /// For the log alone.
    detail: Option<String>,
    fault: Option<Fault>,
}

impl PageError {
    fn new(status: StatusCode, title: &'static str, heading: impl Into<String>, lead: impl Into<String>) -> Self {
        Self(Box::new(Content {
            status,
            title,
            heading: heading.into(),
            lead: lead.into(),
            facts: Vec::new(),
            back: None,
            retry_after: None,
            throttled: None,
            detail: None,
            fault: None,
        }))
    }

    /// A request that cannot be answered to any app (RFC 6749 §4.1.2.1).
    pub fn unaddressed(web: &Web, why: Unaddressed) -> Self {
        let detail = format!("{why:?}");
        let title = "This link doesn’t work";
        let bad = |heading: String, lead: &str| Self::new(StatusCode::BAD_REQUEST, title, heading, lead);
        let developer = "You did nothing wrong; the app’s developer has to fix it.";
        let mut page = match why {
            Unaddressed::MissingClientId => bad(
                "This sign-in link is incomplete".to_owned(),
                &format!("The client_id is missing, so we can’t tell which app sent you. {developer}"),
            ),
            Unaddressed::Repeated(name) => bad(
                "This sign-in link contradicts itself".to_owned(),
                &format!(
                    "The parameter {name} is there more than once, so we stopped before sending anything anywhere. {developer}"
                ),
            ),
            Unaddressed::UnknownClient => bad(
                "We don’t know the app that sent you here".to_owned(),
                &format!("The client_id is not registered, or the app was switched off. {developer}"),
            ),
            Unaddressed::MissingRedirectUri { client_name } => bad(
                format!("{client_name} didn’t say where to send you back to"),
                &format!(
                    "The redirect_uri is missing and the app has several, so we stopped before sending anything to it. {developer}"
                ),
            ),
            Unaddressed::UnregisteredRedirectUri { client_name, client_uri, received, registered } => {
                let lead = format!(
                    "The redirect_uri is not registered for this app, so we stopped before sending anything to it. {developer}"
                );
                let mut page = bad(format!("{client_name} sent you here with an address we don’t know"), &lead);
                page.0.facts.push(("The app asked for", received));
                if web.development {
                    page.0.facts.push(("Registered", registered.join("\n")));
                }
                page.0.back = client_uri.map(|uri| (uri, format!("Back to {client_name}")));
                page
            }
        };
        page.0.detail = Some(detail);
        page
    }

    /// A sign-in that was left alone too long, or a link that was cut.
    pub fn ticket_expired() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "This page has expired",
            "This sign-in has expired",
            "It was open for too long, or its link was incomplete. Go back to the app and start again; nothing was lost.",
        )
    }

    /// A partner's link that was used, or waited too long.
    pub fn handoff_over() -> Self {
        Self::new(
            StatusCode::GONE,
            "This link has expired",
            "This link is no longer good",
            "It works once, and only for a minute. Go back to where you found it and try again.",
        )
    }

    /// One sign-in gives one code; this one gave it already.
    pub fn already_completed(client: &Client) -> Self {
        let name = client.display_name();
        let mut page = Self::new(
            StatusCode::BAD_REQUEST,
            "Already signed in",
            "This sign-in was completed already",
            format!(
                "You came back to a page of a sign-in that is over. Go to {name}; if it doesn’t know you, start again there."
            ),
        );
        let app = client.metadata.client_uri.clone().or_else(|| client.metadata.origins().into_iter().next());
        page.0.back = app.map(|uri| (uri, format!("Go to {name}")));
        page
    }

    /// Too many large requests from one network.
    pub fn throttled(throttled: Throttled) -> Self {
        let mut page = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "Please wait",
            "Too many requests from your network",
            "We can’t take another one just now. Wait a few minutes and try again.",
        );
        page.0.throttled = Some(throttled);
        page
    }

    /// A form that another site sent in somebody's name.
    pub fn foreign_form() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "Refused",
            "This form came from another site",
            "We take forms only from our own pages, so nothing was done. If you meant to sign in or out, go to the app and start there.",
        )
    }

    /// For a form that one browser got and another sends.
    pub fn form_of_another_browser() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "Refused",
            "This form came from another browser",
            "It was not made for this browser, or the browser has lost its cookies, so nothing was done. Go to the app and start there.",
        )
    }

    pub fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "Not found",
            "There is nothing at this address",
            "The link may be old or mistyped. Check the address, or go back to where you came from.",
        )
    }
}

impl From<Fault> for PageError {
    fn from(fault: Fault) -> Self {
        let (heading, lead) = if fault.transient {
            (
                "We can’t do this just now",
                // Not that nothing was changed: a commit whose answer was lost may have counted.
                "Something on our side is busy or being restarted. Try again in a moment.",
            )
        } else {
            (
                "Something went wrong on our side",
                "You did nothing wrong. Try again; if it happens again, tell whoever runs this service the request id.",
            )
        };
        let mut page = Self::new(fault.status(), "Something went wrong", heading, lead);
        page.0.retry_after = fault.transient.then_some(Span::from_secs(2));
        page.0.fault = Some(fault);
        page
    }
}

/// A form that did not arrive whole.
impl From<BodyProblem> for PageError {
    fn from(problem: BodyProblem) -> Self {
        let (heading, lead) = match problem {
            BodyProblem::TooSlow => (
                "Your request didn’t arrive in time",
                "The connection is very slow or broke off, so nothing was done. Go back and try again.",
            ),
            BodyProblem::TooLarge => (
                "That was more than we can take",
                "What was sent is far larger than any form here, so nothing was done. Go back and try again.",
            ),
        };
        Self::new(problem.status(), "This request doesn’t work", heading, lead)
    }
}

/// Parameters that cannot be read at all.
impl From<Error> for PageError {
    fn from(error: Error) -> Self {
        let mut page = Self::new(
            StatusCode::BAD_REQUEST,
            "This request doesn’t work",
            "We couldn’t read this request",
            "It is damaged or incomplete. Go back and try again; if you came from an app, its developer has to fix it.",
        );
        page.0.facts.push(("Reason", error.description().to_owned()));
        page
    }
}

/// Leaves the rendering to the layer that knows the request id.
impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl PageError {
    /// What the log says besides.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    pub fn render(self, web: &Web, request_id: &str) -> Response {
        let content = *self.0;
        let mut facts: Vec<Fact<'_>> = content.facts.iter().map(|(label, value)| Fact { label, value }).collect();
        facts.push(Fact { label: "Request id", value: request_id });
        let page = ErrorPage {
            chrome: web.branding.chrome(),
            title: content.title,
            heading: &content.heading,
            lead: &content.lead,
            facts: &facts,
            back: content.back.as_ref().map(|(href, label)| Link { href, label }),
        };
        let mut response = html(content.status, &page, Forms::None);
        if let Some(wait) = content.retry_after {
            response = with_retry_after(response, wait);
        }
        if let Some(throttled) = content.throttled {
            response = with_throttle(response, &throttled);
        }
        if let Some(fault) = content.fault {
            response.extensions_mut().insert(fault);
        }
        response
    }
}
