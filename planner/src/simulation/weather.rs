//! What befalls the network and the server.

use streams::{leases::Seen, pauses::PauseVersion};

use super::{
    Ms,
    process::Process,
    world::{Coming, World},
};
use crate::definitions::Change;
use shared::limits::{PARTITIONS, SEATS_MAX};

/// Between the loss of a watch and the next one.
const REWATCH_WAIT: Ms = 500;

/// The state of network and server.
#[derive(Debug, Default)]
pub(super) struct Weather {
    /// Of a thousand messages so many are lost or late.
    pub(super) loss_per_mille: u64,
    /// More of them are, until then.
    pub(super) storm_until: Ms,
    pub(super) server_down_until: Ms,
    /// Workers take nothing until then.
    pub(super) workers_away_until: Ms,
    /// Nothing goes wrong any more.
    pub(super) is_calm: bool,
}

impl Weather {
    pub(super) fn is_server_down(&self, now: Ms) -> bool {
        now < self.server_down_until
    }
}

impl World {
    /// How long something takes to the server, if it arrives, and whether its answer will be lost.
    pub(super) fn transit(&mut self, from: usize) -> (Option<Ms>, bool) {
        let takes = self.random.between(1, 12);
        let cut = self.planners[from].cut_until.saturating_sub(self.now);
        if cut > 0 {
            // What was sent may come through when the way is free again.
            return (self.random.one_in(2).then_some(cut + takes), false);
        }
        let is_stormy = self.now < self.weather.storm_until;
        let per_mille = if is_stormy { 250 } else { self.weather.loss_per_mille };
        if self.weather.is_calm || self.random.below(1_000) >= per_mille {
            return (Some(takes), false);
        }
        match self.random.below(5) {
            0 => (None, false),
            1 => (Some(takes), true),
            2 => (Some(self.random.between(20, 800)), false),
            3 => (Some(self.random.between(500, 4_000)), false),
            _ => (Some(self.random.between(2_500, 8_000)), self.random.one_in(3)),
        }
    }

    /// How long an answer takes, if it arrives.
    pub(super) fn way_back(&mut self, to: usize) -> Option<Ms> {
        let cut = self.planners[to].cut_until.saturating_sub(self.now);
        let takes = self.random.between(1, 12);
        (cut == 0 || self.random.one_in(2)).then_some(cut + takes)
    }

    /// Shows a seat or a lease to a planner, in the order of its watch.
    pub(super) fn shows(&mut self, to: usize, seen: Seen) {
        let takes = 1 + self.random.below(8);
        let planner = &mut self.planners[to];
        if planner.is_dead() || !planner.leases_watch.stands {
            return;
        }
        let at = (self.now + takes).max(planner.cut_until + takes).max(planner.leases_watch.arrives_at);
        planner.leases_watch.arrives_at = at;
        let watch = planner.leases_watch.number;
        self.send(at - self.now, Coming::Shown { to, watch, seen });
    }

    pub(super) fn turns_leases_watch(&mut self, to: usize, begins: bool) {
        let elapsed = Process::elapsed(self.now);
        let is_there = self.planners[to].cut_until <= self.now && !self.weather.is_server_down(self.now);
        let watch = &mut self.planners[to].leases_watch;
        watch.number += 1;
        watch.stands = begins && is_there;
        watch.arrives_at = self.now;
        let stands = watch.stands;
        self.tell(|| format!("planner {to} watches leases: {stands}"));
        if !stands {
            self.planners[to].table.watch_ends();
            return self.send(REWATCH_WAIT, Coming::LeasesWatch { to, begins: true });
        }
        self.planners[to].table.watch_begins(elapsed);
        let seats = (0..SEATS_MAX).filter_map(|number| {
            let (seat, revision, _) = self.store.planners.seat(number)?;
            Some((revision, Seen::Seat(number, seat, revision)))
        });
        let leases = (0..PARTITIONS).filter_map(|partition| {
            let (lease, revision) = self.store.planners.lease(partition)?;
            Some((revision, Seen::Lease(partition, lease, revision)))
        });
        let mut there: Vec<_> = seats.chain(leases).collect();
        there.sort_by_key(|(revision, _)| *revision);
        for (_, seen) in there {
            self.shows(to, seen);
        }
    }

    /// Tells a planner of a change, in the order of its watch.
    pub(super) fn tells(&mut self, to: usize, change: Change) {
        let takes = 1 + self.random.below(8);
        let planner = &mut self.planners[to];
        if planner.is_dead() || !planner.definitions_watch.stands {
            return;
        }
        let at = (self.now + takes).max(planner.cut_until + takes).max(planner.definitions_watch.arrives_at);
        planner.definitions_watch.arrives_at = at;
        let watch = planner.definitions_watch.number;
        self.send(at - self.now, Coming::Heard { to, watch, change: Box::new(change) });
    }

    /// A watch of definitions begins: it tells the newest version of everything, and no older ones.
    pub(super) fn begins_definitions_watch(&mut self, to: usize) {
        if self.planners[to].cut_until > self.now || self.weather.is_server_down(self.now) {
            self.send(REWATCH_WAIT, Coming::DefinitionsWatch { to });
            return;
        }
        let watch = &mut self.planners[to].definitions_watch;
        watch.number += 1;
        (watch.stands, watch.arrives_at) = (true, self.now);
        self.tells(to, Change::SchedulesBegin);
        for queue in ["default", "other"] {
            self.tells(to, Change::Queue(queue.parse().expect("a queue"), true));
        }
        for (name, calendar) in self.store.definitions.calendars.clone() {
            self.tells(to, Change::Calendar(name, Some(calendar)));
        }
        self.tells(to, Change::CatalogCurrent);
        let mut there = Vec::new();
        for name in &self.names {
            if let Some(version) = self.store.definitions.history(name).pop() {
                there.push((version.revision, Change::Schedule(Box::new(version.into()))));
            }
            if let Some(epoch) = self.store.definitions.pauses(name).pop() {
                let pause = PauseVersion { name: name.clone(), epoch };
                there.push((pause.epoch.revision, Change::Pause(Box::new(pause))));
            }
        }
        there.sort_by_key(|(revision, _)| *revision);
        for (_, change) in there {
            self.tells(to, change);
        }
        self.tells(to, Change::SchedulesCurrent);
    }
}
