use crate::definitions::Definitions;

const FILE: &str = r#"targets:
  storage:
    http: http://127.0.0.1:9101
    health: /healthz
queues:
  reports: {max_in_flight: 2, ack_wait: 30s}
schedules:
  hourly_anomalies:
    cron: "15 * * * *"
    timezone: Europe/Paris
    queue: reports
    task:
      target_service: storage
      action: detect_anomalies
      timeout: 5m
      retry: {attempts: 3, backoff: 10s}
"#;

/// Each slip: what is written for what, where it is pointed at, and a part of what is said.
fn check(slips: &[(&str, &str, &str, &str)]) {
    Definitions::parse(FILE).expect("the file without a slip");
    for (from, to, place, part) in slips {
        let text = FILE.replacen(from, to, 1);
        assert_ne!(text, FILE, "{from}");
        let error = Definitions::parse(&text).expect_err(to);
        let said = error.explain(&text);
        assert!(said.contains(&format!("--> <input>:{place}\n")), "{to}: not at {place}: {said}");
        assert!(said.contains(part), "{to}: {part:?} is missing in: {said}");
        for word in ["u32", "u64", "bool", "expected string scalar", "untagged", "Option<", "variant"] {
            assert!(!said.contains(word), "{to}: {word} is no word of an author's: {said}");
        }
    }
}

#[test]
fn a_value_of_the_wrong_kind_is_said_with_the_rule_and_the_repair() {
    check(&[
        ("attempts: 3", "attempts: many", "16:25", "\"many\" is not a whole number"),
        ("attempts: 3", "attempts: -1", "16:25", "\"-1\" is not a whole number from 0"),
        ("attempts: 3", "attempts: 2.5", "16:25", "\"2.5\" is not a whole number"),
        ("attempts: 3", "attempts: [3]", "16:25", "a list is not one value"),
        ("in_flight: 2", "in_flight: 2 x", "6:28", "\"2 x\" is not a whole number"),
        ("health: /healthz", "max_concurrent: 0", "4:21", "\"0\" is not a whole number from 1"),
        ("health: /healthz", "rate: 10", "4:11", "\"10\" is not a rate; write attempts per time"),
        ("health: /healthz", "rate: {max: 10}", "4:12", "missing field `per`"),
        ("health: /healthz", "rate: [10]", "4:5", "a list is not a rate"),
        ("retry: {attempts: 3, backoff: 10s}", "retry: 5", "16:14", "\"5\" is not a mapping"),
        ("retry: {attempts: 3, backoff: 10s}", "retry:", "16:12", "nothing is not a mapping"),
        ("queue: reports", "overlap: [skip]", "11:14", "a list is not one value"),
        (
            "queue: reports",
            "overlap: skp",
            "11:14",
            "unknown value `skp`, expected one of skip, buffer_one, buffer_all, replace, allow; did you",
        ),
        ("cron: \"15 * * * *\"", "cron: 15", "9:11", "\"15\" is neither a cron line"),
        ("cron: \"15 * * * *\"", "at: yesterday", "9:9", "\"yesterday\" is not an instant"),
    ]);
}

#[test]
fn a_value_that_its_whole_schedule_was_refused_for_is_pointed_at_itself() {
    check(&[
        ("Europe/Paris", "Europe/Pari", "10:15", "did you mean Europe/Paris?"),
        ("\"15 * * * *\"", "\"75 * * * *\"", "9:11", "75"),
        ("\"15 * * * *\"", "[\"15 * * * *\", '* 25 * * *']", "9:26", "25"),
        ("queue: reports", "catch_up: 99999h", "11:15", "catch_up is"),
        ("timeout: 5m", "timeout: 25h", "15:16", "timeout is"),
        ("attempts: 3", "attempts: 0", "16:25", "retry.attempts is 0"),
        ("/healthz", "healthz", "4:13", "health is"),
        ("in_flight: 2", "in_flight: 0", "6:3", "max_in_flight is 0"),
    ]);
}

#[test]
fn a_line_that_is_indented_otherwise_than_its_neighbours_is_pointed_at() {
    check(&[
        ("    queue", "   queue", "11:4", "indented by 3 spaces, and the levels above it by 0, 2, 4"),
        ("    queue", "     queue", "11:6", "deeper than line 10"),
        ("      action", "     action", "14:6", "indented by 5 spaces"),
        ("      action", "       action", "14:8", "deeper than line 13"),
        ("    health", "   health", "4:4", "indented by 3 spaces"),
        ("    timezone", "   timezone", "10:4", "indented by 3 spaces"),
    ]);
}

#[test]
fn a_field_that_is_missing_is_not_taken_for_a_wrong_indentation() {
    for (from, to) in [("    task:", "    tasks:"), ("      action: detect_anomalies\n", "")] {
        let text = FILE.replacen(from, to, 1);
        let said = Definitions::parse(&text).expect_err(to).explain(&text);
        assert!(!said.contains("indented"), "{said}");
    }
}

#[test]
fn json_is_refused_in_the_same_words() {
    let text = r#"{"queues": {"reports": {"max_in_flight": "many"}}}"#;
    let said = Definitions::parse(text).expect_err("many").explain(text);
    assert!(said.contains("\"many\" is not a whole number") && said.contains("line 1"), "{said}");
}
