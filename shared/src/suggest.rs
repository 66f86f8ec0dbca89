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
/// Serde's message is the only place that knows both; its forms (JSON's and YAML's) are checked by tests below. What
/// follows the first line (the place in the file) stays as it is.
pub fn explain_unknown(message: &str) -> String {
    let (head, place) = message.split_once('\n').map_or((message, ""), |(head, place)| (head, place));
    let head = head.strip_prefix("error: ").unwrap_or(head);
    let hint = suggestion(head).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    let separator = if place.is_empty() { "" } else { "\n" };
    format!("{head}{hint}{separator}{place}")
}

fn suggestion(head: &str) -> Option<&str> {
    let start = ["unknown field `", "unknown variant `"]
        .iter()
        .find_map(|kind| Some(head.find(kind)? + kind.len()))?;
    let (written, rest) = head[start..].split_once('`')?;
    let known = rest.split_once("expected ")?.1.trim_start_matches("one of ");
    // JSON's message ends with the place: ` at line 1 column 12`.
    let known = known.split(" at line ").next().unwrap_or(known);
    nearest(written, known.split([',', ' ']).map(|word| word.trim_matches('`')).filter(|word| word.len() > 1))
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
        let error = serde_saphyr::from_str::<Two>("timezon: UTC\n").expect_err("unknown").to_string();
        let explained = explain_unknown(&error);
        assert!(explained.contains("did you mean `timezone`?"), "{explained}");
        assert!(explained.starts_with("line 1 column 1: unknown field"), "{explained}");
    }
}
