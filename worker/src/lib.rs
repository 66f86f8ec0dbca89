//! Claims runs, executes them, records what came of it.
pub mod executors;
