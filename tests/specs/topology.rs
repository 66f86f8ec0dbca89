//! What a fleet stands on: created by `init` and nothing else, examined by `doctor`, never changed behind one's back.

use harness::{Fleet, Nats, PlainClient, process};
use serde_json::Value;
use shared::clock::SystemClock;
use streams::{ConnectError, Streams, topology::Replicas};

#[tokio::test]
async fn init_may_be_repeated_and_doctor_finds_everything_well() {
    let fleet = Fleet::start().await;
    assert_eq!(fleet.streams.init(Replicas::One).await.expect("again"), Vec::<String>::new());
    assert_eq!(fleet.streams.examine(None).await.expect("examined"), vec![]);
    let (_planner, _worker) = (fleet.planner(), fleet.worker(&[]));
    fleet.is_well().await;
}

#[tokio::test]
async fn who_asks_init_for_other_replicas_is_told_how_to_change_them() {
    let fleet = Fleet::start().await;
    let output = fleet.try_cronfleet(&["init", "--replicas", "3"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [
        "has 1 replica, not the 3 asked for",
        "never changes what exists",
        "nats stream edit",
        "--replicas 3",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("this version"), "it is no matter of versions: {said}");
    assert_eq!(fleet.streams.examine(None).await.expect("examined"), vec![]);
}

#[tokio::test]
async fn apply_before_init_says_what_to_run() {
    let nats = Nats::start().await;
    let file = nats.folder().join("one.yaml");
    std::fs::write(&file, "targets: {storage: {http: 'http://127.0.0.1:1'}}").expect("written");
    let arguments = ["apply", "-f", file.to_str().expect("a path")];
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_cronfleet-under-test"));
    let output = process::run(binary, arguments, nats.folder(), &[("NATS_URL", nats.url())]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cronfleet init") && !said.contains("apply the file"), "{said}");
}

#[tokio::test]
async fn what_differs_is_reported_and_left_as_it_is() {
    let fleet = Fleet::start().await;
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    let info = client.request("$JS.API.STREAM.INFO.KV_cronfleet_runs", b"").await;
    let mut config: Value = serde_json::from_str::<Value>(&info.payload).expect("JSON")["config"].clone();
    config["republish"] = Value::Null;
    config["max_age"] = 0.into();
    let changed =
        client.request("$JS.API.STREAM.UPDATE.KV_cronfleet_runs", config.to_string().as_bytes()).await;
    assert!(!changed.payload.contains("\"error\""), "{}", changed.payload);
    let differences = fleet.streams.examine(None).await.expect("examined");
    let settings: Vec<&str> = differences.iter().map(|difference| difference.setting.as_str()).collect();
    assert_eq!(settings, ["max_age", "republish"]);
    let output = fleet.try_cronfleet(&["doctor"]);
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("KV_cronfleet_runs") && said.contains("republish"), "{said}");
    let error = fleet.streams.init(Replicas::One).await.expect_err("it differs").to_string();
    assert!(error.contains("nothing was changed"), "{error}");
    assert_eq!(fleet.streams.examine(None).await.expect("examined"), differences, "it is as it was");
}

#[tokio::test]
async fn a_bucket_cannot_be_wiped_by_who_may_write_one_key_of_it() {
    let fleet = Fleet::start().await;
    fleet.apply("targets: {target: {http: TARGET}}");
    let mut client = PlainClient::connect(&fleet.nats.url()).await;
    for stream in
        ["KV_cronfleet_runs", "KV_cronfleet_schedules", "KV_cronfleet_catalog", "KV_cronfleet_planner"]
    {
        let purge = client.request(&format!("$JS.API.STREAM.PURGE.{stream}"), b"").await;
        assert!(purge.payload.contains("\"error\""), "{stream}: {}", purge.payload);
        let delete = client.request(&format!("$JS.API.STREAM.MSG.DELETE.{stream}"), b"{\"seq\":1}").await;
        assert!(delete.payload.contains("\"error\""), "{stream}: {}", delete.payload);
        let info = client.request(&format!("$JS.API.STREAM.INFO.{stream}"), b"").await;
        let info: Value = serde_json::from_str(&info.payload).expect("JSON");
        assert_ne!(info["config"]["allow_rollup_hdrs"], true, "{stream}");
    }
    assert_eq!(fleet.streams.catalog().all().await.expect("catalog").targets.len(), 1);
}

#[tokio::test]
async fn a_server_without_jetstream_is_refused_with_the_reason() {
    let nats = Nats::start_with("# no jetstream").await;
    let error = Streams::connect(&nats.settings("spec"), SystemClock::shared()).await.err().expect("refused");
    assert!(matches!(error, ConnectError::NoJetStream { .. }), "{error}");
    let output = process::run(
        std::path::Path::new(env!("CARGO_BIN_EXE_cronfleet-under-test")),
        ["get", "schedules"],
        nats.folder(),
        &[("NATS_URL", nats.url())],
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("JetStream") && said.contains("-js"), "{said}");
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_with_the_reason() {
    // No old server at hand: one that says it is, for the length of a greeting, is enough to be refused.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let old = tokio::spawn(async move {
        use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
        let (mut connection, _) = listener.accept().await.expect("a client");
        let greeting = format!(
            "INFO {{\"server_id\":\"X\",\"version\":\"2.9.25\",\"go\":\"\",\"host\":\"127.0.0.1\",\"port\":{},\
             \"headers\":true,\"max_payload\":1048576,\"proto\":1,\"client_id\":1,\"jetstream\":true}}\r\n",
            address.port()
        );
        connection.write_all(greeting.as_bytes()).await.expect("sent");
        let (reader, mut writer) = connection.split();
        let mut lines = BufReader::new(reader).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if line.starts_with("PING") {
                writer.write_all(b"PONG\r\n").await.expect("sent");
            }
        }
    });
    let settings = streams::ConnectSettings { url: format!("nats://{address}"), ..Default::default() };
    let error = Streams::connect(&settings, SystemClock::shared()).await.err().expect("refused");
    old.abort();
    let text = error.to_string();
    assert!(text.contains("2.9.25") && text.contains("2.14.5"), "{text}");
}
