//! Runs whose command this worker may not run, and another worker of their queue may. They go back to the queue, and nothing of
//! them is spent or written.
//!
//! Promise: as long as a living worker of the queue says that it has the command, its runs wait for it. If none does, the run ends
//! FAILED, with the allow-list's own words, instead of being handed round for ever.
//! Limit: what a worker says of itself is up to a heartbeat old, and one that says nothing of commands (a worker of an earlier
//! version, or in another language) is not counted on.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use shared::{
    limits::{
        ELSEWHERE_SPACING, ELSEWHERE_WAIT_MAX, ELSEWHERE_WAIT_MIN, ELSEWHERE_WAIT_ROOM, MEMBER_HEARTBEAT,
    },
    names::{ActionName, MemberId, QueueName},
};
use streams::{
    ReadError, Streams,
    members::{Member, WorkerStatus},
};

use crate::member::Status;

/// What is known of the other workers' commands. One for each worker.
#[derive(Default)]
pub(crate) struct Elsewhere {
    /// The workers that were alive, and when that was read.
    read: Mutex<Option<(Duration, Vec<WorkerStatus>)>>,
    /// When the next run may come back that goes back now.
    next_at: Mutex<Duration>,
}

impl Elsewhere {
    /// For how long a run goes back to its queue, because somebody else there has its command; nothing if nobody has.
    pub(crate) async fn wait_for_another(
        &self,
        streams: &Streams,
        status: &Status,
        (queue, command): (&QueueName, &ActionName),
        deliveries: u64,
    ) -> Result<Option<Duration>, ReadError> {
        let now = streams.clock().elapsed();
        if let Some(has_room) = self.known(now, status.id(), queue, command) {
            return Ok(Some(self.in_turn(now, wait_after(deliveries, has_room))));
        }
        // Nobody, as far as is known. That ends the run, so it is looked at anew: one may have started just now.
        let members = streams.members().list().await?;
        let workers = members.into_iter().filter_map(|member| match member {
            Member::Worker(worker) => Some(worker),
            Member::Planner(_) => None,
        });
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, workers.collect()));
        if let Some(has_room) = self.known(now, status.id(), queue, command) {
            tracing::info!(%queue, %command, "Runs of command {command} go back to queue {queue}: another worker of it has the command");
            return Ok(Some(self.in_turn(now, wait_after(deliveries, has_room))));
        }
        // After an outage of the server all entries have run out, and whoever was not heard himself cannot tell.
        let is_heard = status.heard_for(now) >= 2 * MEMBER_HEARTBEAT;
        Ok((!is_heard).then_some(ELSEWHERE_WAIT_MAX))
    }

    /// Whether another worker of the queue that has the command has a place free; nothing if none has it.
    fn known(&self, now: Duration, own: &MemberId, queue: &QueueName, command: &ActionName) -> Option<bool> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let (read_at, workers) = read.as_ref()?;
        let is_fresh = now.saturating_sub(*read_at) < MEMBER_HEARTBEAT;
        room_elsewhere(workers, own, queue, command).filter(|_| is_fresh)
    }

    /// This wait, or a longer one if many runs go back.
    fn in_turn(&self, now: Duration, wait: Duration) -> Duration {
        let mut next_at = self.next_at.lock().unwrap_or_else(PoisonError::into_inner);
        let at = (now + wait).max(*next_at).min(now + ELSEWHERE_WAIT_MAX);
        *next_at = at + ELSEWHERE_SPACING;
        at.saturating_sub(now)
    }
}

/// Whether another worker of the queue that has the command has a place free; nothing if none has it. One that drains counts as full:
/// its successor may be about to start. Pure.
fn room_elsewhere(
    workers: &[WorkerStatus],
    own: &MemberId,
    queue: &QueueName,
    command: &ActionName,
) -> Option<bool> {
    let has = |worker: &&WorkerStatus| {
        worker.id != *own && worker.queues.contains(queue) && worker.commands.contains(command)
    };
    let room = |worker: &WorkerStatus| !worker.draining && worker.running.len() < usize::from(worker.places);
    workers.iter().filter(has).map(room).reduce(|one, other| one || other)
}

/// Longer each time, and not for long if the other has a place: the server may have given it to the wrong one. Pure.
fn wait_after(deliveries: u64, has_room: bool) -> Duration {
    let doublings = u32::try_from(deliveries.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    let most = if has_room { ELSEWHERE_WAIT_ROOM } else { ELSEWHERE_WAIT_MAX };
    (ELSEWHERE_WAIT_MIN * 2_u32.pow(doublings)).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(id: &str, queue: &str, commands: &[&str]) -> WorkerStatus {
        let json = serde_json::json!({
            "id": id, "version": "1", "started_at": "2026-11-24T02:00:00Z", "queues": [queue], "places": 1,
            "running": [], "draining": false, "commands": commands,
        });
        serde_json::from_value(json).expect("a worker")
    }

    #[test]
    fn only_another_worker_of_the_queue_that_has_the_command_counts_and_it_may_be_full() {
        let (own, queue) = ("worker-a-1".parse().expect("id"), "local".parse().expect("queue"));
        let echo = "echo".parse().expect("a command");
        let room = |workers: &[WorkerStatus]| room_elsewhere(workers, &own, &queue, &echo);
        let has = worker("worker-b-1", "local", &["tree", "echo"]);
        let drains = WorkerStatus { draining: true, ..has.clone() };
        let is_full = WorkerStatus { running: vec![("a.1".parse().expect("id"), 1)], ..has.clone() };
        for other in [
            worker("worker-a-1", "local", &["echo"]),
            worker("worker-b-1", "default", &["echo"]),
            worker("worker-b-1", "local", &["tree"]),
        ] {
            assert_eq!(room(std::slice::from_ref(&other)), None, "{other:?}");
        }
        assert_eq!(room(&[drains.clone(), is_full.clone()]), Some(false));
        assert_eq!(room(&[drains, is_full, has]), Some(true));
    }

    #[test]
    fn a_run_goes_back_for_longer_each_time_up_to_a_bound_and_many_come_back_one_after_another() {
        let waits = |has_room| [1, 2, 3, 4, 7, u64::MAX].map(|n| wait_after(n, has_room).as_millis());
        assert_eq!(waits(true), [20, 40, 80, 100, 100, 100]);
        assert_eq!(waits(false), [20, 40, 80, 160, 1_000, 1_000]);
        let (elsewhere, now) = (Elsewhere::default(), Duration::from_secs(7));
        let waits: Vec<Duration> = (0..1_000).map(|_| elsewhere.in_turn(now, ELSEWHERE_WAIT_MIN)).collect();
        assert_eq!(waits[..3], [20, 25, 30].map(Duration::from_millis));
        assert_eq!(waits[999], ELSEWHERE_WAIT_MAX);
    }
}
