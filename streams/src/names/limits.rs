//! The names of limits: their gates, the lanes where somebody waits, and the runs that do.

use shared::limit::{GateKey, Lane, Scope};

use super::Names;

/// The lane of a run that is limited by no key.
const NO_LANE: &str = "_";

/// The keys of all lanes where somebody waits.
pub(crate) const WAITING: &str = "waiting.>";

/// The keys of all gates.
pub(crate) const GATES: &str = "gate.>";

pub(crate) fn gate(key: &GateKey) -> String {
    match key.lane {
        Some(lane) => format!("gate.{}.{lane}", key.scope),
        None => format!("gate.{}", key.scope),
    }
}

/// The lane where a run of a scope waits.
pub(crate) fn waiting(key: &GateKey) -> String {
    format!("waiting.{}.{}", key.scope, lane_token(key.lane))
}

/// The gate that such a key names.
pub(crate) fn parse_gate(key: &str) -> Option<GateKey> {
    let mut tokens = key.split('.').skip(1);
    let scope = tokens.next()?.parse().ok()?;
    let lane = match tokens.next() {
        None | Some(NO_LANE) => None,
        Some(lane) => Some(lane.parse().ok()?),
    };
    Some(GateKey { scope, lane })
}

fn lane_token(lane: Option<Lane>) -> String {
    lane.map_or_else(|| NO_LANE.to_owned(), |lane| lane.to_string())
}

impl Names {
    pub(crate) fn limits_bucket(&self) -> String {
        format!("{}_limits", self.ns)
    }

    pub(crate) fn limited_stream(&self) -> String {
        format!("{}_LIMITED", self.ns)
    }

    pub(crate) fn limited_all(&self) -> String {
        format!("{}.limited.*.*.*.*.*.*", self.ns)
    }

    /// Where a run waits for its turn: the subject it came on, behind its lane.
    pub(crate) fn limited(&self, key: &GateKey, subject: &str) -> Option<String> {
        let came_on = subject.strip_prefix(&format!("{}.", self.ns))?;
        Some(format!("{}.limited.{}.{}.{came_on}", self.ns, key.scope, lane_token(key.lane)))
    }

    /// All runs that wait in a lane.
    pub(crate) fn limited_in(&self, key: &GateKey) -> String {
        format!("{}.limited.{}.{}.*.*.*.*", self.ns, key.scope, lane_token(key.lane))
    }

    /// All runs of a scope that wait.
    pub(crate) fn limited_of(&self, scope: &Scope) -> String {
        format!("{}.limited.{scope}.*.*.*.*.*", self.ns)
    }

    /// The lane of a run that waits under this subject.
    pub(crate) fn limited_lane(&self, subject: &str) -> Option<GateKey> {
        parse_gate(subject.strip_prefix(&format!("{}.", self.ns))?)
    }

    /// The subject a run came on, from the one where it waits.
    pub(crate) fn limited_came_on(&self, subject: &str) -> Option<String> {
        let rest = subject.strip_prefix(&format!("{}.limited.", self.ns))?;
        let came_on = rest.splitn(3, '.').nth(2)?;
        Some(format!("{}.{came_on}", self.ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Namespace;

    #[test]
    fn a_run_that_waits_is_found_by_its_lane_and_goes_back_to_where_it_came_from() {
        let names = Names::new(Namespace::default());
        let all = GateKey { scope: "t-storage".parse().expect("scope"), lane: None };
        let lane = GateKey { lane: Some("00000000000000ff".parse().expect("lane")), ..all.clone() };
        for (key, stands_in) in [
            (&all, "cronfleet.limited.t-storage._.tasks.default.reindex.4711"),
            (&lane, "cronfleet.limited.t-storage.00000000000000ff.tasks.default.reindex.4711"),
        ] {
            let came_on = "cronfleet.tasks.default.reindex.4711";
            assert_eq!(names.limited(key, came_on).as_deref(), Some(stands_in));
            assert_eq!(names.limited_came_on(stands_in).as_deref(), Some(came_on));
            assert_eq!(names.limited_lane(stands_in).as_ref(), Some(key));
            assert_eq!(parse_gate(&gate(key)).as_ref(), Some(key));
            assert_eq!(parse_gate(&waiting(key)).as_ref(), Some(key));
        }
        assert_eq!(names.limited_came_on("cronfleet.tasks.default.reindex.4711"), None);
    }
}
