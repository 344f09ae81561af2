//! A browser as far as HTTP goes: cookies, forms, and redirects that it follows one at a time.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::{Body, to_bytes};
use http::header::{CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderMap, Method, Request, StatusCode};
use tower::ServiceExt as _;
use url::form_urlencoded;

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Page {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Page {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Where a redirect leads.
    #[track_caller]
    pub fn location(&self) -> &str {
        assert_eq!(self.status, StatusCode::SEE_OTHER, "{}", self.body);
        self.header(LOCATION.as_str()).expect("a Location")
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The query parameters of a redirect.
    #[track_caller]
    pub fn location_params(&self) -> BTreeMap<String, String> {
        let url = url::Url::parse(self.location()).expect("an absolute Location");
        url.query_pairs().into_owned().collect()
    }
}

/// One person's browser: its cookies belong to the provider's origin.
#[derive(Clone)]
pub struct Browser {
    router: Router,
    issuer: String,
    pub cookies: BTreeMap<String, String>,
}

impl Browser {
    pub fn new(router: Router, issuer: &str) -> Self {
        Self { router, issuer: issuer.to_owned(), cookies: BTreeMap::new() }
    }

    pub async fn get(&mut self, url: &str) -> Page {
        self.send(Method::GET, url, None, &[]).await
    }

    pub async fn post(&mut self, url: &str, fields: &[(&str, &str)]) -> Page {
        self.send(Method::POST, url, Some(fields), &[]).await
    }

    /// `url` may be absolute, below the issuer, or a path.
    pub async fn send(
        &mut self,
        method: Method,
        url: &str,
        fields: Option<&[(&str, &str)]>,
        headers: &[(&str, &str)],
    ) -> Page {
        let (body, content_type) = match fields {
            None => (String::new(), None),
            Some(fields) => {
                let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
                (form, Some("application/x-www-form-urlencoded"))
            }
        };
        self.send_text(method, url, content_type, body, headers).await
    }

    /// A body of any kind.
    pub async fn send_text(
        &mut self,
        method: Method,
        url: &str,
        content_type: Option<&str>,
        body: String,
        headers: &[(&str, &str)],
    ) -> Page {
        let origin = url::Url::parse(&self.issuer).expect("the issuer").origin().ascii_serialization();
        let path = url.strip_prefix(&origin).unwrap_or(url);
        assert!(path.starts_with('/'), "{url} is not at the provider");
        let mut request = Request::builder().method(method).uri(path);
        if !self.cookies.is_empty() {
            let pairs: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header(COOKIE, pairs.join("; "));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let request = request.body(Body::from(body)).expect("a request");
        let response = self.router.clone().oneshot(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 1 << 20).await.expect("a body");
        self.keep_cookies(&parts.headers);
        Page { status: parts.status, headers: parts.headers, body: String::from_utf8(bytes.to_vec()).expect("text") }
    }

    fn keep_cookies(&mut self, headers: &HeaderMap) {
        for line in headers.get_all(SET_COOKIE) {
            let line = line.to_str().expect("a cookie");
            let (pair, attributes) = line.split_once(';').unwrap_or((line, ""));
            let (name, value) = pair.split_once('=').expect("name=value");
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    /// Follows redirects for as long as they stay at the provider; the last answer.
    pub async fn follow(&mut self, mut page: Page) -> Page {
        for _ in 0..10 {
            let Some(location) = page.header(LOCATION.as_str()).map(str::to_owned) else { return page };
            if !location.starts_with(&format!("{}/", self.issuer)) {
                return page;
            }
            page = self.get(&location).await;
        }
        panic!("redirects without end");
    }

    /// Submits the (first) form of a page with its hidden fields and these.
    pub async fn submit(&mut self, page: &Page, fields: &[(&str, &str)]) -> Page {
        let action = attribute(&page.body, "<form", "action").expect("a form with an action");
        let hidden = form_fields(&page.body);
        let own = hidden.iter().filter(|(name, _)| !fields.iter().any(|(given, _)| given == name));
        let all: Vec<(&str, &str)> =
            own.map(|(name, value)| (name.as_str(), value.as_str())).chain(fields.iter().copied()).collect();
        self.post(&action, &all).await
    }
}

/// The hidden inputs of a page.
pub fn form_fields(html: &str) -> Vec<(String, String)> {
    let inputs = html.split("<input").skip(1).filter(|input| input.contains("type=\"hidden\""));
    let mut fields: Vec<(String, String)> = Vec::new();
    for input in inputs {
        let tag = format!("<input{}", input.split('>').next().unwrap_or_default());
        let name = attribute(&tag, "<input", "name").expect("a name");
        let value = attribute(&tag, "<input", "value").expect("a value");
        // A page with two forms repeats what both need.
        if !fields.iter().any(|(known, _)| *known == name) {
            fields.push((name, value));
        }
    }
    fields
}

/// The value of an attribute of the first element that begins with `element`.
fn attribute(html: &str, element: &str, name: &str) -> Option<String> {
    let tag = html.split(element).nth(1)?.split('>').next()?;
    let value = tag.split(&format!(" {name}=\"")).nth(1)?.split('"').next()?;
    Some(unescape(value))
}

/// What a person reads: tags gone, entities resolved.
pub fn text_of(html: &str) -> String {
    let mut text = String::new();
    let mut in_tag = false;
    for c in html.chars() {
        match c {
            '<' => in_tag = true,
            '>' => in_tag = false,
            _ if !in_tag => text.push(c),
            _ => {}
        }
    }
    unescape(&text)
}

fn unescape(text: &str) -> String {
    text.replace("&#38;", "&")
        .replace("&#60;", "<")
        .replace("&#62;", ">")
        .replace("&#34;", "\"")
        .replace("&#39;", "'")
        .replace("&amp;", "&")
}
