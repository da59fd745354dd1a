//! Attributes of topics and groups: which ones there are, what they may be, and how changes to them are written.
//!
//! An attribute that is unknown, that has a value that means nothing, or that asks for what this broker does not do is refused:
//! accepted, it would never do what its user believes.

use std::collections::BTreeMap;

use escrowmq_common::limits::ATTRIBUTES_BYTES_MAX;
use escrowmq_common::name::DUPLICATE_WINDOW;

use crate::terms::TopicSettings;

/// Name and value, as they are stored.
pub(super) type Attributes = Vec<(String, String)>;

/// An attribute that a topic can have, and the values that it takes.
struct Kind {
    name: &'static str,
    /// Why not, if so.
    objection: fn(&str) -> Option<String>,
}

/// All attributes of topics.
const OF_TOPICS: &[Kind] = &[
    Kind { name: "message.type", objection: message_type },
    Kind { name: "queue.type", objection: |value| only(value, &["SimpleCQ"], "batch queues and queues in RocksDB") },
    Kind { name: "cleanup.policy", objection: |value| only(value, &["DELETE"], "compaction") },
    Kind {
        name: "reserve.time",
        objection: |value| only(value, &["-1"], "a retention of their own (see fileReservedTime)"),
    },
    Kind { name: DUPLICATE_WINDOW, objection: duplicate_window },
];

fn message_type(value: &str) -> Option<String> {
    const TYPES: &[&str] = &["UNSPECIFIED", "NORMAL", "FIFO", "DELAY", "TRANSACTION", "MIXED"];
    (!TYPES.contains(&value)).then(|| format!("must be one of {}", TYPES.join(", ")))
}

fn only(value: &str, served: &[&str], others: &str) -> Option<String> {
    (!served.contains(&value)).then(|| format!("must be {}: topics with {others} are not served", served.join(" or ")))
}

fn duplicate_window(value: &str) -> Option<String> {
    let most = TopicSettings::DUPLICATE_WINDOW_MAX;
    let good = value.parse::<u64>().is_ok_and(|seconds| seconds <= most);
    (!good).then(|| format!("must be a number of seconds up to {most}"))
}

/// A change of one attribute.
enum Change<'a> {
    Set(&'a str, &'a str),
    Remove(&'a str),
}

/// Applies the changes of a request, `+name=value,-name`, to a topic's attributes, or says what is wrong with them and changes
/// nothing.
pub(super) fn change(attributes: &Attributes, changes: &str) -> Result<Attributes, String> {
    let changes = changes.split(',').map(str::trim).filter(|change| !change.is_empty()).map(read_change);
    apply(attributes, changes.collect::<Result<Vec<_>, _>>()?)
}

/// Applies the attributes of a whole configuration to those that a topic has: names with a sign in front are changes, and names
/// without one are set.
pub(super) fn merge(attributes: &Attributes, given: &BTreeMap<String, String>) -> Result<Attributes, String> {
    let change = |(name, value): (&'_ String, &'_ String)| match (name.strip_prefix('+'), name.strip_prefix('-')) {
        (Some(name), _) => (name.to_owned(), Some(value.clone())),
        (None, Some(name)) => (name.to_owned(), None),
        (None, None) => (name.clone(), Some(value.clone())),
    };
    let given: Vec<(String, Option<String>)> = given.iter().map(change).collect();
    let changes = given.iter().map(|(name, value)| match value {
        Some(value) => Change::Set(name, value),
        None => Change::Remove(name),
    });
    apply(attributes, changes.collect())
}

fn read_change(text: &str) -> Result<Change<'_>, String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name.trim(), Some(value.trim())),
        None => (text, None),
    };
    match (name.strip_prefix('+'), name.strip_prefix('-'), value) {
        (Some(name), _, Some(value)) if !name.is_empty() && !value.is_empty() => Ok(Change::Set(name, value)),
        (_, Some(name), None) if !name.is_empty() => Ok(Change::Remove(name)),
        _ => Err(format!("attribute change {:?} is neither +name=value nor -name", cut(text))),
    }
}

fn apply(attributes: &Attributes, changes: Vec<Change<'_>>) -> Result<Attributes, String> {
    let mut changed = attributes.clone();
    let mut named: Vec<&str> = Vec::new();
    for change in changes {
        let (Change::Set(name, _) | Change::Remove(name)) = change;
        if named.contains(&name) {
            return Err(format!("attribute {:?} is named twice", cut(name)));
        }
        named.push(name);
        let known = OF_TOPICS.iter().find(|kind| kind.name == name);
        match (change, known) {
            // One of another version may still have to go.
            (Change::Remove(_), _) if changed.iter().any(|(other, _)| other == name) => {
                changed.retain(|(other, _)| other != name);
            }
            (_, None) => {
                let all: Vec<&str> = OF_TOPICS.iter().map(|kind| kind.name).collect();
                return Err(format!("unsupported key: {:?}; there are {}", cut(name), all.join(", ")));
            }
            (Change::Remove(_), Some(_)) => {}
            (Change::Set(_, value), Some(kind)) => {
                if let Some(why) = (kind.objection)(value) {
                    return Err(format!("attribute {name}={} {why}", cut(value)));
                }
                changed.retain(|(other, _)| other != name);
                changed.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    let bytes: usize = changed.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > ATTRIBUTES_BYTES_MAX {
        return Err(format!("attributes of {bytes} bytes, at most {ATTRIBUTES_BYTES_MAX}"));
    }
    Ok(changed)
}

/// Objects to any attribute of a group: there are none that do anything.
pub(super) fn group_objection(given: &BTreeMap<String, String>) -> Option<String> {
    given.keys().next().map(|name| format!("unsupported key: {:?}; groups have no attributes", cut(name)))
}

/// The beginning of a text, short enough for a remark.
fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &[(&str, &str)]) -> Attributes {
        text.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn attributes_are_added_changed_and_removed() {
        let has = of(&[("message.type", "NORMAL"), ("old.one", "1")]);
        let changed = change(&has, "+message.type=FIFO, -old.one,+duplicate.window.seconds=60").unwrap();
        assert_eq!(changed, of(&[("message.type", "FIFO"), ("duplicate.window.seconds", "60")]));
        assert_eq!(change(&has, "").unwrap(), has);
        assert_eq!(change(&of(&[]), "-message.type").unwrap(), of(&[]));
        for good in ["+queue.type=SimpleCQ", "+cleanup.policy=DELETE", "+reserve.time=-1", "+message.type=MIXED"] {
            change(&of(&[]), good).unwrap();
        }
    }

    #[test]
    fn what_would_do_nothing_is_refused() {
        for bad in [
            "+message.type=BOGUS",
            "+message.type=fifo",
            "+no.such.attribute=1",
            "-no.such.attribute",
            "message.type=FIFO",
            "+message.type",
            "+message.type=",
            "-message.type=FIFO",
            "+=1",
            "+duplicate.window.second=60",
            "+duplicate.window.seconds=soon",
            "+duplicate.window.seconds=-1",
            "+queue.type=BatchCQ",
            "+cleanup.policy=COMPACTION",
            "+reserve.time=3600",
            "+message.type=FIFO,+message.type=DELAY",
            "junk",
        ] {
            assert!(change(&of(&[]), bad).is_err(), "{bad}");
        }
        assert!(group_objection(&BTreeMap::from([("+k".to_owned(), "v".to_owned())])).is_some());
        assert_eq!(group_objection(&BTreeMap::new()), None);
    }

    #[test]
    fn a_whole_configuration_sets_or_changes() {
        let given = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let fifo = of(&[("message.type", "FIFO")]);
        assert_eq!(merge(&of(&[]), &given("message.type", "FIFO")).unwrap(), fifo);
        assert_eq!(merge(&of(&[("message.type", "DELAY")]), &given("+message.type", "FIFO")).unwrap(), fifo);
        assert_eq!(merge(&fifo, &given("-message.type", "")).unwrap(), of(&[]));
        assert!(merge(&fifo, &given("message.type", "BOGUS")).is_err());
    }
}
