//! Logs on stderr, and traces to an OpenTelemetry collector if the environment names one.
//!
//! Logs are for people on a terminal and JSON elsewhere. Traces are off unless `OTEL_EXPORTER_OTLP_ENDPOINT` (or
//! `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) is set; then the usual `OTEL_*` variables hold. Off costs nothing: no layer, no
//! thread.

use std::{
    future::Future,
    io::{self, IsTerminal},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_otlp::SpanExporter as OtlpExporter;
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    propagation::TraceContextPropagator,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use shared::trace::TraceContext;
use tokio::runtime::Handle;
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{EnvFilter, Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// How long spans that are still here may take to leave when the process ends.
const FLUSH_WAIT: Duration = Duration::from_secs(5);

/// Whom a process talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Somebody who waits for an answer: only warnings, always as text.
    Person,
    /// Whoever looks after a process that stays.
    Service,
    /// Somebody who looks at `up`: always text. While the picture has the terminal, logs go to a file.
    Onlooker {
        /// Whether the picture is shown.
        picture: bool,
    },
}

/// Logs and traces of this process, from [`Telemetry::start`] to [`Telemetry::finish`].
#[derive(Debug)]
#[must_use = "spans that are not flushed are lost"]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Begins to log, and to trace if the environment says where to. Once per process.
    pub fn start(
        runtime: &Handle,
        process: &str,
        audience: Audience,
        filter: Option<&str>,
    ) -> anyhow::Result<Self> {
        // Also without an exporter: a trace that came with a run is handed on to its target.
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        let provider = if traces_wanted(|name| std::env::var(name).ok()) {
            Some(exporting(runtime, process)?)
        } else {
            None
        };
        if let Some(provider) = &provider {
            // The worker's spans of attempts are made by hand: their parent comes with the run.
            opentelemetry::global::set_tracer_provider(provider.clone());
        }
        let traces = provider.as_ref().map(|provider| {
            let ours = ["cli", "planner", "worker", "streams", "shared", "marketprism"];
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("cronfleet"))
                // Not what the exporter's own HTTP client says, or each export would be a reason for another.
                .with_filter(Targets::new().with_targets(ours.map(|name| (name, LevelFilter::INFO))))
        });
        let json = audience == Audience::Service && !io::stderr().is_terminal();
        let to_file = audience == Audience::Onlooker { picture: true };
        let colours = io::stderr().is_terminal()
            && !to_file
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let logs = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(colours);
        let logs = if json {
            logs.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
        } else {
            logs.with_target(false).boxed()
        };
        tracing_subscriber::registry()
            .with(traces)
            .with(logs.with_filter(filter_of(filter, audience)?))
            .init();
        Ok(Self { provider })
    }

    /// Sends what has not been sent. Call it outside the runtime, while that still lives.
    pub fn finish(self) {
        if let Some(Err(error)) = self.provider.map(|provider| provider.shutdown_with_timeout(FLUSH_WAIT)) {
            tracing::warn!(%error, "The last traces could not be sent: {error}");
        }
    }
}

/// Where in which trace we are: of the span we are in, or at the beginning of a new one if nothing is traced here.
pub fn trace_context() -> TraceContext {
    let context = tracing::Span::current().context();
    let span = context.span();
    let here = span.span_context();
    if !here.is_valid() {
        return TraceContext::root();
    }
    TraceContext {
        trace_id: u128::from_be_bytes(here.trace_id().to_bytes()),
        span_id: u64::from_be_bytes(here.span_id().to_bytes()),
        sampled: here.is_sampled(),
    }
}

fn filter_of(filter: Option<&str>, audience: Audience) -> anyhow::Result<EnvFilter> {
    match filter.filter(|filter| !filter.is_empty()) {
        Some(filter) => EnvFilter::try_new(filter).with_context(|| {
            format!("--log (CRONFLEET_LOG) is {filter:?}; write a level such as info, or info,worker=debug")
        }),
        // Its events come through `streams`, in our words.
        None => Ok(match audience {
            Audience::Service | Audience::Onlooker { picture: true } => {
                EnvFilter::new("info,async_nats=warn")
            }
            // `up` prints a line for every change of state already.
            Audience::Person | Audience::Onlooker { picture: false } => EnvFilter::new("warn"),
        }),
    }
}

fn traces_wanted(variable: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name| variable(name).is_some_and(|value| !value.is_empty());
    let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    !disabled && (set("OTEL_EXPORTER_OTLP_ENDPOINT") || set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))
}

fn exporting(runtime: &Handle, process: &str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = OtlpExporter::builder()
        .with_http()
        .build()
        .context("traces (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT)")?;
    let named = std::env::var_os("OTEL_SERVICE_NAME").is_some_and(|name| !name.is_empty());
    let resource = if named {
        Resource::builder()
    } else {
        Resource::builder().with_service_name(format!("cronfleet-{process}"))
    };
    let exporter = OnRuntime { exporter: Arc::new(exporter), runtime: runtime.clone() };
    Ok(SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter).build())
}

/// Exports on the runtime: the batch processor calls from a thread of its own, where the HTTP client has no reactor.
#[derive(Debug)]
struct OnRuntime {
    exporter: Arc<OtlpExporter>,
    runtime: Handle,
}

impl SpanExporter for OnRuntime {
    fn export(&self, batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        let exporter = Arc::clone(&self.exporter);
        let sent = self.runtime.spawn(async move { exporter.export(batch).await });
        async move { sent.await.unwrap_or_else(|error| Err(OTelSdkError::InternalFailure(error.to_string()))) }
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Called once, before the first export: nobody else holds it.
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_sent_only_when_the_environment_says_where_to() {
        let wanted = |set: &[(&str, &str)]| {
            traces_wanted(|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
        };
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        assert!(!wanted(&[]));
        assert!(!wanted(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]));
        assert!(wanted(&[endpoint]));
        assert!(wanted(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4318/v1/traces")]));
        assert!(!wanted(&[endpoint, ("OTEL_SDK_DISABLED", "true")]));
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_refused_with_an_example() {
        let message = format!("{:#}", filter_of(Some("worker=loud"), Audience::Person).expect_err("loud"));
        assert!(message.contains("info,worker=debug"), "{message}");
        assert_eq!(filter_of(Some(""), Audience::Person).expect("default").to_string(), "warn");
    }
}
