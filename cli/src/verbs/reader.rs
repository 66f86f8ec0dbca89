//! Who reads: the zone of their clock, and their language.
//!
//! Both are taken from what is asked for, then from the environment, then from the machine. Whatever stands there, the
//! answer is a zone and a language, never an error: a reader with an odd `TZ` still gets their slots.

use std::ffi::OsString;

use chrono_tz::Tz;
use shared::{cron::parse_zone, words::Language};

/// The zone of the reader's clock, and a remark if it is not what was meant.
pub fn zone(asked: Option<Tz>) -> (Tz, Option<String>) {
    let machine = || std::fs::read_link("/etc/localtime").ok().map(std::path::PathBuf::into_os_string);
    zone_of(asked, std::env::var_os("TZ"), machine)
}

fn zone_of(
    asked: Option<Tz>,
    variable: Option<OsString>,
    machine: impl FnOnce() -> Option<OsString>,
) -> (Tz, Option<String>) {
    match (asked, variable) {
        (Some(zone), _) => (zone, None),
        // POSIX: set and empty is UTC.
        (None, Some(text)) => named(&text).map_or_else(
            || {
                let remark = format!(
                    "TZ is {:?}, which names no zone of the IANA database; your time is shown as UTC: write --reader-zone",
                    text.to_string_lossy()
                );
                (Tz::UTC, Some(remark))
            },
            |zone| (zone, None),
        ),
        // A machine that does not say is one in UTC, as most containers are.
        (None, None) => (machine().and_then(|text| named(&text)).unwrap_or(Tz::UTC), None),
    }
}

/// `Europe/Paris`, `:Europe/Paris` or `/usr/share/zoneinfo/Europe/Paris`.
fn named(text: &OsString) -> Option<Tz> {
    let text = text.to_str()?;
    let text = text.strip_prefix(':').unwrap_or(text);
    let name = text.split_once("zoneinfo/").map_or(text, |(_, name)| name);
    let name = name.strip_prefix("posix/").or_else(|| name.strip_prefix("right/")).unwrap_or(name);
    if name.is_empty() { Some(Tz::UTC) } else { parse_zone(name).ok() }
}

/// The language the reader is spoken to in.
pub fn language(asked: Option<Language>) -> Language {
    language_of(asked, |name| std::env::var_os(name))
}

fn language_of(asked: Option<Language>, variable: impl Fn(&str) -> Option<OsString>) -> Language {
    // The first that is set and not empty counts, as for every program.
    let set =
        ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().filter_map(variable).find(|value| !value.is_empty());
    let is_chinese = set.is_some_and(|value| value.to_string_lossy().starts_with("zh"));
    asked.unwrap_or(if is_chinese { Language::Chinese } else { Language::English })
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn a_reader_has_a_zone_whatever_the_environment_says() {
        for (variable, expected, has_remark) in [
            (Some("Europe/Paris"), Tz::Europe__Paris, false),
            (Some(":Asia/Shanghai"), Tz::Asia__Shanghai, false),
            (Some("/usr/share/zoneinfo/America/New_York"), Tz::America__New_York, false),
            (Some("posix/Asia/Tokyo"), Tz::Asia__Tokyo, false),
            (Some(""), Tz::UTC, false),
            (Some("CET-1CEST,M3.5.0,M10.5.0/3"), Tz::UTC, true),
            (Some("Mars/Olympus"), Tz::UTC, true),
            (Some("\0\u{1b}[31m"), Tz::UTC, true),
            (None, Tz::Africa__Cairo, false),
        ] {
            let machine = || Some("/usr/share/zoneinfo/Africa/Cairo".into());
            let (zone, remark) = zone_of(None, variable.map(Into::into), machine);
            assert_eq!((zone, remark.is_some()), (expected, has_remark), "{variable:?}");
        }
        let bytes = OsString::from_vec(vec![0xff, 0xfe]);
        assert_eq!(zone_of(None, Some(bytes.clone()), || None).0, Tz::UTC);
        assert_eq!(zone_of(Some(Tz::Asia__Tokyo), Some(bytes), || None), (Tz::Asia__Tokyo, None));
        assert_eq!(zone_of(None, None, || None), (Tz::UTC, None));
    }

    #[test]
    fn a_reader_is_spoken_to_in_the_language_of_their_locale() {
        let of = |asked, set: &[(&str, &str)]| {
            language_of(asked, |name| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into())
            })
        };
        assert_eq!(of(None, &[("LANG", "zh_CN.UTF-8")]), Language::Chinese);
        assert_eq!(of(None, &[("LANG", "zh_CN.UTF-8"), ("LC_ALL", "C")]), Language::English);
        assert_eq!(of(None, &[("LANG", "zh_CN.UTF-8"), ("LC_ALL", "")]), Language::Chinese);
        assert_eq!(of(Some(Language::English), &[("LANG", "zh_CN.UTF-8")]), Language::English);
        assert_eq!(of(None, &[("LANG", "fr_FR")]), Language::English);
        assert_eq!(of(None, &[]), Language::English);
    }
}
