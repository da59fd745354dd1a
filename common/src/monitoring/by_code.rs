//! One of something for each request code that a process serves.

use super::OTHER;

/// A `T` for each code of a list, and one for all codes that are not in it: whatever clients send, there are no more.
#[derive(Debug)]
pub struct ByCode<T> {
    /// In the order of the codes.
    known: Box<[(i32, &'static str, T)]>,
    other: T,
}

impl<T: Default> ByCode<T> {
    /// Of these codes, given with their names.
    pub fn new(codes: impl IntoIterator<Item = (&'static str, i32)>) -> Self {
        let mut known: Vec<_> = codes.into_iter().map(|(name, code)| (code, name, T::default())).collect();
        known.sort_unstable_by_key(|(code, ..)| *code);
        Self { known: known.into(), other: T::default() }
    }
}

impl<T> ByCode<T> {
    /// The one of a code.
    pub fn of(&self, code: i32) -> &T {
        self.known.binary_search_by_key(&code, |(known, ..)| *known).map_or(&self.other, |at| &self.known[at].2)
    }

    /// All of them by name; those that are not in the list have [`OTHER`].
    pub fn each(&self) -> impl Iterator<Item = (&'static str, &T)> {
        self.known.iter().map(|(_, name, of)| (*name, of)).chain([(OTHER, &self.other)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitoring::Count;

    #[test]
    fn codes_of_the_list_are_told_apart() {
        let counts = ByCode::<Count>::new([("B", 12), ("A", 3)]);
        for code in [3, 12, 12, 4, -7, i32::MAX] {
            counts.of(code).add_one();
        }
        let each: Vec<_> = counts.each().map(|(name, count)| (name, count.get())).collect();
        assert_eq!(each, [("A", 1), ("B", 2), (OTHER, 3)]);
    }
}
