//! What a store of marks does when the mark and the effect are in two places.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

/// What a store says went wrong.
pub type StoreError = Box<dyn Error + Send + Sync>;

/// What a store answers to [`MarkStore::begin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The key is leased to this token.
    Leased,
    /// The effect is there.
    Done,
    /// Somebody else has leased the key, for so much longer unless the lease is renewed.
    Busy {
        /// What is left of the lease.
        left: Duration,
    },
}

/// Keeps marks of messages in two states: leased to whoever works on the message, and done.
///
/// Each call is atomic, and only the store's own clock decides when a lease or a mark ends. All of them may be repeated: a call
/// whose answer was lost is made again.
pub trait MarkStore: Send + Sync + 'static {
    /// Leases `key` to `token` if nobody has it, or renews the lease if the token has it.
    fn begin(&self, key: &str, token: &str, lease: Duration) -> impl Future<Output = Result<Begun, StoreError>> + Send;

    /// The effect of `key` is there; this is kept for the time of `keep`. It holds whoever has leased the key: the effect is there
    /// all the same. Answers whether nobody but `token` had it.
    fn done(&self, key: &str, token: &str, keep: Duration) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Ends the lease of `token`, if it has `key`.
    fn give_up(&self, key: &str, token: &str) -> impl Future<Output = Result<(), StoreError>> + Send;
}
