//! Cron lines as Quartz writes them, as Unix cron means them.
//!
//! Quartz counts weekdays from Sunday, which is 1; lets ranges wrap; and wants `?` in one of the two day fields. Here Sunday is 0,
//! ranges do not wrap, and a `*` in one day field leaves the choice to the other: the same days.

/// A field: its name, its least and its greatest value, and its words, if it has any.
struct Field {
    name: &'static str,
    least: u32,
    greatest: u32,
    words: &'static [&'static str],
}

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
const FIELDS: [Field; 7] = [
    Field { name: "second", least: 0, greatest: 59, words: &[] },
    Field { name: "minute", least: 0, greatest: 59, words: &[] },
    Field { name: "hour", least: 0, greatest: 23, words: &[] },
    Field { name: "day-of-month", least: 1, greatest: 31, words: &[] },
    Field { name: "month", least: 1, greatest: 12, words: &MONTHS },
    // As Quartz counts them.
    Field { name: "day-of-week", least: 1, greatest: 7, words: &DAYS },
    Field { name: "year", least: 1970, greatest: 2100, words: &[] },
];
const DAY_OF_MONTH: usize = 3;
const DAY_OF_WEEK: usize = 5;

/// A line of Quartz as one of ours: with five fields if it comes at second 0 in every year.
pub(super) fn to_unix(line: &str) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if !(6..=7).contains(&words.len()) {
        return Err(format!("{line:?} has {} fields; Quartz writes 6, or 7 with the year", words.len()));
    }
    let both = |word: &str| word != "?" && word != "*";
    if both(words[DAY_OF_MONTH]) && both(words[DAY_OF_WEEK]) {
        return Err(format!(
            "{line:?} restricts both day fields, which Quartz refuses; write ? in one of them"
        ));
    }
    let mut fields = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let items: Result<Vec<String>, String> = word.split(',').map(|text| item(index, text)).collect();
        fields.push(items.map_err(|reason| format!("{line:?}: {reason}"))?.join(","));
    }
    if fields.get(6).is_some_and(|year| year == "*") {
        fields.truncate(6);
    }
    let is_short = fields.len() == 6 && fields[0] == "0";
    Ok(fields[usize::from(is_short)..].join(" "))
}

fn item(index: usize, text: &str) -> Result<String, String> {
    let field = &FIELDS[index];
    let text = text.to_ascii_uppercase();
    if text == "?" || text == "*" {
        return Ok("*".to_owned());
    }
    if index == DAY_OF_MONTH && (text.starts_with('L') || text.ends_with('W')) {
        return Ok(text);
    }
    if index == DAY_OF_WEEK {
        if text == "L" {
            // The last day of Quartz's week.
            return Ok("6".to_owned());
        }
        if let Some(day) = text.strip_suffix('L') {
            return Ok(format!("{}L", DAYS[value(field, day)? as usize - 1]));
        }
        if let Some((day, which)) = text.split_once('#') {
            return Ok(format!("{}#{which}", DAYS[value(field, day)? as usize - 1]));
        }
    }
    let (range, step) = match text.split_once('/') {
        Some((range, step)) => {
            (range, Some(step.parse::<u32>().map_err(|_| format!("step {step:?} is no number"))?))
        }
        None => (text.as_str(), None),
    };
    let (from, to) = match range.split_once('-') {
        Some((from, to)) => (value(field, from)?, value(field, to)?),
        None if range == "*" || range.is_empty() => (field.least, field.greatest),
        None if step.is_some() => (value(field, range)?, field.greatest),
        None => (value(field, range)?, value(field, range)?),
    };
    written(index, from, to, step.unwrap_or(1))
}

/// A value, as a number or a word.
fn value(field: &Field, text: &str) -> Result<u32, String> {
    let of_word = field.words.iter().position(|word| *word == text).map(|index| index as u32 + field.least);
    let value = of_word.or_else(|| text.parse().ok());
    value
        .filter(|value| (field.least..=field.greatest).contains(value))
        .ok_or_else(|| format!("{} {text:?} is not one of {} to {}", field.name, field.least, field.greatest))
}

/// A range with its step, as ours are written.
fn written(index: usize, from: u32, to: u32, step: u32) -> Result<String, String> {
    let field = &FIELDS[index];
    // Sunday is 1 there and 0 here.
    let ours = |value: u32| if index == DAY_OF_WEEK { value - 1 } else { value };
    let size = field.greatest - field.least + 1;
    if step == 0 {
        return Err(format!("step 0 in {} never comes anywhere", field.name));
    }
    if from > to {
        if index == FIELDS.len() - 1 {
            return Err(format!("years {from}-{to} run backwards"));
        }
        let offsets = (0..=to + size - from).step_by(step as usize);
        let values =
            offsets.map(|offset| ours((from - field.least + offset) % size + field.least).to_string());
        return Ok(values.collect::<Vec<_>>().join(","));
    }
    let (first, last) = (ours(from), ours(to));
    let is_whole = (from, to) == (field.least, field.greatest);
    Ok(match step {
        _ if to - from < step => first.to_string(),
        // A star, so that it goes on by the wall clock where clocks are set, as it does there.
        1 if is_whole => "*".to_owned(),
        1 => format!("{first}-{last}"),
        _ if is_whole => format!("*/{step}"),
        _ => format!("{first}-{last}/{step}"),
    })
}

#[cfg(test)]
mod tests {
    use shared::cron::CronExpr;

    use super::*;

    #[test]
    fn a_line_of_quartz_means_the_same_here() {
        for (quartz, unix) in [
            ("0 0 2 * * ?", "0 2 * * *"),
            ("0 0/5 * * * ?", "*/5 * * * *"),
            ("0 */10 * * * ? *", "*/10 * * * *"),
            ("*/30 * * * * ?", "*/30 * * * * *"),
            ("0 0 0 ? * 1", "0 0 * * 0"),
            ("0 0 9 ? * 2-6", "0 9 * * 1-5"),
            ("0 0 9 ? * MON-FRI", "0 9 * * 1-5"),
            ("0 0 9 ? * FRI-MON", "0 9 * * 5,6,0,1"),
            ("0 0 22-2 * * ?", "0 22,23,0,1,2 * * *"),
            ("0 0 22-3/2 * * ?", "0 22,0,2 * * *"),
            ("0 0 3 L * ?", "0 3 L * *"),
            ("0 0 3 LW * ?", "0 3 LW * *"),
            ("0 0 3 15W * ?", "0 3 15W * *"),
            ("0 0 3 ? * 6L", "0 3 * * FRIL"),
            ("0 0 3 ? * 2#1", "0 3 * * MON#1"),
            ("0 0 3 ? * L", "0 3 * * 6"),
            ("0 0/60 * * * ?", "0 * * * *"),
            ("0 15 10 * * ? 2027", "0 15 10 * * * 2027"),
            ("0 0 0 1 1/3 ?", "0 0 1 */3 *"),
            ("0 0 0 ? * 2/2", "0 0 * * 1-6/2"),
        ] {
            assert_eq!(to_unix(quartz).as_deref(), Ok(unix), "{quartz}");
            assert!(unix.parse::<CronExpr>().is_ok(), "{unix}");
        }
    }

    #[test]
    fn what_quartz_would_refuse_is_refused_with_the_reason() {
        for (line, part) in [
            ("0 2 * * *", "has 5 fields"),
            ("0 0 0 1 * 2", "both day fields"),
            ("0 0 0 ? * 8", "not one of 1 to 7"),
            ("0 0/0 * * * ?", "step 0"),
            ("0 0/x * * * ?", "no number"),
        ] {
            let error = to_unix(line).expect_err(line);
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
