//! The server in memory, on which planning is simulated, answers as a real one does. `planner/src/model/` has both.

use harness::{Cluster, Nats};
use shared::clock::SystemClock;
use streams::{ConnectSettings, Streams, topology::Replicas};

/// A server of its own for each seed, so that revisions begin at one.
async fn compare(settings: ConnectSettings, replicas: Replicas, seed: u64, steps: usize) {
    let streams = Streams::connect(&settings, SystemClock::shared()).await.expect("a connection");
    streams.init(replicas).await.expect("streams");
    planner::conformance::compare(&streams, seed, steps).await.unwrap_or_else(|why| panic!("{why}"));
}

#[tokio::test]
async fn the_simulated_server_answers_as_a_real_one_does() {
    for seed in 1..=5 {
        let nats = Nats::start().await;
        compare(nats.settings("spec"), Replicas::One, seed, 500).await;
    }
}

#[tokio::test]
async fn the_simulated_server_answers_as_three_real_ones_do() {
    let cluster = Cluster::start().await;
    compare(cluster.settings(), Replicas::Three, 7, 300).await;
}
