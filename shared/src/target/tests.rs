use super::*;

fn target(json: &str) -> Result<Target, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

#[test]
fn an_action_is_found_below_its_target() {
    let action: ActionName = "archive_hot_data".parse().expect("action");
    let (name, run) = ("daily".parse().expect("name"), "daily.1".parse().expect("run"));
    let parameters = serde_json::Map::new();
    let values = TemplateValues {
        action: &action,
        task_name: &name,
        run: &run,
        attempt: 1,
        slot: None,
        parameters: &parameters,
    };
    for (json, place) in [
        (r#"{"http":"http://127.0.0.1:9101/"}"#, "http://127.0.0.1:9101/actions/archive_hot_data"),
        (r#"{"http":"https://h/base","path":"/do/{action}/now"}"#, "https://h/base/do/archive_hot_data/now"),
        (r#"{"message":"svc.storage"}"#, "svc.storage.archive_hot_data"),
    ] {
        assert_eq!(target(json).expect(json).place_of(&values).expect("a place"), place);
    }
}

#[test]
fn a_password_or_a_token_in_an_address_is_refused_without_being_repeated() {
    for url in
        ["http://user:s3cret@host/a", "http://host/?token=s3cret", "user:s3cret@host", "http://u:a/s3cret@h"]
    {
        let message = target(&format!(r#"{{"http":"{url}"}}"#)).expect_err(url);
        assert!(!message.contains("s3cret") && message.contains("***"), "{message}");
    }
}

#[test]
fn a_target_that_cannot_be_reached_is_refused_with_the_repair() {
    for (json, part) in [
        ("{}", "none of them"),
        (r#"{"http":"http://a","message":"b"}"#, "several"),
        (r#"{"http":"file:///etc/passwd"}"#, "scheme and host"),
        (r#"{"http":"http://user:secret@host"}"#, "scheme and host"),
        (r#"{"http":"http://"}"#, "scheme and host"),
        (r#"{"message":"$SYS.REQ"}"#, "not targets"),
        (r#"{"message":"a..b"}"#, "empty token"),
        (r#"{"message":"a.>"}"#, "wildcard"),
        (r#"{"message":"a","health":"/healthz"}"#, "leave it out"),
        (r#"{"http":"http://a","health":"healthz"}"#, "begin with /"),
        (r#"{"http":"http://a","max_concurrent":0}"#, "nonzero"),
        (r#"{"service":"a.b"}"#, "NATS micro service"),
        (r#"{"service":"a","headers":{"X-A":"b"}}"#, "leave it out"),
        (r#"{"http":"http://a","actions":{"b":{"method":"GET","body":"task"}}}"#, "actions.b: a GET"),
        (r#"{"http":"http://a","redirects":11}"#, "0 (none is followed) to 10"),
        (r#"{"http":"http://a","max_response_bytes":0}"#, "1 to 1048576"),
        (r#"{"http":"http://a","connect_timeout":"2m"}"#, "at most 1m"),
        (r#"{"http":"http://a","reason":"b"}"#, "enabled: false"),
        (r#"{"http":"http://a","headers":{"X-A":{"envv":"b"}}}"#, "unknown field `envv`"),
    ] {
        let message = target(json).expect_err(json);
        assert!(message.contains(part), "{json}: {message}");
    }
}
