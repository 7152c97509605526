//! Any bytes as a frame, and as the packet that an ICMP error quotes: the parser neither panics nor lies.

#![no_main]

/// Frames to start from.
#[path = "../../tests/src/random_frames/mod.rs"]
#[allow(dead_code, reason = "not all of it is for here")]
mod random_frames;

/// What holds of any frame.
#[path = "../../tests/src/parser_promises.rs"]
mod parser_promises;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use random_frames::RandomFrames;

fuzz_target!(|bytes: &[u8]| {
    parser_promises::check(bytes);
    parser_promises::check_quote(bytes);
});

// By changing bytes alone the fuzzer would not come by an ICMP error about an IPv6 packet with extension headers; so every
// now and then it is given a frame that is whole, or nearly so.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if !seed.is_multiple_of(64) {
        return fuzzer_mutate(data, size, max_size);
    }
    let Some(frame) = RandomFrames::new(seed.into(), &[]).next() else {
        return size;
    };
    let length = frame.bytes.len().min(max_size);
    data[..length].copy_from_slice(&frame.bytes[..length]);
    length
});
