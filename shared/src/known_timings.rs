//! The timings that are in use, each read and kept once, however many schedules say it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use crate::{
    schedule::ScheduleError,
    timing::{Timing, TimingFields},
};

/// Forgotten ones are not looked for while there are fewer than this.
const SWEPT_MIN: usize = 1_024;

/// The timings that somebody uses. Cheap to clone; all clones know the same.
///
/// It holds none of them itself: with the last schedule that has it a timing is gone. What is left of it then, the fields it was
/// read from, is swept away when as many again have come.
#[derive(Debug, Clone, Default)]
pub struct KnownTimings {
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    timings: HashMap<TimingFields, Weak<Timing>>,
    /// How many there may be before the next sweep.
    room: usize,
}

impl KnownTimings {
    /// The timing that these fields mean: read now, or before for somebody who still has it.
    pub fn get(&self, fields: TimingFields) -> Result<Arc<Timing>, ScheduleError> {
        if fields.are_simple() {
            return Ok(Arc::new(fields.try_into()?));
        }
        if let Some(known) = self.lock(|known| known.timings.get(&fields).and_then(Weak::upgrade)) {
            return Ok(known);
        }
        // Not under the lock: others need not wait for it. Of two that read the same at once the first is kept.
        let read = Arc::new(Timing::try_from(fields.clone())?);
        Ok(self.lock(|known| known.keep(fields, read)))
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.lock(|known| known.timings.values().filter(|timing| timing.strong_count() > 0).count())
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock<T>(&self, work: impl FnOnce(&mut Known) -> T) -> T {
        work(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Known {
    fn keep(&mut self, fields: TimingFields, read: Arc<Timing>) -> Arc<Timing> {
        if self.timings.len() >= self.room.max(SWEPT_MIN) {
            self.timings.retain(|_, timing| timing.strong_count() > 0);
            self.room = 2 * self.timings.len();
        }
        let place = self.timings.entry(fields).or_default();
        place.upgrade().unwrap_or_else(|| {
            *place = Arc::downgrade(&read);
            read
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{definition::Definition, names::Name};

    fn definition(known: &KnownTimings, name: &str, fields: &str) -> Definition {
        let name: Name = name.parse().expect("name");
        let json = format!(r#"{{{fields},"task":{{"target_service":"a","action":"b"}}}}"#);
        Definition::read(&name, json.as_bytes(), known).expect(fields)
    }

    #[test]
    fn schedules_that_say_it_in_the_same_words_share_when_they_are_due() {
        let known = KnownTimings::default();
        let nightly = r#""cron":"0 2 * * *","timezone":"Asia/Shanghai""#;
        let one = definition(&known, "one", nightly);
        let other = definition(&known, "other", &format!(r#""queue":"reports",{nightly},"overlap":"allow""#));
        assert!(std::ptr::eq(one.timing(), other.timing()));
        for different in [
            r#""cron":"0 2 * * *""#,
            r#""cron":"0 2 * * *","timezone":"Asia/Shanghai","dst":{"fold":"both"}"#,
            r#""cron":"0 2 * * *","timezone":"Asia/Shanghai","end":"2027-01-01T00:00:00Z""#,
            r#""cron":"0 2 * * *","timezone":"Asia/Shanghai","calendar":"c","on_closed_day":"next_open_day""#,
        ] {
            assert!(
                !std::ptr::eq(one.timing(), definition(&known, "one", different).timing()),
                "{different}"
            );
        }
        assert_eq!(known.len(), 1, "those that nobody has any more are not known");
    }

    #[test]
    fn what_is_spread_by_the_name_is_read_once_and_spread_for_each() {
        let known = KnownTimings::default();
        let daily = r#""cron":"H H * * *""#;
        let (one, other) = (definition(&known, "one", daily), definition(&known, "other", daily));
        assert_eq!(known.len(), 1);
        let after = "2026-11-24T00:00:00Z".parse().expect("instant");
        assert_ne!(one.timing().next_after(after), other.timing().next_after(after));
        assert_eq!(
            one.schedule().expect("read before").timing.next_after(after),
            one.timing().next_after(after)
        );
    }

    #[test]
    fn a_timing_is_gone_with_the_last_schedule_that_has_it_and_what_is_left_of_it_is_swept_away() {
        let known = KnownTimings::default();
        let kept = definition(&known, "kept", r#""cron":"0 2 * * *""#);
        for second in 0..10_000 {
            let fields = format!(r#""cron":"{} {} * * * *""#, second % 60, second / 60 % 60);
            drop(definition(
                &known,
                "gone",
                &format!(r#"{fields},"max_runs":{},"start":"2026-11-24T00:00:00Z""#, 1 + second / 3_600),
            ));
        }
        assert_eq!(known.len(), 1);
        assert!(known.lock(|known| known.timings.len()) <= SWEPT_MIN + 1);
        assert!(std::ptr::eq(kept.timing(), definition(&known, "again", r#""cron":"0 2 * * *""#).timing()));
    }
}
