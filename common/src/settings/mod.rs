//! Settings of a process: where they come from, how keys and values are written, and the texts that hold them.
//!
//! Promises: of several sources the later one wins: the file, the environment, the command line. An error names the place, the
//! key and what was expected; a key that nobody knows is refused with the nearest one that somebody does. A change of the file
//! leaves the old text or the new one, whenever the process ends.
//!
//! Left to others: which keys there are, what they mean together, and who may change them.

mod error;
mod key;
mod load;
mod nearest;
pub mod properties;
pub mod values;

pub use error::{FileName, Place, SettingError};
pub use key::Key;
pub use load::{Setting, changes, environment, gather, keep, pair};
pub use nearest::{distance, nearest};
