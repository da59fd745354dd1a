//! No frame makes its reader allocate much more than the frame's own size, whatever lengths it claims.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use escrowmq_common::body::{HeartbeatData, ResetOffsetBody, json};
use escrowmq_common::frame::{Frame, FrameDecoder};
use escrowmq_common::message::{MessageUnit, batch, decode_units};
use proptest::prelude::RngExt as _;
use proptest::test_runner::{RngAlgorithm, TestRng};

#[path = "golden/vectors.rs"]
#[expect(dead_code, reason = "this test reads frames only")]
mod vectors;

/// Remembers the largest allocation of each thread.
struct Largest;

#[global_allocator]
static ALLOCATOR: Largest = Largest;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(size: usize) {
    // A thread that is going down has lost its cell; nothing is measured there.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

#[expect(unsafe_code, reason = "an allocator cannot be written without; all calls go to the system's")]
// SAFETY: every method passes its arguments on unchanged to an allocator that upholds the contract.
unsafe impl GlobalAlloc for Largest {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Largest single allocation of `work`, in bytes.
fn largest(work: impl FnOnce()) -> usize {
    LARGEST.set(0);
    work();
    LARGEST.get()
}

/// A field of six bytes in a header costs a pair of ranges, and vectors grow by doubling; beyond that and a little for
/// error texts nothing may be taken.
fn bound(bytes: usize) -> usize {
    8 * bytes + 1024
}

fn check(bytes: &[u8], what: &str) {
    let input = Bytes::copy_from_slice(bytes);
    let mut buffer = BytesMut::from(bytes);
    let taken = largest(|| drop(FrameDecoder::default().next(&mut buffer)));
    // The decoder makes room for at most 256 KiB of a frame that is still on its way.
    assert!(taken <= bound(bytes.len()).max(bytes.len() + 300 * 1024), "{what}: {taken}");
    let taken = largest(|| drop(Frame::decode(input.slice(4.min(input.len())..))));
    assert!(taken <= bound(bytes.len()), "{what}: {taken} of {}", bytes.len());
}

fn check_body(body: &Bytes, what: &str) {
    let taken = largest(|| {
        drop(MessageUnit::decode(body));
        for message in decode_units(body.clone()) {
            drop(message);
        }
        for message in batch::messages(body) {
            let _ = message;
        }
        drop(json::from_slice::<HeartbeatData>(body));
        drop(json::from_slice::<ResetOffsetBody>(body));
        drop(json::from_slice::<serde_json::Value>(body));
    });
    assert!(taken <= bound(body.len()), "{what}: {taken} of {}", body.len());
}

#[test]
fn damaged_frames_cost_no_more_than_their_size() {
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    for golden in vectors::frames() {
        let mut bytes = golden.bytes().to_vec();
        check(&bytes, &golden.place);
        for _ in 0..100 {
            let at = random.random_range(0..bytes.len());
            let kept = std::mem::replace(&mut bytes[at], random.random());
            check(&bytes, &golden.place);
            bytes[at] = kept;
        }
        let Ok(frame) = Frame::decode(golden.bytes().slice(4..)) else {
            panic!("{}", golden.place);
        };
        check_body(&frame.body, &golden.place);
    }
}

#[test]
fn lengths_that_promise_much_cost_nothing() {
    let huge = i32::MAX.to_be_bytes();
    for golden in vectors::frames() {
        let bytes = golden.bytes();
        // Every four bytes of the frame, and of its body, may be a length.
        let body_start = bytes.len() - golden.body_len;
        for at in (4..bytes.len().saturating_sub(4)).step_by(3) {
            let mut damaged = bytes.to_vec();
            damaged[at..at + 4].copy_from_slice(&huge);
            check(&damaged, &golden.place);
            if at >= body_start {
                check_body(&Bytes::from(damaged).slice(body_start..), &golden.place);
            }
        }
    }
}

#[test]
fn json_of_many_small_parts_stays_in_proportion() {
    for (open, part) in [("[", "[],"), ("{", "1:{},"), ("{", "{}:1,"), ("[", "0,"), ("{", "\"\":0,")] {
        let text = format!("{open}{}", part.repeat(20_000));
        let body = Bytes::from(text);
        // An element of a parsed value is larger than its two bytes of text, and lists double.
        let taken = largest(|| drop(json::from_slice::<serde_json::Value>(&body)));
        assert!(taken <= 64 * body.len(), "{part}: {taken} of {}", body.len());
        let taken = largest(|| drop(json::from_slice::<HeartbeatData>(&body)));
        assert!(taken <= bound(body.len()), "{part}: {taken} of {}", body.len());
    }
}
