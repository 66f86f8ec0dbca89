//! The span of an attempt. Off (no exporter installed) it costs nothing and hands the incoming context on.

use opentelemetry::{
    Context, KeyValue, global,
    trace::{
        SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
    },
};
use shared::{run_record::RunRecord, trace::TraceContext};

/// The span of an attempt; ends when it is dropped.
pub(crate) struct AttemptSpan {
    context: Context,
}

impl AttemptSpan {
    /// Begins a span under the trace that the run carries.
    pub(crate) fn begin(parent: TraceContext, record: &RunRecord) -> Self {
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
        Self { context: parent.with_span(span) }
    }

    /// The context to hand to the target.
    pub(crate) fn traceparent(&self) -> String {
        let span = self.context.span();
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
        let span = self.context.span();
        match error {
            Some(error) => span.set_status(Status::error(error.to_owned())),
            None => span.set_status(Status::Ok),
        }
        span.end();
    }
}
