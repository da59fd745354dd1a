//! Numbers with their nouns, and errors with their causes.

use escrowmq_common::causes::Causes;

/// `1 message`, `2 messages`. For nouns whose plural ends in s.
pub(crate) fn counted(count: impl TryInto<u64>, noun: &str) -> String {
    // Numbers that are none of these are larger than any count is.
    let count = count.try_into().unwrap_or(u64::MAX);
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// An error with its causes, each once: many errors name theirs in their own text already.
pub(crate) fn told(error: &anyhow::Error) -> String {
    Causes(&**error).to_string()
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn one_is_not_many() {
        let said: Vec<String> = (0..3_usize).map(|count| counted(count, "key file")).collect();
        assert_eq!(said, ["0 key files", "1 key file", "2 key files"]);
    }

    #[test]
    fn a_cause_is_told_once() {
        let taken = || std::io::Error::other("Address already in use (os error 98)");
        let error = Err::<(), _>(taken()).context(format!("the broker does not start: {}", taken())).unwrap_err();
        assert_eq!(told(&error), "the broker does not start: Address already in use (os error 98)");
        let error = Err::<(), _>(taken()).context("listenPort 80").context("the broker does not start").unwrap_err();
        assert_eq!(told(&error), "the broker does not start: listenPort 80: Address already in use (os error 98)");
    }
}
