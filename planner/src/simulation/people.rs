//! What people do, and what befalls machines: chosen by the seed.

use shared::{Timestamp, names::Name, pause::Pause, schedule::Schedule};
use streams::{pauses::PauseVersion, schedules::Version};

use super::{
    Ms,
    checks::Violation,
    process::{Life, Process},
    world::{Coming, World},
};
use crate::{definitions::Change, model::random::Random};

/// Something that happens.
#[derive(Debug, Clone, Copy)]
pub(super) enum Happening {
    /// A planner is started.
    Starts,
    /// One gets kill -9; another is started in its place after so long.
    Dies(Ms),
    AllDie(Ms),
    /// One is told to stop.
    Stops(Ms),
    /// One stands still.
    Stands(Ms),
    /// Nothing passes between one and the server.
    IsCut(Ms),
    /// The server does not answer.
    ServerGone(Ms),
    /// A clock is set, by so many milliseconds, and mended after so long.
    ClockIsSet(i64, Ms),
    ClockIsMended(usize),
    /// Many messages are lost or late.
    Storm(Ms),
    /// A watch of definitions begins anew after so long, or is slow for so long.
    WatchIsLost(Ms),
    WatchIsSlow(Ms),
    /// The watch of seats and leases is lost.
    LeasesWatchIsLost,
    QueueIsFull(Ms),
    QueueHasRoom,
    WorkersAway(Ms),
    /// A schedule is defined anew, twice in a row, or deleted.
    Defines,
    DefinesTwice,
    Deletes,
    Pauses,
    /// Of the schedule with this number.
    Resumes(usize),
}

/// Instants around which something is special: noon, midnight, and where New York's clocks are set.
const BEGINNINGS: [&str; 5] = [
    "2026-11-24T11:59:30Z",
    "2026-11-24T23:59:25Z",
    "2026-11-01T05:59:20Z",
    "2026-03-08T06:59:30Z",
    "2026-12-31T23:59:15Z",
];

pub(super) fn beginning(random: &mut Random) -> Timestamp {
    random.pick(&BEGINNINGS).parse().expect("an instant")
}

/// A definition nobody would write by hand.
fn definition(random: &mut Random, name: &Name, now: Timestamp) -> Schedule {
    let at = |random: &mut Random, within: u64| {
        let at = now + chrono::TimeDelta::seconds(random.below(within).cast_signed());
        at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
    };
    let mut fields = vec![match random.below(13) {
        0..3 | 12 => r#""every":"1s""#.to_owned(),
        3 | 4 => format!(r#""every":"{}s""#, random.between(2, 7)),
        5 => format!(r#""every":"{}s","phase":"{}s""#, random.between(3, 9), random.below(3)),
        6 => r#""cron":"*/5 * * * * *","timezone":"America/New_York""#.to_owned(),
        7 => r#""cron":"* * * * *""#.to_owned(),
        8 => r#""cron":["*/20 * * * * *","7,9,11 * * * * *"],"timezone":"Asia/Shanghai""#.to_owned(),
        9 => format!(r#""at":"{}""#, at(random, 60)),
        10 => r#""cron":"30 * * * * *","dst":{"gap":"skip","fold":"both"},"timezone":"America/New_York""#
            .to_owned(),
        _ => r#""cron":"*/2 30-59,0,1 1,2,3 * * *","timezone":"America/New_York""#.to_owned(),
    }];
    fields.push(format!(
        r#""overlap":"{}""#,
        random.pick(&["skip", "skip", "allow", "allow", "buffer_one", "buffer_all", "replace"])
    ));
    fields.push(format!(r#""missed":"{}""#, random.pick(&["latest", "skip", "all"])));
    if random.one_in(3) {
        fields.push(r#""catch_up":"25s""#.to_owned());
    }
    if random.one_in(5) {
        fields.push(format!(r#""jitter":"{}s""#, random.between(1, 4)));
    }
    if random.one_in(8) {
        fields.push(format!(r#""exclude":["{}"]"#, at(random, 30)));
    }
    match random.below(12) {
        0 => fields.push(format!(r#""start":"{}","max_runs":{}"#, at(random, 20), random.between(1, 8))),
        1 => fields.push(format!(r#""end":"{}""#, at(random, 120))),
        _ => {}
    }
    match random.below(14) {
        0 => fields.push(r#""calendar":"shut""#.to_owned()),
        // Few slots a day: where they may be moved to is looked for day by day.
        1 if random.one_in(3) => {
            fields[0] = r#""cron":"0,1 0,12 * * *""#.to_owned();
            fields.push(r#""calendar":"shut","on_closed_day":"next_open_day""#.to_owned());
        }
        2 => fields.push(r#""calendar":"nowhere""#.to_owned()),
        _ => {}
    }
    fields.push(format!(
        r#""queue":"{}""#,
        random.pick(&["default", "default", "default", "default", "other", "other", "other", "undeclared"])
    ));
    let json = format!(
        r#"{{{},"description":"{}","task":{{"target_service":"a","action":"b"}}}}"#,
        fields.join(","),
        random.next()
    );
    match serde_json::from_str::<Schedule>(&json) {
        Ok(schedule) => schedule.named(name),
        // It never comes, or its end is before its start: another one.
        Err(_) => definition(random, name, now),
    }
}

impl World {
    /// Everything that is there before anything happens, and all that will happen until `calm_at`.
    pub(super) fn is_furnished(&mut self, calm_at: Ms) {
        let calendar = r#"{"except":["2026-11-24","2026-11-01","2026-03-08","2026-12-31"]}"#;
        let calendar = serde_json::from_str(calendar).expect("a calendar");
        self.store.definitions.calendars.insert("shut".parse().expect("a name"), calendar);
        for queue in ["default", "other"] {
            self.store.tasks.declare(queue.parse().expect("a queue"));
        }
        let schedules = self.random.between(2, 5);
        for number in 0..schedules {
            let name: Name = format!("schedule{number}").parse().expect("a name");
            self.names.push(name);
        }
        self.weather.loss_per_mille = *self.random.pick(&[0, 5, 20, 60]);
        let planners = self.random.between(1, 3);
        // At times nobody plans for so long that slots were missed.
        let late = if self.random.one_in(6) { self.random.between(16_000, 25_000) } else { 0 };
        for _ in 0..planners {
            let after = late + self.random.below(1_500);
            self.send(after, Coming::Happens(Happening::Starts));
        }
        for name in self.names.clone() {
            if self.random.one_in(4) {
                let after = self.happens_at(calm_at);
                self.send(after, Coming::Happens(Happening::Defines));
            } else {
                self.defines(&name);
            }
        }
        for _ in 0..self.random.between(2, 14) {
            let (after, happening) = (self.happens_at(calm_at), self.something());
            self.send(after, Coming::Happens(happening));
        }
        self.send(500, Coming::LooksAtLines(None));
    }

    /// At some instant; often a whole second, at which slots come.
    fn happens_at(&mut self, calm_at: Ms) -> Ms {
        let at = self.random.between(1_500, calm_at - 2_000);
        if self.random.one_in(3) { at / 1_000 * 1_000 } else { at }
    }

    fn something(&mut self) -> Happening {
        let random = &mut self.random;
        let long = if random.one_in(4) { 20_000 } else { 4_000 };
        let lasts = random.between(200, long);
        match random.below(26) {
            0 | 1 => Happening::Dies(lasts),
            2 => Happening::AllDie(random.between(1_000, 35_000)),
            3 => Happening::Stops(lasts),
            4..7 => Happening::Stands(lasts),
            7 | 8 => Happening::IsCut(lasts),
            9 => Happening::ServerGone(lasts),
            10 | 11 => {
                let by = random.between(100, 4_600).cast_signed();
                Happening::ClockIsSet(if random.one_in(2) { by } else { -by }, lasts)
            }
            12 => {
                let by = random.between(5_600, 3_600_000).cast_signed();
                Happening::ClockIsSet(if random.one_in(2) { by } else { -by }, lasts)
            }
            13 => Happening::Storm(lasts),
            14 => Happening::WatchIsLost(random.between(250, 5_000)),
            15 => Happening::WatchIsSlow(random.between(250, 6_000)),
            16 => Happening::LeasesWatchIsLost,
            17 => Happening::QueueIsFull(lasts),
            18 => Happening::WorkersAway(lasts),
            19 | 20 => Happening::Defines,
            21 => Happening::DefinesTwice,
            22 => Happening::Deletes,
            23 | 24 => Happening::Pauses,
            _ => Happening::Resumes(random.below(5) as usize),
        }
    }

    pub(super) fn happens(&mut self, happening: Happening) -> Result<(), Violation> {
        self.tell(|| format!("{happening:?}"));
        let living = self.living();
        let one = (!living.is_empty()).then(|| *self.random.pick(&living));
        match (happening, one) {
            (Happening::Starts, _) => self.starts(),
            (Happening::AllDie(after), _) => {
                for planner in living {
                    self.planners[planner].life = Life::Dead;
                }
                self.send(after, Coming::Happens(Happening::Starts));
            }
            (Happening::ServerGone(lasts), _) => self.weather.server_down_until = self.now + lasts,
            (Happening::Storm(lasts), _) => self.weather.storm_until = self.now + lasts,
            (Happening::QueueIsFull(lasts), _) => {
                self.store.tasks.is_full = true;
                self.send(lasts, Coming::Happens(Happening::QueueHasRoom));
            }
            (Happening::QueueHasRoom, _) => self.store.tasks.is_full = false,
            (Happening::WorkersAway(lasts), _) => self.weather.workers_away_until = self.now + lasts,
            (Happening::ClockIsMended(planner), _) => self.planners[planner].ahead_ms = 0,
            (Happening::Defines | Happening::DefinesTwice, _) => {
                let name = self.random.pick(&self.names.clone()).clone();
                self.defines(&name);
                if matches!(happening, Happening::DefinesTwice) {
                    let soon = self.random.between(1, 4_000);
                    self.send(soon, Coming::Happens(Happening::Defines));
                }
            }
            (Happening::Deletes, _) => {
                let name = self.random.pick(&self.names.clone()).clone();
                let is_there = self.versions(&name).pop().is_some_and(|newest| newest.definition != Ok(None));
                if is_there {
                    self.writes_definition(&name, None);
                }
            }
            (Happening::Pauses, _) => {
                let number = self.random.below(self.names.len() as u64) as usize;
                self.says_pause(&self.names[number].clone(), true);
                if let (Some(one), true) = (one, self.random.one_in(3)) {
                    let slow = self.random.between(1_000, 6_000);
                    self.befalls(one, Happening::WatchIsSlow(slow))?;
                }
                if self.random.one_in(2) {
                    let later = self.random.between(500, 5_000);
                    self.send(later, Coming::Happens(Happening::Resumes(number)));
                }
            }
            (Happening::Resumes(number), _) => {
                let name = self.names[number % self.names.len()].clone();
                self.says_pause(&name, false);
            }
            (happening, Some(planner)) => return self.befalls(planner, happening),
            (_, None) => {}
        }
        Ok(())
    }

    fn befalls(&mut self, at: usize, happening: Happening) -> Result<(), Violation> {
        let (now, planner) = (self.now, &mut self.planners[at]);
        match happening {
            Happening::Dies(after) => {
                planner.life = Life::Dead;
                self.send(after, Coming::Happens(Happening::Starts));
            }
            Happening::Stops(after) => {
                let effects = planner.stops(now);
                self.follows(at, effects)?;
                self.send(after, Coming::Happens(Happening::Starts));
            }
            Happening::Stands(lasts) => planner.stands_until = now + lasts,
            Happening::IsCut(lasts) => {
                planner.cut_until = now + lasts;
                // A watch that shows nothing for long is thought dead.
                if lasts > 3_000 {
                    self.send(3_000, Coming::LeasesWatch { to: at, begins: false });
                }
                if self.random.one_in(3) {
                    self.loses_definitions_watch(at, lasts);
                }
            }
            Happening::ClockIsSet(by, lasts) => {
                planner.ahead_ms = by;
                self.send(lasts, Coming::Happens(Happening::ClockIsMended(at)));
            }
            Happening::WatchIsLost(after) => self.loses_definitions_watch(at, after),
            Happening::WatchIsSlow(lasts) => {
                let watch = &mut planner.definitions_watch;
                watch.arrives_at = watch.arrives_at.max(now + lasts);
            }
            Happening::LeasesWatchIsLost => self.turns_leases_watch(at, false),
            _ => {}
        }
        Ok(())
    }

    fn loses_definitions_watch(&mut self, at: usize, after: Ms) {
        let watch = &mut self.planners[at].definitions_watch;
        watch.number += 1;
        watch.stands = false;
        self.send(after, Coming::DefinitionsWatch { to: at });
    }

    fn starts(&mut self) {
        let number = self.planners.len();
        let ahead = self.random.below(600).cast_signed() - 300;
        let id = format!("planner-{number}").parse().expect("an id");
        self.planners.push(Process::new(id, self.begun, ahead, self.now));
        let (leases, definitions) = (self.random.between(1, 30), self.random.between(1, 30));
        self.send(leases, Coming::LeasesWatch { to: number, begins: true });
        self.send(definitions, Coming::DefinitionsWatch { to: number });
    }

    fn defines(&mut self, name: &Name) {
        let now = self.time();
        let known = self.versions(name).pop().and_then(|version| version.definition.ok().flatten());
        let schedule = match known {
            // Only its queue: the lock lies in another one then.
            Some(known) if self.random.one_in(3) => {
                let queue = self.random.pick(&["default", "other"]).parse().expect("a queue");
                Schedule { queue, ..known }
            }
            _ => definition(&mut self.random, name, now),
        };
        self.writes_definition(name, Some(schedule));
    }

    fn writes_definition(&mut self, name: &Name, schedule: Option<Schedule>) {
        let since = self.time();
        let revision = self.store.definitions.define(name, schedule.clone(), since);
        let version = Version { name: name.clone(), definition: Ok(schedule), revision, since };
        self.tell(|| format!("somebody writes {version:?}"));
        for to in 0..self.planners.len() {
            self.tells(to, Change::Schedule(Box::new(version.clone().into())));
        }
    }

    fn says_pause(&mut self, name: &Name, is_paused: bool) {
        let since = self.time();
        let until = self.random.one_in(3).then(|| {
            let after = self.random.between(1, 20).cast_signed();
            Timestamp::from(since + chrono::TimeDelta::seconds(after))
        });
        let pause = is_paused.then(|| Pause { by: "ann".to_owned(), reason: None, until });
        self.store.definitions.say_pause(name, pause, since);
        let Some(epoch) = self.store.definitions.pauses(name).pop() else { return };
        self.tell(|| format!("somebody says of {name}: {epoch:?}"));
        let version = PauseVersion { name: name.clone(), epoch };
        for to in 0..self.planners.len() {
            self.tells(to, Change::Pause(Box::new(version.clone())));
        }
    }

    /// Everything is well again, and stays so: machines, clocks and network.
    pub(super) fn is_calmed(&mut self) {
        self.tell(|| "all is well from here on".to_owned());
        let now = self.now;
        self.weather.is_calm = true;
        self.weather.server_down_until = now;
        self.weather.workers_away_until = now;
        self.store.tasks.is_full = false;
        for at in 0..self.planners.len() {
            let planner = &mut self.planners[at];
            planner.stands_until = planner.stands_until.min(now);
            planner.ahead_ms = planner.ahead_ms.clamp(-200, 200);
            if planner.cut_until > now {
                planner.cut_until = now;
                self.send(1, Coming::LeasesWatch { to: at, begins: false });
                self.loses_definitions_watch(at, 250);
            }
        }
        if self.living().is_empty() {
            self.starts();
        }
    }
}
