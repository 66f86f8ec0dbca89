//! Unix cron, exactly: what an expression means, in which zone, and on the days when clocks are set.
//!
//! # The model
//!
//! An expression is a set of civil times: what a wall calendar and a wall clock show. A zone says which instants show
//! them: mostly one, none in a *gap* (clocks set forward), two in a *fold* (clocks set back). A [`DstPolicy`] chooses
//! among these. The result is a strictly increasing row of instants in UTC, the slots.
//!
//! # The promise
//!
//! - What cannot be planned is refused when it is parsed, with the value, the rule and the repair; so is what never
//!   comes, such as `0 0 31 2 *`. What was parsed is valid everywhere.
//! - [`CronExpr::next_after`] gives an instant strictly after the one it is asked about, and whoever goes on from each
//!   answer sees every slot once, in order, wherever the row was entered. It keeps nothing between two calls.
//! - The same text, zone, policy, seed and [`tzdb_version`] give the same slots on every machine.
//!
//! # The dialect
//!
//! ```text
//! 5 fields          minute hour day-of-month month day-of-week
//! 6 fields   second minute hour day-of-month month day-of-week
//! 7 fields   second minute hour day-of-month month day-of-week year
//! ```
//!
//! | written | where | meaning |
//! |---|---|---|
//! | `*` | all | every value |
//! | `a`, `a-b`, `a,b-c` | all | a value, a range, a list; names `JAN`…`DEC`, `SUN`…`SAT` in either case |
//! | `*/n`, `a-b/n`, `a/n` | all | every n-th, from the first; `a/n` goes from `a` to the greatest value |
//! | `?` | days | the same as `*` |
//! | `L`, `L-n` | day-of-month | the last day of the month, n days before it |
//! | `LW`, `nW` | day-of-month | the last workday (Monday to Friday), the workday nearest to the n-th in its month |
//! | `d#n`, `dL` | day-of-week | the n-th (1 to 5) or the last such weekday of the month: `MON#2`, `FRIL` |
//! | `H`, `H(a-b)`, `a~b`, `~` | all but year | one value, spread by the schedule's name: see [`CronExpr::with_seed`] |
//! | `H/n`, `H(a-b)/n`, `a~b/n` | all but year | every n-th, from a first that is spread by the name |
//! | `@hourly @daily @midnight @weekly @monthly @yearly @annually` | alone | as everywhere, in either case |
//!
//! Sunday is 0 and 7; a range may end with it (`6-7`, `SAT-SUN`). Day-of-month and day-of-week are joined by OR when
//! both are restricted, else by AND; a field whose text starts with `*` counts as not restricted, even `*/2`.
//! The years are 1970 to 2100.
//!
//! # Where clocks are set
//!
//! | | `gap: run_after` | `gap: skip` |
//! |---|---|---|
//! | slots in a gap | come once, at the first instant after it | do not come |
//!
//! | | `fold: first` | `fold: last` | `fold: both` |
//! |---|---|---|---|
//! | slots in a fold | come in the first pass | come in the second pass | come in both |
//!
//! Left out, Vixie's rule holds: if the minute or hour field starts with `*` the expression follows the wall clock
//! (`skip`, `both`), else it comes as often as it is written (`run_after`, `first`).
//!
//! # Where other crons differ
//!
//! - Quartz, and the `cron` crate that counts for us: weekday 1 is Sunday, and both day fields must be satisfied. Here 1
//!   is Monday. See `civil.rs` for how the crate is kept from deciding that.
//! - `croner`: `*/2` in a day field counts as restricted (OR); empty list items and `*/60` are accepted; `a/n`, `L-n` and
//!   `*` within a list are refused; `SUN-SUN` is the whole week. It takes the default policy of one time of day only where
//!   second, minute and hour are single values.
//! - Vixie and cronie treat clock changes as above, but take a change of three hours or more for a correction of the
//!   clock. Here every change of a zone's clocks is one.
//! - Most schedulers give no choice about clocks.
//! - Jenkins: `H` is the same idea with another hash. `H` in day-of-month is 1 to 28 in both.
//! - Not accepted here, each with a repair in the refusal: ranges that wrap (`22-2`), steps that reach no second value
//!   (`*/60`), `TZ=` in the expression, `@reboot`, `@every`, `L` alone as a weekday, `L-3W`.
//!
//! # The limit
//!
//! An expression has at most [`CronExpr::TEXT_BYTES_MAX`] bytes. Slots end with the year 2100, and the zone database
//! carries no rules for clocks beyond 2099.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::Arc,
};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod civil;
mod days;
mod dst;
mod error;
mod field;
mod item;
mod never;
mod parse;
mod words;
mod zone;

#[cfg(test)]
mod refusal_tests;
#[cfg(test)]
mod slot_tests;

pub use dst::{DstPolicy, FoldPolicy, GapPolicy};
pub use error::{CronError, FieldFault, ZoneError};
pub use field::Field;
pub(crate) use zone::{DAY_S, instants_of};
pub use zone::{parse_zone, tzdb_version};

use civil::{CivilSlots, Values};
use days::DayField;
use item::Item;
use parse::Written;

/// A cron expression that comes at least once between 1970 and 2100.
///
/// Two expressions are equal if they mean the same slots, however they are written: `@daily` equals `0 0 * * *`.
/// Cheap to clone.
#[derive(Clone)]
pub struct CronExpr(Arc<Compiled>);

struct Compiled {
    text: Box<str>,
    /// The fields with their values resolved, and how they treat clocks by default: the same for the same slots.
    normal_text: Box<str>,
    slots: CivilSlots,
    follows_wall_clock: bool,
    /// What its spreads were chosen by, if it has any.
    seed: Option<Box<str>>,
}

impl CronExpr {
    /// The longest expression that is read.
    pub const TEXT_BYTES_MAX: usize = 256;

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// The first slot strictly after an instant; none if there is none before the year 2101.
    pub fn next_after(&self, after: DateTime<Utc>, zone: Tz, dst: DstPolicy) -> Option<DateTime<Utc>> {
        let policy = dst.resolve(self.0.follows_wall_clock);
        // Slots are whole seconds, so a part of a second after one is after it.
        dst::next_slot(&self.0.slots, after.timestamp(), zone, policy).and_then(dst::instant)
    }

    /// The same expression with its spreads (`H`, `~`) chosen by this seed, by a hash that never changes.
    ///
    /// Without a seed the expression's own text is the seed. If a seed leads to days that never come, as one of ten
    /// may for `0 0 0 H(20-29) 2 * 2027`, the choice made without a seed stays.
    #[must_use]
    pub fn with_seed(self, seed: &str) -> Self {
        if self.0.seed.is_none() {
            return self;
        }
        Compiled::new(&self.0.text, seed).map_or(self, |seeded| Self(Arc::new(seeded)))
    }

    /// Whether it has spreads (`H`, `~`): then its slots also follow from a seed.
    pub fn is_spread(&self) -> bool {
        self.0.seed.is_some()
    }

    /// Whether the minute or hour field starts with `*`: Vixie's sign that it means the wall clock, not a time of day.
    pub fn follows_wall_clock(&self) -> bool {
        self.0.follows_wall_clock
    }
}

impl Compiled {
    fn new(text: &str, seed: &str) -> Result<Compiled, CronError> {
        let fields = parse::parse(text)?;
        let [second, minute, hour, day_of_month, month, day_of_week, year] = &fields;
        let values = |field: Field, written: &Written| {
            let mut values = BTreeSet::new();
            for (index, item) in written.items.iter().enumerate() {
                item.add_values(field, index, seed, &mut values);
            }
            values
        };
        let days = |field: Field, written: &Written| {
            let rule = |item: &Item| match item {
                Item::Rule(rule) => Some(*rule),
                Item::Steps { .. } | Item::Spread { .. } => None,
            };
            DayField {
                values: values(field, written),
                rules: written.items.iter().filter_map(rule).collect(),
            }
        };
        let values = Values {
            seconds: values(Field::Second, second),
            minutes: values(Field::Minute, minute),
            hours: values(Field::Hour, hour),
            days_of_month: days(Field::DayOfMonth, day_of_month),
            months: values(Field::Month, month),
            days_of_week: days(Field::DayOfWeek, day_of_week),
            years: values(Field::Year, year),
            either_day: !day_of_month.starred && !day_of_week.starred,
        };
        let slots = CivilSlots::new(text.trim(), &values)?;
        if slots.first_from(0).is_none() {
            return Err(never::explain(text.trim(), &values));
        }
        let follows_wall_clock = minute.starred || hour.starred;
        let is_spread = |item: &Item| matches!(item, Item::Spread { .. });
        let has_spread = fields.iter().flat_map(|field| &field.items).any(is_spread);
        let clock = if follows_wall_clock { "wall clock" } else { "time of day" };
        Ok(Compiled {
            text: text.into(),
            normal_text: format!("{} {clock}", values.normal_text()).into(),
            slots,
            follows_wall_clock,
            seed: has_spread.then(|| seed.into()),
        })
    }
}

impl FromStr for CronExpr {
    type Err = CronError;
    fn from_str(text: &str) -> Result<Self, CronError> {
        Ok(Self(Arc::new(Compiled::new(text, text)?)))
    }
}

impl fmt::Display for CronExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for CronExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CronExpr({:?})", self.as_str())
    }
}

impl PartialEq for CronExpr {
    fn eq(&self, other: &Self) -> bool {
        self.0.normal_text == other.0.normal_text
    }
}

impl Eq for CronExpr {}

impl Hash for CronExpr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.normal_text.hash(state);
    }
}

impl Serialize for CronExpr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for CronExpr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for CronExpr {
    fn schema_name() -> Cow<'static, str> {
        "CronExpr".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": Self::TEXT_BYTES_MAX,
            "description": "Unix cron: minute hour day-of-month month day-of-week; six fields have the second first, \
                            seven also have the year last. Sunday is 0 and 7.",
            "examples": ["0 2 * * *", "*/30 * * * *", "0 18 LW * *", "H H(1-5) * * MON-FRI"],
        })
    }
}
