//! The names of what targets leave that answer later. The token in a subject is what only one attempt's target was told.

use shared::run::RunId;

use super::Names;

/// Behind the subject of an answer: a sign of life.
const PROGRESS: &str = "progress";

impl Names {
    pub(crate) fn callbacks_stream(&self) -> String {
        format!("{}_CALLBACKS", self.ns)
    }

    /// Where the target of one attempt leaves its answer.
    pub fn callback(&self, run: &RunId, token: &str) -> String {
        format!("{}.callback.{run}.{token}", self.ns)
    }

    /// Where it leaves signs of life, which must not take the place of an answer.
    pub fn callback_progress(&self, run: &RunId, token: &str) -> String {
        format!("{}.{PROGRESS}", self.callback(run, token))
    }

    /// All that was left for a run, whoever left it.
    pub(crate) fn callbacks_of(&self, run: &RunId) -> String {
        format!("{}.callback.{run}.>", self.ns)
    }

    /// All answers.
    pub(crate) fn callbacks(&self) -> String {
        format!("{}.callback.*.*.*", self.ns)
    }

    /// All signs of life.
    pub(crate) fn callbacks_progress(&self) -> String {
        format!("{}.{PROGRESS}", self.callbacks())
    }

    /// Takes a callback's subject apart: its run, and its token as it was written.
    pub(crate) fn parse_callback<'a>(&self, subject: &'a str) -> Option<(RunId, &'a str)> {
        let rest = subject.strip_prefix(self.ns.0.as_str())?.strip_prefix(".callback.")?;
        let mut tokens = rest.split('.');
        let run = format!("{}.{}", tokens.next()?, tokens.next()?).parse().ok()?;
        Some((run, tokens.next()?))
    }
}

#[cfg(test)]
mod tests {
    use crate::{Names, Namespace};

    #[test]
    fn a_callback_subject_is_taken_apart_as_it_was_put_together() {
        let names = Names::new(Namespace::default());
        let run = "reindex.4711".parse().expect("id");
        let subject = names.callback(&run, "ab12");
        assert_eq!(subject, "cronfleet.callback.reindex.4711.ab12");
        for subject in [subject, names.callback_progress(&run, "ab12")] {
            assert_eq!(names.parse_callback(&subject), Some((run.clone(), "ab12")));
        }
        assert_eq!(names.parse_callback("cronfleet.callback.reindex"), None);
    }
}
