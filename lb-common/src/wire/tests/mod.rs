//! The parser against frames that etherparse made, and against any bytes.

mod any_bytes;
mod errors;
mod extensions;
mod frames;
mod headers;
mod made;
mod reset;

/// Frames of every kind, which the packet suite and the fuzzer use as well.
#[path = "../../../../tests/src/random_frames/mod.rs"]
#[allow(unreachable_pub, dead_code, reason = "it is another crate's")]
mod random_frames;

/// What holds for any frame, which the fuzzer checks as well.
#[path = "../../../../tests/src/parser_promises.rs"]
#[allow(unreachable_pub, reason = "it is another crate's")]
mod parser_promises;
