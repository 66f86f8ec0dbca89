//! The ledger as tables that can be searched: a projection of its stream, kept in `SQLite`, disposable.
//!
//! Promise: whatever happens to the file (deleted, damaged, of another version, of another fleet), it is built anew from the
//! ledger and says so; nothing but time is lost. Nothing here writes to the ledger, and nothing decides by what is here.
//!
//! # How it is used
//!
//! ```text
//! let (model, projection) = ReadModel::open(&path, streams)?;   // takes the file for this process
//! tokio::spawn(projection.run(stop));                           // follows the ledger until it is told to stop
//! let page = model.runs(&RunQuery::from_pairs(pairs)?).await?;  // as often as one likes, from any task
//! let mut feed = model.subscribe(after, filter);                // each change, once it is stored
//! ```
//!
//! | question | asked by |
//! |---|---|
//! | lists, filtered, in pages | [`ReadModel::runs`] with a [`RunQuery`] |
//! | how many that would be | [`ReadModel::count`] |
//! | one run as the model has it; its output is in the ledger only | [`ReadModel::run`] |
//! | the last runs of many schedules at once | [`ReadModel::strips`] |
//! | counts by status, minutes of an hour, durations, days of a year | `statuses`, `minutes`, `durations`, `days` |
//! | runs before and after, the whole and its shards | [`ReadModel::relatives`] |
//! | how far behind it is, how large, since when | [`ReadModel::status`] |
//! | each change as it comes, resumable | [`ReadModel::subscribe`] |
//!
//! The whole of it (all `async` ones answer `Result<_, ModelError>`, which is busy, too slow, unreadable, or, for all but
//! lists, being built):
//!
//! ```text
//! fn   open(path: &Path, streams: Streams) -> Result<(ReadModel, Projection), OpenError>
//! fn   status() -> ModelStatus
//! async runs(&RunQuery) -> Page                          async count(&RunFilter) -> Count
//! async run(&RunId) -> Option<Listed>                    async relatives(&RunId) -> Relatives
//! async strips(&[Name], runs: usize) -> Vec<Strip>       async statuses(Option<&Name>, TimeRange) -> StatusCounts
//! async minutes() -> Vec<MinuteCounts>                   (the last 60, the oldest first)
//! async durations(&Name, TimeRange, bucket: Duration) -> Vec<DurationBucket>
//! async days(&Name, zone: Tz, first: NaiveDate, last: NaiveDate) -> Vec<DayCounts>
//! fn   subscribe(after: Option<u64>, RunFilter) -> Subscription;  Subscription::next().await -> Result<FeedEvent, ModelError>
//! enum FeedEvent { Changed(Arc<Listed>), Removed { id: RunId, revision: u64 }, Lagged { missed: u64 }, Anew }
//! ```
//!
//! # The model
//!
//! A run is one row, under its *place*: the millisecond it was created in and a few bits of its id's hash, so that the table
//! itself lies in the order of lists and every index ends in that order. Records lie apart from the columns that are searched,
//! so that searching reads little. Records are kept without their output.
//!
//! The model is behind the ledger by milliseconds as a rule; [`ModelStatus`] says by how much. What is in a queue and has no
//! record yet is not in here.

mod aggregates;
mod answers;
mod apply;
mod cursor;
mod feed;
mod file;
pub mod filling;
mod filter;
mod list;
mod model;
mod projection;
mod query;
mod readers;
mod schema;
mod select;
mod status;
#[cfg(test)]
mod tests;
mod words;
mod writer;

pub use answers::{
    Count, DayCounts, DurationBucket, Listed, MinuteCounts, Page, Relatives, StatusCounts, Strip, StripRun,
};
pub use cursor::{Cursor, CursorError};
pub use feed::{FeedEvent, Subscription};
pub use file::OpenError;
pub use filter::{ErrorText, FilterError, IdPrefix, RunFilter, TimeRange};
pub use model::ReadModel;
pub use projection::Projection;
pub use query::{Order, QueryError, RunQuery};
pub use readers::ModelError;
pub use status::{Built, BuiltBecause, ModelStatus};

#[cfg(test)]
use writer::Writer;
