//! Runs asked for by hand. Any planner may do any of them: the ledger and the schedule's lock make it one run.

use std::time::Duration;

use futures::StreamExt;
use shared::{
    names::QueueName,
    run_record::{Reason, RunRecord},
};
use streams::{
    ReadError, Streams,
    control::{Trigger, TriggerDelivery},
};
use tokio_util::sync::CancellationToken;

use crate::{
    PlannerError,
    dispatch::{DispatchError, Dispatcher},
};

const TRY_AGAIN: Duration = Duration::from_secs(1);

pub(crate) async fn follow(
    streams: Streams,
    dispatcher: Dispatcher,
    stop: CancellationToken,
) -> Result<(), PlannerError> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            ended = take(&streams, &dispatcher) => if let Err(error) = ended {
                tracing::warn!(%error, "Triggers cannot be read just now: {error}");
            },
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = streams.clock().sleep(TRY_AGAIN) => {}
        }
    }
}

async fn take(streams: &Streams, dispatcher: &Dispatcher) -> Result<(), ReadError> {
    let mut triggers = streams.triggers().await?;
    while let Some(delivery) = triggers.next().await {
        answer(streams, dispatcher, delivery?).await;
    }
    Ok(())
}

async fn answer(streams: &Streams, dispatcher: &Dispatcher, delivery: TriggerDelivery) {
    let trigger = match &delivery.trigger {
        Ok(trigger) => trigger,
        Err(error) => {
            tracing::warn!(%error, "A trigger cannot be understood and is dropped: {error}");
            return delivery.done().await;
        }
    };
    match run(streams, dispatcher, trigger).await {
        Ok(()) => delivery.done().await,
        Err(error) => {
            tracing::warn!(run.id = %trigger.run, %error, "`{}` cannot be dispatched just now: {error}", trigger.run);
            delivery.later(TRY_AGAIN).await;
        }
    }
}

async fn run(streams: &Streams, dispatcher: &Dispatcher, trigger: &Trigger) -> Result<(), DispatchError> {
    let name = &trigger.run.name;
    let problem = match streams.schedules().get(name).await {
        Ok(Some(stored)) => {
            let parameters = trigger.parameters.clone();
            let run = trigger.run.clone();
            let by = &trigger.by;
            return dispatcher.by_hand(run, &stored.value, stored.revision, parameters, by).await.map(|_| ());
        }
        Ok(None) => format!("schedule {name} does not exist; look with `cronfleet get schedules`"),
        Err(error @ ReadError::Corrupt { .. }) => error.to_string(),
        Err(error) => return Err(error.into()),
    };
    let record = RunRecord::pending(trigger.run.clone(), QueueName::default_queue(), streams.clock().now());
    let record = RunRecord { by: Some(trigger.by.clone()), ..record };
    dispatcher.refuse(&record, Reason::Unknown, &problem).await.map(|_| ())
}
