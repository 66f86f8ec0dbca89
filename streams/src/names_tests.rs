//! What is put together is taken apart again.

use super::*;

#[test]
fn a_task_subject_is_taken_apart_as_it_was_put_together() {
    let names = Names::new(Namespace::default());
    let queue = QueueName::default_queue();
    let run: RunId = "reindex.4711".parse().expect("id");
    let (origin, q, name, key) = names.parse_task("cronfleet.tasks.default.reindex.4711").expect("parsed");
    assert_eq!((origin, q, name, key), (Origin::AdHoc, "default", "reindex", "4711"));
    assert_eq!(names.task(&queue, &run), "cronfleet.tasks.default.reindex.4711");
    let lock = names.due_lock(&queue, &run.name);
    assert_eq!(names.parse_task(&lock), Some((Origin::Due, "default", "reindex", "_")));
    assert_eq!(names.parse_task("other.tasks.default.reindex.4711"), None);
}

#[test]
fn the_subject_of_what_waits_is_taken_apart_as_the_server_put_it_together() {
    let names = Names::new(Namespace::default());
    let run: RunId = "reindex.4711".parse().expect("id");
    assert_eq!(
        names.parse_delayed("cronfleet.delayed.31.default.reindex.4711"),
        Some((31, "default", "reindex", "4711"))
    );
    // The partition is what nats-server 2.15.1 computed for this subject.
    assert_eq!(names.delayed_run(&run), "cronfleet.delayed.31.*.reindex.4711");
    assert_eq!(names.parse_delayed("cronfleet.delayed.default.reindex.4711"), None);
    assert_eq!(
        names.delayed_in(&(0..64).collect()),
        ["cronfleet.delayed.*.*.*.*", "cronfleet.parked.*.*.*.*"]
    );
    assert_eq!(names.delayed_in(&[7].into()), ["cronfleet.delayed.7.*.*.*", "cronfleet.parked.7.*.*.*"]);
    let parked = names.parked(&QueueName::default_queue(), &run);
    assert_eq!(names.parse_parked(&parked), Some((31, "default", "reindex", "4711")));
    assert_eq!(names.parse_delayed(&parked), None);
}

#[test]
fn keys_that_planners_use_are_not_for_callers() {
    for (key, reserved) in
        [("20261124T020000Z-3", true), ("_", true), ("_x", true), ("20261124T020000Z", true), ("4711", false)]
    {
        assert_eq!(Names::is_reserved_key(&key.parse().expect("key")), reserved, "{key}");
    }
}
