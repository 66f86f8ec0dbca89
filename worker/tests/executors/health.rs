//! The check before an attempt.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{Router, http::StatusCode, routing::get};
use serde_json::json;
use shared::{
    clock::ManualClock,
    limits::{HEALTH_BAD_FOR, HEALTH_BAD_FOR_MAX, HEALTH_GOOD_FOR},
    names::TargetName,
    run_record::ErrorKind,
};
use worker::executors::{health::HealthChecks, http::HttpExecutor};

use crate::target::{Service, nobody, target};

struct Patient {
    service: Service,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicU32>,
    clock: Arc<ManualClock>,
    checks: HealthChecks,
}

async fn patient() -> Patient {
    let (status, asked) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU32::new(0)));
    let (answered, counted) = (Arc::clone(&status), Arc::clone(&asked));
    let answer = move || async move {
        counted.fetch_add(1, Ordering::SeqCst);
        StatusCode::from_u16(answered.load(Ordering::SeqCst)).expect("a status")
    };
    let service = Service::with(Router::new().route("/healthz", get(answer))).await;
    let clock = ManualClock::at("2026-11-24T02:00:00Z".parse().expect("an instant"));
    let checks = HealthChecks::new(HttpExecutor::new(clock.clone()).expect("a client"), clock.clone());
    Patient { service, status, asked, clock, checks }
}

fn name() -> TargetName {
    "storage".parse().expect("a name")
}

#[tokio::test]
async fn an_answer_counts_for_a_while_a_bad_one_briefly() {
    let patient = patient().await;
    let (target, name) = (patient.service.target(), name());
    let check = || patient.checks.check(&name, &target);
    assert_eq!(check().await, Ok(()));
    patient.status.store(503, Ordering::SeqCst);
    patient.clock.advance(HEALTH_GOOD_FOR.saturating_sub(Duration::from_millis(1)));
    assert_eq!(check().await, Ok(()), "still known");
    patient.clock.advance(Duration::from_millis(1));
    let failure = check().await.expect_err("asked again");
    assert_eq!((failure.error.kind, failure.permanent), (ErrorKind::Precheck, false));
    for part in ["target storage", "/healthz answered 503", "mend `health:`"] {
        assert!(failure.error.message.contains(part), "{}", failure.error.message);
    }
    patient.status.store(200, Ordering::SeqCst);
    assert_eq!(check().await, Err(failure), "still known");
    patient.clock.advance(HEALTH_BAD_FOR);
    assert_eq!(check().await, Ok(()));
    assert_eq!(patient.asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn whoever_asks_at_the_same_time_shares_one_answer() {
    let patient = patient().await;
    let (target, name) = (patient.service.target(), name());
    let all = futures::future::join_all((0..50).map(|_| patient.checks.check(&name, &target))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(patient.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_target_that_has_moved_is_asked_at_its_new_place() {
    let patient = patient().await;
    assert_eq!(patient.checks.check(&name(), &patient.service.target()).await, Ok(()));
    let failure = patient.checks.check(&name(), &target(&nobody().await)).await.expect_err("nobody");
    assert!(failure.error.message.contains("did not answer"), "{}", failure.error.message);
}

#[tokio::test]
async fn a_target_that_hangs_is_not_waited_for_for_long() {
    let service = Service::with(Router::new().route("/healthz", get(std::future::pending::<()>))).await;
    let patient = patient().await;
    let failure = patient.checks.check(&name(), &service.target()).await.expect_err("no answer");
    assert!(failure.error.message.contains("did not answer within 3s"), "{}", failure.error.message);
}

#[tokio::test]
async fn a_target_that_stays_ill_is_asked_less_and_less_often_until_it_is_well() {
    let patient = patient().await;
    let (target, name) = (patient.service.target(), name());
    patient.status.store(500, Ordering::SeqCst);
    let mut wait = HEALTH_BAD_FOR;
    for asked in 1..=6 {
        assert!(patient.checks.check(&name, &target).await.is_err());
        assert_eq!(patient.asked.load(Ordering::SeqCst), asked);
        patient.clock.advance(wait.saturating_sub(Duration::from_millis(1)));
        assert!(patient.checks.check(&name, &target).await.is_err());
        assert_eq!(patient.asked.load(Ordering::SeqCst), asked, "still known after {wait:?}");
        patient.clock.advance(Duration::from_millis(1));
        wait = (2 * wait).min(HEALTH_BAD_FOR_MAX);
    }
    patient.status.store(200, Ordering::SeqCst);
    assert_eq!(patient.checks.check(&name, &target).await, Ok(()));
    patient.status.store(500, Ordering::SeqCst);
    patient.clock.advance(HEALTH_GOOD_FOR);
    assert!(patient.checks.check(&name, &target).await.is_err());
    patient.clock.advance(HEALTH_BAD_FOR);
    patient.status.store(200, Ordering::SeqCst);
    assert_eq!(patient.checks.check(&name, &target).await, Ok(()), "it begins anew");
}

#[tokio::test]
async fn a_target_that_hangs_or_never_ends_its_answer_holds_up_no_other() {
    let hanging = Service::with(Router::new().route("/healthz", get(std::future::pending::<()>))).await;
    let endless = || async {
        let chunk = || Ok::<_, std::convert::Infallible>("garbage ".repeat(1_000));
        axum::body::Body::from_stream(futures::stream::repeat_with(chunk))
    };
    let talking = Service::with(Router::new().route("/healthz", get(endless))).await;
    let patient = patient().await;
    let (hanging, slow) = (hanging.target(), "slow".parse::<TargetName>().expect("a name"));
    let waiting = patient.checks.check(&slow, &hanging);
    tokio::pin!(waiting);
    assert!(futures::poll!(&mut waiting).is_pending());
    for (other, target) in [("well", patient.service.target()), ("talks", talking.target())] {
        let name = other.parse().expect("a name");
        let checked = patient.checks.check(&name, &target);
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("{other} waited for the one that hangs"),
            checked = checked => assert_eq!(checked, Ok(()), "{other}: only the status counts"),
        }
    }
}

#[tokio::test]
async fn a_target_without_a_check_is_taken_to_be_well() {
    let patient = patient().await;
    for without in [json!({ "http": nobody().await }), json!({ "message": "svc.storage" })] {
        let target = serde_json::from_value(without).expect("a target");
        assert_eq!(patient.checks.check(&name(), &target).await, Ok(()));
    }
}
