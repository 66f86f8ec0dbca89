//! One stable hash for everything that must come out the same on every machine and in every release.

use crate::limits::PARTITIONS;

/// FNV-1a, 32 bits: the hash of nats-server's own `partition()` subject transform, so that the server and we agree.
///
/// Source: <http://www.isthe.com/chongo/tech/comp/fnv/>.
pub fn fnv1a_32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// The partition a schedule belongs to, for ever: it is part of its key in the bucket.
pub fn partition_of(name: &str) -> u16 {
    (fnv1a_32(name.as_bytes()) % u32::from(PARTITIONS)) as u16
}

/// A well-mixed 64-bit hash of several parts (FNV-1a over the parts, finished by splitmix64).
///
/// For rendezvous hashing and jitter, where FNV's weak high bits would show.
pub fn mixed_64(parts: &[&str]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.as_bytes().iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv1a_gives_the_published_test_vectors() {
        assert_eq!(fnv1a_32(b""), 0x811c_9dc5);
        assert_eq!(fnv1a_32(b"a"), 0xe40c_292c);
        assert_eq!(fnv1a_32(b"foobar"), 0xbf9c_f968);
    }

    #[test]
    fn ten_thousand_names_spread_over_all_partitions() {
        let mut counts = vec![0_u32; usize::from(PARTITIONS)];
        for n in 0..10_000 {
            counts[usize::from(partition_of(&format!("schedule_{n}")))] += 1;
        }
        assert!(counts.iter().all(|count| (80..240).contains(count)), "{counts:?}");
    }
}
