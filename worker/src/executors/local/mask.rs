//! Takes secrets out of what a command says, before anybody sees it: the log, the record, an error, the worker's own log.
//!
//! Masked are the values of the variables that its entry on the allow-list calls secret, as they are; of a value of
//! several lines each line, too. And what stands behind the name of a header that carries credentials. Not found is a
//! secret that the command has changed: encoded, hashed, split, or written in another case.

use serde_json::{Map, Value};

/// What stands for a secret.
pub(super) const MASK: &str = "***";
/// A line of a secret of several lines is masked by itself from this length on: a brace alone is no secret.
const PIECE_BYTES_MIN: usize = 4;
/// Headers that carry credentials. In lower case, with what may begin them left out: `proxy-authorization` is met, too.
const HEADERS: [&str; 6] =
    ["authorization", "cookie", "x-api-key", "x-auth-token", "api-key", "x-amz-security-token"];

/// What is to be masked.
#[derive(Clone, Default)]
pub(super) struct Masker {
    /// Longest first: what contains another is masked whole.
    secrets: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Masker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Masker({} secrets)", self.secrets.len())
    }
}

impl Masker {
    /// Masks these values, whatever their length, and headers.
    pub(super) fn of(values: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut secrets = Vec::new();
        for value in values {
            let pieces = value.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii);
            secrets.extend(pieces.filter(|piece| piece.len() >= PIECE_BYTES_MIN).map(<[u8]>::to_vec));
            secrets.push(value.trim_ascii().to_vec());
            secrets.push(value);
        }
        secrets.retain(|secret| !secret.is_empty());
        secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        secrets.dedup();
        Self { secrets }
    }

    /// The length of the longest secret.
    pub(super) fn longest(&self) -> usize {
        self.secrets.first().map_or(0, Vec::len)
    }

    /// The beginning of a line, masked; whatever begins within its first `keep` bytes is met whole, if the line has
    /// [`Self::longest`] bytes more.
    pub(super) fn line(&self, line: &[u8], keep: usize) -> Vec<u8> {
        Self::without_credentials(self.without_secrets(line, 0, keep))
    }

    /// Text of several lines, masked. If its beginning is missing, so is what may be the rest of a secret there.
    pub(super) fn text(&self, text: &[u8], is_cut: bool) -> Vec<u8> {
        let skip = if is_cut { self.longest().saturating_sub(1).min(text.len()) } else { 0 };
        let masked = self.without_secrets(text, skip, text.len());
        let lines = masked.split(|byte| *byte == b'\n');
        let lines: Vec<Vec<u8>> = lines.map(|line| Self::without_credentials(line.to_vec())).collect();
        lines.join(&b'\n')
    }

    /// A value, masked in all its texts, names and numbers.
    pub(super) fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.words(&text)),
            Value::Array(items) => Value::Array(items.into_iter().map(|item| self.value(item)).collect()),
            Value::Object(fields) => {
                let masked = |(name, field): (String, Value)| {
                    let is_credential =
                        field.is_string() && HEADERS.iter().any(|header| ends_with(&name, header));
                    let field = if is_credential { MASK.into() } else { self.value(field) };
                    (self.words(&name), field)
                };
                Value::Object(fields.into_iter().map(masked).collect::<Map<_, _>>())
            }
            Value::Number(number) => {
                let text = number.to_string();
                let masked = self.words(&text);
                if masked == text { Value::Number(number) } else { Value::String(masked) }
            }
            other => other,
        }
    }

    /// A text, masked.
    pub(super) fn words(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.text(text.as_bytes(), false)).into_owned()
    }

    /// What begins between these two places, with secrets masked. A secret that begins before the first is left out whole.
    fn without_secrets(&self, text: &[u8], from: usize, to: usize) -> Vec<u8> {
        let mut masked = Vec::with_capacity(text.len().min(to));
        let mut place = 0;
        while place < text.len().min(to) {
            let rest = &text[place..];
            if let Some(secret) = self.secrets.iter().find(|secret| rest.starts_with(secret)) {
                masked.extend_from_slice(MASK.as_bytes());
                place += secret.len();
            } else {
                if place >= from {
                    masked.push(text[place]);
                }
                place += 1;
            }
        }
        masked
    }

    /// A line without what stands behind the names of headers that carry credentials: up to the closing quote if it is
    /// quoted, as in JSON, else to its end.
    fn without_credentials(line: Vec<u8>) -> Vec<u8> {
        let lower = line.to_ascii_lowercase();
        let (mut masked, mut place) = (Vec::new(), 0);
        // Not by recursion: how many there are is up to the command.
        for value in values_behind(&lower) {
            if value < place {
                continue;
            }
            let end = match line[value] {
                quote @ (b'"' | b'\'') => closing(&line, value + 1, quote),
                _ => line.len(),
            };
            let begin = if end < line.len() { value + 1 } else { value };
            masked.extend_from_slice(&line[place..begin]);
            masked.extend_from_slice(MASK.as_bytes());
            place = end;
        }
        // Most lines have none.
        if place == 0 {
            return line;
        }
        masked.extend_from_slice(&line[place..]);
        masked
    }
}

fn ends_with(name: &str, header: &str) -> bool {
    name.to_ascii_lowercase().ends_with(header)
}

/// Where the values begin that stand behind the names of headers that carry credentials, in their order.
fn values_behind(line: &[u8]) -> Vec<usize> {
    let behind = |name: &'static str| {
        let found =
            line.windows(name.len()).enumerate().filter(move |(_, window)| *window == name.as_bytes());
        found.filter_map(move |(place, _)| value_at(line, place + name.len()))
    };
    let mut values: Vec<usize> = HEADERS.into_iter().flat_map(behind).collect();
    values.sort_unstable();
    values
}

/// Where the value begins if a name ends here: behind a colon or an equals sign.
fn value_at(line: &[u8], after: usize) -> Option<usize> {
    let is_between = |byte: &u8| matches!(byte, b'"' | b'\'' | b'\\' | b' ' | b'\t');
    let separator = after + line[after..].iter().take_while(|byte| is_between(byte)).count();
    if !matches!(line.get(separator)?, b':' | b'=') {
        return None;
    }
    let blank = line[separator + 1..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let value = separator + 1 + blank;
    (value < line.len()).then_some(value)
}

/// Where a quoted text ends: at its quote, unless a backslash stands before it.
fn closing(line: &[u8], mut place: usize, quote: u8) -> usize {
    while place < line.len() {
        match line[place] {
            b'\\' => place += 2,
            byte if byte == quote => return place,
            _ => place += 1,
        }
    }
    line.len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn masker(secrets: &[&str]) -> Masker {
        Masker::of(secrets.iter().map(|secret| secret.as_bytes().to_vec()))
    }

    fn line(masker: &Masker, text: &str) -> String {
        String::from_utf8(masker.line(text.as_bytes(), text.len())).expect("text")
    }

    #[test]
    fn a_secret_is_masked_wherever_it_stands_the_longest_first() {
        let masker = masker(&["s3cret", "s3cret-and-more", "x\"y"]);
        for (said, shown) in [
            ("s3cret", "***"),
            ("a=s3crets3cret!", "a=******!"),
            ("s3cret-and-more", "***"),
            ("s3cret-and-mor", "***-and-mor"),
            ("x\"y S3CRET", "*** S3CRET"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(line(&masker, said), shown);
        }
        assert!(!format!("{masker:?}").contains("s3cret"));
    }

    #[test]
    fn of_a_secret_with_several_lines_each_line_is_masked() {
        let key = "-----BEGIN KEY-----\nMIIEv\n}\n-----END KEY-----\n";
        let masker = masker(&[key]);
        for part in key.lines().filter(|line| line.len() > 1) {
            assert_eq!(line(&masker, &format!("read {part}.")), "read ***.");
        }
        assert_eq!(line(&masker, "}"), "}");
    }

    #[test]
    fn what_is_kept_of_a_long_line_holds_no_part_of_a_secret() {
        let masker = masker(&["0123456789"]);
        for before in 0..40 {
            let text = format!("{}0123456789{}", "x".repeat(before), "0123456789".repeat(3));
            // As much as a splitter holds: what is kept, and the longest secret more.
            let held = &text.as_bytes()[..text.len().min(20 + masker.longest())];
            let shown = String::from_utf8(masker.line(held, 20)).expect("text");
            assert!(!shown.bytes().any(|byte| byte.is_ascii_digit()), "{before}: {shown}");
        }
    }

    #[test]
    fn of_a_text_whose_beginning_is_missing_no_rest_of_a_secret_is_shown() {
        let masker = masker(&["0123456789"]);
        let whole = "0123456789 then 0123456789 done";
        for missing in 0..whole.len() {
            let shown = masker.text(&whole.as_bytes()[missing..], true);
            let shown = String::from_utf8(shown).expect("text");
            assert!(!shown.bytes().any(|byte| byte.is_ascii_digit()), "{missing}: {shown}");
        }
    }

    #[test]
    fn what_stands_behind_the_name_of_a_header_with_credentials_is_masked() {
        let masker = Masker::default();
        for (said, shown) in [
            ("> Authorization: Bearer abc def", "> Authorization: ***"),
            ("proxy-authorization:Basic abc", "proxy-authorization:***"),
            (r#"{"authorization": "Bearer a\"b", "rows": 3}"#, r#"{"authorization": "***", "rows": 3}"#),
            ("Set-Cookie: id=1; Path=/", "Set-Cookie: ***"),
            ("X-API-Key=abc", "X-API-Key=***"),
            ("the authorization failed", "the authorization failed"),
            ("Authorization:", "Authorization:"),
            (r#"{"cookie": "a", "x-api-key": "b"}"#, r#"{"cookie": "***", "x-api-key": "***"}"#),
            ("Authorization: cookie=a", "Authorization: ***"),
            (r#"{\"authorization\": \"Bearer a\"}"#, r#"{\"authorization\": ***"#),
        ] {
            assert_eq!(line(&masker, said), shown);
        }
        let many = "cookie=\"a\" ".repeat(100_000);
        assert_eq!(masker.words(&many), "cookie=\"***\" ".repeat(100_000));
    }

    #[test]
    fn a_value_is_masked_in_its_texts_its_names_and_its_numbers() {
        let masker = masker(&["s3cret", "4711"]);
        let value = json!({"a": ["s3cret", {"s3cret": 1}], "n": 14_711, "Authorization": "Bearer x", "m": 3, "t": true});
        let shown = json!({"a": ["***", {"***": 1}], "n": "1***", "Authorization": "***", "m": 3, "t": true});
        assert_eq!(masker.value(value), shown);
    }
}
