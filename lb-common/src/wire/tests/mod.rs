//! The parser against frames that etherparse made, and against any bytes.

mod made;

/// Frames of every kind, which the packet suite and the fuzzer use as well.
#[path = "../../../../tests/src/random_frames/mod.rs"]
#[allow(unreachable_pub, dead_code, reason = "it is another crate's")]
mod random_frames;
