//! Which planner should hold which partition. Pure, and the same on every planner that sees the same seats and leases.

use std::collections::{BTreeMap, BTreeSet};

use shared::{limits::PARTITIONS, names::MemberId};

/// Who should hold each partition.
///
/// Everybody keeps what they have, up to their even share; only what is over goes, and only what is free is given. So
/// a planner that comes gets its share and nothing else moves, and of one that goes nothing but its own moves.
pub(crate) fn shares(
    planners: &BTreeSet<MemberId>,
    holders: &BTreeMap<u16, MemberId>,
) -> BTreeMap<u16, MemberId> {
    let mut shares: BTreeMap<u16, MemberId> = BTreeMap::new();
    let mut counts: BTreeMap<&MemberId, usize> = BTreeMap::new();
    let quotas = quotas(planners);
    for (partition, holder) in holders.iter().filter(|(partition, _)| **partition < PARTITIONS) {
        let Some((holder, quota)) = quotas.get_key_value(holder) else { continue };
        let count = counts.entry(holder).or_default();
        if *count < *quota {
            *count += 1;
            shares.insert(*partition, (*holder).clone());
        }
    }
    // One after the other takes what it lacks from the front. While they are taking, everybody's rest stays the same
    // whoever is faster, so nobody reaches for what another is about to take.
    let mut free: Vec<u16> =
        (0..PARTITIONS).rev().filter(|partition| !shares.contains_key(partition)).collect();
    for (id, quota) in &quotas {
        let lacks = quota - counts.get(id).copied().unwrap_or(0);
        for partition in free.split_off(free.len().saturating_sub(lacks)) {
            shares.insert(partition, (*id).clone());
        }
    }
    shares
}

/// How many partitions each planner should have. Who has one more than others is a matter of ids, not of who has how many
/// just now: that would change with every lease that changes hands. When a planner comes nobody's quota grows, and when
/// one goes nobody's shrinks.
fn quotas(planners: &BTreeSet<MemberId>) -> BTreeMap<&MemberId, usize> {
    let (partitions, count) = (usize::from(PARTITIONS), planners.len().max(1));
    let quota = |place: usize| partitions / count + usize::from(place < partitions % count);
    planners.iter().enumerate().map(|(place, id)| (id, quota(place))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planners(numbers: impl IntoIterator<Item = usize>) -> BTreeSet<MemberId> {
        numbers.into_iter().map(|n| format!("planner-{n}").parse().expect("id")).collect()
    }

    fn counts(shares: &BTreeMap<u16, MemberId>) -> BTreeMap<&MemberId, usize> {
        let mut counts = BTreeMap::new();
        for holder in shares.values() {
            *counts.entry(holder).or_default() += 1;
        }
        counts
    }

    fn moved(before: &BTreeMap<u16, MemberId>, after: &BTreeMap<u16, MemberId>) -> usize {
        before.iter().filter(|(partition, holder)| after.get(partition) != Some(*holder)).count()
    }

    #[test]
    fn every_partition_has_exactly_one_planner_and_the_shares_are_even() {
        for count in 1..=70 {
            let shares = shares(&planners(0..count), &BTreeMap::new());
            assert_eq!(shares.len(), 64, "{count} planners");
            let counts = counts(&shares);
            let (least, most) = (counts.values().min().expect("one"), counts.values().max().expect("one"));
            assert!(most - least <= 1 && counts.len() == count.min(64), "{count} planners: {counts:?}");
        }
        assert!(shares(&BTreeSet::new(), &BTreeMap::new()).is_empty());
    }

    #[test]
    fn when_a_planner_comes_it_gets_its_share_and_nothing_else_moves() {
        let mut before = shares(&planners(0..1), &BTreeMap::new());
        for count in 2..=20 {
            let after = shares(&planners(0..count), &before);
            let counts = counts(&after);
            let new: MemberId = format!("planner-{}", count - 1).parse().expect("id");
            let new = counts[&new];
            assert_eq!((moved(&before, &after), after.len()), (new, 64), "{count} planners");
            assert!(
                counts.values().all(|n| (64 / count..=64_usize.div_ceil(count)).contains(n)),
                "{counts:?}"
            );
            before = after;
        }
    }

    #[test]
    fn when_a_planner_goes_the_others_keep_all_they_have() {
        let mut before = shares(&planners(0..12), &BTreeMap::new());
        for gone in 0..11 {
            let left = planners(gone + 1..12);
            let held: BTreeMap<u16, MemberId> =
                before.iter().filter(|(_, id)| left.contains(*id)).map(|(n, id)| (*n, id.clone())).collect();
            let after = shares(&left, &held);
            assert_eq!((moved(&held, &after), after.len()), (0, 64), "{} left", left.len());
            before = after;
        }
    }

    #[test]
    fn taking_what_one_should_have_changes_nobodys_share_whatever_the_order() {
        let all = planners(0..3);
        let one = planners([1]);
        let start: BTreeMap<u16, MemberId> =
            shares(&one, &BTreeMap::new()).into_iter().filter(|(partition, _)| partition % 3 == 0).collect();
        let goal = shares(&all, &start);
        for order in [|n: u16| n, |n: u16| 63 - n, |n: u16| (n * 37) % 64] {
            let mut now = start.clone();
            for partition in (0..64).map(order) {
                now.insert(partition, goal[&partition].clone());
                assert_eq!(shares(&all, &now), goal);
            }
        }
    }
}
