//! The hold on a run: acks-in-progress while it is alive, and the end of the attempt when they do not get through.
//!
//! Promise: a worker that cannot renew has stopped before the server hands the run to another. So it counts from the
//! moment the run came, or from when it *asked* the last time that was confirmed, and stops a margin before the
//! acknowledge wait is over, at that moment, whatever the server says or does not say until then.

use std::time::Duration;

use shared::{
    clock::SharedClock,
    limits::{HEARTBEATS_PER_ACK_WAIT, hold_trusted_for},
};

use crate::running::Place;

/// A renewal that failed is tried again after this, and after twice as long each time: a server without a leader says no
/// at once.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// The longest pause between two of those: a moment in which an election ends must not be missed.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(2);

/// Renews the hold on a run for ever; returns when it is lost. `since` is when the run came, in elapsed time.
pub(crate) async fn keep(place: &Place, clock: &SharedClock, since: Duration, ack_wait: Duration) {
    let mut hold = Hold::new(since, ack_wait, clock.elapsed());
    loop {
        clock.sleep(hold.ask_at.min(hold.lost_at).saturating_sub(clock.elapsed())).await;
        let asked_at = clock.elapsed();
        if asked_at >= hold.lost_at {
            return;
        }
        let Some(delivery) = place.delivery() else { return };
        let is_confirmed = tokio::select! {
            answer = Box::pin(delivery.in_progress()) => answer.is_ok(),
            () = clock.sleep(hold.lost_at.saturating_sub(asked_at)) => return,
        };
        if is_confirmed {
            hold.confirmed(asked_at);
        } else {
            hold.refused(clock.elapsed());
        }
    }
}

/// When to ask, and until when the hold is trusted. Pure; all in elapsed time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hold {
    trusted_for: Duration,
    between: Duration,
    ask_at: Duration,
    /// From then on the run may be another's. Only a confirmation moves it.
    lost_at: Duration,
    ask_again: Duration,
}

impl Hold {
    fn new(since: Duration, ack_wait: Duration, now: Duration) -> Self {
        let trusted_for = hold_trusted_for(ack_wait);
        let between = ack_wait / HEARTBEATS_PER_ACK_WAIT;
        let mut lost_at = since + trusted_for;
        if lost_at <= now {
            // Its claim took longer than is trusted, and yet was the newest: the server's first word decides, and has a moment
            // to come. This once.
            lost_at = now + between;
        }
        Self { trusted_for, between, ask_at: since + between, lost_at, ask_again: ASK_AGAIN }
    }

    fn confirmed(&mut self, asked_at: Duration) {
        self.lost_at = asked_at + self.trusted_for;
        self.ask_at = asked_at + self.between;
        self.ask_again = ASK_AGAIN;
    }

    fn refused(&mut self, now: Duration) {
        self.ask_at = now + self.ask_again;
        self.ask_again = (2 * self.ask_again).min(ASK_AGAIN_MAX).min(self.between.max(ASK_AGAIN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Asks as `keep` does, of a server that gives each ask this answer after this time; when the hold is lost, and how often
    /// it asked. Gives up after a day.
    fn lived(mut hold: Hold, mut answer: impl FnMut(Duration) -> (bool, Duration)) -> (Duration, u32) {
        let mut asks = 0;
        loop {
            let now = hold.ask_at.min(hold.lost_at);
            if now >= hold.lost_at || now > Duration::from_hours(24) {
                return (now, asks);
            }
            asks += 1;
            let (is_confirmed, after) = answer(now);
            if now + after >= hold.lost_at {
                return (hold.lost_at, asks);
            }
            if is_confirmed { hold.confirmed(now) } else { hold.refused(now + after) }
        }
    }

    #[test]
    fn a_hold_that_is_never_confirmed_is_lost_when_two_thirds_of_the_wait_are_over() {
        for ack_wait in [2_000, 6_000, 30_000, 60_000, 3_600_000] {
            for (takes, words) in [(0, "refused at once"), (6_000, "no answer in time"), (7_200_000, "never")]
            {
                let hold = Hold::new(ms(1_000), ms(ack_wait), ms(1_010));
                let (lost_at, asks) = lived(hold, |_| (false, ms(takes)));
                let two_thirds = ms(ack_wait).saturating_sub(ms(ack_wait) / 3);
                assert_eq!(lost_at, ms(1_000) + two_thirds, "{ack_wait} ms, {words}");
                assert!(
                    asks >= 1 && u64::from(asks) < 10 + ack_wait / 2_000,
                    "{ack_wait} ms, {words}: {asks}"
                );
            }
        }
    }

    #[test]
    fn it_counts_from_when_the_last_word_that_was_confirmed_was_asked_for() {
        for takes in [0, 500, 2_000] {
            let hold = Hold::new(ms(0), ms(60_000), ms(0));
            // The server goes away in the middle: what is asked for later is refused at once.
            let (lost_at, _) = lived(hold, |asked_at| (asked_at < ms(40_000), ms(takes)));
            assert_eq!(lost_at, ms(30_000 + 40_000), "answers after {takes} ms");
        }
        let (end, asks) = lived(Hold::new(ms(0), ms(30_000), ms(0)), |_| (true, ms(5_000)));
        assert!(end >= Duration::from_hours(24) && asks == 24 * 3_600_000 / 7_500, "{end:?}, {asks}");
    }

    #[test]
    fn one_word_that_is_lost_costs_nothing_and_is_said_again_soon() {
        let mut asked = Vec::new();
        let (lost_at, _) = lived(Hold::new(ms(0), ms(12_000), ms(0)), |now| {
            asked.push(now);
            (asked.len() == 3, ms(0))
        });
        assert_eq!(asked[..3], [ms(3_000), ms(3_100), ms(3_300)]);
        assert_eq!(lost_at, ms(3_300) + ms(8_000));
    }

    #[test]
    fn a_claim_that_took_longer_than_is_trusted_has_one_moment_for_its_first_word() {
        let late = Hold::new(ms(0), ms(12_000), ms(9_000));
        assert_eq!((late.ask_at, late.lost_at), (ms(3_000), ms(12_000)), "it asks at once");
        let mut kept = late;
        kept.confirmed(ms(9_000));
        assert_eq!(kept.lost_at, ms(17_000));
        let mut refused = late;
        for now in [9_000, 10_000, 11_900] {
            refused.refused(ms(now));
            assert_eq!(refused.lost_at, late.lost_at, "no moment more");
        }
    }
}
