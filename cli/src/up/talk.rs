//! What `up` says of itself: on stderr, or, while the live picture has the terminal, below its tables.
//!
//! Where a picture is drawn, everything else on stderr (logs, a panic's last words) would tear it. So for as long as
//! [`Logs`] lives stderr is the log file, and only [`Talk`] knows the terminal.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::stdio::dup2_stderr;
use shared::{Timestamp, clock::SharedClock};

use crate::output::{printable, talk};

/// Notices kept for the picture.
const NOTICES_MAX: usize = 20;
/// At this size the log becomes `cronfleet.log.old`, over the one before.
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Something said while the picture has the terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    /// When.
    pub(super) at: Timestamp,
    /// What.
    pub(super) text: String,
}

/// The voice of `up`. Cheap to clone.
#[derive(Clone)]
pub(super) struct Talk {
    clock: SharedClock,
    place: Arc<Mutex<Place>>,
}

/// Where talk goes.
enum Place {
    /// To stderr, which is the person's.
    Stderr,
    /// To the terminal, while stderr is the log.
    Terminal(File),
    /// To the picture, which has the terminal.
    Picture(File, VecDeque<Notice>),
}

impl Talk {
    /// Talk that goes to stderr.
    pub(super) fn new(clock: SharedClock) -> Self {
        Self { clock, place: Arc::new(Mutex::new(Place::Stderr)) }
    }

    /// Says a sentence, for people.
    pub(super) fn say(&self, text: impl Into<String>) {
        let text: String = text.into();
        self.with(|place| match place {
            Place::Stderr => talk(&text),
            Place::Terminal(terminal) => {
                tracing::info!("{text}");
                // A terminal that has gone is no reason to stop.
                let _ = writeln!(terminal, "{}", printable(&text));
            }
            Place::Picture(_, notices) => {
                tracing::info!("{text}");
                if notices.len() == NOTICES_MAX {
                    notices.pop_front();
                }
                notices.push_back(Notice { at: self.clock.now(), text });
            }
        });
    }

    /// From now on the picture has the terminal.
    pub(super) fn lend_to_picture(&self) {
        self.with(|place| {
            if let Place::Terminal(terminal) = std::mem::replace(place, Place::Stderr) {
                *place = Place::Picture(terminal, VecDeque::new());
            }
        });
    }

    /// From now on the terminal may be written again.
    pub(super) fn take_back(&self) {
        self.with(|place| {
            if let Place::Picture(terminal, _) = std::mem::replace(place, Place::Stderr) {
                *place = Place::Terminal(terminal);
            }
        });
    }

    /// What was said since the picture has the terminal, oldest first.
    pub(super) fn notices(&self) -> Vec<Notice> {
        self.with(|place| match place {
            Place::Picture(_, notices) => notices.iter().cloned().collect(),
            _ => Vec::new(),
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Place) -> T) -> T {
        work(&mut self.place.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Stderr as a log file. Dropped, it is the person's again.
pub(super) struct Logs {
    path: PathBuf,
    person: OwnedFd,
    talk: Talk,
}

impl Logs {
    /// Turns stderr into this file; talk goes on to where stderr was.
    pub(super) fn redirect(path: &Path, talk: &Talk) -> io::Result<Self> {
        let person = io::stderr().as_fd().try_clone_to_owned()?;
        let terminal = File::from(person.try_clone()?);
        let logs = Self { path: path.to_owned(), person, talk: talk.clone() };
        logs.bound()?;
        dup2_stderr(append(path)?)?;
        talk.with(|place| *place = Place::Terminal(terminal));
        Ok(logs)
    }

    /// Begins a new file if the log has grown; the one before is kept. To be called now and then.
    pub(super) fn turn_over(&self) -> io::Result<()> {
        if self.bound()? {
            dup2_stderr(append(&self.path)?)?;
        }
        Ok(())
    }

    fn bound(&self) -> io::Result<bool> {
        let has_grown = fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX);
        if has_grown {
            fs::rename(&self.path, self.path.with_extension("log.old"))?;
        }
        Ok(has_grown)
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        let _ = dup2_stderr(&self.person);
        self.talk.with(|place| *place = Place::Stderr);
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
