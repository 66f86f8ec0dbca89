//! Why an expression or a zone is refused: the value, the rule, and the repair.

use super::field::Field;

/// An expression that cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Nothing but white space.
    #[error("the cron expression is empty; write five fields, such as \"0 2 * * *\" for 02:00 every day")]
    Empty,
    /// Nobody writes that by hand, and it would cost time to read.
    #[error(
        "the cron expression has {bytes} bytes; at most {max} are allowed: use ranges and steps, or several lines",
        max = super::CronExpr::TEXT_BYTES_MAX
    )]
    TooLong {
        /// What was given.
        bytes: usize,
    },
    /// Fewer than five fields, or more than seven.
    #[error(
        "{expression:?} has {found} field{s}; write 5 (minute hour day-of-month month day-of-week), 6 (second first) \
         or 7 (second first, year last){hint}",
        s = if *.found == 1 { "" } else { "s" }
    )]
    FieldCount {
        /// What was given.
        expression: String,
        /// How many fields it has.
        found: usize,
        /// "; did you mean …", or nothing.
        hint: String,
    },
    /// It would do with five fields, but more follow.
    #[error(
        "{expression:?} has {found} fields; with more than five the first is the second and the sixth the day-of-week, \
         but {item:?} is no {field}; write {repair:?}"
    )]
    MoreThanFive {
        /// What was given.
        expression: String,
        /// How many fields it has.
        found: usize,
        /// The field at fault, if the first is the second.
        field: Field,
        /// The item at fault.
        item: String,
        /// What to write.
        repair: String,
    },
    /// An `@` word that this dialect does not have.
    #[error("{expression:?} is not a cron expression: {repair}")]
    Nickname {
        /// What was given.
        expression: String,
        /// What to write.
        repair: String,
    },
    /// The zone belongs into a field of its own.
    #[error(
        "{expression:?} names its zone in the expression; write `timezone: {zone}` beside `cron:` and leave it out here"
    )]
    ZonePrefix {
        /// What was given.
        expression: String,
        /// The zone it names.
        zone: String,
    },
    /// One item of one field.
    #[error("{expression:?}: the {field} {item:?} {fault}")]
    Field {
        /// The whole expression.
        expression: String,
        /// The field at fault.
        field: Field,
        /// The item at fault.
        item: String,
        /// What is wrong with it.
        fault: Box<FieldFault>,
    },
    /// It means no instant at all.
    #[error("{expression:?} never comes: {reason}; {repair}")]
    NeverComes {
        /// What was given.
        expression: String,
        /// Why not.
        reason: String,
        /// What to write.
        repair: String,
    },
    /// The engine refused what this module handed it: a fault of Cronfleet, not of the writer.
    #[error(
        "{expression:?} is valid, but the engine refused it as {handed:?} ({reason}); please report this"
    )]
    Engine {
        /// What was given.
        expression: String,
        /// What the engine was handed.
        handed: String,
        /// What it said.
        reason: String,
    },
}

/// What is wrong with one item of one field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldFault {
    /// Two commas in a row, or one at an end.
    #[error("has an empty item: write a value on both sides of each comma, and no spaces around it")]
    EmptyItem,
    /// Below the least or above the greatest value.
    #[error("is out of range: {value} must be from {min} to {max}{names}{hint}")]
    OutOfRange {
        /// What was given.
        value: String,
        /// The least value.
        min: u16,
        /// The greatest value.
        max: u16,
        /// The names that may be written instead, or nothing.
        names: &'static str,
        /// What was probably meant, or nothing.
        hint: &'static str,
    },
    /// Neither a number nor a name.
    #[error("is not understood: {value:?} is no value of this field; write {allowed}{hint}")]
    NotAValue {
        /// What was given.
        value: String,
        /// What may be written.
        allowed: String,
        /// "; did you mean …", or nothing.
        hint: String,
    },
    /// From greater to less.
    #[error("runs backwards: a range goes from the lesser to the greater value; write {repair:?}")]
    Backwards {
        /// What to write.
        repair: String,
    },
    /// `/0`, or `/` and no number.
    #[error("has no usable step: {step:?} is not a whole number of at least 1; for every value leave it out")]
    Step {
        /// What was given.
        step: String,
    },
    /// A step after which nothing follows.
    #[error("steps beyond its range: the greatest step here is {max}; write {repair}")]
    StepBeyondRange {
        /// The greatest step that reaches a second value.
        max: u16,
        /// What to write.
        repair: String,
    },
    /// `?` with company, or where no day is named.
    #[error("cannot be used here: ? stands alone, in day-of-month or day-of-week; write *")]
    QuestionMark,
    /// `L`, `W` or `#` where they mean nothing, or together with a range or a step.
    #[error("cannot be used here: {rule}")]
    Special {
        /// Where it may be used, or what to write.
        rule: &'static str,
    },
}

/// A zone nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{zone:?} is not a time zone of the IANA database (version {version}); write a name such as Europe/Paris or UTC{hint}", version = super::tzdb_version())]
pub struct ZoneError {
    /// What was given.
    pub zone: String,
    /// "; did you mean …", or nothing.
    pub hint: String,
}
