//! One file per verb: its arguments, with their help, and `run`.

pub mod apply;
pub mod backfill;
pub mod bench;
pub mod bench_worker;
pub mod cancel;
pub mod completion;
pub mod console;
pub mod dead;
pub mod delayed;
pub mod delete;
pub mod describe;
pub mod diff;
pub mod doctor;
pub mod drain;
pub mod files;
pub mod get;
pub mod guard;
pub mod import;
pub mod init;
pub mod known;
pub mod lists;
pub mod logs;
pub mod machine;
pub mod next;
pub mod pause;
pub mod planner;
pub mod probe;
pub mod reader;
pub mod replay;
pub mod resume;
pub mod retry;
pub mod runs;
pub mod submit;
pub mod tail;
pub mod targets;
pub mod trigger;
pub mod unbegun;
pub mod unreached;
pub mod wait;
pub mod watch;
pub mod when;
pub mod worker;

// What the console does in the same way lies where it finds it, too.
pub use streams::operate::{fleet as changes, progress};
