//! The application's own database: what local transactions came to, on disk before anybody hears of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use parking_lot::Mutex;

use crate::history::Ending;

/// Outcomes by key. The first one stays.
#[derive(Debug)]
pub struct LocalDatabase {
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    file: File,
    outcomes: BTreeMap<String, Ending>,
}

impl LocalDatabase {
    /// Opens it, with what it held.
    pub fn open(path: &Path) -> io::Result<LocalDatabase> {
        let file = File::options().create(true).append(true).open(path)?;
        let mut outcomes = BTreeMap::new();
        for line in std::fs::read_to_string(path)?.lines() {
            let (ending, key) = line.split_once(' ').unwrap_or_default();
            let ending = match ending {
                "commit" => Ending::Commit,
                "rollback" => Ending::Rollback,
                // The last line may be torn: then nobody was told.
                _ => continue,
            };
            outcomes.insert(key.to_owned(), ending);
        }
        Ok(LocalDatabase { table: Mutex::new(Table { file, outcomes }) })
    }

    /// Ends a local transaction, or finds that it has ended. Returns when that is durable.
    ///
    /// # Panics
    ///
    /// If the file cannot be written: then nothing can be said.
    pub fn settle(&self, key: &str, ending: Ending) -> Ending {
        let mut table = self.table.lock();
        if let Some(first) = table.outcomes.get(key) {
            return *first;
        }
        let word = match ending {
            Ending::Commit => "commit",
            Ending::Rollback => "rollback",
        };
        writeln!(table.file, "{word} {key}").expect("the ledger can be written");
        table.file.sync_data().expect("the ledger can be flushed");
        table.outcomes.insert(key.to_owned(), ending);
        ending
    }

    /// All outcomes.
    pub fn outcomes(&self) -> BTreeMap<String, Ending> {
        self.table.lock().outcomes.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_outcome_stays_and_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let database = LocalDatabase::open(&path).unwrap();
        assert_eq!(database.settle("a/1", Ending::Commit), Ending::Commit);
        assert_eq!(database.settle("a/1", Ending::Rollback), Ending::Commit);
        assert_eq!(database.settle("a/2", Ending::Rollback), Ending::Rollback);
        let again = LocalDatabase::open(&path).unwrap();
        assert_eq!(again.outcomes(), database.outcomes());
        assert_eq!(again.settle("a/2", Ending::Commit), Ending::Rollback);
    }
}
