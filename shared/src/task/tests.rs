use super::*;

#[test]
fn the_origins_own_dictionary_is_a_task() {
    let task = Task::from_json(
        br#"{"task_name":"daily_data_archive","target_service":"data-storage-service","action":"archive_hot_data",
             "parameters":{"cutoff_date":"7_days_ago","batch_size":10000}}"#,
    )
    .expect("a task");
    assert_eq!(task.action().as_str(), "archive_hot_data");
    assert_eq!(task.retry.attempts, limits::ATTEMPTS_DEFAULT);
    let again = Task::from_json(serde_json::to_string(&task).expect("json").as_bytes());
    assert_eq!(again, Ok(task));
}

#[test]
fn what_could_not_be_stored_or_is_not_clear_is_refused() {
    let nested = |levels: usize| {
        let deep = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        Task::from_json(
            format!(r#"{{"target_service":"a","action":"b","parameters":{{"deep":{deep}}}}}"#).as_bytes(),
        )
    };
    assert!(nested(limits::JSON_DEPTH_MAX - 1).is_ok());
    assert_eq!(nested(limits::JSON_DEPTH_MAX), Err(TaskError::TooDeep));
    let twice = Task::from_json(br#"{"target_service":"a","action":"b","parameters":{"n":1,"n":2}}"#);
    assert!(twice.expect_err("twice").to_string().contains("\"n\" is written twice"));
}

#[test]
fn what_is_no_task_is_refused_with_the_repair() {
    for (json, part) in [
        (r#"{"target_service":"#, "EOF"),
        ("", "EOF"),
        ("[1]", "a task is an object"),
        (r#"["n","mine","echo"]"#, "a task is an object"),
        ("7", "a task is an object"),
        (
            r#"{"target_service":"a","action":"b","retry":[4,"2s"]}"#,
            "a list is not an object; write {\"field\": value}",
        ),
        (r#"{"target_service":"a","action":"b","limit":["parameters.x",1]}"#, "a list is not an object"),
        (r#"{"command":"work hello"}"#, "\"work hello\" is not a list; write [\"a\", \"b\"] (line 1"),
        (r#"{"command":["work"],"timeout":30}"#, "30 is not a length of time; write a number with its unit"),
        (r#"{"command":[1]}"#, "1 is not a text; put it in quotes"),
        (r"{}", "neither"),
        (r#"{"target_service":"a"}"#, "no `action`"),
        (r#"{"target_service":"a","action":"b","command":["c"]}"#, "both"),
        (r#"{"target_service":"a","action":"b","parametres":{}}"#, "did you mean `parameters`?"),
        (r#"{"target_service":"a.b","action":"c"}"#, "only A-Z"),
        (r#"{"command":["/bin/sh","-c","x"]}"#, "not a path"),
        (r#"{"command":["tool","a\u0000b"]}"#, "NUL"),
        (r#"{"command":["tool"],"execution":"http"}"#, "write local"),
        (r#"{"target_service":"a","action":"b","execution":"local"}"#, "write `command`"),
        (r#"{"target_service":"a","action":"b","timeout":"25h"}"#, "at most 1day"),
        (r#"{"target_service":"a","action":"b","timeout":"0s"}"#, "more than 0s"),
        (r#"{"target_service":"a","action":"b","timeout":"5 parsecs"}"#, "number with its unit"),
        (r#"{"target_service":"a","action":"b","retry":{"attempts":0}}"#, "retry.attempts is 0"),
        (r#"{"target_service":"a","action":"b","action":"c"}"#, "written twice"),
    ] {
        let message = Task::from_json(json.as_bytes()).expect_err(json).to_string();
        assert!(message.contains(part), "{json}: {message}");
    }
    let large = format!(r#"{{"parameters":{{"x":"{}"}}}}"#, "y".repeat(limits::TASK_BYTES_MAX));
    assert!(Task::from_json(large.as_bytes()).expect_err("large").to_string().contains("pass a reference"));
    let deep = format!(r#"{{"parameters":{{"x":{}{}}}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    assert!(Task::from_json(deep.as_bytes()).is_err(), "nesting has its bound");
}

#[test]
fn the_bound_by_which_small_tasks_are_told_is_never_less_than_what_they_have() {
    let awkward = "\u{1}\"\\é\n".repeat(20);
    let name = "n".repeat(limits::NAME_CHARS_MAX);
    let command = vec![name.clone(), awkward.clone(), String::new()];
    let parameters = serde_json::json!({
        awkward.clone(): [null, true, false, -1.234_567_890_123_456_7e-300, u64::MAX, i64::MIN, awkward, {}, []],
        "": {"a": {"b": ""}},
    });
    let retry =
        serde_json::json!({"attempts": 100, "backoff": "59m 59s 999ms", "max_backoff": "59m 59s 999ms"});
    for work in [
        serde_json::json!({"command": command, "execution": "local"}),
        serde_json::json!({"target_service": name, "action": name, "execution": "message"}),
    ] {
        let mut fields = serde_json::json!({
            "task_name": name, "parameters": parameters, "retry": retry, "delivery": "at_most_once",
            "timeout": "23h 59m 59s 999ms", "start_deadline": "23h 59m 59s 999ms", "deadline": "29days 23h 59m",
        });
        fields.as_object_mut().expect("an object").extend(work.as_object().expect("an object").clone());
        let task: Task = serde_json::from_value(fields).expect("a task");
        let bytes = serde_json::to_vec(&task).expect("JSON").len();
        assert!(task.bytes_at_most() >= bytes, "{} < {bytes}", task.bytes_at_most());
    }
}

#[test]
fn a_task_that_insists_on_another_way_than_its_targets_is_refused() {
    let task = Task::from_json(br#"{"target_service":"a","action":"b","execution":"http"}"#).expect("task");
    let target = |json: &str| serde_json::from_str::<Target>(json).expect("target");
    assert!(task.check_target(&target(r#"{"message":"svc.a"}"#)).is_err());
    assert!(task.check_target(&target(r#"{"http":"http://a"}"#)).is_ok());
}
