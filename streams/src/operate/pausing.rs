//! Pausing a schedule, and resuming it.

use shared::{
    Timestamp,
    names::Name,
    pause::{Pause, PauseEpoch, PauseInForce, PauseState},
};

use super::patiently;
use crate::{Streams, WriteError};

/// What a `pause` does.
#[derive(Debug, PartialEq, Eq)]
pub enum Wish {
    /// It is paused just so, or nothing else was asked for.
    IsPaused(PauseInForce),
    /// It is to be paused so.
    Pause(Pause),
}

/// What to do about what is there. A bare `pause` takes nobody's reason away.
pub fn wish(
    found: Option<PauseInForce>,
    reason: Option<String>,
    until: Option<Timestamp>,
    by: String,
) -> Wish {
    match found {
        Some(found)
            if (reason.is_none() || reason == found.pause.reason)
                && (until.is_none() || until == found.pause.until) =>
        {
            Wish::IsPaused(found)
        }
        Some(found) => {
            let (reason, until) = (reason.or(found.pause.reason), until.or(found.pause.until));
            Wish::Pause(Pause { by, reason, until })
        }
        None => Wish::Pause(Pause { by, reason, until }),
    }
}

/// Changes what was said of a schedule's pause, over exactly what was read: what it was, and what was written, if
/// anything.
pub async fn change(
    streams: &Streams,
    name: &Name,
    decide: impl Fn(&PauseEpoch) -> Option<PauseState>,
) -> Result<(PauseEpoch, Option<PauseState>), WriteError> {
    let (schedules, decide) = (streams.schedules(), &decide);
    let changed = patiently(streams.clock().as_ref(), || async {
        let found =
            schedules.pause(name).await.map_err(|_| WriteError::Unknown { what: name.to_string() })?;
        let wanted = decide(&found);
        if let Some(state) = &wanted {
            schedules.say_pause(name, state, found.revision).await?;
        }
        Ok((found, wanted))
    });
    changed.await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-24T{text}Z").parse().expect("instant")
    }

    #[test]
    fn pausing_what_is_paused_takes_nobodys_reason_away() {
        let anns = Pause { by: "ann".into(), reason: Some("disk".into()), until: Some(at("06:00:00")) };
        let found = || Some(PauseInForce { since: at("01:00:00"), pause: anns.clone() });
        let bobs = |reason: Option<&str>, until: Option<&str>| {
            wish(found(), reason.map(str::to_owned), until.map(at), "bob".to_owned())
        };
        let is_paused = || Wish::IsPaused(found().expect("paused"));
        assert_eq!(bobs(None, None), is_paused());
        assert_eq!(bobs(Some("disk"), None), is_paused());
        let longer = Pause { by: "bob".into(), until: Some(at("09:00:00")), ..anns.clone() };
        assert_eq!(bobs(None, Some("09:00:00")), Wish::Pause(longer));
        let fresh = wish(None, None, None, "bob".to_owned());
        assert_eq!(fresh, Wish::Pause(Pause { by: "bob".into(), reason: None, until: None }));
    }
}
