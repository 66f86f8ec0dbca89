//! Which planner should hold which partition. Pure, and the same on every planner that knows the same members.

use std::collections::{BTreeMap, BTreeSet};

use shared::{hash::mixed_64, limits::PARTITIONS, names::MemberId};

/// The partitions that one planner should hold.
///
/// Rendezvous hashing: each partition goes to the planner that scores highest for it, so only the partitions of a
/// planner that comes or goes move. A planner that has its even share takes no more; the partition goes to the next.
pub(crate) fn share_of(me: &MemberId, planners: &BTreeSet<MemberId>) -> BTreeSet<u16> {
    let mut everybody: Vec<&MemberId> = planners.iter().chain([me]).collect();
    everybody.sort_unstable();
    everybody.dedup();
    let even_share = usize::from(PARTITIONS).div_ceil(everybody.len());
    let mut taken: BTreeMap<&MemberId, usize> = BTreeMap::new();
    let mut mine = BTreeSet::new();
    for partition in 0..PARTITIONS {
        let number = partition.to_string();
        let free = everybody.iter().filter(|id| taken.get(**id).copied().unwrap_or(0) < even_share);
        let Some(holder) = free.max_by_key(|id| (mixed_64(&[&number, id.as_str()]), id.as_str())) else {
            break;
        };
        *taken.entry(holder).or_default() += 1;
        if *holder == me {
            mine.insert(partition);
        }
    }
    mine
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planners(numbers: impl IntoIterator<Item = usize>) -> BTreeSet<MemberId> {
        numbers.into_iter().map(|n| format!("planner-{n}").parse().expect("id")).collect()
    }

    #[test]
    fn every_partition_has_exactly_one_planner_and_the_shares_are_even() {
        for count in 1..=9 {
            let all = planners(0..count);
            let shares: Vec<BTreeSet<u16>> = all.iter().map(|me| share_of(me, &all)).collect();
            let total: usize = shares.iter().map(BTreeSet::len).sum();
            let union: BTreeSet<u16> = shares.iter().flatten().copied().collect();
            assert_eq!((total, union.len()), (64, 64), "{count} planners");
            let most = shares.iter().map(BTreeSet::len).max().unwrap_or(0);
            assert!(most <= 64_usize.div_ceil(count), "{count} planners: {most}");
        }
    }

    #[test]
    fn when_a_planner_goes_the_others_keep_most_of_what_they_have() {
        let (before, after) = (planners(0..4), planners(0..3));
        for me in &after {
            let (old, new) = (share_of(me, &before), share_of(me, &after));
            let kept = old.intersection(&new).count();
            assert!(kept * 10 >= old.len() * 8, "{me}: kept {kept} of {}", old.len());
        }
    }
}
