//! OpenTelemetry traces, switched on by the standard `OTEL_*` variables: a span for each request, and below it one
//! for each thing that takes time. Sent as OTLP over HTTP by a thread that no request waits for.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{FutureExt as _, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter};
use tokio::runtime::Handle;
use tracing::Instrument as _;

use crate::ambient::Stopwatch;

const SERVICE: &str = "keyward";
/// How often a collector that does not answer is worth a line.
const REMIND_MICROS: u64 = 60_000_000;
/// The samplers that `OTEL_TRACES_SAMPLER` may name.
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// What the variables ask for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    Off,
    On,
    /// On, but not in a way we know; says what to do.
    Unknown(String),
}

/// Reads the variables; `variable` gives the value of one.
pub fn wanted(variable: impl Fn(&str) -> Option<String>) -> Wanted {
    // The specification: an empty variable is one that is not set.
    let variable = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    let endpoint = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    match variable("OTEL_TRACES_EXPORTER").as_deref() {
        _ if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) => {
            return Wanted::Off;
        }
        Some("none") => return Wanted::Off,
        Some("otlp") => {}
        None if endpoint.into_iter().any(|name| variable(name).is_some()) => {}
        None => return Wanted::Off,
        Some(other) => {
            return Wanted::Unknown(format!("OTEL_TRACES_EXPORTER is \"{other}\"; use \"otlp\" or \"none\""));
        }
    }
    let protocol = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
    let protocol = protocol.into_iter().find_map(|name| Some((name, variable(name)?)));
    if let Some((name, protocol)) = protocol.filter(|(_, protocol)| protocol != "http/protobuf") {
        let text =
            format!("{name} is \"{protocol}\"; use \"http/protobuf\" and the collector's HTTP port, usually 4318");
        return Wanted::Unknown(text);
    }
    match variable("OTEL_TRACES_SAMPLER").filter(|sampler| !SAMPLERS.contains(&sampler.as_str())) {
        Some(sampler) => {
            Wanted::Unknown(format!("OTEL_TRACES_SAMPLER is \"{sampler}\"; use one of {}", SAMPLERS.join(", ")))
        }
        None => Wanted::On,
    }
}

/// Spans on their way to the collector.
pub struct Exporting(SdkTracerProvider);

/// Starts tracing; inside a runtime, on which the sending happens.
pub fn start(version: &'static str) -> anyhow::Result<Exporting> {
    // The error would quote the endpoint, which may hold a password.
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().build().map_err(|_| {
        anyhow::anyhow!("an OTEL_EXPORTER_OTLP_… variable holds no URL, or a compression (none is built in)")
    })?;
    let exporter = OnRuntime { exporter: Arc::new(exporter), runtime: Handle::current(), trouble: Mutex::default() };
    let provider = SdkTracerProvider::builder().with_resource(resource(version)).with_batch_exporter(exporter).build();
    TRACER.set(provider.tracer(SERVICE)).map_err(|_| anyhow::anyhow!("traces are installed already"))?;
    Ok(Exporting(provider))
}

impl Exporting {
    /// Sends what is left, for no longer than `patience`.
    pub async fn finish(self, patience: Duration) {
        let provider = self.0;
        let sent = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(patience)).await;
        if let Ok(Err(error)) = sent {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// What `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say, and our own name and version where they are silent.
fn resource(version: &'static str) -> Resource {
    let given = Resource::builder().build();
    let text = |name: &'static str| given.get(&Key::from_static_str(name)).map(|value| value.to_string());
    let mut own = Vec::new();
    if text("service.name").is_none_or(|name| name.starts_with("unknown_service")) {
        own.push(KeyValue::new("service.name", SERVICE));
    }
    if text("service.version").is_none() {
        own.push(KeyValue::new("service.version", version));
    }
    Resource::builder().with_attributes(own).build()
}

/// The exporter, on our runtime: its HTTP client lives there, while the thread that collects spans has none.
struct OnRuntime {
    exporter: Arc<opentelemetry_otlp::SpanExporter>,
    runtime: Handle,
    trouble: Mutex<Option<Trouble>>,
}

/// Since when nothing arrives, and what was told about it.
struct Trouble {
    told: Stopwatch,
    lost: usize,
}

impl fmt::Debug for OnRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers may hold the collector's password.
        f.write_str("OnRuntime")
    }
}

impl SpanExporter for OnRuntime {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (exporter, spans) = (Arc::clone(&self.exporter), batch.len());
        let sent = self.runtime.spawn(async move { exporter.export(batch).await }).await;
        let sent = sent.unwrap_or_else(|_| Err(OTelSdkError::InternalFailure("the runtime has ended".to_owned())));
        self.tell(sent.as_ref().err(), spans);
        sent
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Called before the first export, so nobody else holds it.
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}

impl OnRuntime {
    fn tell(&self, error: Option<&OTelSdkError>, spans: usize) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match (error, trouble.as_mut()) {
            (None, None) => {}
            (None, Some(Trouble { lost, .. })) => {
                tracing::info!(lost, "traces reach the collector again");
                *trouble = None;
            }
            (Some(error), Some(known)) => {
                known.lost += spans;
                if known.told.elapsed_micros() >= REMIND_MICROS {
                    tracing::warn!(%error, lost = known.lost, "traces still do not reach the collector");
                    known.told = Stopwatch::start();
                }
            }
            (Some(error), None) => {
                tracing::warn!(%error, "traces do not reach the collector; requests are not affected");
                *trouble = Some(Trouble { told: Stopwatch::start(), lost: spans });
            }
        }
    }
}

/// A request as its span shows it: never its query, its headers or its body.
pub struct Request<'a> {
    /// By [`super::metrics::known_method`].
    pub method: &'static str,
    pub scheme: &'static str,
    pub path: &'a str,
    /// The template that matched.
    pub route: Option<&'a str>,
    /// Trace Context of a peer whose word counts.
    pub parent: Option<Parent<'a>>,
}

/// `traceparent` and `tracestate` (W3C Trace Context).
#[derive(Clone, Copy)]
pub struct Parent<'a> {
    pub traceparent: &'a str,
    pub tracestate: Option<&'a str>,
}

impl Extractor for Parent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => Some(self.traceparent),
            "tracestate" => self.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

/// The span of a request; it ends with the value.
pub struct ServerSpan(Context);

impl ServerSpan {
    /// Begins the span; `None` while nothing is traced. Attributes by the semantic conventions for HTTP servers.
    pub fn begin(request: &Request<'_>) -> Option<Self> {
        let tracer = TRACER.get()?;
        let parent = match &request.parent {
            Some(parent) => TraceContextPropagator::new().extract_with_context(&Context::new(), parent),
            None => Context::new(),
        };
        let mut attributes = vec![
            KeyValue::new("http.request.method", request.method),
            KeyValue::new("url.scheme", request.scheme),
            KeyValue::new("url.path", request.path.to_owned()),
        ];
        let name = match request.route {
            Some(route) => {
                attributes.push(KeyValue::new("http.route", route.to_owned()));
                format!("{} {route}", request.method)
            }
            None => request.method.to_owned(),
        };
        let span = tracer.span_builder(name).with_kind(SpanKind::Server).with_attributes(attributes);
        Some(Self(parent.with_span(span.start_with_context(tracer, &parent))))
    }

    /// The id under which the collector knows it; `None` where it is not sampled.
    pub fn trace_id(&self) -> Option<impl fmt::Display> {
        let span = self.0.span();
        let context = span.span_context();
        context.is_sampled().then(|| context.trace_id())
    }

    /// Runs what the request does, so that the spans of its steps come below this one.
    pub async fn around<F: Future>(&self, work: F) -> F::Output {
        work.with_context(self.0.clone()).await
    }

    pub fn end(self, status: u16) {
        let span = self.0.span();
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 500 {
            span.set_attribute(KeyValue::new("error.type", status.to_string()));
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

/// Work of the request that is on, for a task of its own: its log lines and its steps stay the request's.
pub fn of_this_request<F: Future>(work: F) -> impl Future<Output = F::Output> {
    work.with_context(Context::current()).in_current_span()
}

/// The span of one step of a request; it ends with the value.
pub struct Step {
    _span: Option<Box<Span>>,
}

/// Begins a step. Work that belongs to no request is not traced.
pub fn step(name: &'static str) -> Step {
    let begin = |tracer: &SdkTracer| {
        let request = Context::current();
        let span = || tracer.span_builder(name).start_with_context(tracer, &request);
        request.has_active_span().then(|| Box::new(span()))
    };
    Step { _span: TRACER.get().and_then(begin) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_variables_switch_it_on_and_off() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        let otlp = ("OTEL_TRACES_EXPORTER", "otlp");
        for (variables, expected) in [
            (&[][..], Some(false)),
            (&[endpoint], Some(true)),
            (&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4318/v1/traces")], Some(true)),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], Some(false)),
            (&[otlp], Some(true)),
            (&[endpoint, ("OTEL_TRACES_EXPORTER", "none")], Some(false)),
            (&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")], Some(false)),
            (&[endpoint, ("OTEL_SDK_DISABLED", "false")], Some(true)),
            (&[endpoint, ("OTEL_TRACES_EXPORTER", "zipkin")], None),
            (&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], None),
            (&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")], Some(true)),
            (
                &[
                    endpoint,
                    ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
                ],
                Some(true),
            ),
            (&[endpoint, ("OTEL_TRACES_SAMPLER", "sometimes")], None),
            (&[endpoint, ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")], Some(true)),
        ] {
            let value =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            let found = match wanted(value) {
                Wanted::Off => Some(false),
                Wanted::On => Some(true),
                Wanted::Unknown(_) => None,
            };
            assert_eq!(found, expected, "{variables:?}");
        }
    }
}
