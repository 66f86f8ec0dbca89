//! A schedule in plain words, so that its author sees what was understood before it is saved.

use std::{fmt::Write as _, str::FromStr, time::Duration};

use chrono::SecondsFormat;

use crate::{
    Timestamp,
    after::{After, End},
    bounds::Bounds,
    closed_day::OnClosedDay,
    human_duration::HumanDuration,
    schedule::Schedule,
    when::When,
};

/// A language that is spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Chinese.
    Chinese,
}

/// A language that is not spoken here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not spoken here; write en or zh")]
pub struct LanguageError(String);

impl FromStr for Language {
    type Err = LanguageError;
    fn from_str(text: &str) -> Result<Self, LanguageError> {
        match text {
            "en" => Ok(Language::English),
            "zh" => Ok(Language::Chinese),
            _ => Err(LanguageError(text.to_owned())),
        }
    }
}

impl When {
    /// When it is due, in a sentence: `at 02:00 every day`, `every 12 hours`.
    pub fn in_words(&self, language: Language) -> String {
        let is_english = language == Language::English;
        match self {
            When::Cron(lines) => {
                let words: Vec<String> = lines.iter().map(|line| line.in_words(language)).collect();
                words.join(if is_english { "; " } else { "；" })
            }
            When::Every { interval, phase } => {
                let mut text = match language {
                    Language::English => {
                        let words = english_duration(*interval);
                        // "every hour", not "every 1 hour".
                        let one = words.strip_prefix("1 ").filter(|unit| !unit.contains(' '));
                        format!("every {}", one.unwrap_or(&words))
                    }
                    Language::Chinese => {
                        let words = chinese_duration(*interval);
                        let one = words.strip_prefix("1 ").filter(|unit| !unit.contains(' '));
                        one.map_or_else(|| format!("每 {words}"), |unit| format!("每{unit}"))
                    }
                };
                if !phase.is_zero() {
                    let shift = match language {
                        Language::English => format!(", shifted by {}", english_duration(*phase)),
                        Language::Chinese => format!("，偏移 {}", chinese_duration(*phase)),
                    };
                    text += &shift;
                }
                text
            }
            When::At(at) if is_english => format!("once, at {}", instant(*at)),
            When::At(at) => format!("仅一次，于 {}", instant(*at)),
            When::After(after) => after_words(after, language),
        }
    }
}

impl Schedule {
    /// When it is due, in a sentence, with everything that narrows or shifts it.
    pub fn in_words(&self, language: Language) -> String {
        let mut text = self.when.in_words(language);
        if let Some(bounds) = &self.bounds {
            text += &match language {
                Language::English => english_bounds(bounds),
                Language::Chinese => chinese_bounds(bounds),
            };
        }
        if let Some(calendar) = &self.calendar {
            let moved = self.on_closed_day == OnClosedDay::NextOpenDay;
            let days = match language {
                Language::English if moved => {
                    format!("; on other days than those of {calendar} moved to its next day")
                }
                Language::English => format!("; only on days of {calendar}"),
                Language::Chinese if moved => format!("；非 {calendar} 日历日则顺延至下一个日历日"),
                Language::Chinese => format!("；仅限 {calendar} 日历日"),
            };
            text += &days;
        }
        text
    }
}

fn after_words(After { schedule, on }: &After, language: Language) -> String {
    match (language, on) {
        (Language::English, End::Success) => format!("whenever a run of {schedule} succeeds"),
        (Language::English, End::Failure) => format!("whenever a run of {schedule} fails"),
        (Language::English, End::Always) => format!("whenever a run of {schedule} ends"),
        (Language::Chinese, End::Success) => format!("{schedule} 每次运行成功后"),
        (Language::Chinese, End::Failure) => format!("{schedule} 每次运行失败后"),
        (Language::Chinese, End::Always) => format!("{schedule} 每次运行结束后"),
    }
}

fn english_bounds(bounds: &Bounds) -> String {
    let mut text = String::new();
    if !bounds.jitter.is_zero() {
        let _ = write!(text, "; each shifted by less than {}", HumanDuration(bounds.jitter));
    }
    if let Some(start) = bounds.start {
        let _ = write!(text, "; from {}", instant(start));
    }
    if let Some(end) = bounds.end {
        let _ = write!(text, "; until {}", instant(end));
    }
    if let Some(max_runs) = bounds.max_runs {
        let _ = write!(text, "; {max_runs} times at most");
    }
    if !bounds.exclude.is_empty() {
        let excluded: Vec<String> = bounds.exclude.iter().take(3).map(ToString::to_string).collect();
        let more = if bounds.exclude.len() > 3 { " and others" } else { "" };
        let _ = write!(text, "; not on {}{more}", excluded.join(", "));
    }
    text
}

fn chinese_bounds(bounds: &Bounds) -> String {
    let mut text = String::new();
    if !bounds.jitter.is_zero() {
        let _ = write!(text, "；每次固定推后不到 {}", chinese_duration(bounds.jitter));
    }
    if let Some(start) = bounds.start {
        let _ = write!(text, "；自 {} 起", instant(start));
    }
    if let Some(end) = bounds.end {
        let _ = write!(text, "；至 {} 止", instant(end));
    }
    if let Some(max_runs) = bounds.max_runs {
        let _ = write!(text, "；至多 {max_runs} 次");
    }
    if !bounds.exclude.is_empty() {
        let excluded: Vec<String> = bounds.exclude.iter().take(3).map(ToString::to_string).collect();
        let more = if bounds.exclude.len() > 3 { " 等" } else { "" };
        let _ = write!(text, "；不含 {}{more}", excluded.join("、"));
    }
    text
}

fn instant(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Whole seconds in days, hours, minutes and seconds, without those that are zero.
fn parts(duration: Duration) -> impl Iterator<Item = (u64, usize)> {
    let seconds = duration.as_secs();
    let parts = [seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60];
    parts.into_iter().enumerate().filter(|(_, amount)| *amount > 0).map(|(unit, amount)| (amount, unit))
}

fn english_duration(duration: Duration) -> String {
    let units = ["day", "hour", "minute", "second"];
    let words = parts(duration)
        .map(|(amount, unit)| format!("{amount} {}{}", units[unit], if amount == 1 { "" } else { "s" }));
    words.collect::<Vec<_>>().join(" ")
}

fn chinese_duration(duration: Duration) -> String {
    let units = ["天", "小时", "分钟", "秒"];
    parts(duration).map(|(amount, unit)| format!("{amount} {}", units[unit])).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_said_with_everything_that_narrows_it() {
        let mut table = String::new();
        for fields in [
            r#""every":"12h""#,
            r#""every":"1day""#,
            r#""every":"1s""#,
            r#""every":"1h 30m","phase":"45s""#,
            r#""at":"2026-11-24T02:00:00Z""#,
            r#""cron":["0 2 * * *","0 14 * * MON-FRI"]"#,
            r#""after":{"schedule":"archive"}"#,
            r#""after":{"schedule":"archive","on":"failure"},"end":"2027-12-01T00:00:00Z""#,
            r#""after":{"schedule":"archive","on":"always"},"calendar":"cn_market""#,
            r#""cron":"0 2 * * *","jitter":"10m","start":"2026-12-01T00:00:00Z","end":"2027-12-01T00:00:00Z","max_runs":5"#,
            r#""cron":"0 2 * * *","exclude":["2026-12-24","2026-12-25","2026-12-26","2026-12-27T02:00:00Z"]"#,
            r#""cron":"0 2 * * *","calendar":"cn_market""#,
            r#""cron":"0 2 * * *","calendar":"cn_market","on_closed_day":"next_open_day""#,
        ] {
            let json = format!(r#"{{{fields},"task":{{"target_service":"a","action":"b"}}}}"#);
            let schedule: Schedule =
                serde_json::from_str(&json).unwrap_or_else(|error| panic!("{fields}: {error}"));
            let words = [Language::English, Language::Chinese].map(|language| schedule.in_words(language));
            let _ = writeln!(table, "{fields}\n    {}\n    {}", words[0], words[1]);
        }
        insta::assert_snapshot!(table);
    }
}
