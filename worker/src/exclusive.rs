//! First deliveries that nobody else can have: found out by one read, begun without a claim, and what such a one leaves behind
//! that was handed back or lost.

use std::{borrow::Cow, sync::Arc};

use shared::{
    limits::{INTERRUPTION_DOUBTED, MEMBER_HEARTBEAT},
    run_record::RunRecord,
};
use streams::{ReadError, bucket::Stored, delivery::Delivery, ledger::Update};

use crate::{
    claim::{Claim, ClaimError, Claimer, Next},
    identify::Identified,
    unclaimed::{self, Case, is_untouched},
};

impl Claimer<'_> {
    fn case<'a>(&self, run: &'a Identified, delivery: &Delivery) -> Case<'a> {
        Case {
            task: &run.task,
            record: &run.record,
            is_on_its_own_subject: !delivery.is_on_lock,
            claiming: self.settings.claim,
            is_limited: self.is_limited,
        }
    }

    /// Whether this first delivery may be begun without a claim. Not after an interruption: a server that was killed forgets
    /// what it handed out a moment before, and calls it new.
    pub(crate) fn may_be_unclaimed(&self, run: &Identified, delivery: &Delivery) -> bool {
        self.case(run, delivery).is_begun_unclaimed()
            && !self.streams.was_interrupted_within(INTERRUPTION_DOUBTED)
    }

    /// What the end of a first delivery is written over, if nobody had the run before. It is begun on the strength of this
    /// read, so only the leader's word counts: a planner may have published it twice, or its caller may have sent it again.
    ///
    /// Also where successes leave no record: a consumer that was made anew, or a server that was killed, calls a run new that
    /// was begun before, and only the ledger knows.
    pub(crate) async fn exclusive<'a>(
        &self,
        run: &'a Identified,
    ) -> Result<Option<(Cow<'a, RunRecord>, u64)>, ReadError> {
        let id = &run.record.id;
        let found = match self.lookups {
            Some(lookups) => lookups.get(id).await,
            None => Box::pin(self.streams.ledger().get(id)).await,
        };
        let is_planned_as = |revision| run.revision.is_none_or(|planned| planned == revision);
        match found {
            Ok(None) if run.revision.is_none() => Ok(Some((Cow::Borrowed(&run.record), 0))),
            Ok(Some(found)) if is_untouched(&found.value, &run.record) && is_planned_as(found.revision) => {
                Ok(Some((Cow::Owned(found.value), found.revision)))
            }
            Ok(_) | Err(ReadError::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn unclaimed(&self, record: &RunRecord, revision: u64) -> Claim {
        let now = self.streams.clock().now();
        match self.started(record, now) {
            Some(value) => Claim::Unclaimed(Box::new(Stored { value, revision, stored_at: now })),
            // Only what is PENDING comes here, which may always be begun.
            None => Claim::NotNow(MEMBER_HEARTBEAT),
        }
    }

    /// A run that was delivered before, and of which the ledger knows nothing: its first attempt was begun without a claim, and
    /// its worker is gone. The attempt is spent. Nothing, if that cannot be so.
    pub(crate) async fn lost_unclaimed(
        &self,
        found: &Stored<RunRecord>,
        run: &Identified,
        delivery: &Arc<Delivery>,
    ) -> Result<Option<Next>, ClaimError> {
        let may_be = delivery.deliveries > 1 && self.case(run, delivery).is_begun_unclaimed();
        if !may_be || !is_untouched(&found.value, &run.record) {
            return Ok(None);
        }
        if self.running.adopt(&run.record.id, delivery) {
            return Ok(Some(Next::Say(Claim::UnderWayHere)));
        }
        if self.running.has(&run.record.id) {
            // It has lost its hold, and stops: what comes after it begins when it has.
            return Ok(Some(Next::Say(Claim::NotNow(MEMBER_HEARTBEAT))));
        }
        if self.streams.was_interrupted_within(INTERRUPTION_DOUBTED) {
            // The server was away, and thinks everybody silent. Who has the run says so in a moment.
            return Ok(Some(Next::Say(Claim::NotNow(MEMBER_HEARTBEAT))));
        }
        let now = self.streams.clock().now();
        if let Some(next) = self.end_if_cancelled(found, now).await? {
            return Ok(Some(next));
        }
        let Ok(lost) = unclaimed::lost(&found.value, now) else { return Ok(None) };
        let lost = RunRecord { fence: Some(found.revision), ..lost };
        tracing::warn!(run.id = %lost.id, "Attempt 1 of `{}` was lost with its worker", lost.id);
        Ok(Some(match self.streams.ledger().write(&lost, found.revision).await? {
            Update::Stored(revision) => Next::Start(Box::new(lost), revision),
            Update::Stale => Next::LookAgain,
        }))
    }

    /// Writes down that a first delivery is handed back and was not begun, where it would be taken for a lost attempt otherwise.
    pub(crate) async fn note_handed_back(
        &self,
        run: &Identified,
        delivery: &Delivery,
    ) -> Result<(), ClaimError> {
        if delivery.deliveries != 1 || !self.case(run, delivery).is_begun_unclaimed() {
            return Ok(());
        }
        if let Some((record, revision)) = self.exclusive(run).await? {
            // Refused: somebody wrote it since, and so it is not taken for lost.
            self.streams.ledger().write(&unclaimed::handed_back(&record), revision).await?;
        }
        Ok(())
    }
}
