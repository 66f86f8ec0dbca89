//! The live picture: what is due next, and what came of the latest runs.
//!
//! | file | what it does |
//! |---|---|
//! | `feed.rs` | what the fleet says, as events |
//! | `model.rs` | what is shown, as values |
//! | `render.rs`, `table.rs`, `words.rs`, `text.rs` | the picture as text (pure) |
//! | `plain.rs` | lines instead, where stdout is no terminal (pure) |
//! | `screen.rs` | writing it, without waiting for whoever reads |

mod feed;
mod model;
mod plain;
mod render;
#[cfg(test)]
mod render_tests;
mod screen;
mod table;
mod text;
mod words;

use std::{sync::Arc, time::Duration};

use shared::clock::SharedClock;
use streams::Streams;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::{Receiver, channel},
};
use tokio_util::sync::CancellationToken;

use self::{
    feed::Event,
    model::Model,
    screen::{Screen, size},
};
pub(super) use self::{model::Fixed, screen::Kind};
use super::talk::{Logs, Talk};

/// Changes show at once, but no more often than this.
const FRAME: Duration = Duration::from_millis(150);
/// Without a change it is drawn this often, for the countdown.
const SECOND: Duration = Duration::from_secs(1);
const EVENTS_WAITING_MAX: usize = 1_024;
/// The opening lines wait this long for the schedules.
const OPENING_WAIT: Duration = Duration::from_secs(5);

/// Shows the fleet on stdout until it is told to stop; then the terminal is as it was.
pub(super) async fn show(
    kind: Kind,
    fixed: Fixed,
    streams: Streams,
    talk: Talk,
    logs: Option<Arc<Logs>>,
    stop: CancellationToken,
) {
    let clock = streams.clock().clone();
    let (sender, events) = channel(EVENTS_WAITING_MAX);
    let is_picture = matches!(kind, Kind::Picture { .. });
    // Dropped at the end, and the followers with it.
    let _followers = feed::follow(&streams, &sender, is_picture);
    let model = Model::new(fixed, clock.now());
    match kind {
        Kind::Lines => lines(model, events, &clock, &stop).await,
        Kind::Picture { colour } => {
            talk.lend_to_picture();
            picture(Drawing { model, clock, streams, talk: talk.clone(), logs, colour }, events, &stop).await;
            talk.take_back();
        }
    }
}

struct Drawing {
    model: Model,
    clock: SharedClock,
    streams: Streams,
    talk: Talk,
    logs: Option<Arc<Logs>>,
    colour: bool,
}

async fn picture(mut drawing: Drawing, mut events: Receiver<Event>, stop: &CancellationToken) {
    let screen = Screen::picture();
    let mut resized = signal(SignalKind::window_change()).ok();
    let clock = drawing.clock.clone();
    loop {
        drawing.draw(&screen);
        tokio::select! {
            () = stop.cancelled() => return,
            () = next_size(&mut resized) => {}
            () = clock.sleep(SECOND) => {}
            event = events.recv() => {
                let Some(event) = event else { return };
                drawing.take(event);
                // The rest of a burst goes into the same picture.
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = clock.sleep(FRAME) => {}
                }
                while let Ok(event) = events.try_recv() {
                    drawing.take(event);
                }
            }
        }
    }
}

async fn next_size(resized: &mut Option<Signal>) {
    match resized {
        Some(resized) => drop(resized.recv().await),
        None => std::future::pending().await,
    }
}

impl Drawing {
    fn take(&mut self, event: Event) {
        self.model.at(self.clock.now());
        take(&mut self.model, event);
    }

    fn draw(&mut self, screen: &Screen) {
        self.model.at(self.clock.now());
        self.model.is_connected = self.streams.is_connected();
        self.model.notices = self.talk.notices();
        if let Some(Err(error)) = self.logs.as_ref().map(|logs| logs.turn_over()) {
            tracing::warn!(%error, "The log cannot be turned over: {error}");
        }
        let (columns, rows) = size();
        screen.draw(&render::render(&self.model, columns, rows, self.colour), columns);
    }
}

fn take(model: &mut Model, event: Event) {
    match event {
        Event::Schedule(version) => model.schedule(*version),
        Event::Run(record) => model.run(*record),
        Event::Ledger(runs) => model.ledger(runs),
        Event::Counts(counts) => model.counts = counts,
        Event::SchedulesTold => {}
    }
}

async fn lines(mut model: Model, mut events: Receiver<Event>, clock: &SharedClock, stop: &CancellationToken) {
    let screen = Screen::lines();
    let opening_by = clock.elapsed() + OPENING_WAIT;
    let (mut is_open, mut left_out) = (false, 0_u64);
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.recv() => event,
            () = clock.sleep(opening_by.saturating_sub(clock.elapsed())), if !is_open => Some(Event::SchedulesTold),
        };
        let Some(event) = event else { return };
        model.at(clock.now());
        match event {
            Event::SchedulesTold if !is_open => {
                is_open = true;
                screen.line(&plain::opening(&model));
            }
            Event::Run(record) => {
                if left_out > 0 && screen.line(&format!("… {left_out} changes left out: nobody read them"))
                {
                    left_out = 0;
                }
                if !screen.line(&plain::line(&record, model.now)) {
                    left_out += 1;
                }
            }
            other => take(&mut model, other),
        }
    }
}
