//! Halves that are due but whose group has no instance connected. Rebuilt by the runner's first look after a start.

use std::collections::{BTreeSet, HashMap};

/// A half that waits: when it is parked if nobody comes, and its id.
pub type WaitingHalf = (u64, u64);

/// The halves that wait, per producer group.
#[derive(Debug, Default)]
pub struct Waiting {
    groups: HashMap<String, BTreeSet<WaitingHalf>>,
    count: usize,
}

impl Waiting {
    /// Adds a half; says whether it is new.
    pub fn add(&mut self, group: &str, until: u64, half: u64) -> bool {
        if !self.groups.contains_key(group) {
            self.groups.insert(group.to_owned(), BTreeSet::new());
        }
        let added = self.groups.get_mut(group).is_some_and(|halves| halves.insert((until, half)));
        self.count += usize::from(added);
        added
    }

    /// Whether a half waits.
    pub fn contains(&self, group: &str, until: u64, half: u64) -> bool {
        self.groups.get(group).is_some_and(|halves| halves.contains(&(until, half)))
    }

    /// Takes up to `limit` halves of a group that has an instance now.
    pub fn take(&mut self, group: &str, limit: usize) -> Vec<u64> {
        let Some(halves) = self.groups.get_mut(group) else { return Vec::new() };
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some((_, half)) = halves.pop_first()
        {
            taken.push(half);
        }
        if halves.is_empty() {
            self.groups.remove(group);
        }
        self.count -= taken.len();
        taken
    }

    /// Takes up to `limit` halves whose wait is over at `now`.
    pub fn take_over(&mut self, now: u64, limit: usize) -> Vec<u64> {
        let mut taken = Vec::new();
        self.groups.retain(|_, halves| {
            while taken.len() < limit && halves.first().is_some_and(|(until, _)| *until <= now) {
                taken.extend(halves.pop_first().map(|(_, half)| half));
            }
            !halves.is_empty()
        });
        self.count -= taken.len();
        taken
    }

    /// When the first wait is over, in milliseconds since 1970.
    pub fn next_over(&self) -> Option<u64> {
        self.groups.values().filter_map(|halves| halves.first()).map(|(until, _)| *until).min()
    }

    /// The groups that have halves waiting.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(String::as_str)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_each_half_once_and_gives_the_oldest_first() {
        let mut waiting = Waiting::default();
        assert!(waiting.add("g", 20, 2));
        assert!(waiting.add("g", 10, 1));
        assert!(!waiting.add("g", 10, 1));
        assert!(waiting.add("h", 5, 3));
        assert_eq!((waiting.len(), waiting.next_over()), (3, Some(5)));
        assert_eq!(waiting.take("g", 1), [1]);
        assert_eq!(waiting.take("g", 9), [2]);
        assert_eq!(waiting.take("g", 9), [] as [u64; 0]);
        assert_eq!(waiting.len(), 1);
    }

    #[test]
    fn a_wait_that_is_over_is_taken_whatever_its_group() {
        let mut waiting = Waiting::default();
        waiting.add("g", 10, 1);
        waiting.add("h", 11, 2);
        waiting.add("h", 30, 3);
        assert_eq!(waiting.take_over(11, 10).len(), 2);
        assert_eq!((waiting.len(), waiting.contains("h", 30, 3)), (1, true));
    }
}
