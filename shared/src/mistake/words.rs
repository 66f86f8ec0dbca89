//! What the readers of YAML and JSON say, in an author's words: no type of the program is among them.

/// How the text is written that a mistake is in, and its repair with it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Syntax {
    Yaml,
    Json,
}

/// The words of one kind of value: what is expected, and how it is written.
fn expected_in_words(expected: &str) -> Option<String> {
    expected_in(expected, Syntax::Yaml)
}

fn expected_in(expected: &str, syntax: Syntax) -> Option<String> {
    let expected = expected.trim_start_matches("a ").trim_start_matches("an ");
    let words = match expected {
        "u8" => format!("a whole number from 0 to {}", u8::MAX),
        "u16" => format!("a whole number from 0 to {}", u16::MAX),
        "u32" => format!("a whole number from 0 to {}; write digits alone, such as 3", u32::MAX),
        "u64" | "usize" => "a whole number from 0; write digits alone, such as 3".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number; write digits alone, such as 3".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "nonzero u32" => "a whole number from 1".to_owned(),
        "bool" | "boolean" => "true or false; write one of them".to_owned(),
        "string" | "borrowed string" => "a text; put it in quotes".to_owned(),
        "duration" => "a length of time; write a number with its unit, in quotes, such as \"30s\"".to_owned(),
        "rate" => "a rate; write attempts per time, in quotes, such as \"10/s\"".to_owned(),
        "sequence" if syntax == Syntax::Json => "a list; write [\"a\", \"b\"]".to_owned(),
        other if syntax == Syntax::Json && (other == "map" || other.starts_with("struct ")) => {
            "an object; write {\"field\": value}".to_owned()
        }
        "map" => "a mapping; write its fields below it, or {field: value}".to_owned(),
        "sequence" => "a list; write [a, b], or one item per line after `- `".to_owned(),
        other if other.starts_with("struct ") => {
            "a mapping; write its fields below it, or {field: value}".to_owned()
        }
        other if other.starts_with("enum ") || other.contains("variant") => "one word".to_owned(),
        _ => return None,
    };
    Some(words)
}

/// Serde's `invalid type: string "many", expected u32` in plain words; anything else stays as it is.
pub fn plain_words(message: &str) -> String {
    words_of(message, Syntax::Yaml)
}

/// As [`plain_words`], of a text that is JSON: what is to be written is JSON too.
pub fn json_words(message: &str) -> String {
    words_of(message, Syntax::Json)
}

fn words_of(message: &str, syntax: Syntax) -> String {
    let start =
        ["invalid type: ", "invalid value: "].iter().find_map(|kind| Some((message.find(kind)?, kind.len())));
    let Some((at, length)) = start else { return of_cron_lines(message, None) };
    let (before, rest) = (&message[..at], &message[at + length..]);
    let Some((unexpected, rest)) = rest.split_once(", expected ") else { return message.to_owned() };
    // JSON's message ends with the place: ` at line 1 column 12`.
    let (expected, place) = match rest.find(" at line ") {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let place =
        if place.is_empty() { String::new() } else { format!(" ({})", place.trim_start_matches(" at ")) };
    match expected_in(expected, syntax) {
        Some(words) => format!("{before}{} is not {words}{place}", unexpected_in_words(unexpected, syntax)),
        None => message.to_owned(),
    }
}

/// What serde calls an integer, 5 in backticks, is "5" in YAML, where everything is a text, and 5 in JSON; what it calls a string
/// keeps its quotes.
fn unexpected_in_words(unexpected: &str, syntax: Syntax) -> String {
    let value = match unexpected.split_once(['`', '"']) {
        Some((_, value)) if syntax == Syntax::Json && unexpected.ends_with('`') => {
            return value.trim_end_matches('`').to_owned();
        }
        Some((_, value)) => value.trim_end_matches(['`', '"']),
        None => match unexpected {
            "map" if syntax == Syntax::Json => return "an object".to_owned(),
            "map" => return "a mapping".to_owned(),
            "sequence" => return "a list".to_owned(),
            "null" | "unit" | "unit value" => return "nothing".to_owned(),
            other => other,
        },
    };
    format!("\"{value}\"")
}

/// What chrono says of a text that is no instant.
const NO_INSTANT: [&str; 5] = [
    "input contains invalid characters",
    "premature end of input",
    "input is out of range",
    "trailing input",
    "input is not enough for unique date and time",
];

/// The YAML reader's message about this value, of the field at the end of this path.
pub(super) fn of_yaml(message: &str, path: Option<&str>, value: &str) -> String {
    let field = path.and_then(|path| path.rsplit('.').next()).unwrap_or_default();
    if let Some(words) = message.strip_prefix("invalid ").and_then(expected_in_words) {
        return format!("{value:?} is not {words}");
    }
    if NO_INSTANT.contains(&message) {
        return match field {
            "at" => {
                format!(
                    "{value:?} is not an instant; write it as RFC 3339 has it, such as 2026-11-24T02:00:00Z"
                )
            }
            _ => format!("{value:?} is not a date; write it as in 2026-11-24 ({message})"),
        };
    }
    let found = match value.chars().next() {
        Some('[') => "a list".to_owned(),
        Some('{') => "a mapping".to_owned(),
        // Where nothing stands, the place is that of the colon.
        None | Some(':') => "nothing".to_owned(),
        Some(_) => format!("{value:?}"),
    };
    let expected = match message {
        "expected string scalar" | "externally tagged enum expected scalar or mapping" => {
            "one value, which is wanted here"
        }
        "expected mapping start" => "a mapping; write its fields below it, or {field: value}",
        "expected sequence start" => "a list; write [a, b], or one item per line after `- `",
        message => {
            let message = plain_words(&of_cron_lines(message, Some(value)));
            return message.replace(
                ", set DuplicateKeyPolicy in Options if acceptable",
                ": it may stand there only once",
            );
        }
    };
    format!("{found} is not {expected}")
}

/// A cron line is a text, and looks like a number to a reader if it is short.
fn of_cron_lines(message: &str, value: Option<&str>) -> String {
    const UNTAGGED: &str = "data did not match any variant of untagged enum CronLines";
    if !message.contains(UNTAGGED) {
        return message.to_owned();
    }
    let value = value.filter(|value| !value.is_empty()).map(|value| format!("{value:?}"));
    let value = value.unwrap_or_else(|| "this".to_owned());
    let words = format!(
        "{value} is neither a cron line nor a list of them; write one in quotes, such as \"0 2 * * *\""
    );
    message.replace(UNTAGGED, &words)
}

/// The first value in quotes, as it was before it was quoted.
pub(super) fn first_quoted(message: &str) -> Option<String> {
    let mut chars = message[message.find('"')? + 1..].chars();
    let mut value = String::new();
    loop {
        match chars.next()? {
            '"' => return Some(value),
            '\\' => value.push(chars.next()?),
            c => value.push(c),
        }
    }
}
