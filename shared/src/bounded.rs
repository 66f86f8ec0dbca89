//! Values as a record can keep them.

use crate::{limits, run_record::cut};

/// Whether a value has more levels of lists and objects within each other.
pub fn is_deeper_than(value: &serde_json::Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else { return value.is_array() || value.is_object() };
    match value {
        serde_json::Value::Array(items) => items.iter().any(|item| is_deeper_than(item, below)),
        serde_json::Value::Object(fields) => fields.values().any(|field| is_deeper_than(field, below)),
        _ => false,
    }
}

/// An output as a record keeps it: whole if it fits, otherwise its beginning as text, marked as cut. One that is nested too
/// deeply is such a text too: nobody could read the record around it.
pub fn bounded_output(output: serde_json::Value) -> serde_json::Value {
    let text = output.to_string();
    if text.len() <= limits::OUTPUT_BYTES_MAX && !is_deeper_than(&output, limits::JSON_DEPTH_MAX) {
        return output;
    }
    let bytes = text.len();
    serde_json::json!({ "truncated": true, "bytes": bytes, "beginning": cut(text, limits::OUTPUT_BYTES_MAX / 2) })
}
