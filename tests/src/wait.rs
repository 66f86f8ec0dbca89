//! Waiting for facts.

use std::time::Duration;

use shared::clock::{Clock, SystemClock};

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long a fact may be in coming on a busy machine, unless a spec says otherwise.
const PATIENCE: Duration = Duration::from_mins(1);

/// Looks until something is the case, and returns it; panics with what it waited for and the last thing it saw.
pub async fn eventually<T, F, Fut>(what: &str, look: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    within(PATIENCE, what, look).await
}

/// As [`eventually`], with a patience of its own.
pub async fn within<T, F, Fut>(patience: Duration, what: &str, mut look: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let clock = SystemClock;
    let give_up_at = clock.elapsed() + patience;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if clock.elapsed() > give_up_at => {
                panic!("waited {patience:?} in vain for: {what}; last seen: {seen}")
            }
            Err(_) => clock.sleep(LOOK_AGAIN).await,
        }
    }
}

/// Lets time pass, for specs whose fact is that something does *not* happen meanwhile.
pub async fn for_a_while(duration: Duration) {
    SystemClock.sleep(duration).await;
}
