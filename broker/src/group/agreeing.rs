//! What a leader adds to what its group has agreed on: a higher feature level, and settings that the log does not have yet.

use std::collections::BTreeMap;

use crate::config::BrokerConfig;
use crate::shard::Agreed;
use crate::terms::SETTINGS_LEVEL;

/// The level that the group may be raised to: what all voters speak, of which `spoken` has what each of them said last. `None` if
/// that is no higher than it is, or if one of them has not been heard yet.
pub(super) fn next_level(level: u32, spoken: impl Iterator<Item = Option<u32>>) -> Option<u32> {
    let lowest = spoken.min().flatten()?;
    (lowest > level).then_some(lowest)
}

/// The settings that the log lacks, with their values in the leader's own settings: all of them in a group whose log has none, and
/// later those whose keys came with a newer version. Those with default values are logged too: a later version may have other
/// defaults, and must not change a group that it is installed in.
pub(super) fn missing(agreed: &Agreed, own: &BrokerConfig) -> BTreeMap<&'static str, String> {
    if agreed.level < SETTINGS_LEVEL {
        return BTreeMap::new();
    }
    own.logged().filter(|(key, _)| !agreed.settings.contains_key(*key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_that_of_the_lowest_voter_and_waits_for_all() {
        let next = |level, spoken: &[Option<u32>]| next_level(level, spoken.iter().copied());
        assert_eq!(next(1, &[Some(2), Some(3), Some(2)]), Some(2));
        assert_eq!(next(1, &[Some(2), Some(1), Some(2)]), None);
        assert_eq!(next(1, &[Some(2), None, Some(2)]), None);
        assert_eq!(next(2, &[Some(2), Some(2)]), None);
        assert_eq!(next(3, &[Some(2), Some(2)]), None, "it never falls");
        assert_eq!(next(1, &[]), None);
    }

    #[test]
    fn what_the_log_has_is_not_logged_again() {
        let own = BrokerConfig::default();
        let mut agreed = Agreed::default();
        assert!(missing(&agreed, &own).is_empty(), "a lower level has no settings");
        agreed.level = SETTINGS_LEVEL;
        let all = missing(&agreed, &own);
        assert_eq!(all.get("transactionCheckMax").map(String::as_str), Some("15"), "defaults too");
        agreed.settings = all.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        assert!(missing(&agreed, &own).is_empty());
        agreed.settings.remove("traceOn");
        assert_eq!(missing(&agreed, &own), BTreeMap::from([("traceOn", "true".to_owned())]));
    }
}
