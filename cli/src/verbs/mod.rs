//! One file per verb: its arguments, with their help, and `run`.

pub mod apply;
pub mod changes;
pub mod completion;
pub mod delete;
pub mod describe;
pub mod diff;
pub mod doctor;
pub mod files;
pub mod get;
pub mod guard;
pub mod init;
pub mod known;
pub mod lines;
pub mod lists;
pub mod machine;
pub mod next;
pub mod planner;
pub mod probe;
pub mod reader;
pub mod runs;
pub mod submit;
pub mod tail;
pub mod trigger;
pub mod wait;
pub mod when;
pub mod worker;
