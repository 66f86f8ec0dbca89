//! The services do what their answers say: every number is checked against the databases by queries of our own.

#[cfg(test)]
mod collecting;
#[cfg(test)]
mod http;
#[cfg(test)]
mod platform;
#[cfg(test)]
mod reports;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod storing;
