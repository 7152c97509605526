//! `lbctl`: arguments as typed (`args`) become calls of the API (`commands`), and answers become pages (`pages`) or, with
//! `--json`, the API's own types. `screen` is the only place that prints, `failure` the only one that decides the exit
//! status.

mod args;
mod commands;
mod drain;
mod failure;
mod pages;
mod pcapng;
mod screen;
mod table;
mod trace;
mod units;
mod why;

use std::process::ExitCode;

use clap::Parser;

use args::Args;
use screen::Screen;

/// Runs `lbctl` with this process's arguments and returns its exit status, which `lbctl --help` documents.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nobody may be reading; the exit status tells all the same.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let screen = Screen::new(args.json);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(commands::run(args, &screen)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_silent() {
                screen.error(&failure.to_string());
            }
            failure.exit_status().into()
        }
    }
}
