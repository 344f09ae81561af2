//! What stands around a gateway: a provider on a port, an app that tells what it was handed, and visitors who write
//! every byte of their requests themselves.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::behind_a_gateway;
use crate::support::process::free_port;
use crate::support::{Backend, Provider};

/// The host that the gateways of these tests stand for.
pub const HOST: &str = "app.id.test";

/// A page of the documentation with its configuration.
pub struct Manual {
    pub text: String,
}

impl Manual {
    /// The first block of this language on a page below `docs/gateway/`.
    pub fn read(page: &str, language: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/gateway").join(page);
        let page = std::fs::read_to_string(path).expect("the page");
        let (_, rest) = page.split_once(&format!("```{language}\n")).expect("a block");
        Self { text: rest.split("```").next().expect("its end").to_owned() }
    }

    /// Puts another address, name or file in. It has to stand on the page.
    #[track_caller]
    pub fn put(&mut self, from: &str, to: &str) {
        assert!(self.text.contains(from), "`{from}` does not stand on the page");
        self.text = self.text.replace(from, to);
    }
}

/// Everything but the gateway itself.
pub struct House {
    pub provider: Provider,
    pub provider_address: SocketAddr,
    pub app_address: SocketAddr,
    pub dir: TempDir,
    /// Where the gateway is to listen.
    pub gateway: u16,
}

impl House {
    pub async fn build(backend: Backend) -> Self {
        let provider = behind_a_gateway(backend).await;
        let provider_address = serve(provider.router.clone()).await;
        let app_address = serve(Router::new().fallback(tell)).await;
        let dir = TempDir::new().expect("a directory");
        Self { provider, provider_address, app_address, dir, gateway: free_port() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate for [`HOST`] that nobody vouches for, with its key.
    pub fn certificate(&self) -> (String, String) {
        let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=app.id.test"]);
        command.args(["-addext", "subjectAltName=DNS:app.id.test"]).arg("-keyout").arg(&key).arg("-out").arg(&cert);
        let output = command.output().expect("openssl (Debian: apt-get install openssl)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (cert.display().to_string(), key.display().to_string())
    }

    /// A visitor's request over TLS, written as it stands; `Host` and the end of the head are added.
    pub async fn visit(&self, line: &str, headers: &[&str]) -> Answer {
        self.try_visit(line, headers).await.expect("an answer")
    }

    /// Whether the gateway has read what it is to do: some listen before.
    pub async fn is_open(&self) -> bool {
        self.try_visit("GET /public/", &[]).await.is_ok_and(|answer| answer.status == 200)
    }

    async fn try_visit(&self, line: &str, headers: &[&str]) -> Result<Answer, String> {
        let head = format!("{line} HTTP/1.1\r\nHost: {HOST}:{}\r\nConnection: close\r\n", self.gateway);
        let lines: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let (request, port) = (format!("{head}{lines}\r\n"), self.gateway);
        // The other ends live on this thread.
        tokio::task::spawn_blocking(move || exchange(port, &request)).await.expect("no panic")
    }

    /// The same with a bearer credential.
    pub async fn visit_with(&self, line: &str, credential: &str, headers: &[&str]) -> Answer {
        let bearer = format!("Authorization: Bearer {credential}");
        self.visit(line, &[&[bearer.as_str()], headers].concat()).await
    }
}

async fn serve(routes: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

/// The app: it answers with what it was handed.
async fn tell(request: Request) -> String {
    let headers = request.headers().iter();
    let headers: Vec<Value> =
        headers.map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])).collect();
    json!({ "method": request.method().as_str(), "path": request.uri().to_string(), "headers": headers }).to_string()
}

fn exchange(port: u16, request: &str) -> Result<Answer, String> {
    let mut connector = SslConnector::builder(SslMethod::tls()).expect("a connector");
    connector.set_verify(SslVerifyMode::NONE);
    let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a deadline");
    let mut stream = connector.build().connect(HOST, stream).map_err(|error| error.to_string())?;
    stream.write_all(request.as_bytes()).expect("written");
    let mut answer = Vec::new();
    // Not everybody says goodbye before closing.
    let _ = stream.read_to_end(&mut answer);
    Ok(Answer::read(&String::from_utf8(answer).expect("text")))
}

/// What a visitor got.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.get(9..12).and_then(|digits| digits.parse().ok()).expect("a status");
        // As much as a JSON object needs of a chunked body.
        let body = match (body.find('{'), body.rfind('}')) {
            (Some(from), Some(to)) => &body[from..=to],
            _ => body,
        };
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    /// Every value that the app was handed under a name; in any spelling that a server could take for it.
    #[track_caller]
    pub fn handed(&self, name: &str) -> Vec<String> {
        assert_eq!(self.status, 200, "{self:?}");
        let told: Value = serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        let pairs = told["headers"].as_array().expect("headers").iter();
        let pairs = pairs.map(|pair| (pair[0].as_str().expect("a name"), pair[1].as_str().expect("a value")));
        pairs.filter(|(own, _)| own.replace('_', "-") == name).map(|(_, value)| value.to_owned()).collect()
    }

    /// What the app was told of the visitor: the names behind `x-auth-`, without those that are empty.
    #[track_caller]
    pub fn identity(&self) -> Vec<(String, String)> {
        assert_eq!(self.status, 200, "{self:?}");
        let told: Value = serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        let pairs = told["headers"].as_array().expect("headers").iter();
        let pairs = pairs.map(|pair| (pair[0].as_str().expect("a name"), pair[1].as_str().expect("a value")));
        let own =
            pairs.filter_map(|(name, value)| Some((name.replace('_', "-").strip_prefix("x-auth-")?.to_owned(), value)));
        let mut own: Vec<(String, String)> =
            own.filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name, value.to_owned())).collect();
        own.sort();
        own
    }
}

/// Names behind `x-auth-` with their values, sorted.
pub fn identity(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    pairs.sort();
    pairs
}
