//! A collector of OpenTelemetry traces, as far as it takes to see what arrives (OTLP over HTTP).

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_TYPE};

#[derive(Clone, Default)]
pub struct Collector {
    received: Arc<Mutex<Vec<Bytes>>>,
    authorization: Arc<Mutex<Option<String>>>,
    pub endpoint: String,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let collector = Self { endpoint, ..Self::default() };
        let routes = Router::new().route("/v1/traces", post(receive)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        collector
    }

    /// Everything that arrived so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.received.lock().expect("what arrived").concat()
    }

    /// Whether this text stands in what arrived: strings are plain bytes in protobuf.
    pub fn has(&self, text: &str) -> bool {
        contains(&self.bytes(), text.as_bytes())
    }

    /// The `Authorization` of the last batch.
    pub fn authorization(&self) -> Option<String> {
        self.authorization.lock().expect("a header").clone()
    }
}

pub fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

async fn receive(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) {
    assert_eq!(headers[CONTENT_TYPE], "application/x-protobuf");
    let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    *collector.authorization.lock().expect("a header") = authorization;
    collector.received.lock().expect("what arrived").push(body);
}
