//! Limits that hold over the whole fleet: per target, per key, and by rate.
//!
//! A run asks before it is claimed. If a gate is closed it goes out of its queue into the waiting room, PENDING or RETRY with
//! reason `limited`, its attempt unspent, and holds neither a place of its worker nor one of its queue. Whoever leaves a
//! gate lets one go.
//!
//! Promise: never more *live attempts* than a limit says, whatever workers die, stand still or are cut off: a permit is
//! freed by whoever took it, once the attempt has ended, or by others once the attempt's hold is over for certain. A
//! worker that stood still may still have a request at its target then, as after any takeover; its fence is lower.
//!
//! | file | what it decides or does |
//! |---|---|
//! | `gate.rs` | who passes a gate (pure) |
//! | `keeper.rs` | compare-and-set over a gate; the server's clock |
//! | `lanes.rs` | which of those that wait is next (pure) |
//! | `room.rs` | the waiting room |
//! | `plan.rs` | where somebody is to be let go, and when (pure) |
//! | `standing.rs` | what the record says of a run that asks or was refused (pure) |
//! | `reaper.rs` | permits of workers that died |

mod gate;
mod keeper;
mod lanes;
mod plan;
mod reaper;
mod room;
mod standing;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::TimeDelta;
use shared::{
    Timestamp,
    hash::mixed_64,
    limit::{GateKey, Limit, limits_of},
    limits::{PERMIT_GRACE, RATE_SLACK},
    run_record::Reason,
    run_state::RunEvent,
};
use streams::{
    ReadError, Streams, WriteError,
    delivery::Delivery,
    gates::Permit,
    ledger::{Creation, Update},
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::keeper::GateError;
use self::{
    gate::{Passing, earlier, leave, pass},
    keeper::{Keeper, Step},
    reaper::Reaper,
    room::Room,
    standing::{Noted, is_executed_by, stands},
};
use crate::{identify::Identified, member::Status, running::Running, targets::Targets};

/// A run that cannot wait outside its queue, because its message is its schedule's lock, is handed back for about this long:
/// more or less by chance, so that nobody comes again and again in step with those who hold the gate, and not longer each
/// time, because whoever has waited long must not come less often than those who have just come.
const HANDED_BACK: Duration = Duration::from_millis(200);
const HANDED_BACK_MAX: Duration = Duration::from_secs(2);
/// How often leaving a gate is tried before others find that out.
const LEAVES_MAX: u32 = 4;
const LEAVE_WAIT: Duration = Duration::from_millis(500);

/// The limits of the fleet. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Limits {
    inner: Arc<Inner>,
}

struct Inner {
    streams: Streams,
    targets: Targets,
    running: Running,
    status: Arc<Status>,
    keeper: Arc<Keeper>,
    room: Arc<Room>,
    tokens: AtomicU64,
}

/// Whether a run may begin.
pub(crate) enum Admission {
    /// It may, for all that limits it; leave when it is over.
    Passed(Passed),
    /// It may not, but its record is to be looked at: the run has ended, or its target has it. It holds no permit; should it
    /// begin all the same, it takes one before its target is asked.
    Moot(Passed),
    /// It may not yet, or is under way here. Its delivery has been answered, or taken over.
    Waits,
}

/// A run that has passed its gates.
pub(crate) struct Passed {
    limits: Vec<Limit>,
    state: Mutex<State>,
    /// Whether the attempt is ours, or the run has ended: then the permits of its earlier attempts are nobody's any more.
    is_claimed: AtomicBool,
}

struct State {
    /// What it took: the newest, and those it took before that one.
    taken: Vec<Permit>,
    /// What was there of its run when it came.
    earlier: Vec<Permit>,
    /// When it asked, by our clock; none if it has not passed.
    asked_at: Option<Duration>,
    /// Its turn by a rate.
    turn: Option<Timestamp>,
}

/// Refused by one of its gates.
struct Refused {
    /// Which of its limits.
    number: usize,
    /// After which time it would be its turn by a rate; none if the gate is full.
    turn_in: Option<Duration>,
}

impl Passed {
    fn new(limits: Vec<Limit>) -> Self {
        let state = State { taken: Vec::new(), earlier: Vec::new(), asked_at: None, turn: None };
        Self { limits, state: Mutex::new(state), is_claimed: AtomicBool::new(false) }
    }

    /// Whether anything limits it at all.
    pub(crate) fn is_limited(&self) -> bool {
        !self.limits.is_empty()
    }

    /// Whether it was refused and has not asked once more since: what it took it has left.
    fn holds_nothing(&self) -> bool {
        self.state().asked_at.is_none() && !self.is_claimed.load(Ordering::Relaxed)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Limits {
    pub(crate) fn new(streams: Streams, targets: Targets, running: Running, status: Arc<Status>) -> Self {
        let keeper = Arc::new(Keeper::new(streams.clone()));
        let room = Arc::new(Room::new(streams.clone(), targets.clone(), Arc::clone(&keeper)));
        let tokens = AtomicU64::new(1);
        Self { inner: Arc::new(Inner { streams, targets, running, status, keeper, room, tokens }) }
    }

    /// Keeps the waiting room until it is told to stop.
    pub(crate) async fn keep(self, stop: CancellationToken) {
        let inner = &self.inner;
        let reaper = Reaper::new(inner.streams.clone(), Arc::clone(&inner.keeper), Arc::clone(&inner.status));
        inner.room.keep(reaper, stop).await;
    }

    /// Whether a run may begin; if not, it waits, and its delivery is answered. `needs_target`: it is not executed in this process.
    pub(crate) async fn admit(
        &self,
        run: &Identified,
        delivery: &Arc<Delivery>,
        ack_wait: Duration,
        needs_target: bool,
    ) -> Result<Admission, LimitError> {
        let inner = &self.inner;
        let target = match run.task.target() {
            Some(name) if needs_target => inner.targets.find(&inner.streams, name).await?,
            // What is executed in this process needs no declaration, so most have none: not worth a question each time.
            Some(name) => inner.targets.get(name),
            None => None,
        };
        let limits = limits_of(&run.task, target.as_deref());
        if limits.is_empty() {
            return Ok(Admission::Passed(Passed::new(Vec::new())));
        }
        Box::pin(inner.admit(Passed::new(limits), run, delivery, ack_wait)).await
    }

    /// Waits for its turn, and makes sure that it still has what it passed with: right before the target is asked. If it has not,
    /// the words for that: nothing was sent, and the run is to be handed back with its attempt unspent.
    pub(crate) async fn ready(
        &self,
        passed: &Passed,
        run: &Identified,
        ack_wait: Duration,
        stop: &CancellationToken,
    ) -> Result<(), String> {
        if passed.limits.is_empty() {
            return Ok(());
        }
        passed.is_claimed.store(true, Ordering::Relaxed);
        let waiting = Box::pin(self.inner.ready(passed, run, ack_wait));
        tokio::select! {
            ready = waiting => ready,
            () = stop.cancelled() => Err("it was stopped before its turn came".to_owned()),
        }
    }

    /// The run has ended, as its record says: so have all its attempts, and none of their permits is needed any more.
    pub(crate) fn has_ended(passed: &Passed) {
        passed.is_claimed.store(true, Ordering::Relaxed);
    }

    /// The attempt is over, or did not begin: others may pass.
    pub(crate) async fn leave(&self, passed: Passed) {
        if !passed.holds_nothing() {
            Box::pin(self.inner.leave(&passed, passed.limits.len())).await;
        }
    }
}

impl Inner {
    async fn admit(
        &self,
        passed: Passed,
        run: &Identified,
        delivery: &Arc<Delivery>,
        ack_wait: Duration,
    ) -> Result<Admission, LimitError> {
        if self.is_under_way_here(run, delivery).await? {
            return Ok(Admission::Waits);
        }
        match self.pass(&passed, run, ack_wait).await? {
            Ok(()) => Ok(Admission::Passed(passed)),
            Err(refused) => self.wait(passed, refused, run, delivery).await,
        }
    }

    /// Whether its attempt is under way here, which passed when it began, and has taken this delivery over. That it is the
    /// ledger must say: an attempt that has ended is in the table until the server has its answer, and the next one, which
    /// comes at once if there is no backoff, passes for itself.
    async fn is_under_way_here(&self, run: &Identified, delivery: &Arc<Delivery>) -> Result<bool, ReadError> {
        let id = &run.record.id;
        if !self.running.has(id) {
            return Ok(false);
        }
        let found = self.streams.ledger().get(id).await?;
        let is_ours = found.is_some_and(|found| is_executed_by(self.status.id(), &found.value, &run.record));
        Ok(is_ours && self.running.adopt(id, delivery))
    }

    /// Passes all gates, or none: who is refused at one leaves those before it.
    async fn pass(
        &self,
        passed: &Passed,
        run: &Identified,
        ack_wait: Duration,
    ) -> Result<Result<(), Refused>, GateError> {
        let permit = Permit {
            run: run.record.id.clone(),
            worker: self.status.id().clone(),
            token: self.tokens.fetch_add(1, Ordering::Relaxed),
            hold_ms: u64::try_from(ack_wait.as_millis()).unwrap_or(u64::MAX),
        };
        let asked_at = self.streams.clock().elapsed();
        {
            let mut state = passed.state();
            state.taken.push(permit.clone());
            state.asked_at = None;
        }
        for (number, limit) in passed.limits.iter().enumerate() {
            // Only rates need it.
            let now =
                if limit.rate.is_some() { self.keeper.server_now().await? } else { Timestamp::UNIX_EPOCH };
            let step = |gate: &streams::gates::Gate| match pass(gate, limit, &permit, now) {
                Passing::Passed(next, turn) => Step::Write(next, Ok((turn, earlier(gate, &permit)))),
                Passing::Full => Step::Leave(Err(None)),
                Passing::NotYet(wait) => Step::Leave(Err(Some(wait))),
            };
            match self.keeper.change(&limit.gate, step).await {
                Ok(Ok((turn, earlier))) => {
                    let mut state = passed.state();
                    state.turn = turn.or(state.turn);
                    state.earlier.extend(earlier);
                }
                Ok(Err(wait)) => {
                    self.leave(passed, number).await;
                    return Ok(Err(Refused { number, turn_in: wait }));
                }
                Err(error) => {
                    // Unknown whether it was written: it leaves that one, too.
                    self.leave(passed, number + 1).await;
                    return Err(error);
                }
            }
        }
        passed.state().asked_at = Some(asked_at);
        Ok(Ok(()))
    }

    async fn ready(&self, passed: &Passed, run: &Identified, ack_wait: Duration) -> Result<(), String> {
        let unknown =
            |error: &dyn std::fmt::Display| format!("whether its turn has come is not known: {error}");
        let clock = self.streams.clock();
        loop {
            let asked_at = passed.state().asked_at;
            // Who took too long to claim may have been taken for dead meanwhile, and passes once more.
            if asked_at.is_none_or(|asked| clock.elapsed().saturating_sub(asked) > PERMIT_GRACE / 2) {
                let passing = self.pass(passed, run, ack_wait).await.map_err(|error| unknown(&error))?;
                if let Err(Refused { number, turn_in }) = passing {
                    let scope = &passed.limits[number].gate.scope;
                    return Err(match turn_in {
                        Some(_) => format!("its turn at {scope} was past when it was claimed"),
                        None => format!("its permit at {scope} was taken while it was claimed"),
                    });
                }
            }
            let Some(turn) = passed.state().turn else { return Ok(()) };
            let now = self.keeper.server_now().await.map_err(|error| unknown(&error))?;
            if let Ok(early) = (turn - now).to_std()
                && !early.is_zero()
            {
                clock.sleep(early).await;
                continue;
            }
            if now - turn > TimeDelta::from_std(RATE_SLACK).unwrap_or(TimeDelta::zero()) {
                // Its turn has passed: begun now, it would come too close to the next.
                passed.state().asked_at = None;
                continue;
            }
            self.call_the_next(passed, turn, now);
            return Ok(());
        }
    }

    /// The turn after this one is somebody's who waits, if anybody does.
    fn call_the_next(&self, passed: &Passed, turn: Timestamp, now: Timestamp) {
        for limit in &passed.limits {
            if let Some(spacing) = limit.rate.and_then(|rate| TimeDelta::from_std(rate.spacing()).ok()) {
                self.room.let_go_at(&limit.gate.scope, turn + spacing, now);
            }
        }
    }

    /// Leaves the first gates of those it has to pass, and lets others go.
    async fn leave(&self, passed: &Passed, gates: usize) {
        let mut permits = Vec::new();
        {
            let state = passed.state();
            permits.extend(state.taken.iter().cloned());
            if passed.is_claimed.load(Ordering::Relaxed) {
                permits.extend(state.earlier.iter().cloned());
            }
        }
        for limit in passed.limits[..gates].iter().rev().filter(|limit| limit.max.is_some()) {
            if !self.leave_one(&limit.gate, &permits).await {
                continue;
            }
            self.room.let_go_soon(&limit.gate);
        }
    }

    async fn leave_one(&self, gate: &GateKey, permits: &[Permit]) -> bool {
        for left in (0..LEAVES_MAX).rev() {
            let step = |seen: &streams::gates::Gate| match leave(seen, permits) {
                Some(next) => Step::Write(next, ()),
                None => Step::Leave(()),
            };
            match self.keeper.change(gate, step).await {
                Ok(()) => return true,
                Err(error) if left == 0 => {
                    tracing::warn!(%error, "A permit at {} could not be given back; others will find it free: {error}", gate.scope);
                }
                Err(_) => self.streams.clock().sleep(LEAVE_WAIT).await,
            }
        }
        false
    }

    /// A run that may not begin waits, and its delivery is answered.
    async fn wait(
        &self,
        passed: Passed,
        refused: Refused,
        run: &Identified,
        delivery: &Delivery,
    ) -> Result<Admission, LimitError> {
        let Refused { number, turn_in } = refused;
        let closed = &passed.limits[number];
        // Its message is its schedule's lock, and stays where it is.
        if delivery.is_on_lock {
            self.room.watch_inside(&closed.gate);
            let wait = handed_back(delivery);
            let _ = delivery.hand_back(turn_in.map_or(wait, |turn| turn.min(HANDED_BACK_MAX))).await;
            return Ok(Admission::Waits);
        }
        match self.note_limited(run, closed).await? {
            Noted::Waits => {}
            Noted::NotNow(wait) => {
                let _ = delivery.hand_back(wait).await;
                return Ok(Admission::Waits);
            }
            // It will not begin: what is to be done with it, its record says.
            Noted::Ended => return Ok(Admission::Moot(passed)),
        }
        // In the lane of the gate that is closed; if that is its target's, in that of its own key, so that keys take turns.
        let lane = if closed.gate.lane.is_some() { &closed.gate } else { &passed.limits[0].gate };
        if !self.room.take_in(lane, delivery).await? {
            // What stands there is the run. One that was submitted once more, or whose ack was lost, must not come again and again
            // meanwhile: while it lies in its queue nobody can let the other go. But what has just been let go is the run itself,
            // and the other is about to be removed; it says that it has a record.
            let _ = if delivery.is_recorded {
                delivery.hand_back(handed_back(delivery)).await
            } else {
                delivery.ack().await
            };
            return Ok(Admission::Waits);
        }
        let _ = delivery.ack().await;
        // Whoever left between the refusal and the word that somebody waits did not know.
        if let Some(wait) = turn_in {
            let now = self.keeper.server_now().await?;
            let next = now + TimeDelta::from_std(wait).unwrap_or(TimeDelta::zero());
            self.room.let_go_at(&lane.scope, next, now);
        } else {
            self.room.let_go_soon(lane);
        }
        Ok(Admission::Waits)
    }

    /// Writes into the record that its run waits for a limit.
    async fn note_limited(&self, run: &Identified, closed: &Limit) -> Result<Noted, LimitError> {
        let ledger = self.streams.ledger();
        let words = closed.label.clone().unwrap_or_else(|| closed.gate.scope.in_words());
        for _ in 0..3 {
            let now = self.streams.clock().now();
            let found = ledger.get(&run.record.id).await?;
            let (record, revision) = match &found {
                Some(found) => (&found.value, found.revision),
                None => (&run.record, 0),
            };
            match stands(record, &run.record, now) {
                Noted::Waits if record.reason == Some(Reason::Limited) => return Ok(Noted::Waits),
                Noted::Waits => {}
                other => return Ok(other),
            }
            let Ok(next) = record.apply(RunEvent::Limited, now) else { return Ok(Noted::Ended) };
            let next = next.because(Reason::Limited).noting(format!("waits for the limit of {words}"));
            let is_noted = if revision == 0 {
                matches!(ledger.create(&next).await?, Creation::Created(_))
            } else {
                matches!(ledger.update(&next, revision).await?, Update::Stored(_))
            };
            if is_noted {
                return Ok(Noted::Waits);
            }
        }
        Ok(Noted::NotNow(HANDED_BACK_MAX))
    }
}

/// Half to one and a half of the usual wait.
fn handed_back(delivery: &Delivery) -> Duration {
    let chance = mixed_64(&[&delivery.sequence.to_string(), &delivery.deliveries.to_string()]) % 100;
    HANDED_BACK / 2 + HANDED_BACK * u32::try_from(chance).unwrap_or_default() / 100
}

/// A run about which it could not be decided just now; its delivery is handed back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LimitError {
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
}
