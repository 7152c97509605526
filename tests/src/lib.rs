//! What the test harnesses share. Each `[[test]]` of this crate is a program that `cargo xtask test` runs as root.

pub mod debian_root;
pub mod expected_skips;
pub mod frame_generator;
pub mod harness;
pub mod matrix;
pub mod measured;
pub mod needs;
pub mod parser_promises;
pub mod programs;
pub mod random_frames;
pub mod recorded;
pub mod rights;
