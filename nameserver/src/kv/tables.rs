//! All namespaces in memory, and how much they may hold.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{KvChange, KvError};

pub use escrowmq_common::limits::{
    KV_KEY_BYTES_MAX as KEY_BYTES_MAX, KV_NAMESPACE_BYTES_MAX as NAMESPACE_BYTES_MAX,
    KV_VALUE_BYTES_MAX as VALUE_BYTES_MAX,
};

/// Most namespaces. Beyond that a new one takes the place of an empty one.
pub const NAMESPACES_MAX: usize = 1024;
/// Most keys of all namespaces together.
pub const KEYS_MAX: usize = 100_000;
/// Most bytes of a namespace as a list, which has to fit into a frame, and is part of the answer to each registration.
pub const LIST_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes that an entry takes beside its texts.
const ENTRY_BYTES: usize = 96;

/// All namespaces.
#[derive(Debug, Default)]
pub(super) struct KvTables {
    namespaces: BTreeMap<String, Arc<Namespace>>,
    keys: usize,
    bytes: usize,
}

/// One of them, as it was at some time: a change makes another one while somebody has this one.
#[derive(Debug, Clone, Default)]
pub(super) struct Namespace {
    table: BTreeMap<String, String>,
    /// Bytes of the entries in a list.
    listed: usize,
    /// The list, once somebody has asked for it.
    list: OnceLock<Bytes>,
}

/// The most that changes which are not applied yet will add.
#[derive(Debug, Default)]
pub(super) struct Growth {
    namespaces: usize,
    keys: usize,
    bytes: usize,
    listed: usize,
}

/// The file: the form that RocketMQ's nameserver keeps, which ignores the second member.
#[derive(Deserialize)]
struct File {
    #[serde(rename = "configTable", default)]
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(default)]
    generation: u64,
}

#[derive(Serialize)]
struct FileView<'a> {
    #[serde(rename = "configTable")]
    namespaces: BTreeMap<&'a str, &'a BTreeMap<String, String>>,
    generation: u64,
}

impl KvTables {
    /// Reads a file; also which generation of it this is, 0 for one that we did not write. All of it is taken, even if
    /// it is more than may be put there now.
    pub(super) fn from_file(bytes: &[u8]) -> Result<(KvTables, u64), serde_json::Error> {
        let file: File = serde_json::from_slice(bytes)?;
        let mut tables = KvTables::default();
        for (name, table) in file.namespaces {
            tables.namespaces.insert(name.clone(), Arc::default());
            for (key, value) in table {
                tables.put(name.clone(), key, value);
            }
        }
        Ok((tables, file.generation))
    }

    /// The file of these tables.
    pub(super) fn to_file(&self, generation: u64) -> Vec<u8> {
        let namespaces = self.namespaces.iter().map(|(name, namespace)| (name.as_str(), &namespace.table)).collect();
        serde_json::to_vec_pretty(&FileView { namespaces, generation }).expect("texts by text are JSON")
    }

    /// One value.
    pub(super) fn get(&self, namespace: &str, key: &str) -> Option<&String> {
        self.namespaces.get(namespace)?.table.get(key)
    }

    /// A namespace as it is now; `None` if nothing was ever put there.
    pub(super) fn namespace(&self, name: &str) -> Option<Arc<Namespace>> {
        self.namespaces.get(name).cloned()
    }

    /// The namespaces of these changes that somebody has, by name. Changing them takes as long as copying them.
    pub(super) fn shared(&self, changes: &[KvChange]) -> BTreeMap<String, Arc<Namespace>> {
        let named = changes.iter().filter_map(|change| self.namespaces.get_key_value(change.namespace()));
        let shared = named.filter(|(_, namespace)| Arc::strong_count(namespace) > 1);
        shared.map(|(name, namespace)| (name.clone(), Arc::clone(namespace))).collect()
    }

    /// Puts copies of namespaces in their places, which nobody else has.
    pub(super) fn replace(&mut self, copies: Vec<(String, Arc<Namespace>)>) {
        self.namespaces.extend(copies);
    }

    /// Bytes of the entries of a namespace in its list.
    pub(super) fn listed(&self, namespace: &str) -> usize {
        self.namespaces.get(namespace).map_or(0, |namespace| namespace.listed)
    }

    /// Bytes that all entries are counted with.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a change fits, after those that `growth` stands for, which it is then added to. Bytes that those take away are
    /// not counted before they are applied.
    pub(super) fn admit(&self, change: &KvChange, growth: &mut Growth, bytes_max: usize) -> Result<(), KvError> {
        let KvChange::Put { namespace: name, key, value } = change else {
            return Ok(());
        };
        for (what, text, limit) in
            [("namespace", name, NAMESPACE_BYTES_MAX), ("key", key, KEY_BYTES_MAX), ("value", value, VALUE_BYTES_MAX)]
        {
            if text.len() > limit {
                return Err(KvError::TooLong { what, bytes: text.len(), limit });
            }
        }
        let namespace = self.namespaces.get(name);
        let old = namespace.and_then(|namespace| namespace.table.get(key));
        let cost_of = |value: Option<&String>, cost: fn(&str, &str) -> usize| value.map_or(0, |value| cost(key, value));
        let more = |cost| cost_of(Some(value), cost).saturating_sub(cost_of(old, cost));
        let (bytes, listed) = (growth.bytes + more(cost), growth.listed + more(listed));
        let namespaces = growth.namespaces + usize::from(namespace.is_none());
        let keys = growth.keys + usize::from(old.is_none());

        let full = |what, limit| Err(KvError::Full { what, limit });
        let used = self.namespaces.values().filter(|namespace| !namespace.table.is_empty()).count();
        if namespace.is_none() && used + namespaces > NAMESPACES_MAX {
            return full("namespaces", NAMESPACES_MAX);
        }
        if old.is_none() && self.keys + keys > KEYS_MAX {
            return full("keys", KEYS_MAX);
        }
        if bytes > growth.bytes && self.bytes + bytes > bytes_max {
            return full("bytes (kvBytesMax)", bytes_max);
        }
        if listed > growth.listed && namespace.map_or(0, |namespace| namespace.listed) + listed > LIST_BYTES_MAX {
            return full("bytes in the list of one namespace", LIST_BYTES_MAX);
        }
        *growth = Growth { namespaces, keys, bytes, listed };
        Ok(())
    }

    /// Applies a change; answers what was there.
    pub(super) fn apply(&mut self, change: KvChange) -> Option<String> {
        match change {
            KvChange::Put { namespace, key, value } => self.put(namespace, key, value),
            KvChange::Delete { namespace, key } => {
                let namespace = Arc::make_mut(self.namespaces.get_mut(&namespace)?);
                let old = namespace.table.remove(&key)?;
                namespace.listed -= listed(&key, &old);
                namespace.list = OnceLock::new();
                self.keys -= 1;
                self.bytes -= cost(&key, &old);
                Some(old)
            }
        }
    }

    fn put(&mut self, name: String, key: String, value: String) -> Option<String> {
        if !self.namespaces.contains_key(&name) && self.namespaces.len() >= NAMESPACES_MAX {
            let empty = self.namespaces.iter().find(|(_, namespace)| namespace.table.is_empty());
            if let Some(empty) = empty.map(|(name, _)| name.clone()) {
                self.namespaces.remove(&empty);
            }
        }
        let namespace = Arc::make_mut(self.namespaces.entry(name).or_default());
        namespace.list = OnceLock::new();
        namespace.listed += listed(&key, &value);
        self.bytes += cost(&key, &value);
        let old = namespace.table.get_mut(&key);
        if let Some(old) = old {
            let old = std::mem::replace(old, value);
            namespace.listed -= listed(&key, &old);
            self.bytes -= cost(&key, &old);
            return Some(old);
        }
        namespace.table.insert(key, value);
        self.keys += 1;
        None
    }
}

impl Namespace {
    /// As `{"table":{key:value}}`, the form in which it travels. Takes a while where it is long and nobody has asked for it yet.
    pub(super) fn list(&self) -> Bytes {
        #[derive(Serialize)]
        struct List<'a> {
            table: &'a BTreeMap<String, String>,
        }
        let list = List { table: &self.table };
        let make = || serde_json::to_vec(&list).expect("texts by text are JSON").into();
        self.list.get_or_init(make).clone()
    }
}

impl PartialEq for KvTables {
    fn eq(&self, other: &Self) -> bool {
        let tables = |of: &Self| -> Vec<_> {
            of.namespaces.iter().map(|(name, namespace)| (name.clone(), namespace.table.clone())).collect()
        };
        (self.keys, self.bytes) == (other.keys, other.bytes) && tables(self) == tables(other)
    }
}

fn cost(key: &str, value: &str) -> usize {
    ENTRY_BYTES + key.len() + value.len()
}

/// Bytes of an entry in a list: two texts in quotes, a colon and a comma.
fn listed(key: &str, value: &str) -> usize {
    let written = |text: &str| -> usize {
        let byte = |byte| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 8 | 12 => 2,
            0..32 => 6,
            _ => 1,
        };
        text.bytes().map(byte).sum()
    };
    written(key) + written(value) + 6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(namespace: &str, key: &str, value: &str) -> KvChange {
        KvChange::Put { namespace: namespace.into(), key: key.into(), value: value.into() }
    }

    fn delete(namespace: &str, key: &str) -> KvChange {
        KvChange::Delete { namespace: namespace.into(), key: key.into() }
    }

    fn admit(tables: &KvTables, change: &KvChange, bytes_max: usize) -> Result<(), String> {
        tables.admit(change, &mut Growth::default(), bytes_max).map_err(|error| error.to_string())
    }

    fn list(tables: &KvTables, namespace: &str) -> Option<Bytes> {
        Some(tables.namespace(namespace)?.list())
    }

    const ROOM: usize = usize::MAX / 2;

    #[test]
    fn counts_follow_every_change() {
        let mut tables = KvTables::default();
        assert_eq!(tables.apply(put("N", "k", "v")), None);
        assert_eq!(tables.apply(put("N", "k", "longer")), Some("v".into()));
        assert_eq!((tables.keys, tables.bytes), (1, ENTRY_BYTES + 7));
        assert_eq!(tables.apply(delete("N", "k")), Some("longer".into()));
        assert_eq!(tables.apply(delete("N", "k")), None);
        assert_eq!(tables.apply(delete("M", "k")), None);
        assert_eq!((tables.keys, tables.bytes), (0, 0));
        assert_eq!(list(&tables, "N").unwrap(), r#"{"table":{}}"#);
        assert_eq!(list(&tables, "M"), None);
        assert_eq!((tables.listed("N"), tables.listed("M")), (0, 0));
    }

    #[test]
    fn the_list_has_as_many_bytes_as_it_is_counted_with() {
        let mut tables = KvTables::default();
        for (key, value) in [("a", "x\"\\\n\t\r\u{8}\u{c}"), ("ö\u{0}", "\u{1f}\u{7f}é"), ("", "")] {
            tables.apply(put("N", key, value));
        }
        let list = list(&tables, "N").unwrap();
        // The braces around, and no comma after the last entry.
        assert_eq!(list.len(), tables.listed("N") + r#"{"table":{}}"#.len() - 1);
    }

    #[test]
    fn names_and_values_are_bounded() {
        let tables = KvTables::default();
        let long = |n| "x".repeat(n);
        assert_eq!(admit(&tables, &put(&long(255), &long(1024), &long(65_536)), ROOM), Ok(()));
        for (change, said) in [
            (put(&long(256), "k", "v"), "namespace: 256 bytes, the limit is 255"),
            (put("N", &long(1025), "v"), "key: 1025 bytes, the limit is 1024"),
            (put("N", "k", &long(65_537)), "value: 65537 bytes, the limit is 65536"),
        ] {
            assert_eq!(admit(&tables, &change, ROOM), Err(said.to_owned()));
        }
    }

    #[test]
    fn a_full_table_refuses_what_makes_it_larger() {
        let mut tables = KvTables::default();
        tables.apply(put("N", "k", "12345"));
        let limit = tables.bytes();
        assert_eq!(admit(&tables, &put("N", "k", "abcde"), limit), Ok(()));
        assert_eq!(admit(&tables, &put("N", "k", "a"), limit), Ok(()));
        let refused = admit(&tables, &put("N", "k", "123456"), limit).unwrap_err();
        assert!(refused.contains("kvBytesMax"), "{refused}");
        assert_eq!(admit(&tables, &delete("N", "k"), limit), Ok(()));
    }

    #[test]
    fn changes_of_one_batch_are_counted_together() {
        let tables = KvTables::default();
        let mut growth = Growth::default();
        let limit = 2 * (ENTRY_BYTES + 2);
        tables.admit(&put("N", "a", "1"), &mut growth, limit).unwrap();
        tables.admit(&put("N", "b", "1"), &mut growth, limit).unwrap();
        assert!(matches!(tables.admit(&put("N", "c", "1"), &mut growth, limit), Err(KvError::Full { .. })));
    }

    #[test]
    fn a_namespace_must_fit_into_its_list() {
        let mut tables = KvTables::default();
        // Each of these bytes takes six in a list.
        let value = "\u{1}".repeat(VALUE_BYTES_MAX);
        let mut taken = 0;
        while admit(&tables, &put("N", &taken.to_string(), &value), ROOM).is_ok() {
            tables.apply(put("N", &taken.to_string(), &value));
            taken += 1;
        }
        assert_eq!(taken, 21);
        assert!(list(&tables, "N").unwrap().len() <= LIST_BYTES_MAX);
        assert_eq!(admit(&tables, &put("M", "k", &value), ROOM), Ok(()));
    }

    #[test]
    fn an_empty_namespace_gives_way_to_a_new_one() {
        let mut tables = KvTables::default();
        for n in 0..NAMESPACES_MAX {
            assert_eq!(admit(&tables, &put(&n.to_string(), "k", "v"), ROOM), Ok(()));
            tables.apply(put(&n.to_string(), "k", "v"));
        }
        let refused = admit(&tables, &put("new", "k", "v"), ROOM).unwrap_err();
        assert!(refused.contains("1024"), "{refused}");
        tables.apply(delete("500", "k"));
        assert_eq!(admit(&tables, &put("new", "k", "v"), ROOM), Ok(()));
        tables.apply(put("new", "k", "v"));
        assert_eq!((list(&tables, "500"), tables.namespaces.len()), (None, NAMESPACES_MAX));
    }

    #[test]
    fn keys_are_bounded() {
        let mut tables = KvTables::default();
        for n in 0..KEYS_MAX {
            tables.apply(put("N", &n.to_string(), ""));
        }
        let refused = admit(&tables, &put("M", "one more", ""), ROOM).unwrap_err();
        assert!(refused.contains("100000"), "{refused}");
        assert_eq!(admit(&tables, &put("N", "7", ""), ROOM), Ok(()));
    }

    #[test]
    fn a_file_is_read_back() {
        let mut tables = KvTables::default();
        tables.apply(put("N", "k\"", "v\n"));
        tables.apply(put("gone", "k", ""));
        tables.apply(delete("gone", "k"));
        let (read, generation) = KvTables::from_file(&tables.to_file(9)).unwrap();
        assert_eq!(generation, 9);
        assert!(read == tables);
        assert!(read.namespace("gone").is_some(), "a namespace that became empty stays known");
    }
}
