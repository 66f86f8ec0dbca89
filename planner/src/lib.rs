//! Turns schedules into dispatched runs.
