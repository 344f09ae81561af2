//! Starts what tells an operator what happens: the log on standard error, and traces where the environment asks for
//! them.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal as _};
use std::panic::PanicHookInfo;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt, registry};

use crate::config::{Config, LogFormat};
use crate::telemetry::json::{JsonFields, JsonLine};
use crate::telemetry::lines::Lines;
use crate::telemetry::traces::{self, Exporting, Wanted};

/// How long the end of the process waits for the log, and for the last traces.
const PATIENCE: Duration = Duration::from_secs(3);

/// What has to be brought to an end.
pub struct Logging {
    lines: Lines,
    traces: Option<Exporting>,
}

/// What is logged, by the directives of `tracing-subscriber`. `KEYWARD_LOG` overrides `log.level`.
pub fn filter(config: &Config) -> anyhow::Result<EnvFilter> {
    let directives = std::env::var("KEYWARD_LOG").unwrap_or_else(|_| config.log.level.clone());
    // A word alone would be taken for the name of a module, and everything else be switched off.
    let mut words = directives.split(',').map(str::trim).filter(|one| !one.contains(['=', '[']));
    if let Some(word) = words.find(|word| word.parse::<LevelFilter>().is_err()) {
        bail!(
            "log level `{word}`: must be error, warn, info, debug, trace or off, or MODULE=LEVEL, or several with commas"
        );
    }
    // PostgreSQL tells at each start that the table of migrations is there already. Later directives override this.
    EnvFilter::try_new(format!("sqlx::postgres::notice=warn,{directives}"))
        .with_context(|| format!("log level `{directives}`"))
}

/// Starts the log, and traces; inside the runtime.
pub fn start(config: &Config) -> anyhow::Result<Logging> {
    let filter = filter(config)?;
    let notice = match config.log.format {
        LogFormat::Pretty => |lines| format!("WARN {lines} log lines were dropped: nobody read them in time\n"),
        LogFormat::Json => |lines| {
            let text = "log lines were dropped: nobody read them in time";
            format!("{{\"level\":\"WARN\",\"target\":\"keyward\",\"message\":\"{text}\",\"lines\":{lines}}}\n")
        },
    };
    let lines = Lines::start(io::stderr(), notice).context("cannot start the log")?;
    let layer = fmt::layer().with_writer(lines.clone()).with_ansi(io::stderr().is_terminal());
    match config.log.format {
        LogFormat::Pretty => registry().with(filter).with(layer.with_target(false)).try_init()?,
        LogFormat::Json => registry()
            .with(filter)
            .with(layer.with_ansi(false).event_format(JsonLine).fmt_fields(JsonFields))
            .try_init()?,
    }
    std::panic::set_hook(Box::new(log_panic));
    Ok(Logging { lines, traces: start_traces() })
}

fn start_traces() -> Option<Exporting> {
    let started = match traces::wanted(|name| std::env::var(name).ok()) {
        Wanted::Off => return None,
        Wanted::On => traces::start(env!("CARGO_PKG_VERSION")),
        Wanted::Unknown(problem) => Err(anyhow::Error::msg(problem)),
    };
    // These variables are often set for all that runs on a machine; they are no reason not to start.
    started.inspect_err(|problem| tracing::warn!(%problem, "no traces will be sent")).ok()
}

/// A panic is a line like all others. A text that was put together may quote what was worked on, a password even,
/// so only one that stands in the source is told; the place says the rest.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let text = tellable(panic.payload());
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        tracing::error!(place, %trace, "panicked: {text}");
    } else {
        tracing::error!(place, "panicked: {text}");
    }
}

fn tellable(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("(a text that may quote a secret)")
}

impl Logging {
    /// Sends and writes what is left.
    pub async fn finish(self) {
        if let Some(traces) = self.traces {
            traces.finish(PATIENCE).await;
        }
        self.lines.finish(PATIENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_tells_only_what_stands_in_the_source() {
        let password = "correct horse";
        let fixed = std::panic::catch_unwind(|| panic!("the hash is gone")).expect_err("a panic");
        assert_eq!(tellable(fixed.as_ref()), "the hash is gone");
        let quoting = std::panic::catch_unwind(|| panic!("no hash for {password}")).expect_err("a panic");
        assert!(!tellable(quoting.as_ref()).contains(password));
    }
}
