//! What a relay asks of the place where its rows are.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;

use super::row::{OutboxState, Work};

/// Rows that are read from one slot at a time.
pub(super) const PAGE: i64 = 64;
/// Slots that are read at a time.
pub(super) const SLOTS_AT_ONCE: usize = 16;
/// Rows of up to this many bytes are read with their bodies.
pub(super) const SMALL_ROW: i64 = 8192;

/// The rows of an outbox. What changes them may be done again after an error.
pub(super) trait Rows: Send + 'static {
    /// Why it did not answer.
    type Error: Error + Send;

    /// The first waiting rows of these slots, each slot's in the order of their ids.
    fn read(&mut self, slots: &[i64]) -> impl Future<Output = Result<Vec<Work>, Self::Error>> + Send;

    /// The body of a row, if it is still there.
    fn body(&mut self, id: i64) -> impl Future<Output = Result<Option<Bytes>, Self::Error>> + Send;

    /// A broker has these: they are deleted, or `sent` if they are to be kept.
    fn settle(&mut self, ids: &[i64], keeps: bool) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// A broker refused a row, which is in this state now.
    fn refused(
        &mut self,
        row: &Work,
        state: OutboxState,
        error: &str,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Why a row waits on.
    fn note(&mut self, id: i64, error: &str) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Keys of a slot that have failed or held rows.
    fn blocked(&mut self, slot: i64) -> impl Future<Output = Result<Vec<String>, Self::Error>> + Send;

    /// These wait behind a failed one.
    fn hold(&mut self, ids: &[i64]) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Deletes sent rows of these slots that are older than `keep_sent`, and lets held ones go: those of keys without a failed one,
    /// or all of them if nothing `holds`.
    fn tidy(
        &mut self,
        slots: &[i64],
        holds: bool,
        keep_sent: Duration,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}
