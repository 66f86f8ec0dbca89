//! Sets ways up in one fleet, has their workers die, and lets another worker finish what they left.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use futures::future::join_all;
use harness::{Fleet, Process, crash, eventually, scripts::Scripts, wait::for_a_while, within};
use shared::run_record::RunRecord;

use super::{
    check, plot,
    way::{Kill, Place, Plot, Way},
};

/// How long all of it may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks into the ledger.
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

/// A command that says what it is asked, as a target does.
const NOTES: &str = "echo \"$CRONFLEET_RUN $CRONFLEET_ATTEMPT $CRONFLEET_FENCE\" >> DIR/asked\necho noted\n";

/// What was set up.
pub(super) struct Stage {
    pub(super) fleet: Fleet,
    pub(super) places: Vec<Place>,
    commands: String,
    /// The ledger, as it was a moment ago.
    records: RefCell<Vec<RunRecord>>,
}

/// The worker of a place, while it lives.
pub(super) struct Mortal {
    /// Where it takes in answers over HTTP.
    pub(super) door: String,
    pub(super) pid: Cell<Option<u32>>,
}

impl Mortal {
    pub(super) fn is_dead(&self) -> bool {
        self.pid.get().is_none()
    }
}

impl Stage {
    async fn set(places: Vec<Place>) -> Self {
        let fleet = Fleet::start().await;
        let mut parts = [const { String::new() }; 3];
        for place in &places {
            for (part, line) in parts.iter_mut().zip(place.declared()) {
                part.push_str(&line);
            }
        }
        let [targets, queues, schedules] = parts;
        let schedules = if schedules.is_empty() { String::new() } else { format!("schedules:\n{schedules}") };
        fleet.apply(&format!("targets:\n{targets}queues:\n{queues}{schedules}"));
        let commands = Scripts::of(&fleet).with("notes", NOTES, "").file();
        Self { fleet, places, commands, records: RefCell::default() }
    }

    /// Lets all ways come to where the workers begin that are to die.
    async fn begin(&self) {
        for place in &self.places {
            plot::begin(self, place).await;
        }
        self.fail_first().await;
        if self.places.iter().any(|place| place.way.plot == Plot::Expires) {
            for_a_while(Duration::from_millis(1_100)).await;
        }
        self.leave_behind().await;
        for place in &self.places {
            plot::meanwhile(self, place).await;
        }
    }

    /// The worker of a place: it dies where it is to, or writes down what it passes.
    fn mortal(&self, place: &Place) -> (Mortal, Process) {
        let door = door(&self.fleet, place);
        let listens = matches!(place.way.plot, Plot::IsAnswered(_));
        let listening: &[&str] = if listens { &["--callback-listen", &door] } else { &[] };
        let arguments = [place.way.worker, listening].concat();
        let (name, variable) = if let Some(Kill { point, nth, .. }) = place.kill {
            let at = format!("{point}:{nth}");
            (format!("mortal-{}-{at}", place.name()), (crash::CRASH_AT, at))
        } else {
            let file = self.fleet.folder().join("points").display().to_string();
            (format!("immortal-{}", place.name()), (crash::POINTS_FILE, file))
        };
        let process = self.worker(&name, &place.name(), &arguments, &[variable]);
        (Mortal { door, pid: Cell::new(Some(process.pid())) }, process)
    }

    /// Waits until those have died that are to die; the worker that finishes what they left.
    async fn succeeded(&self, mortals: &[Mortal], processes: &mut [Process]) -> Option<Process> {
        let ending = self.places.iter().zip(mortals).zip(processes).map(|((place, mortal), process)| async {
            if place.kill.is_some() {
                died(process).await;
                mortal.pid.set(None);
            } else if place.way.plot == Plot::IsDrained {
                assert!(process.ended().await.success());
            }
        });
        join_all(ending).await;
        let is_left = |place: &&Place| place.kill.is_some() || place.way.plot == Plot::IsDrained;
        let left: Vec<String> = self.places.iter().filter(is_left).map(Place::name).collect();
        (!left.is_empty()).then(|| self.worker("successor", &left.join(","), &["--places", "100"], &[]))
    }

    /// A worker of these queues.
    fn worker(&self, name: &str, queues: &str, more: &[&str], variables: &[(&str, String)]) -> Process {
        let arguments = ["worker", "--commands", &self.commands, "--queue", queues];
        self.fleet.spawn_with(name, &[&arguments, more].concat(), variables)
    }

    fn queues(&self, is_meant: impl Fn(&Way) -> bool) -> String {
        let meant = self.places.iter().filter(|place| is_meant(place.way));
        meant.map(Place::name).collect::<Vec<_>>().join(",")
    }

    /// Lets a first life of those runs that are retried by hand fail.
    async fn fail_first(&self) {
        let is_retried = |way: &Way| matches!(way.plot, Plot::IsRetried | Plot::IsHalfRetried);
        let queues = self.queues(is_retried);
        if queues.is_empty() {
            return;
        }
        let mut worker = self.worker("first", &queues, &[], &[]);
        for place in self.places.iter().filter(|place| is_retried(place.way)) {
            let record = self.fleet.end_of(&place.run(1)).await;
            self.fleet.dead_letter(&record).await;
        }
        assert!(worker.stop().await.success());
        for place in self.places.iter().filter(|place| is_retried(place.way)) {
            let run = place.run(1);
            if place.way.plot == Plot::IsHalfRetried {
                let at = [(crash::CRASH_AT, "tasks:1".to_owned())];
                died(&mut self.fleet.spawn_with("retry", &["retry", &run], &at)).await;
            } else {
                self.fleet.streams.retry(&run.parse().expect("a run"), "spec").await.expect("retried");
            }
        }
    }

    /// Lets workers die of which others take over.
    async fn leave_behind(&self) {
        let mut dying = Vec::new();
        for place in &self.places {
            if let Some(at) = place.way.predecessor {
                let at = [(crash::CRASH_AT, at.to_owned())];
                dying.push(self.worker(&format!("predecessor-{}", place.name()), &place.name(), &[], &at));
            }
        }
        join_all(dying.iter_mut().map(died)).await;
    }

    /// Waits until all runs of a place have ended; their records.
    pub(super) async fn ended(&self, place: &Place, mortal: &Mortal) -> Vec<RunRecord> {
        let name = place.name();
        within(PATIENCE, &format!("the end of {}", place.title()), async || {
            let found = self.records_of(&name);
            let is_over = found.len() == place.way.runs && found.iter().all(|run| run.status.is_final());
            if is_over || (found.is_empty() && self.left_no_record(place, mortal).await) {
                return Ok(found);
            }
            let states = found.iter().map(|run| (run.id.to_string(), run.status, run.reason, run.attempt));
            Err(format!("{:?}", states.collect::<Vec<_>>()))
        })
        .await
    }

    fn records_of(&self, name: &str) -> Vec<RunRecord> {
        self.records.borrow().iter().filter(|run| run.id.name.as_str() == name).cloned().collect()
    }

    /// Looks into the ledger now and then: once for all places, because each look is a reader that the server keeps a while.
    async fn look(&self) {
        loop {
            let found = self.fleet.records().await.into_iter().map(|stored| stored.value).collect();
            self.records.replace(found);
            for_a_while(BETWEEN_LOOKS).await;
        }
    }

    async fn left_no_record(&self, place: &Place, mortal: &Mortal) -> bool {
        let was_asked = !check::asked(self, place).is_empty();
        let queue = place.name().parse().expect("a queue");
        let depth = self.fleet.streams.queue_depth(&queue).await;
        let is_empty = depth.is_ok_and(|depth| depth.waiting + depth.in_flight == 0);
        let is_over = mortal.is_dead() || place.kill.is_none();
        let is_left = place.may_leave_no_record() && is_over && was_asked && is_empty;
        // What was seen of the ledger may be older than that.
        is_left && self.fleet.record(&place.run(1)).await.is_none()
    }
}

async fn died(process: &mut Process) {
    let status = process.ended().await;
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9),
        "it died otherwise: {status}"
    );
}

/// Kills a worker at each of the points of these ways, each in a queue of its own, and checks what comes of it.
pub(super) async fn survives(ways: &[&'static Way]) {
    perform(&Stage::set(places_of(ways)).await).await;
}

fn places_of(ways: &[&'static Way]) -> Vec<Place> {
    let kills = ways.iter().flat_map(|way| way.kills.iter().map(move |kill| (*way, *kill)));
    kills.enumerate().map(|(number, (way, kill))| Place { way, number, kill: Some(kill) }).collect()
}

/// The same, each in a fleet of its own: where one worker does what another left.
pub(super) async fn survives_apart(ways: &[&'static Way]) {
    let mut stages = Vec::new();
    // One after another, so that no two of the servers find the same port free.
    for place in places_of(ways) {
        stages.push(Stage::set(vec![place]).await);
    }
    join_all(stages.iter().map(perform)).await;
}

/// Has a worker go these ways and live; the points it passed.
pub(super) async fn points_of(ways: &[&'static Way]) -> Vec<String> {
    let places = ways.iter().enumerate().map(|(number, way)| Place { way, number, kill: None });
    let stage = Stage::set(places.collect()).await;
    perform(&stage).await;
    let seen = std::fs::read_to_string(stage.fleet.folder().join("points")).expect("points");
    seen.lines().map(str::to_owned).collect()
}

/// An address that nobody else has, because no other server has the port of this fleet's.
fn door(fleet: &Fleet, place: &Place) -> String {
    let port: u16 = fleet.nats.url().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let [high, low] = port.to_be_bytes();
    format!("127.1.{high}.{low}:{}", 20_000 + place.number)
}

async fn perform(stage: &Stage) {
    let needs_planner = stage.places.iter().any(|place| place.way.needs_planner());
    let _planner = needs_planner.then(|| stage.fleet.planner());
    if needs_planner {
        stage.fleet.members("planner", 1).await;
    }
    stage.begin().await;
    let (mortals, mut processes): (Vec<Mortal>, Vec<Process>) =
        stage.places.iter().map(|place| stage.mortal(place)).unzip();
    let played = stage.places.iter().zip(&mortals).map(|(place, mortal)| async move {
        plot::go_on(stage, place, mortal).await;
        stage.ended(place, mortal).await
    });
    let all = async { futures::join!(stage.succeeded(&mortals, &mut processes), join_all(played)) };
    let (_successor, records) = tokio::select! {
        done = all => done,
        () = stage.look() => unreachable!("it looks for ever"),
    };
    let lives = check::Lives::read(stage).await;
    for (place, records) in stage.places.iter().zip(&records) {
        check::all_went_as_it_should(stage, place, records, &lives).await;
    }
    check::nothing_is_left(stage).await;
    if stage.places.iter().any(|place| place.kill.is_none()) {
        // Those that live have one thing left to do: to take back that somebody waits.
        eventually("the last point", async || {
            let points = std::fs::read_to_string(stage.fleet.folder().join("points")).unwrap_or_default();
            if points.contains("limits.waiting") { Ok(()) } else { Err(points) }
        })
        .await;
    }
}
