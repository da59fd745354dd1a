//! See `batch` in `common/tests/fuzzing/targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| escrowmq_fuzz::run("batch", input));
