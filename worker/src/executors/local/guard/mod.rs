//! The guard: a small process between a worker and a command, which ends the command's whole process tree, whatever
//! becomes of the worker.
//!
//! Promise: when the worker says so, ends, or is killed (`kill -9` too), no process that the command started, however
//! indirectly, outlives the grace by more than a second. The same holds for what a command leaves behind when it ends
//! by itself.
//!
//! How: the guard's standard input is a pipe from the worker, which carries the command's input and then stays open;
//! its end is the word to stop, and the kernel says it for a worker that no longer can. A worker that stands still says nothing:
//! so it gives signs of life, and its guard stops the tree when none comes any more. The guard adopts orphans of the
//! command (`PR_SET_CHILD_SUBREAPER`), so a daemon that detached itself is still among its descendants; and it reaps
//! every one of them, so it knows when none is left.
//!
//! Failure: a guard that is itself killed by `kill -9` takes nobody along. A bomb that forks faster than it is killed
//! is fought for a second, then left to the limits of its container (`pids.max`).
//!
//! What a command and all it started use together is bounded by looking, again and again (`watch`); what each of its
//! processes may use, by the kernel: a second stage of this program sets its limits and then becomes the command (`start`).
//!
//! On the wire: a line with the length of the input in decimal, the input, and then a byte now and then as a sign of life
//! (none without `--silence`). Standard
//! output and error are the command's. The exit code is the command's, or 128 and the signal's number, as in a shell.

mod command;
mod input;
mod settings;
mod start;
mod tree;
mod watch;

use std::{
    io::{self, Read as _, Write as _},
    process::ExitCode,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use shared::clock::{Clock, SystemClock};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

pub(super) use self::command::{is_passable, may_pass};
use self::watch::{Excess, Look, Looks};
pub use self::{
    command::{Guarded, GuardedCommand},
    input::INPUT_BYTES_MAX,
    settings::{GuardSettings, Stage},
    start::StartLimits,
    watch::Bounds,
};

/// How every message of the guard itself begins, on its error output.
pub const WORDS_PREFIX: &str = "cronfleet guard: ";
/// Exit code for arguments or an input that are not what [`GuardedCommand`] sends (sysexits.h: `EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;
/// Exit code for a command that cannot be started now, but may be later (sysexits.h: `EX_TEMPFAIL`).
pub const EXIT_NOT_NOW: u8 = 75;
/// Exit code when the command used more than it may, and was killed for it.
pub const EXIT_OVER_LIMIT: u8 = 123;
/// Exit code when what became of the command is not known.
pub const EXIT_UNKNOWN: u8 = 125;
/// Exit code for a program that is there but cannot be started, as in a shell.
pub const EXIT_NOT_STARTED: u8 = 126;
/// Exit code for a program that is not there, as in a shell.
pub const EXIT_NOT_FOUND: u8 = 127;

/// How long leftovers are killed for, again and again, once the grace is over.
const KILLING: Duration = Duration::from_secs(1);
/// Between two rounds of killing.
const KILL_ROUND: Duration = Duration::from_millis(20);
/// How long the reaper has to notice that a command left nobody behind.
const REAP_WAIT: Duration = Duration::from_millis(20);

/// Runs a command and guards it; returns when its whole tree has ended. For the hidden subcommand `guard`, in a
/// process of its own that has done nothing else.
pub fn run(settings: &GuardSettings) -> ExitCode {
    let result = match settings.stage {
        Stage::Guard => guard(settings),
        Stage::Start => Err(start::become_command(settings)),
    };
    result.unwrap_or_else(|refusal| {
        // Whoever would read it may be gone.
        let _ = writeln!(io::stderr(), "{WORDS_PREFIX}{}", refusal.words);
        ExitCode::from(refusal.code)
    })
}

struct Refusal {
    code: u8,
    words: String,
}

#[derive(Clone, Copy)]
enum Event {
    /// The command itself has ended.
    Ended(WaitStatus),
    /// No child is left, adopted ones included.
    Empty,
    /// The worker gave a sign of life.
    Alive,
    /// The worker wants the command stopped, is gone, or somebody sent a signal.
    Stop,
}

fn guard(settings: &GuardSettings) -> Result<ExitCode, Refusal> {
    // Where this is refused (old kernels, some sandboxes), daemons that detach themselves escape; the rest still holds.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let (sender, events) = channel();
    stop_on_signals(sender.clone())
        .map_err(|error| Refusal { code: EXIT_NOT_NOW, words: error.to_string() })?;
    let input = input::read(&mut io::stdin().lock())
        .map_err(|error| Refusal { code: EXIT_USAGE, words: format!("no input: {error}") })?;
    let mut child =
        start::command(settings, !input.is_empty()).map_err(|error| start::refusal(settings, &error))?;
    let pid = Pid::from_child(&child);
    if let Some(mut stdin) = child.stdin.take() {
        // On its own thread, so that a command that does not read holds up nothing. It may also close its input.
        thread::spawn(move || stdin.write_all(&input));
    }
    let (reaper, lifeline) = (sender.clone(), sender);
    thread::spawn(move || reap(pid, &reaper));
    thread::spawn(move || listen(&lifeline));
    let mut tree = Tree { group: pid, events, ended: None, is_empty: false };
    let mut looks = Looks::new(settings, SystemClock.elapsed());
    let excess = tree.wait_until_it_ends_or_has_to(&mut looks);
    // Whoever uses too much is not asked first: it would use more meanwhile.
    tree.end(if excess.is_some() { Duration::ZERO } else { settings.grace });
    if let Some(excess) = excess {
        return Err(Refusal { code: EXIT_OVER_LIMIT, words: excess.to_string() });
    }
    Ok(ExitCode::from(tree.code()))
}

/// Says that the worker lives at each of its signs, and that the command has to stop when the pipe ends.
fn listen(events: &Sender<Event>) {
    let mut signs = [0; 64];
    while let Ok(1..) = io::stdin().lock().read(&mut signs) {
        if events.send(Event::Alive).is_err() {
            return;
        }
    }
    let _ = events.send(Event::Stop);
}

/// Turns the signals that would end the guard, and leave its command without one, into a word to stop.
fn stop_on_signals(events: Sender<Event>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let registered = runtime.enter();
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()];
    let signals: Vec<Signals> = kinds.into_iter().map(signal).collect::<io::Result<_>>()?;
    drop(registered);
    thread::spawn(move || {
        runtime.block_on(async {
            let any = signals.into_iter().map(|mut signal| {
                let events = events.clone();
                async move {
                    while signal.recv().await.is_some() {
                        let _ = events.send(Event::Stop);
                    }
                }
            });
            futures::future::join_all(any).await;
        });
    });
    Ok(())
}

/// Waits for every child, born or adopted, so that none stays a zombie, and says when the last is gone.
fn reap(command: Pid, events: &Sender<Event>) {
    loop {
        let event = match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == command => Event::Ended(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => continue,
            Err(_) => Event::Empty,
        };
        let was_last = matches!(event, Event::Empty);
        if events.send(event).is_err() || was_last {
            return;
        }
    }
}

struct Tree {
    group: Pid,
    events: Receiver<Event>,
    ended: Option<WaitStatus>,
    is_empty: bool,
}

impl Tree {
    /// Notes what happened; whether it is a word to stop.
    fn note(&mut self, event: Event) -> bool {
        match event {
            Event::Ended(status) => self.ended = Some(status),
            Event::Empty => self.is_empty = true,
            Event::Alive => {}
            Event::Stop => return true,
        }
        false
    }

    /// Returns when the command has ended, or has to; with what it used too much of, if it did.
    fn wait_until_it_ends_or_has_to(&mut self, looks: &mut Looks) -> Option<Excess> {
        while self.ended.is_none() && !self.is_empty {
            let event = match looks.wait() {
                // Without senders nothing more will be heard, so it has to end.
                None => self.events.recv().unwrap_or(Event::Stop),
                Some(wait) => match self.events.recv_timeout(wait) {
                    Ok(event) => event,
                    Err(RecvTimeoutError::Disconnected) => Event::Stop,
                    Err(RecvTimeoutError::Timeout) => match looks.look(SystemClock.elapsed()) {
                        Look::AllIsWell => continue,
                        Look::Silence => Event::Stop,
                        Look::Excess(excess) => return Some(excess),
                    },
                },
            };
            if matches!(event, Event::Alive) {
                looks.heard(SystemClock.elapsed());
            }
            if self.note(event) {
                return None;
            }
        }
        self.is_empty_within(REAP_WAIT);
        None
    }

    fn is_empty_within(&mut self, wait: Duration) -> bool {
        let until = SystemClock.elapsed().saturating_add(wait);
        while !self.is_empty {
            let left = until.saturating_sub(SystemClock.elapsed());
            match self.events.recv_timeout(left) {
                Ok(event) => self.note(event),
                Err(_) => break,
            };
        }
        self.is_empty
    }

    /// Asks whoever is left to end, and ends who does not.
    fn end(&mut self, grace: Duration) {
        if self.is_empty {
            return;
        }
        if !grace.is_zero() {
            tree::signal(rustix::process::getpid(), self.group, Signal::TERM);
        }
        let until = SystemClock.elapsed().saturating_add(grace).saturating_add(KILLING);
        if self.is_empty_within(grace) {
            return;
        }
        // In rounds: whoever was being born during one is met in the next.
        while SystemClock.elapsed() < until {
            tree::signal(rustix::process::getpid(), self.group, Signal::KILL);
            if self.is_empty_within(KILL_ROUND) {
                return;
            }
        }
    }

    fn code(&self) -> u8 {
        let Some(status) = self.ended else { return EXIT_UNKNOWN };
        let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(EXIT_UNKNOWN)
    }
}
