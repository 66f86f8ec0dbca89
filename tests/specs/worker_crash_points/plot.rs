//! What happens to the runs of a way, beside their being run.

use std::time::Duration;

use harness::{eventually, wait::for_a_while};
use rustix::process::{Pid, Signal, kill_process};
use shared::{
    callback::CallbackStatus,
    run::RunId,
    run_record::{Reason, RunRecord},
    run_state::RunState,
};
use streams::cancel::CancelRequest;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    check,
    stage::{Mortal, Stage},
    way::{Place, Plot},
};

/// Between the answer of a target that it takes a run on and the one that the run is done.
const LATER: Duration = Duration::from_secs(1);

/// Has the first run of a place begin its way, before anybody is there for it.
pub(super) async fn begin(stage: &Stage, place: &Place) {
    if place.way.schedule.is_some() && place.way.plot != Plot::IsJoinedByPlanned {
        stage.fleet.cronfleet(&["trigger", &place.name()]);
        return;
    }
    submit(stage, place, 1).await;
}

async fn submit(stage: &Stage, place: &Place, key: u32) {
    let queue = place.name().parse().expect("a queue");
    let task = match place.way.plot {
        Plot::Garbage => "no task".to_owned(),
        _ => place.task().to_string(),
    };
    let run = place.run(key).parse().expect("a run id");
    stage.fleet.streams.submit(&queue, &run, task.as_bytes(), None).await.expect("submitted");
}

/// Does what is to happen while the runs are on their way.
pub(super) async fn go_on(stage: &Stage, place: &Place, mortal: &Mortal) {
    match place.way.plot {
        Plot::Runs
        | Plot::Garbage
        | Plot::Expires
        | Plot::IsRetried
        | Plot::IsHalfRetried
        | Plot::IsAnsweredUnheard(_) => {}
        Plot::IsJoined => {
            is_asked(stage, place, mortal).await;
            submit(stage, place, 2).await;
        }
        Plot::IsJoinedByPlanned => {
            is_asked(stage, place, mortal).await;
            stage.fleet.cronfleet(&["trigger", &place.name()]);
        }
        Plot::IsCancelled => cancel(stage, place, mortal).await,
        Plot::IsDrained => {
            is_asked(stage, place, mortal).await;
            if let Some(pid) = mortal.pid.get().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        Plot::IsAnswered(answer) => leave(stage, place, mortal, answer).await,
    }
}

/// Waits until the target is asked, or nobody is there any more who would.
async fn is_asked(stage: &Stage, place: &Place, mortal: &Mortal) {
    eventually(&format!("a call of {}", place.title()), async || {
        let is_asked = !check::asked(stage, place).is_empty();
        if is_asked || mortal.is_dead() { Ok(()) } else { Err("none".to_owned()) }
    })
    .await;
}

async fn record(stage: &Stage, run: &RunId) -> Option<RunRecord> {
    stage.fleet.streams.ledger().get(run).await.ok().flatten().map(|stored| stored.value)
}

async fn cancel(stage: &Stage, place: &Place, mortal: &Mortal) {
    let run: RunId = place.run(1).parse().expect("a run id");
    eventually(&format!("a run of {}", place.title()), async || match record(stage, &run).await {
        Some(record) if record.status == RunState::Running => Ok(()),
        _ if mortal.is_dead() => Ok(()),
        other => Err(format!("{:?}", other.map(|record| record.status))),
    })
    .await;
    let at = stage.fleet.now();
    let request = CancelRequest { run, reason: Reason::ByOperator, by: "spec".to_owned(), at };
    stage.fleet.streams.cancel(&request).await.expect("cancelled");
}

/// Leaves the answer for whichever attempt the target has taken on, until the run has ended.
async fn leave(stage: &Stage, place: &Place, mortal: &Mortal, answer: &str) {
    let run: RunId = place.run(1).parse().expect("a run id");
    eventually(&format!("{} to be taken on", place.title()), async || {
        let found = record(stage, &run).await;
        let awaits = found.as_ref().is_some_and(|found| found.reason == Some(Reason::AwaitsCallback));
        if awaits && (mortal.is_dead() || !place.is_answered_late()) {
            return Ok(());
        }
        Err(format!("{:?}", found.map(|found| (found.status, found.reason, found.attempt))))
    })
    .await;
    for_a_while(LATER).await;
    // Over HTTP where that is to be shown, and in the way on which nobody dies.
    if place.kill.is_none_or(|kill| kill.point == "callback") {
        let path = format!("/callbacks/{}/{}/{}", run.name, run.key, token(stage, &run));
        return post(&mortal.door, &path, answer).await;
    }
    leave_now(stage, place, answer).await;
}

/// The token of the last attempt, as the target was told it.
fn token(stage: &Stage, run: &RunId) -> String {
    let calls = stage.fleet.target.calls_of(&run.to_string());
    let subject = &calls.last().expect("a call").headers["cronfleet-callback-subject"];
    subject.rsplit('.').next().expect("a token").to_owned()
}

async fn leave_now(stage: &Stage, place: &Place, answer: &str) {
    let run: RunId = place.run(1).parse().expect("a run id");
    let (token, answer) = (token(stage, &run), answer.to_owned().into());
    stage.fleet.streams.leave(&run, &token, CallbackStatus::Success, answer).await.expect("left");
}

/// Does what is to happen when those are dead that are taken over, and nobody else is there yet.
pub(super) async fn meanwhile(stage: &Stage, place: &Place) {
    if let Plot::IsAnsweredUnheard(answer) = place.way.plot {
        leave_now(stage, place, answer).await;
    }
}

async fn post(door: &str, path: &str, body: &str) {
    let mut stream = TcpStream::connect(door).await.expect("a connection");
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: worker\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    // None comes of a worker that dies meanwhile.
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 202"), "{answer}");
}
