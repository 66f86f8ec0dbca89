//! The waiting room: who waits for a limit, and who of them goes when there is room.
//!
//! Whoever leaves a gate lets one go who waits for it: so a run that waits costs a bounded number of writes, however many
//! wait beside it. What is lost with a worker that dies in between is found by a look every [`LIMIT_LOOK`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use shared::{
    Timestamp,
    limit::{GateKey, Lane, Scope},
    limits::{LIMIT_LOOK, LIMIT_LOOK_LANES_MAX, RATE_WAIT_MAX},
};
use streams::{ReadError, Streams, delivery::Delivery, ledger::Update, limited::LetGo};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    gate::room,
    keeper::{GateError, Keeper},
    lanes::Lanes,
    plan::Plan,
    reaper::Reaper,
};
use crate::targets::Targets;

/// Lanes that are tried when there is room at the gate of their scope.
const LANES_TRIED_MAX: usize = 8;
/// Runs that are let go at once when turns of a rate come, or from a lane of which little is known.
pub(super) const LET_GO_AT_ONCE_MAX: u32 = 16;
/// Runs that are let go at one look, if that many may: a limit was raised, or is gone.
const LET_GO_AT_A_LOOK_MAX: u32 = 512;
/// Scopes that are kept apart although nobody is let go there just now.
const SCOPES_KEPT_MAX: usize = 1_024;
/// How long a worker that stops lets others go; the server may be away.
const FINISH_WAIT_MAX: Duration = Duration::from_secs(1);
/// For how long the permits of a gate that refused somebody are watched.
const REFUSED_KEPT: Duration = Duration::from_mins(1);

pub(super) struct Room {
    streams: Streams,
    targets: Targets,
    keeper: Arc<Keeper>,
    lanes: Mutex<Lanes>,
    /// Gates that refused somebody of late who waits in its queue, so that no lane says it, or where somebody may have been left
    /// behind; and until when that counts.
    refused: Mutex<BTreeMap<GateKey, Duration>>,
    /// Up to where it was looked for permits that were left behind where nobody was refused.
    doubted: AtomicU64,
    /// Where somebody is to be let go, and when.
    planned: Mutex<Plan>,
    /// Something was planned.
    news: Notify,
    /// Up to where it was looked for runs that wait in lanes nobody knows of.
    searched: AtomicU64,
    /// One at a time of each scope: two that left at once must not let the same run go.
    letting_go: Mutex<HashMap<Scope, Arc<tokio::sync::Mutex<()>>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Room {
    pub(super) fn new(streams: Streams, targets: Targets, keeper: Arc<Keeper>) -> Self {
        Self {
            streams,
            targets,
            keeper,
            lanes: Mutex::default(),
            refused: Mutex::default(),
            doubted: AtomicU64::new(1),
            planned: Mutex::default(),
            news: Notify::new(),
            searched: AtomicU64::new(1),
            letting_go: Mutex::default(),
        }
    }

    /// A gate refused somebody who is in no lane, or somebody may have been left behind there: whoever is inside is watched
    /// from here.
    pub(super) fn watch_inside(&self, key: &GateKey) {
        let until = self.streams.clock().elapsed() + REFUSED_KEPT;
        lock(&self.refused).insert(key.clone(), until);
    }

    /// Takes in a run that was refused; `lane` is where it waits. Whether its delivery may be acknowledged.
    pub(super) async fn take_in(&self, lane: &GateKey, delivery: &Delivery) -> Result<bool, GateError> {
        let is_in = self.streams.let_wait(lane, delivery).await?;
        let now = self.streams.clock().elapsed();
        if !lock(&self.lanes).is_said(lane, now) {
            let revision = self.streams.gates().say_waiting(lane).await?;
            lock(&self.lanes).said(lane, revision, now);
        }
        Ok(is_in)
    }

    /// Lets runs go for which there is room at the gate of their scope: of this lane first, then of others in turn.
    async fn let_go(&self, scope: &Scope, first: Option<Lane>, at_most: u32) -> Result<(), GateError> {
        if !lock(&self.lanes).anybody_in(scope) {
            return Ok(());
        }
        let one_at_a_time = self.one_at_a_time(scope);
        let _alone = one_at_a_time.lock().await;
        let now = self.keeper.server_now().await?;
        let mut left = self.room_of(scope, now).await?.min(at_most);
        let candidates = lock(&self.lanes).next(scope, first, LANES_TRIED_MAX);
        for lane in candidates {
            if left == 0 {
                break;
            }
            left -= self.let_some_go(&lane, left, now).await?;
        }
        Ok(())
    }

    fn one_at_a_time(&self, scope: &Scope) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = lock(&self.letting_go);
        // Commands are scopes, too, and anybody may name some.
        if all.len() >= SCOPES_KEPT_MAX {
            all.retain(|_, one| Arc::strong_count(one) > 1);
        }
        Arc::clone(all.entry(scope.clone()).or_default())
    }

    /// How many more may pass the gate of a scope, by the limits its target has now.
    async fn room_of(&self, scope: &Scope, now: Timestamp) -> Result<u32, GateError> {
        let target = match scope {
            Scope::Target(name) => self.targets.find(&self.streams, name).await?,
            Scope::Command(_) => None,
        };
        let (max, rate) = target.map_or((None, None), |target| (target.max_concurrent, target.rate));
        if max.is_none() && rate.is_none() {
            return Ok(u32::MAX);
        }
        let gate = self.keeper.read(&GateKey { scope: scope.clone(), lane: None }).await?;
        Ok(room(&gate, max.map(NonZeroU32::get), rate, now))
    }

    /// Lets the first of a lane go, as far as its own gate has room. How many.
    async fn let_some_go(&self, lane: &GateKey, at_most: u32, now: Timestamp) -> Result<u32, GateError> {
        let mut may_go = at_most;
        if lane.lane.is_some() {
            let gate = self.keeper.read(lane).await?;
            // Of a lane where nobody is inside it is not known how many may be.
            may_go = may_go.min(room(&gate, gate.max, None, now)).min(LET_GO_AT_ONCE_MAX);
        }
        lock(&self.lanes).served(lane);
        let (mut gone, mut from) = (0, 1);
        for _ in 0..may_go.saturating_add(LET_GO_AT_ONCE_MAX) {
            if gone == may_go {
                break;
            }
            // Known before it is looked whether anybody is there: who comes after that says so anew.
            let Some(revision) = lock(&self.lanes).revision_of(lane) else { break };
            let Some(waiting) = self.streams.first_waiting(lane, from).await? else {
                if from == 1 {
                    self.found_empty(lane, revision).await?;
                }
                break;
            };
            match self.streams.let_go(&waiting).await? {
                LetGo::Queued => gone += 1,
                LetGo::IsQueued => from = waiting.sequence() + 1,
            }
        }
        Ok(gone)
    }

    async fn found_empty(&self, lane: &GateKey, revision: u64) -> Result<(), GateError> {
        let now = self.streams.clock().elapsed();
        let empty = lock(&self.lanes).found_empty(lane, revision, now);
        if let Some(revision) = empty
            && matches!(self.streams.gates().say_empty(lane, revision).await?, Update::Stored(_))
        {
            lock(&self.lanes).emptied(lane, revision);
        }
        Ok(())
    }

    /// Lets one go who waits for a gate that somebody has left. Whoever left does not wait for that.
    pub(super) fn let_go_soon(&self, gate: &GateKey) {
        if lock(&self.lanes).anybody_in(&gate.scope) {
            lock(&self.planned).soon(gate);
            self.news.notify_one();
        }
    }

    /// Lets runs go when the next turn of a rate comes near.
    pub(super) fn let_go_at(&self, scope: &Scope, next: Timestamp, now: Timestamp) {
        if !lock(&self.lanes).anybody_in(scope) {
            return;
        }
        let wait = (next - now).to_std().unwrap_or_default().saturating_sub(RATE_WAIT_MAX / 2);
        let at = self.streams.clock().elapsed() + wait;
        if lock(&self.planned).at(scope, at) {
            self.news.notify_one();
        }
    }

    async fn try_to_let_go(&self, gate: &GateKey, at_most: u32) {
        if let Err(error) = self.let_go(&gate.scope, gate.lane, at_most).await {
            tracing::debug!(%error, "Nobody could be let go for {} just now: {error}", gate.scope);
        }
    }

    /// The gates that this worker's last runs have left are not to stand empty until others look.
    async fn finish_the_plan(&self) {
        let (due, _) = lock(&self.planned).due(self.streams.clock().elapsed());
        for (gate, at_most) in due {
            self.try_to_let_go(&gate, at_most).await;
        }
    }

    /// Does what is planned, for ever; of each scope one thing after another.
    async fn follow_the_plan(&self) {
        let clock = self.streams.clock();
        let mut going = FuturesUnordered::new();
        loop {
            let now = clock.elapsed();
            let (due, next_at) = lock(&self.planned).due(now);
            for (gate, at_most) in due {
                going.push(async move { self.try_to_let_go(&gate, at_most).await });
            }
            tokio::select! {
                Some(()) = going.next(), if !going.is_empty() => {}
                () = self.news.notified() => {}
                () = clock.sleep(next_at.unwrap_or(now).saturating_sub(now)), if next_at.is_some() => {}
            }
        }
    }

    /// Follows who waits, and looks for what nobody said, until it is told to stop.
    pub(super) async fn keep(&self, mut reaper: Reaper, stop: CancellationToken) {
        let looking = async {
            loop {
                self.streams.clock().sleep(LIMIT_LOOK).await;
                if let Err(error) = self.look(&mut reaper).await {
                    tracing::debug!(%error, "Limits could not be looked at just now: {error}");
                }
            }
        };
        let following = async {
            loop {
                // A word that was taken back is forgotten by the server, which a watch may take for a loss: it is no news.
                if let Err(error) = self.follow().await {
                    tracing::debug!(%error, "The watch of who waits for limits begins anew: {error}");
                }
                self.streams.clock().sleep(LIMIT_LOOK).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = looking => {}
            () = following => {}
            () = self.follow_the_plan() => {}
        }
        tokio::select! {
            () = self.finish_the_plan() => {}
            () = self.streams.clock().sleep(FINISH_WAIT_MAX) => {}
        }
    }

    async fn follow(&self) -> Result<(), ReadError> {
        let mut seen = self.streams.gates().watch_waiting().await?;
        lock(&self.lanes).clear();
        while let Some(lane) = seen.next().await {
            lock(&self.lanes).note(lane?);
        }
        Ok(())
    }

    /// Says anew that somebody waits in a lane of which nobody knows it any more: one of those that wait at each look.
    async fn look_for_the_forgotten(&self) -> Result<(), GateError> {
        let from = self.searched.load(Ordering::Relaxed);
        let found = self.streams.anybody_waiting(from).await?;
        self.searched.store(found.as_ref().map_or(1, |(_, sequence)| sequence + 1), Ordering::Relaxed);
        let Some((lane, _)) = found else { return Ok(()) };
        if lock(&self.lanes).revision_of(&lane).is_none() {
            let revision = self.streams.gates().say_waiting(&lane).await?;
            lock(&self.lanes).note(streams::gates::LaneSeen { lane, waiting: Some(revision) });
        }
        Ok(())
    }

    /// Watches a gate at which somebody may have been left behind, although nobody was refused there since: the one that was not
    /// written for longest, of those that were not looked at in this round.
    async fn look_for_the_left(&self, reaper: &Reaper) -> Result<(), GateError> {
        for _ in 0..LIMIT_LOOK_LANES_MAX {
            let found = self.streams.gates().oldest(self.doubted.load(Ordering::Relaxed)).await?;
            let next = found.as_ref().map_or(1, |(_, seen)| seen.revision + 1);
            self.doubted.store(next, Ordering::Relaxed);
            let Some((key, seen)) = found else { return Ok(()) };
            // By a rate alone nobody is inside, nor in what is about to be forgotten.
            if seen.gate.held.is_empty() {
                continue;
            }
            if let Some(key) = key
                && reaper.is_doubtful(&seen.gate).await?
            {
                self.watch_inside(&key);
            }
            return Ok(());
        }
        Ok(())
    }

    async fn look(&self, reaper: &mut Reaper) -> Result<(), GateError> {
        let now = self.streams.clock().elapsed();
        let lanes = lock(&self.lanes).next_to_look_at(LIMIT_LOOK_LANES_MAX);
        let mut gates: BTreeSet<GateKey> = lanes.iter().cloned().collect();
        gates.extend(lanes.iter().map(|lane| GateKey { scope: lane.scope.clone(), lane: None }));
        let refused: Vec<GateKey> = {
            let mut refused = lock(&self.refused);
            refused.retain(|_, until| *until > now);
            refused.keys().filter(|gate| !gates.contains(gate)).take(LIMIT_LOOK_LANES_MAX).cloned().collect()
        };
        if !(gates.is_empty() && refused.is_empty()) {
            reaper.begin().await?;
        }
        let gates = gates.into_iter().map(|gate| (gate, true));
        for (gate, is_told) in gates.chain(refused.into_iter().map(|gate| (gate, false))) {
            reaper.look_at(&gate, &self.keeper.read(&gate).await?, is_told).await?;
        }
        reaper.forget();
        self.look_for_the_forgotten().await?;
        self.look_for_the_left(reaper).await?;
        for lane in lanes {
            self.let_go(&lane.scope, lane.lane, LET_GO_AT_A_LOOK_MAX).await?;
        }
        Ok(())
    }
}
