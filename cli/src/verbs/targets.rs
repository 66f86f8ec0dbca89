//! Targets, as `get` lists them: how they are reached, and how full their limits are.

use std::collections::BTreeMap;

use shared::{
    limit::Scope,
    names::TargetName,
    target::{Address, Target},
};
use streams::{
    Streams,
    operate::members::{Fullness, Named, fullness, target_item},
};

use super::get::show;
use crate::{
    output::{Output, talk},
    table::{Cell, Table},
};

/// Lists targets.
pub async fn targets(streams: &Streams, output: Output, wanted: Option<&str>) -> anyhow::Result<()> {
    let targets = streams.catalog().all().await?.targets;
    // A fleet of an earlier version has none of it.
    let gates = match streams.gates().list().await {
        Ok(gates) => gates,
        Err(error) => {
            talk(format!("warning: {error}; `cronfleet doctor` says more"));
            Vec::new()
        }
    };
    let mut full: BTreeMap<TargetName, Fullness> = BTreeMap::new();
    for name in targets.keys() {
        let mut fullness = fullness(name, &gates);
        fullness.waiting = streams.count_waiting(&Scope::Target(name.clone())).await.ok();
        full.insert(name.clone(), fullness);
    }
    let items: Vec<Named<TargetName>> =
        targets.iter().map(|(name, target)| target_item(name, target, &full[name])).collect();
    let table = |items: &[Named<TargetName>]| {
        let columns =
            ["NAME", "REACHED BY", "HEALTH", "MAX CONCURRENT", "RATE", "PER KEY", "INSIDE", "WAITING"];
        let mut table = Table::new(&columns);
        for (name, target) in items.iter().filter_map(|item| Some((&item.name, targets.get(&item.name)?))) {
            table.row(row(name, target, &full[name]));
        }
        table
    };
    let when_empty = "no targets; add some under `targets:` with `cronfleet apply -f FILE`";
    show(output, "target", &items, |item| item.name.to_string(), wanted, table, when_empty)
}

fn row(name: &TargetName, target: &Target, full: &Fullness) -> Vec<Cell> {
    let reached_by = match &target.address {
        Address::Http(url) => url.clone(),
        Address::Message(prefix) => format!("messages to {prefix}"),
        Address::Service(name) => format!("service {name}"),
    };
    let health = match &target.reason {
        _ if target.enabled => target.health_url(),
        Some(reason) => Some(format!("disabled: {reason}")),
        None => Some("disabled".to_owned()),
    };
    let per_key = target.limit.as_ref().map(|limit| format!("{} of {}", limit.max, limit.key));
    let is_limited = target.max_concurrent.is_some() || !full.holders.is_empty();
    vec![
        name.as_str().into(),
        reached_by.into(),
        Cell::optional(health),
        Cell::optional(target.max_concurrent),
        Cell::optional(target.rate),
        Cell::optional(per_key),
        Cell::optional(is_limited.then_some(full.inside)),
        Cell::optional(full.waiting.filter(|waiting| *waiting > 0)),
    ]
}
