//! `drain`: ad-hoc runs that lie in a queue, and a worker whose handler does nothing. How many runs a second does it come to,
//! and how many messages a second does the server hand out and take the acknowledgements of at all?
//!
//! Beside it: two workers, a claim of its own for each attempt, and successes that leave no record. The raw rate is measured
//! before and after all of them.

use std::time::Duration;

use shared::{
    names::QueueName,
    queue::{Claiming, QueueSettings, Recording},
};

use crate::{
    Bench, NOTHING, Report,
    fleet::{Process, cpu_of_server, cpu_of_this},
    load,
};

const DRAIN_WAIT: Duration = Duration::from_mins(10);
const LOOK: Duration = Duration::from_millis(5);
const IN_FLIGHT_MAX: u32 = 10_000;

/// How a queue was emptied.
struct Drained {
    per_s: f64,
    /// CPU time of all workers, and of the server, for one run.
    worker_us: f64,
    server_us: f64,
}

pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Report> {
    let before = raw(bench).await?;
    let usual = QueueSettings { max_in_flight: IN_FLIGHT_MAX, ..QueueSettings::default() };
    let one = drained(bench, "one", usual, 1).await?;
    let two = drained(bench, "two", usual, 2).await?;
    let each = drained(bench, "each", QueueSettings { claim: Claiming::Each, ..usual }, 1).await?;
    let failures =
        drained(bench, "failures", QueueSettings { record: Recording::Failures, ..usual }, 1).await?;
    let after = raw(bench).await?;
    let raw_per_s = f64::midpoint(before.per_s, after.per_s);
    let report = Report {
        two_per_s: Some(two.per_s),
        each_per_s: Some(each.per_s),
        each_ratio: Some(each.per_s / raw_per_s),
        failures_per_s: Some(failures.per_s),
        failures_ratio: Some(failures.per_s / raw_per_s),
        raw_us: Some(f64::midpoint(before.worker_us + before.server_us, after.worker_us + after.server_us)),
        worker_us: Some(one.worker_us),
        server_us: Some(one.server_us),
        failures_worker_us: Some(failures.worker_us),
        failures_server_us: Some(failures.server_us),
        each_worker_us: Some(each.worker_us),
        each_server_us: Some(each.server_us),
        ..Report::default()
    };
    Ok(report.with_rates(one.per_s, raw_per_s))
}

/// The raw rate, and the CPU time of both sides: the client is this process then.
async fn raw(bench: &Bench) -> anyhow::Result<Drained> {
    (bench.say)("the raw rate of the server");
    bench.streams.raw_queue(bench.n, load::MESSAGE_BYTES).await?;
    let (client, server) = (cpu_of_this()?, cpu_of_server()?);
    let raw = bench.streams.raw_drain().await?;
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / bench.n as f64;
    Ok(Drained {
        per_s: bench.n as f64 / raw.as_secs_f64(),
        worker_us: each(cpu_of_this()?.saturating_sub(client)),
        server_us: each(cpu_of_server()?.saturating_sub(server)),
    })
}

/// Fills a queue and has so many workers empty it.
async fn drained(
    bench: &Bench,
    name: &str,
    settings: QueueSettings,
    workers: usize,
) -> anyhow::Result<Drained> {
    let queue: QueueName = name.parse()?;
    bench.streams.declare_queue(&queue, &settings).await?;
    load::submit(&bench.streams, &queue, name, NOTHING, bench.n).await?;
    (bench.say)(&format!("{} runs in queue {name}, {workers} worker(s)", bench.n));
    let server_before = cpu_of_server()?;
    let began = bench.clock().elapsed();
    let workers = (0..workers).map(|_| bench.idle_worker(&queue)).collect::<anyhow::Result<Vec<_>>>()?;
    let give_up_at = began + DRAIN_WAIT;
    while bench.streams.tasks_stored().await?.0 > 0 {
        anyhow::ensure!(
            bench.clock().elapsed() < give_up_at,
            "queue {name} is not empty after {DRAIN_WAIT:?}"
        );
        bench.clock().sleep(LOOK).await;
    }
    let took = bench.clock().elapsed().saturating_sub(began);
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / bench.n as f64;
    let worker_cpu = workers.iter().map(Process::cpu).sum::<anyhow::Result<Duration>>()?;
    Ok(Drained {
        per_s: bench.n as f64 / took.as_secs_f64(),
        worker_us: each(worker_cpu),
        server_us: each(cpu_of_server()?.saturating_sub(server_before)),
    })
}
