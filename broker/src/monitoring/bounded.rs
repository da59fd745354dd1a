//! Which names have figures of their own: the first that come, up to a bound. What the others have is summed.
//!
//! A name that has its own figures keeps them until it is gone, so no series jumps because another name came. The sum of counters
//! never falls, also when one of the summed names goes: a counter that fell would look like a restart, and its whole value like news.

use std::collections::{BTreeMap, BTreeSet};

/// Gauges of a name, which may be added to those of another.
pub(super) trait Gauges: Default {
    /// Adds those of another name.
    fn add(&mut self, more: Self);
}

impl Gauges for () {
    fn add(&mut self, (): Self) {}
}

/// The figures of a name: `N` counters, and gauges.
pub(super) type Row<G, const N: usize> = ([u64; N], G);

/// See the module.
#[derive(Debug)]
pub(super) struct Bounded<K, const N: usize> {
    max: usize,
    own: BTreeSet<K>,
    /// The counters of the summed names at the last look.
    summed: BTreeMap<K, [u64; N]>,
    /// The counters of summed names have risen by so much since the start.
    sums: [u64; N],
}

/// The outcome of a look.
#[derive(Debug)]
pub(super) struct Told<K, G, const N: usize> {
    /// Those with figures of their own, by name.
    pub(super) own: Vec<(K, Row<G, N>)>,
    /// The others together, if there ever were any.
    pub(super) other: Option<Row<G, N>>,
    /// How many these are now.
    pub(super) summed: usize,
}

impl<K: Ord + Clone, const N: usize> Bounded<K, N> {
    /// At most `max` names get figures of their own.
    pub(super) fn new(max: usize) -> Self {
        Self { max, own: BTreeSet::new(), summed: BTreeMap::new(), sums: [0; N] }
    }

    /// Looks at all names that there are now.
    pub(super) fn look<G: Gauges>(&mut self, all: BTreeMap<K, Row<G, N>>) -> Told<K, G, N> {
        self.own.retain(|name| all.contains_key(name));
        let (mut own, mut others, mut summed) = (Vec::new(), G::default(), BTreeMap::new());
        for (name, (counters, gauges)) in all {
            if self.own.contains(&name) || self.own.len() < self.max {
                self.own.insert(name.clone());
                own.push((name, (counters, gauges)));
                continue;
            }
            let before = self.summed.get(&name).copied().unwrap_or([0; N]);
            for ((sum, now), before) in self.sums.iter_mut().zip(counters).zip(before) {
                // A counter that is below its last value began anew.
                *sum += if now < before { now } else { now - before };
            }
            others.add(gauges);
            summed.insert(name, counters);
        }
        self.summed = summed;
        let there_were = !self.summed.is_empty() || self.sums.iter().any(|sum| *sum > 0);
        Told { own, other: there_were.then_some((self.sums, others)), summed: self.summed.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Eq)]
    struct Sum(u64);

    impl Gauges for Sum {
        fn add(&mut self, more: Self) {
            self.0 += more.0;
        }
    }

    fn look(
        bounded: &mut Bounded<&'static str, 1>,
        all: &[(&'static str, u64)],
    ) -> (Vec<&'static str>, Option<(u64, u64)>) {
        let told = bounded.look(all.iter().map(|(name, count)| (*name, ([*count], Sum(*count)))).collect());
        assert_eq!(told.own.len() + told.summed, all.len());
        (told.own.iter().map(|(name, _)| *name).collect(), told.other.map(|([count], Sum(sum))| (count, sum)))
    }

    #[test]
    fn names_keep_their_figures_and_the_others_are_summed() {
        let mut bounded = Bounded::new(2);
        assert_eq!(look(&mut bounded, &[("m", 1), ("z", 2)]), (vec!["m", "z"], None));
        // One that comes later pushes nobody out, whatever its name.
        assert_eq!(look(&mut bounded, &[("a", 5), ("m", 1), ("z", 2)]), (vec!["m", "z"], Some((5, 5))));
        assert_eq!(look(&mut bounded, &[("a", 7), ("b", 1), ("m", 1), ("z", 2)]), (vec!["m", "z"], Some((8, 8))));
        // The sum of counters does not fall when one of them goes or begins anew; that of gauges does.
        assert_eq!(look(&mut bounded, &[("b", 1), ("m", 1), ("z", 2)]), (vec!["m", "z"], Some((8, 1))));
        assert_eq!(look(&mut bounded, &[("a", 3), ("b", 0), ("m", 1), ("z", 2)]), (vec!["m", "z"], Some((11, 3))));
        // A place that is free again goes to the next.
        assert_eq!(look(&mut bounded, &[("a", 4), ("b", 2), ("z", 2)]), (vec!["a", "z"], Some((13, 2))));
        assert_eq!(look(&mut bounded, &[("z", 2)]), (vec!["z"], Some((13, 0))));
    }

    #[test]
    fn there_are_never_more_than_the_bound() {
        let mut bounded = Bounded::<u64, 1>::new(10);
        for round in 0..5 {
            let told = bounded.look((0..5_000).map(|name| (name * (round + 1), ([1], Sum(1)))).collect());
            assert_eq!((told.own.len(), told.summed), (10, 4_990));
        }
        assert!(bounded.own.len() <= 10 && bounded.summed.len() <= 4_990);
    }
}
