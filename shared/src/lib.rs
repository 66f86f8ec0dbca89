//! The words of Cronfleet: schedules, slots, tasks, runs, their states, and the clock.
