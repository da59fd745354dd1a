//! Power cuts at every operation of the disk, over the whole shard.
//!
//! ```text
//! seed -> live: random commands, answers, a disk that records -> for each operation: cut -> recover -> judge
//!              |                                                      (several images, and the death of the process)
//!              `-> model: predicts each answer and each state
//! ```
//!
//! A *life* opens the shard with raft and all its parts on a simulated disk, and submits random commands: sends,
//! halves, decisions first, repeated and opposite, offsets, timers, topics, groups, locks; it trims, rewrites bytes as
//! retention gathers them, and lets files of the log go. Then the recording of the disk is replayed: at each of its
//! operations the power goes off in several ways, the log is recovered by the product's own code, the commands in it
//! are applied to an index (as its last flush left it, or an empty one), and the shard then must show what the model
//! shows after the same number of commands: not fewer than were acknowledged at that moment, and no others than were
//! submitted, in that order. The next life begins on one of the images.
//!
//! The index is in memory here, so its copy `base` is one too: its rows as the product's own [`Applier::copy`] holds
//! them still, from which a lost index comes back as from the folder. The renaming of that folder has tests of its own
//! (`shard/base.rs`). A message whose bytes lie below a trim, but after one that is kept, may have lost its bytes;
//! everything above must be readable.
//!
//! [`Applier::copy`]: crate::shard::Applier::copy
//!
//! Everything comes from a seed, also the order in which the parts of a shard work ([`stepper`]). A failure prints the
//! command that tries its seed again. `ESCROWMQ_CUT_SECONDS` makes the search go on with fresh seeds for that time.

pub(super) mod act;
mod campaign;
mod faults;
mod history;
pub(super) mod life;
mod model;
mod planted;
mod recover;
mod stepper;
pub(super) mod view;

pub(super) use campaign::seeds;
