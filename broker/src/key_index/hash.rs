//! The 64 bits of a topic and a key by which keys are compared.
//!
//! The hash is part of the file format, so it is spelled out here instead of taken from a library that may change it.
//! It spreads well, which makes lookups short; that two keys share one is harmless, because every hit is verified on
//! the message itself.

/// Digits of pi: no structure, odd multipliers.
const SEED: u64 = 0x243f_6a88_85a3_08d3;
const MULTIPLIER: u64 = 0x1319_8a2e_0370_7345;
const LAST_MULTIPLIER: u64 = 0xa409_3822_299f_31d1;

/// The state after a topic, from which the hash of each of its keys follows.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopicHash(u64);

impl TopicHash {
    pub(super) fn new(topic: &str) -> Self {
        Self(absorb(SEED, topic.as_bytes()))
    }

    /// The hash of a key of this topic.
    pub(super) fn of(self, key: &str) -> u64 {
        absorb(self.0, key.as_bytes())
    }
}

fn absorb(mut state: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = fold(state ^ u64::from_be_bytes(*word), MULTIPLIER);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    state = fold(state ^ u64::from_be_bytes(last), MULTIPLIER);
    // The length tells "a" from "a\0", and where a topic ends and its key begins.
    fold(state ^ bytes.len() as u64, LAST_MULTIPLIER)
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_hash_is_part_of_the_format() {
        // A change of these numbers makes all existing files useless: raise the version of the format with it.
        assert_eq!(TopicHash::new("TopicTest").of("key1"), 0x67d0_4645_0e1d_75cb);
        assert_eq!(TopicHash::new("").of(""), 0xca21_f6f6_60c3_4ce2);
    }

    #[test]
    fn close_keys_are_far_apart() {
        let topic = TopicHash::new("T");
        let hashes: Vec<u64> = (0..20_000).map(|n| topic.of(&format!("order-{n}"))).collect();
        assert_eq!(hashes.iter().collect::<HashSet<_>>().len(), hashes.len());
        // Evenly spread over the high bits, by which a lookup guesses its block.
        let mut buckets = [0_u32; 64];
        for hash in hashes {
            buckets[(hash >> 58) as usize] += 1;
        }
        assert!(buckets.iter().all(|&count| (200..450).contains(&count)), "{buckets:?}");
    }

    #[test]
    fn boundaries_count() {
        assert_ne!(TopicHash::new("ab").of("c"), TopicHash::new("a").of("bc"));
        assert_ne!(TopicHash::new("a").of("b"), TopicHash::new("a").of("b\0"));
    }
}
