//! Parts that end by themselves, with an error or a panic, are started again after a growing wait, and it is said.

use std::time::Duration;

use shared::{clock::SharedClock, human_duration::HumanDuration};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::talk::Talk;

const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Whatever ran this long has recovered: its next end is a new story.
const CALM: Duration = Duration::from_mins(1);

/// How long to wait before something is started again: doubling, bounded, and short again after a long quiet run.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// The wait after it ran for this long.
    pub(super) fn after(&mut self, ran: Duration) -> Duration {
        let wait = match self.last {
            Some(last) if ran < CALM => (last * 2).min(WAIT_MAX),
            _ => WAIT_MIN,
        };
        self.last = Some(wait);
        wait
    }
}

/// Runs a part until it is told to stop; starts it again as often as it ends before.
///
/// The part itself watches `stop`, or something that is cancelled with it, and returns when it has stopped.
pub(super) async fn supervise<Start, Part>(
    name: String,
    talk: Talk,
    clock: SharedClock,
    stop: CancellationToken,
    mut start: Start,
) where
    Start: FnMut() -> Part,
    Part: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let mut backoff = Backoff::default();
    while !stop.is_cancelled() {
        let started = clock.elapsed();
        // A task of its own, so that a panic ends the part and not us; dropped with us, so that nothing is left.
        let ended = AbortOnDropHandle::new(tokio::spawn(start())).await;
        let how = match ended {
            Ok(Ok(())) if stop.is_cancelled() => return,
            Ok(Ok(())) => "ended without being told to".to_owned(),
            Ok(Err(error)) => format!("ended: {error:#}"),
            Err(panic) => format!("ended: {panic}"),
        };
        if stop.is_cancelled() {
            talk.say(format!("{name} {how}"));
            return;
        }
        let wait = backoff.after(clock.elapsed().saturating_sub(started));
        talk.say(format!("{name} {how}; starting it again in {}", HumanDuration(wait)));
        tokio::select! {
            () = stop.cancelled() => {}
            () = clock.sleep(wait) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use shared::clock::{Clock as _, ManualClock};

    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_bound_and_is_short_again_after_a_long_quiet_run() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..7).map(|_| backoff.after(Duration::ZERO).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff.after(CALM), WAIT_MIN);
    }

    #[tokio::test]
    async fn a_part_that_fails_or_panics_is_started_again_until_it_is_told_to_stop() {
        let clock = ManualClock::at("2026-01-01T00:00:00Z".parse().expect("instant"));
        let (stop, starts) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let (token, count) = (stop.clone(), Arc::clone(&starts));
        let part = move || {
            let (token, number) = (token.clone(), count.fetch_add(1, Ordering::SeqCst));
            async move {
                match number {
                    0 => anyhow::bail!("the first time it fails"),
                    1 => panic!("the second time it panics"),
                    _ => token.cancelled().await,
                }
                Ok(())
            }
        };
        let shared: SharedClock = clock.clone();
        let talk = Talk::new(Arc::clone(&shared));
        let supervisor = tokio::spawn(supervise("part".to_owned(), talk, shared, stop.clone(), part));
        while starts.load(Ordering::SeqCst) < 3 {
            clock.advance(Duration::from_millis(100));
            tokio::task::yield_now().await;
        }
        stop.cancel();
        supervisor.await.expect("the supervisor");
        assert_eq!(starts.load(Ordering::SeqCst), 3);
        assert_eq!(clock.elapsed().as_secs(), 3, "one second after the first end, two after the second");
    }
}
