//! The span of an attempt. Where nobody keeps spans (no tracer provider is installed) it costs nothing, and hands the incoming
//! context on.

use std::sync::OnceLock;

use opentelemetry::{
    Context, KeyValue, global,
    trace::{
        SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
    },
};
use shared::{run_record::RunRecord, trace::TraceContext};

/// Makes the spans of a worker.
#[derive(Default)]
pub(crate) struct Spans {
    /// Whether anybody keeps them: known from the first one on, because a provider is installed before a worker starts.
    are_kept: OnceLock<bool>,
}

/// The span of an attempt; ends when it is dropped.
pub(crate) enum AttemptSpan {
    /// Nobody keeps it: what came with the run goes on to its target.
    Unkept(TraceContext),
    /// With the span in it.
    Kept(Context),
}

impl Spans {
    /// Begins a span under the trace that the run carries.
    pub(crate) fn begin(&self, parent: TraceContext, record: &RunRecord) -> AttemptSpan {
        if self.are_kept.get() == Some(&false) {
            return AttemptSpan::Unkept(parent);
        }
        let context = context_of_span(parent, record);
        // Without a provider a span is its parent again.
        let is_own =
            context.span().span_context().span_id() != SpanId::from_bytes(parent.span_id.to_be_bytes());
        self.are_kept.get_or_init(|| is_own);
        AttemptSpan::Kept(context)
    }
}

fn context_of_span(parent: TraceContext, record: &RunRecord) -> Context {
    let flags = if parent.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let remote = SpanContext::new(
        TraceId::from_bytes(parent.trace_id.to_be_bytes()),
        SpanId::from_bytes(parent.span_id.to_be_bytes()),
        flags,
        true,
        TraceState::default(),
    );
    let parent = Context::new().with_remote_span_context(remote);
    let tracer = global::tracer("cronfleet");
    let builder = tracer
        .span_builder(format!("process {}", record.queue))
        .with_kind(SpanKind::Consumer)
        .with_attributes([
            KeyValue::new("messaging.system", "nats"),
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.operation.name", "process"),
            KeyValue::new("messaging.destination.name", record.queue.to_string()),
            KeyValue::new("messaging.message.conversation_id", record.id.to_string()),
            KeyValue::new("cronfleet.attempt", i64::from(record.attempt)),
        ]);
    let span = builder.start_with_context(&tracer, &parent);
    parent.with_span(span)
}

impl AttemptSpan {
    /// The context to hand to the target.
    pub(crate) fn traceparent(&self) -> String {
        let context = match self {
            Self::Unkept(context) => return context.to_string(),
            Self::Kept(context) => context,
        };
        let span = context.span();
        let context = span.span_context();
        TraceContext {
            trace_id: u128::from_be_bytes(context.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(context.span_id().to_bytes()),
            sampled: context.is_sampled(),
        }
        .to_string()
    }

    /// Says how the attempt ended.
    pub(crate) fn end(&self, error: Option<&str>) {
        let Self::Kept(context) = self else { return };
        let span = context.span();
        match error {
            Some(error) => span.set_status(Status::error(error.to_owned())),
            None => span.set_status(Status::Ok),
        }
        span.end();
    }
}
