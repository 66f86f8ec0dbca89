//! What an `Idempotency-Key` stands for: the first request under it makes a promise in the control stream, and whoever repeats it, at
//! whichever console, finds that.

use serde_json::Value;
use streams::promises::{Promise, Standing};

use super::{call::Call, kinds, problem::Problem, state::Api};

/// The id that a request becomes, and the promise about it, if it has a key.
pub struct Promised {
    /// The id of the run, or of the backfill.
    pub id: String,
    standing: Option<Standing>,
}

impl Promised {
    /// Whether it was carried out before: then it need not be again.
    pub fn is_kept(&self) -> bool {
        self.standing.as_ref().is_some_and(|standing| standing.promise.is_kept)
    }

    /// Whether it was asked for before.
    pub fn is_older(&self) -> bool {
        self.standing.as_ref().is_some_and(|standing| standing.is_older)
    }

    /// Says that it was carried out.
    pub async fn keep(&self, api: &Api) {
        if let Some(standing) = self.standing.as_ref().filter(|standing| !standing.promise.is_kept) {
            api.streams.keep(standing).await;
        }
    }
}

/// The id that this call becomes: that of an earlier one under the same key, or this new one.
pub async fn promised(api: &Api, call: &Call, scope: &str, id: String) -> Result<Promised, Problem> {
    let Some(key) = call.text("Idempotency-Key") else { return Ok(Promised { id, standing: None }) };
    let promise = Promise::new(&canonical(&call.body.bytes), id, api.clock().now());
    let fingerprint = promise.fingerprint.clone();
    let standing = api.streams.promise(scope, key, promise).await?;
    if standing.promise.fingerprint != fingerprint {
        let words = format!(
            "this key stands for {}, which was asked for with another body at {}; use a new key",
            standing.promise.id,
            standing.promise.at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
        );
        return Err(Problem::new(&kinds::KEY_REUSED, words).at("Idempotency-Key"));
    }
    Ok(Promised { id: standing.promise.id.clone(), standing: Some(standing) })
}

/// The same for two bodies that say the same.
fn canonical(body: &[u8]) -> Vec<u8> {
    match serde_json::from_slice::<Value>(body) {
        Ok(mut value) => {
            value.sort_all_objects();
            serde_json::to_vec(&value).unwrap_or_default()
        }
        Err(_) => body.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_fields_and_blanks_do_not_make_another_request() {
        assert_eq!(
            canonical(br#"{"a":1,"b":{"d":2,"c":3}}"#),
            canonical(br#"{ "b": {"c":3, "d":2}, "a": 1 }"#)
        );
        assert_ne!(canonical(br#"{"a":1}"#), canonical(br#"{"a":2}"#));
        assert_eq!(canonical(b"no json"), b"no json");
    }
}
