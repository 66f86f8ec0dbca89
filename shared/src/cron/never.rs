//! Why an expression never comes, and what its writer may have meant.

use super::{civil::Values, days::DayRule, error::CronError};

/// The months, in English.
pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// The longest each month gets.
const DAYS_MAX: [u16; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// Called only for values that were tried and never come.
pub(super) fn explain(expression: &str, values: &Values) -> CronError {
    let (reason, repair) = day_beyond_month(expression, values).unwrap_or_else(|| {
        (
            "no day from 1970 to 2100 satisfies day-of-month, month, day-of-week and year together"
                .to_owned(),
            "widen one of them".to_owned(),
        )
    });
    CronError::NeverComes { expression: expression.to_owned(), reason, repair }
}

/// The commonest case: a 31st in short months, or a 29 February in years that have none.
fn day_beyond_month(expression: &str, values: &Values) -> Option<(String, String)> {
    let least_of = |rule: &DayRule| if let DayRule::NearestWorkday(day) = rule { Some(*day) } else { None };
    let rules = values.days_of_month.rules.iter().filter_map(least_of);
    let least = values.days_of_month.values.iter().copied().chain(rules).min()?;
    let longest = values.months.iter().map(|month| DAYS_MAX[usize::from(*month - 1)]).max()?;
    let months: Vec<&str> = values.months.iter().map(|month| MONTHS[usize::from(*month - 1)]).collect();
    let (final_month, others) = months.split_last()?;
    let (months, have) = match others {
        [] => ((*final_month).to_owned(), "has"),
        others => (format!("{} and {final_month}", others.join(", ")), "have"),
    };
    let reason = if least > longest {
        let ordinal = if least == 31 { "31st".to_owned() } else { format!("{least}th") };
        format!("{months} {have} no {ordinal}")
    } else if least == 29 && longest == 29 && values.days_of_week.values.len() == 7 {
        "none of its years is a leap year, so there is no 29 February".to_owned()
    } else {
        return None;
    };
    Some((reason, format!("for the last day of the month write {:?}", with_last_day(expression))))
}

fn with_last_day(expression: &str) -> String {
    let mut words: Vec<&str> = expression.split_ascii_whitespace().collect();
    let day_of_month = if words.len() == 5 { 2 } else { 3 };
    if let Some(word) = words.get_mut(day_of_month) {
        *word = "L";
    }
    words.join(" ")
}
