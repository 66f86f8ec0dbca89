//! The examples `up` can run: their data, their services and their schedules.
//!
//! Promise: what somebody changed stays. A schedule is applied when there never was one of its name; a target is
//! changed only while it still has the address that the `up` before gave it.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use shared::{
    clock::SharedClock,
    definitions::Definitions,
    names::{Name, TargetName},
    suggest::nearest,
    target::{Address, Target},
};
use streams::{ReadError, Streams};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{supervise::supervise, talk::Talk};
use crate::example::{self, HTTP_SERVICES, HttpService, MARKETPRISM};

/// The examples there are.
const KNOWN: [&str; 1] = [MARKETPRISM];

/// Refuses an example that does not exist, before anything is started.
pub(super) fn check(name: &str) -> anyhow::Result<()> {
    if KNOWN.contains(&name) {
        return Ok(());
    }
    let hint = nearest(name, KNOWN).map_or_else(String::new, |near| format!(" (did you mean {near:?}?)"));
    bail!("there is no example {name:?}{hint}; known: {}", KNOWN.join(", "))
}

/// What to say where an example's targets are in the fleet and its services are not started, as after an `up` with it.
///
/// Told by addresses on this machine: a target of the same name elsewhere is somebody's own.
pub(super) fn not_started(targets: &BTreeMap<TargetName, Target>) -> Option<String> {
    let is_ours = |target: &Target| {
        let place = place(target);
        place == example::COLLECTOR_SUBJECT || place.starts_with(&format!("http://{}:", Ipv4Addr::LOCALHOST))
    };
    let names = HTTP_SERVICES.iter().map(|service| service.name).chain([example::COLLECTOR]);
    let ours = names.filter(|name| targets.iter().any(|(found, at)| found.as_str() == *name && is_ours(at)));
    let ours: Vec<&str> = ours.collect();
    (!ours.is_empty()).then(|| {
        format!(
            "the fleet has targets of example {MARKETPRISM} ({}), whose services are not started here: runs that act \
             on them fail; start them with --example {MARKETPRISM}",
            ours.join(", ")
        )
    })
}

/// The running services of the example.
pub(super) struct Demo {
    parts: JoinSet<()>,
    /// Name and address of each, for people.
    pub(super) services: Vec<(String, String)>,
}

impl Demo {
    /// Seeds the example's data, starts its services and applies its definitions.
    pub(super) async fn start(
        data: PathBuf,
        streams: &Streams,
        talk: &Talk,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let clock = streams.clock().clone();
        let settings = example::settings(data.clone(), clock.clone());
        seed(settings.clone(), talk).await?;
        let mut demo = Self { parts: JoinSet::new(), services: Vec::new() };
        for service in &HTTP_SERVICES {
            let address = demo.serve(service, &settings, talk, &clock, stop)?;
            talk.say(format!("{} serves {address}", service.name));
            demo.services.push((service.name.to_owned(), address));
        }
        demo.collect(&settings, streams, talk, stop);
        apply(&demo.services, streams, &data.join("addresses.json"), talk).await?;
        Ok(demo)
    }

    fn serve(
        &mut self,
        service: &'static HttpService,
        settings: &marketprism::Settings,
        talk: &Talk,
        clock: &SharedClock,
        stop: &CancellationToken,
    ) -> anyhow::Result<String> {
        // Bound once and kept, so that a service that is started again has the same address.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, service.port))
            .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .with_context(|| format!("{} finds no free port on 127.0.0.1", service.name))?;
        let address = format!("http://{}", listener.local_addr()?);
        let (settings, stopped, listener) = (settings.clone(), stop.clone(), Arc::new(listener));
        let start = move || {
            let (settings, stop, listener) = (settings.clone(), stopped.clone(), Arc::clone(&listener));
            async move { example::serve(listener.try_clone()?, service.router(&settings).await?, stop).await }
        };
        self.parts.spawn(supervise(
            service.name.to_owned(),
            talk.clone(),
            clock.clone(),
            stop.clone(),
            start,
        ));
        Ok(address)
    }

    fn collect(
        &mut self,
        settings: &marketprism::Settings,
        streams: &Streams,
        talk: &Talk,
        stop: &CancellationToken,
    ) {
        let (settings, stopped, connection) = (settings.clone(), stop.clone(), streams.clone());
        let start = move || {
            let (settings, stop, streams) = (settings.clone(), stopped.clone(), connection.clone());
            async move { example::collect(&streams, settings, stop).await }
        };
        talk.say(format!("{} answers on {}.<action>", example::COLLECTOR, example::COLLECTOR_SUBJECT));
        let (name, clock) = (example::COLLECTOR.to_owned(), streams.clock().clone());
        self.parts.spawn(supervise(name, talk.clone(), clock, stop.clone(), start));
    }

    /// Waits until all services, which were told to stop, have stopped.
    pub(super) async fn stopped(mut self) {
        while self.parts.join_next().await.is_some() {}
    }
}

async fn seed(settings: marketprism::Settings, talk: &Talk) -> anyhow::Result<()> {
    talk.say(format!("example {MARKETPRISM}: data in {}", settings.data_dir.display()));
    let report = tokio::task::spawn_blocking(move || marketprism::seed_if_empty(&settings)).await??;
    if report.seeded {
        talk.say(format!("seeded {} candles and {} trades", report.market_data, report.trade_history));
    }
    Ok(())
}

/// Applies what is not there yet, and the addresses that changed.
async fn apply(
    services: &[(String, String)],
    streams: &Streams,
    addresses_file: &Path,
    talk: &Talk,
) -> anyhow::Result<()> {
    let mut definitions =
        Definitions::parse(marketprism::SCHEDULES_YAML).context("the example's schedules.yaml")?;
    for (name, address) in services {
        let name: TargetName = name.parse()?;
        if let Some(target) = definitions.targets.get_mut(&name) {
            target.address = Address::Http(address.clone());
        }
    }
    let fleet = streams.catalog().all().await?;
    definitions.check_references(&fleet)?;
    for (name, queue) in definitions.queues.iter().filter(|(name, _)| !fleet.queues.contains_key(*name)) {
        streams.declare_queue(name, queue).await?;
    }
    for (name, calendar) in
        definitions.calendars.iter().filter(|(name, _)| !fleet.calendars.contains_key(*name))
    {
        streams.catalog().apply_calendar(name, calendar).await?;
    }
    apply_targets(&definitions.targets, &fleet.targets, streams, addresses_file, talk).await?;
    apply_schedules(&definitions, streams, talk).await
}

async fn apply_targets(
    wanted: &BTreeMap<TargetName, Target>,
    found: &BTreeMap<TargetName, Target>,
    streams: &Streams,
    addresses_file: &Path,
    talk: &Talk,
) -> anyhow::Result<()> {
    let written_before: BTreeMap<String, String> = fs::read(addresses_file)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let mut written = BTreeMap::new();
    for (name, target) in wanted {
        let ours = place(target);
        match next_target(target, found.get(name), written_before.get(name.as_str())) {
            Some(target) => {
                streams.catalog().apply_target(name, &target).await?;
            }
            None => talk
                .say(format!("target {name} was changed by hand and stays so; its service here is {ours}")),
        }
        written.insert(name.to_string(), ours.to_owned());
    }
    fs::write(addresses_file, serde_json::to_vec_pretty(&written)?)
        .with_context(|| format!("{} cannot be written", addresses_file.display()))
}

/// The target to write: all of it if there is none, the address alone if that is still ours; none if it is not.
fn next_target(wanted: &Target, found: Option<&Target>, written_before: Option<&String>) -> Option<Target> {
    let Some(found) = found else { return Some(wanted.clone()) };
    let is_ours =
        place(found) == place(wanted) || written_before.is_some_and(|before| before == place(found));
    is_ours.then(|| Target { address: wanted.address.clone(), ..found.clone() })
}

fn place(target: &Target) -> &str {
    match &target.address {
        Address::Http(place) | Address::Message(place) | Address::Service(place) => place,
    }
}

async fn apply_schedules(definitions: &Definitions, streams: &Streams, talk: &Talk) -> anyhow::Result<()> {
    let schedules = streams.schedules();
    let (mut created, mut kept, mut deleted) = (0_usize, 0_usize, Vec::new());
    for (name, schedule) in &definitions.schedules {
        match before(&schedules, name).await? {
            Before::Never => {
                schedules.apply(name, schedule).await?;
                created += 1;
            }
            Before::There => kept += 1,
            Before::Deleted => deleted.push(name.as_str()),
        }
    }
    let mut said = Vec::new();
    if created > 0 {
        said.push(format!("{created} applied"));
    }
    if kept > 0 {
        said.push(format!("{kept} left as they are"));
    }
    if !deleted.is_empty() {
        said.push(format!("{} deleted before and left so ({})", deleted.len(), deleted.join(", ")));
    }
    talk.say(format!("schedules of {MARKETPRISM}: {}", said.join(", ")));
    Ok(())
}

enum Before {
    Never,
    There,
    Deleted,
}

async fn before(schedules: &streams::schedules::Schedules, name: &Name) -> anyhow::Result<Before> {
    match schedules.get(name).await {
        Ok(None) if schedules.history(name).await?.is_empty() => Ok(Before::Never),
        Ok(None) => Ok(Before::Deleted),
        // What cannot be understood is somebody's work too, perhaps of a newer version.
        Ok(Some(_)) | Err(ReadError::Corrupt { .. }) => Ok(Before::There),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_example_is_refused_with_those_there_are() {
        let message = check("marketprisma").expect_err("unknown").to_string();
        let wanted =
            "there is no example \"marketprisma\" (did you mean \"marketprism\"?); known: marketprism";
        assert_eq!(message, wanted);
        let message = check("nope").expect_err("unknown").to_string();
        assert_eq!(message, "there is no example \"nope\"; known: marketprism");
        check(MARKETPRISM).expect("known");
    }

    #[test]
    fn targets_of_the_example_without_its_services_are_spoken_of() {
        let targets = |text: &str| Definitions::parse(text).expect("definitions").targets;
        let none = targets("targets: {storage: {http: 'http://127.0.0.1:1'}}");
        assert_eq!(not_started(&none), None);
        let elsewhere = targets("targets: {data-storage-service: {http: 'https://storage.example.com'}}");
        assert_eq!(not_started(&elsewhere), None, "somebody's own");
        let ours = targets(
            "targets: {data-storage-service: {http: 'http://127.0.0.1:9101'}, market-data-collector: {message: \
             svc.market-data-collector}}",
        );
        let said = not_started(&ours).expect("said");
        for part in ["(data-storage-service, market-data-collector)", "--example marketprism"] {
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn a_targets_address_is_changed_only_while_it_is_ours() {
        let target = |json: &str| serde_json::from_str::<Target>(json).expect("target");
        let wanted = target(r#"{"http":"http://127.0.0.1:40001","health":"/healthz"}"#);
        assert_eq!(next_target(&wanted, None, None), Some(wanted.clone()));
        let edited = target(r#"{"http":"http://127.0.0.1:9101","max_concurrent":2}"#);
        let ours = "http://127.0.0.1:9101".to_owned();
        let moved = next_target(&wanted, Some(&edited), Some(&ours)).expect("moved");
        assert_eq!(
            (place(&moved), moved.max_concurrent, moved.health.as_ref()),
            (place(&wanted), edited.max_concurrent, None)
        );
        let theirs = target(r#"{"http":"https://storage.example.com"}"#);
        assert_eq!(next_target(&wanted, Some(&theirs), Some(&ours)), None);
        assert_eq!(next_target(&wanted, Some(&edited), None), None);
    }
}
