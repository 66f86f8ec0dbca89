//! Delayed submissions: each is put into its queue at its instant, not before, and once.
//!
//! A planner follows what waits in the partitions it holds, by headers only, and keeps of each when it is due and where
//! it lies. A moment before an instant the task itself is read. All is bounded: what is in memory by what the stream
//! may hold, what is in hand by [`limits::DELAYED_IN_FLIGHT_MAX`].
//!
//! | file | what it decides or does |
//! |---|---|
//! | `timers.rs` | which is due next (pure) |
//! | `send.rs` | one of them on its way: record, queue, delete |
//! | `put_back.rs` | a run that waited for its next attempt on its way back |
//! | `reject.rs` | what can never be a run |

mod put_back;
mod reject;
mod send;
mod timers;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use shared::limits;
use streams::{
    ReadError, Streams,
    delayed::{Entry, Heard},
};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use self::{
    send::{SendError, Sender, Sent},
    timers::Timers,
};
use crate::{PlannerError, clock_guard::ClockGuard, holdings::Holdings, status::Status};

/// How often it is looked which partitions are held.
const LOOK: Duration = Duration::from_millis(100);
/// Before what could not be read or written is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// Before what was not there is believed to be gone. A leader that was just chosen may be a moment behind.
const NOT_THERE_WAIT: Duration = Duration::from_secs(3);
/// Between two warnings of the same kind.
const WARN_AGAIN: Duration = Duration::from_secs(1);
/// Between two looks for a stream that is not there: an older fleet, in which nobody can submit anything to wait.
const MISSING_WAIT: Duration = Duration::from_secs(5);
/// What a stopping planner waits for those on their way.
const LAST_WAIT_MAX: Duration = Duration::from_secs(3);
/// Chunks of entries that wait for the loop; the followers wait when it is full.
const EVENTS_WAITING_MAX: usize = 16;
/// How often it is looked whether much of what is in memory was cancelled meanwhile.
const CENSUS: Duration = Duration::from_mins(1);
/// So many entries more than twice what really waits are thought worth reading everything anew.
const SUPERFLUOUS_MAX: u64 = 100_000;

/// What the loop hears.
enum Event {
    Heard(u64, Heard),
    /// So many wait in the whole fleet.
    Census(u64),
}

/// Partitions that are followed together, because they were taken together.
struct Share {
    partitions: BTreeSet<u16>,
    _task: AbortOnDropHandle<()>,
}

/// What one on its way came to.
struct Journey {
    entry: Entry,
    result: Result<Sent, SendError>,
}

/// The loop that owns the timers.
pub(crate) struct Delays {
    streams: Streams,
    holdings: Arc<Holdings>,
    guard: Arc<ClockGuard>,
    sender: Sender,
    stop: CancellationToken,
    timers: Timers,
    /// Each partition held is in exactly one share.
    shares: BTreeMap<u64, Share>,
    shares_made: u64,
    /// The places of those on their way: what is heard of again meanwhile is not sent twice.
    in_hand: HashSet<u64>,
    /// The places of those that were not there, and are looked for once more.
    doubted: HashSet<u64>,
    warned_at: Option<Duration>,
    journeys: JoinSet<Journey>,
    /// Those that are queued and still to be deleted, which takes longer than queueing them and is in no hurry.
    queued: VecDeque<Entry>,
    deletes: JoinSet<Journey>,
    events: mpsc::Sender<Event>,
}

/// Dispatches what waited until it is told to stop.
pub(crate) async fn run(
    streams: Streams,
    holdings: Arc<Holdings>,
    status: Arc<Status>,
    guard: Arc<ClockGuard>,
    stop: CancellationToken,
) -> Result<(), PlannerError> {
    let (events, waiting) = mpsc::channel(EVENTS_WAITING_MAX);
    let sender =
        Sender::new(streams.clone(), Arc::clone(&holdings), status, Arc::clone(&guard), stop.clone());
    let _census = AbortOnDropHandle::new(tokio::spawn(count(streams.clone(), events.clone())));
    let delays = Delays {
        streams,
        holdings,
        guard,
        sender,
        stop,
        timers: Timers::default(),
        shares: BTreeMap::new(),
        shares_made: 0,
        in_hand: HashSet::new(),
        doubted: HashSet::new(),
        warned_at: None,
        journeys: JoinSet::new(),
        queued: VecDeque::new(),
        deletes: JoinSet::new(),
        events,
    };
    delays.run(waiting).await;
    Ok(())
}

impl Delays {
    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        let clock = self.streams.clock().clone();
        let stop = self.stop.clone();
        let mut look_at = Duration::ZERO;
        while !stop.is_cancelled() {
            if clock.elapsed() >= look_at {
                look_at = clock.elapsed() + LOOK;
                self.follow_holdings();
            }
            self.start_due();
            self.start_deletes();
            let wait = self.wait_until_next();
            tokio::select! {
                () = stop.cancelled() => {}
                Some(event) = events.recv() => self.hear(event),
                Some(journey) = self.journeys.join_next() => {
                    self.arrived(journey);
                    while let Some(journey) = self.journeys.try_join_next() {
                        self.arrived(journey);
                    }
                }
                Some(journey) = self.deletes.join_next() => self.arrived(journey),
                () = clock.sleep(wait) => {}
            }
        }
        // Those that wait for their last moments turn back at once; the others are let through. What stays undeleted a
        // successor finds queued.
        self.shares.clear();
        tokio::select! {
            () = self.last_journeys() => {}
            () = clock.sleep(LAST_WAIT_MAX) => {}
        }
    }

    async fn last_journeys(&mut self) {
        loop {
            self.start_deletes();
            let arrived = tokio::select! {
                Some(journey) = self.journeys.join_next() => journey,
                Some(journey) = self.deletes.join_next() => journey,
                else => return,
            };
            self.arrived(arrived);
        }
    }

    /// Follows what the lease keeper holds: drops what is gone, reads what is new.
    fn follow_holdings(&mut self) {
        let held = self.holdings.all();
        let mut followed = BTreeSet::new();
        for share in self.shares.values_mut() {
            for partition in share.partitions.difference(&held) {
                self.timers.close(*partition);
            }
            share.partitions.retain(|partition| held.contains(partition));
            followed.extend(share.partitions.iter().copied());
        }
        // A follower of many partitions goes on while one of them is ours; what it hears of the others is dropped.
        self.shares.retain(|_, share| !share.partitions.is_empty());
        let new: BTreeSet<u16> = held.difference(&followed).copied().collect();
        if new.is_empty() {
            return;
        }
        for partition in &new {
            self.timers.open(*partition);
        }
        self.shares_made += 1;
        let number = self.shares_made;
        let following = follow(self.streams.clone(), new.clone(), number, self.events.clone());
        let task = AbortOnDropHandle::new(tokio::spawn(following));
        self.shares.insert(number, Share { partitions: new, _task: task });
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Heard(number, heard) => {
                let Some(share) = self.shares.get(&number) else { return };
                match heard {
                    Heard::Entries(entries) => {
                        let ours =
                            entries.into_iter().filter(|entry| share.partitions.contains(&entry.partition));
                        ours.for_each(|entry| self.timers.push(entry));
                    }
                    // Emptied.
                    Heard::Anew => share.partitions.iter().for_each(|partition| self.timers.open(*partition)),
                }
            }
            Event::Census(waiting) => {
                let superfluous = (self.timers.len() as u64).saturating_sub(waiting.saturating_mul(2));
                if superfluous > SUPERFLUOUS_MAX {
                    tracing::info!(superfluous, "Much of what waited was cancelled: reading anew what waits");
                    for share in std::mem::take(&mut self.shares).into_values() {
                        share.partitions.iter().for_each(|partition| self.timers.close(*partition));
                    }
                }
            }
        }
    }

    /// Sends what is due on its way; and, while there is room enough, what will be in a moment.
    fn start_due(&mut self) {
        // A clock that is not believed says of nothing that it is due.
        let Some(now) = self.guard.now() else { return };
        let trusted = self.holdings.trusted(self.streams.clock().elapsed());
        let now_ms = now.timestamp_millis();
        while let Some(ahead) = self.reach() {
            let Some(entry) = self.timers.take_due(now_ms.saturating_add(ahead), &trusted) else { break };
            if self.in_hand.insert(entry.sequence) {
                let sender = self.sender.clone();
                self.journeys.spawn(async move { Journey { entry, result: sender.send(entry).await } });
            }
        }
    }

    fn start_deletes(&mut self) {
        while self.deletes.len() < limits::DELAYED_DELETES_MAX {
            let Some(entry) = self.queued.pop_front() else { return };
            let sender = self.sender.clone();
            self.deletes.spawn(async move { Journey { entry, result: sender.delete(entry).await } });
        }
    }

    /// How far ahead it is looked for what is due, in milliseconds: what only waits must not take the room of what is
    /// due. None: there is no room at all.
    fn reach(&self) -> Option<i64> {
        match self.journeys.len() {
            few if few < limits::DELAYED_IN_FLIGHT_MAX / 2 => Some(milliseconds(limits::DELAYED_READ_AHEAD)),
            many if many < limits::DELAYED_IN_FLIGHT_MAX => Some(0),
            _ => None,
        }
    }

    fn wait_until_next(&self) -> Duration {
        let trusted = self.holdings.trusted(self.streams.clock().elapsed());
        // While the clock is not believed nothing is due, whatever it shows: no hot loop for that.
        let (Some(now), Some(ahead), Some(due_ms)) =
            (self.guard.now(), self.reach(), self.timers.next_due(&trusted))
        else {
            return LOOK;
        };
        let wait_ms = due_ms.saturating_sub(ahead).saturating_sub(now.timestamp_millis());
        u64::try_from(wait_ms).map_or(Duration::ZERO, Duration::from_millis).min(LOOK)
    }

    fn arrived(&mut self, journey: Result<Journey, JoinError>) {
        let Journey { entry, result } = match journey {
            Ok(journey) => journey,
            // A panic. It stays in hand, so that this process does not repeat it for ever.
            Err(panic) => {
                return tracing::error!(%panic, "A delayed submission could not be dealt with: {panic}");
            }
        };
        if matches!(result, Ok(Sent::ToDelete)) {
            return self.queued.push_back(entry);
        }
        self.in_hand.remove(&entry.sequence);
        match result {
            Ok(Sent::Done | Sent::ToDelete) => {}
            Ok(Sent::NotThere) => {
                if self.doubted.insert(entry.sequence) {
                    self.again_in(entry, NOT_THERE_WAIT);
                } else {
                    self.doubted.remove(&entry.sequence);
                }
            }
            Ok(Sent::NotYet) => self.again_in(entry, TRY_AGAIN),
            Err(error) => {
                self.warn(entry, &error);
                self.again_in(entry, TRY_AGAIN);
            }
        }
    }

    /// The message itself says when it may run; this is only when it is looked at again.
    fn again_in(&mut self, entry: Entry, wait: Duration) {
        let due_ms = self.streams.clock().now().timestamp_millis().saturating_add(milliseconds(wait));
        self.timers.push(Entry { due_ms, ..entry });
    }

    /// Of all that fail together, because the server is away, one is said.
    fn warn(&mut self, entry: Entry, error: &SendError) {
        let now = self.streams.clock().elapsed();
        if self.warned_at.is_some_and(|warned_at| now < warned_at + WARN_AGAIN) {
            return;
        }
        self.warned_at = Some(now);
        tracing::warn!(
            sequence = entry.sequence, %error,
            "What waits at {} is not dealt with yet, nor perhaps are others: {error}", entry.sequence
        );
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

async fn follow(streams: Streams, partitions: BTreeSet<u16>, number: u64, events: mpsc::Sender<Event>) {
    let mut follower = streams.delayed().follow(&partitions);
    let (mut said_missing, mut said_current, mut entries) = (false, false, 0);
    loop {
        match follower.next().await {
            Ok(heard) => {
                if let (Heard::Entries(new), false) = (&heard, said_current) {
                    entries += new.len();
                    said_current = follower.is_current();
                    if said_current {
                        let count = partitions.len();
                        tracing::info!(
                            entries,
                            "Read what waits in {count} partitions: {entries} submissions"
                        );
                    }
                }
                if events.send(Event::Heard(number, heard)).await.is_err() {
                    return;
                }
            }
            Err(error @ ReadError::Missing { .. }) => {
                if !said_missing {
                    tracing::warn!(%error, "Nothing can be submitted to wait for its instant: {error}");
                }
                said_missing = true;
                streams.clock().sleep(MISSING_WAIT).await;
            }
            Err(error) => {
                tracing::warn!(%error, "What waits cannot be read just now: {error}");
                streams.clock().sleep(TRY_AGAIN).await;
            }
        }
    }
}

async fn count(streams: Streams, events: mpsc::Sender<Event>) {
    loop {
        streams.clock().sleep(CENSUS).await;
        let Ok(waiting) = streams.delayed().count().await else { continue };
        if events.send(Event::Census(waiting)).await.is_err() {
            return;
        }
    }
}
