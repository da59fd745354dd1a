//! Numbers with their nouns.

/// `1 message`, `2 messages`. For nouns whose plural has an s behind.
pub(crate) fn counted(count: impl TryInto<u64>, noun: &str) -> String {
    // Numbers that are none of these are larger than any count is.
    let count = count.try_into().unwrap_or(u64::MAX);
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        let said: Vec<String> = (0..3_usize).map(|count| counted(count, "key file")).collect();
        assert_eq!(said, ["0 key files", "1 key file", "2 key files"]);
    }
}
