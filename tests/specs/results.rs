//! Results: every change of state is on the result subject, for a plain subscriber.

use harness::{Fleet, PlainClient};
use serde_json::{Value, json};

#[tokio::test]
async fn every_change_of_state_is_on_the_result_subject_for_a_plain_subscriber() {
    let fleet = Fleet::start().await;
    fleet.declare_target();
    let mut dashboard = PlainClient::connect(&fleet.nats.url()).await;
    dashboard.subscribe("cronfleet.results.reindex.*").await;
    let _worker = fleet.worker(&[]);
    let task = json!({"target_service": "target", "action": "flaky", "retry": {"backoff": "100ms"}});
    fleet.submit("reindex.flaky", &task).await.expect("submitted");
    let mut seen = Vec::new();
    for _ in 0..3 {
        let message = dashboard.next().await;
        assert_eq!(message.subject, "cronfleet.results.reindex.flaky");
        let record: Value = serde_json::from_str(&message.payload).expect("JSON");
        assert_eq!(record["id"], "reindex.flaky");
        seen.push((record["status"].as_str().expect("a state").to_owned(), record["attempt"].as_u64()));
    }
    // Its first attempt was too short to be seen running.
    let expected = [("RETRY", 1), ("RUNNING", 2), ("SUCCESS", 2)];
    assert_eq!(seen, expected.map(|(state, attempt)| (state.to_owned(), Some(attempt))));
}
