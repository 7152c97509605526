//! What a developer or a newcomer runs, `cargo xtask COMMAND`: one file per command, each with its `Args` and its `run`.
//! A library too, because the tests build the same lab.

pub mod app;
