//! The trace that follows a run through all services, as W3C writes it
//! (<https://www.w3.org/TR/trace-context/#traceparent-header>).

use std::fmt;

/// Where in which trace something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never zero.
    pub trace_id: u128,
    /// The span; never zero.
    pub span_id: u64,
    /// Whether it is recorded.
    pub sampled: bool,
}

impl TraceContext {
    /// The beginning of a new trace.
    pub fn root() -> Self {
        let bits = uuid::Uuid::new_v4().as_u128();
        let span = uuid::Uuid::new_v4().as_u64_pair().0;
        Self { trace_id: bits, span_id: span.max(1), sampled: true }
    }

    /// The beginning of the trace of something that has a name, as somebody makes it: the same each time, so that who
    /// decides on it stays a function of what it knows.
    pub fn of(maker: &str, name: &str) -> Self {
        let maker = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, maker.as_bytes());
        let trace = uuid::Uuid::new_v5(&maker, name.as_bytes());
        let span = uuid::Uuid::new_v5(&trace, b"span").as_u64_pair().0;
        Self { trace_id: trace.as_u128(), span_id: span.max(1), sampled: true }
    }

    /// The same place, in the trace that a record names; none if that is no trace.
    pub fn in_trace(self, trace_id: &str) -> Option<Self> {
        let trace_id = u128::from_str_radix(trace_id, 16).ok().filter(|id| *id != 0)?;
        Some(Self { trace_id, ..self })
    }

    /// A new place in a trace that a record names.
    pub fn within(trace_id: &str) -> Option<Self> {
        Self::root().in_trace(trace_id)
    }

    /// Reads a `traceparent` header; a stranger's nonsense is no context.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let parts: Vec<&str> = traceparent.split('-').collect();
        let [version, trace, span, flags, ..] = parts.as_slice() else { return None };
        let shaped = |text: &str, length| {
            text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let known = shaped(version, 2) && *version != "ff" && (*version != "00" || parts.len() == 4);
        if !known || !shaped(trace, 32) || !shaped(span, 16) || !shaped(flags, 2) {
            return None;
        }
        let context = Self {
            trace_id: u128::from_str_radix(trace, 16).ok()?,
            span_id: u64::from_str_radix(span, 16).ok()?,
            sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        };
        (context.trace_id != 0 && context.span_id != 0).then_some(context)
    }

    /// The trace's id as records keep it: 32 hex digits.
    pub fn trace_id_text(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_read_back_and_nonsense_is_not() {
        let root = TraceContext::root();
        assert_eq!(TraceContext::parse(&root.to_string()), Some(root));
        let within = TraceContext::within(&root.trace_id_text()).expect("a trace");
        assert!(within.trace_id == root.trace_id && within.span_id != root.span_id);
        let example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(TraceContext::parse(example).expect("W3C's own example").to_string(), example);
        for nonsense in [
            "",
            "00",
            "00-0-0-01",
            &example.replace('4', "G"),
            &example.replace("00-", "ff-"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            &format!("{example}-more"),
        ] {
            assert_eq!(TraceContext::parse(nonsense), None, "{nonsense}");
        }
    }
}
