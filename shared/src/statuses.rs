//! Sets of HTTP statuses as people write them: `[200, 204, "3xx", "500-503"]`.

use std::{borrow::Cow, fmt, ops::RangeInclusive, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};

/// The statuses there are.
const ALL: RangeInclusive<u16> = 100..=599;

/// One status, or several in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses(RangeInclusive<u16>);

/// A text that is no status and no range of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no status; write one such as 204, a range such as \"200-204\", or a class such as \"2xx\"")]
pub struct StatusError(String);

impl Statuses {
    /// Whether this one is among them.
    pub fn contains(&self, status: u16) -> bool {
        self.0.contains(&status)
    }

    /// Whether the two have one in common.
    pub fn meets(&self, other: &Self) -> bool {
        self.0.start() <= other.0.end() && other.0.start() <= self.0.end()
    }
}

impl FromStr for Statuses {
    type Err = StatusError;
    fn from_str(text: &str) -> Result<Self, StatusError> {
        let error = || StatusError(text.to_owned());
        let number =
            |text: &str| text.trim().parse().ok().filter(|status| ALL.contains(status)).ok_or_else(error);
        let range = if let Some(class) = text.strip_suffix("xx") {
            let first = number(&format!("{class}00"))?;
            first..=first + 99
        } else if let Some((first, last)) = text.split_once('-') {
            number(first)?..=number(last)?
        } else {
            let only = number(text)?;
            only..=only
        };
        if range.is_empty() { Err(error()) } else { Ok(Self(range)) }
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.0.start(), self.0.end());
        match last - first {
            0 => write!(f, "{first}"),
            99 if first % 100 == 0 => write!(f, "{}xx", first / 100),
            _ => write!(f, "{first}-{last}"),
        }
    }
}

impl Serialize for Statuses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.start() == self.0.end() {
            return serializer.serialize_u16(*self.0.start());
        }
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StatusesVisitor)
    }
}

struct StatusesVisitor;

impl Visitor<'_> for StatusesVisitor {
    type Value = Statuses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status such as 204, a range such as \"200-204\", or a class such as \"2xx\"")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Statuses, E> {
        number.to_string().parse().map_err(E::custom)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Statuses, E> {
        text.parse().map_err(E::custom)
    }
}

impl JsonSchema for Statuses {
    fn schema_name() -> Cow<'static, str> {
        "Statuses".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A status such as 204, a range such as \"200-204\", or a class such as \"2xx\".",
            "anyOf": [
                {"type": "integer", "minimum": 100, "maximum": 599},
                {"type": "string", "pattern": "^[1-5]([0-9]{2}(-[1-5][0-9]{2})?|xx)$"}
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_written_alone_in_ranges_and_in_classes_and_written_again_the_same() {
        let json = r#"[200,"3xx","500-503"]"#;
        let all: Vec<Statuses> = serde_json::from_str(json).expect("statuses");
        assert_eq!(serde_json::to_string(&all).expect("json"), json);
        for (status, is_in) in
            [(200, true), (201, false), (300, true), (399, true), (503, true), (504, false)]
        {
            assert_eq!(all.iter().any(|one| one.contains(status)), is_in, "{status}");
        }
        let yaml: Vec<Statuses> = serde_saphyr::from_str("[200, 3xx, 500-503]").expect("statuses");
        assert_eq!(yaml, all);
    }

    #[test]
    fn what_is_no_status_is_refused_with_the_repair() {
        for text in ["99", "600", "0xx", "6xx", "2x", "204-200", "200-", "-200", "ok", "", "99999999999"] {
            let message = text.parse::<Statuses>().expect_err(text).to_string();
            assert!(message.contains("write one such as 204"), "{message}");
        }
    }
}
