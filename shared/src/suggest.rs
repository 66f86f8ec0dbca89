//! "Did you mean": the nearest of the names that exist.

/// The candidate nearest to what was written, if it is near enough to be a slip of the hand.
pub fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&written, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Adds "did you mean" to what serde says of an unknown field or variant, which lists the ones it knows.
///
/// Serde's message is the only place that knows both; its form (names in backticks) is checked by a test below.
pub fn explain_unknown(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = message.contains("unknown field") || message.contains("unknown variant");
    match quoted.next().filter(|_| unknown).and_then(|written| nearest(written, quoted)) {
        Some(candidate) => format!("{message}; did you mean `{candidate}`?"),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let known = ["timezone", "overlap", "catch_up"];
        assert_eq!(nearest("timezon", known), Some("timezone"));
        assert_eq!(nearest("catchup", known), Some("catch_up"));
        assert_eq!(nearest("retry", known), None);
    }

    #[test]
    fn serdes_own_message_is_understood() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Two {
            #[serde(rename = "timezone")]
            _timezone: Option<String>,
            #[serde(rename = "overlap")]
            _overlap: Option<String>,
        }
        let error = serde_json::from_str::<Two>(r#"{"timezon":"UTC"}"#).expect_err("unknown").to_string();
        assert!(explain_unknown(&error).ends_with("did you mean `timezone`?"), "{error}");
    }
}
