//! Finds what a mistyped word may have meant.

/// The candidate with the fewest letters to change, add or drop; case counts for nothing.
///
/// # Panics
/// If there is no candidate.
pub fn nearest(word: &str, candidates: impl Iterator<Item = &'static str>) -> &'static str {
    let best = candidates.min_by_key(|candidate| distance(word, candidate));
    best.expect("there is at least one key")
}

/// How many letters are to be changed, added or dropped (Levenshtein's distance). Of `a` the first 128 count.
pub fn distance(a: &str, b: &str) -> usize {
    // Nobody needs more than this to recognise a key, and a hostile word may have megabytes: it is cut before it is copied.
    let a: Vec<char> = a.chars().take(128).flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "abc", 3), ("kitten", "sitting", 3), ("Port", "port", 0)] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
        assert_eq!(nearest("prt", ["bind", "port"].into_iter()), "port");
    }
}
