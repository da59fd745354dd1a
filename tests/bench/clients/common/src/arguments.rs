//! The command line: a workload, and settings as pairs.

use std::collections::HashMap;
use std::time::Duration;

/// `WORKLOAD --name value ..`. Every setting that a workload reads must be there: the defaults are those of `run`.
#[derive(Debug)]
pub struct Arguments {
    workload: String,
    settings: HashMap<String, String>,
}

impl Arguments {
    /// Those of this process.
    ///
    /// # Panics
    ///
    /// If they are no workload and pairs.
    pub fn read() -> Arguments {
        let mut words = std::env::args().skip(1);
        let workload = words.next().expect("a workload");
        let mut settings = HashMap::new();
        while let Some(name) = words.next() {
            let name = name.strip_prefix("--").expect("a name that begins with --").to_owned();
            settings.insert(name, words.next().expect("a value for each name"));
        }
        Arguments { workload, settings }
    }

    /// What is to be done.
    pub fn workload(&self) -> &str {
        &self.workload
    }

    /// A setting.
    ///
    /// # Panics
    ///
    /// If it is not there.
    pub fn text(&self, name: &str) -> &str {
        self.settings.get(name).unwrap_or_else(|| panic!("--{name} is missing"))
    }

    /// A setting that counts something.
    ///
    /// # Panics
    ///
    /// If it is not there or no number.
    pub fn count(&self, name: &str) -> usize {
        self.text(name).parse().unwrap_or_else(|error| panic!("--{name}: {error}"))
    }

    /// A setting in seconds.
    ///
    /// # Panics
    ///
    /// If it is not there or no time.
    pub fn time(&self, name: &str) -> Duration {
        let seconds = self.text(name).parse().unwrap_or_else(|error| panic!("--{name}: {error}"));
        Duration::from_secs_f64(seconds)
    }
}
