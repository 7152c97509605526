//! `cargo xtask run`: from a fresh clone to a running site in one command.

use std::env;
use std::fs;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::{DEFAULT_PREFIX, Lab, LabOptions, Node, Requests, VIP, wait_for};
use crate::live_view;
use crate::network_args::NetworkArgs;
use crate::prepared::Prepared;
use crate::setup::Needs;
use crate::{ebpf, setup, signals, sudo, userspace};

/// The first requests; each server must answer exactly half.
const FIRST: u32 = 100;

/// So many problems are told one by one.
const SHOWN: usize = 10;

/// Build everything, bring up the lab and watch requests being shared among two web servers
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Make a hundred requests, say how they were shared, take everything down; fails if anything was wrong
    #[arg(long, conflicts_with = "config")]
    once: bool,
    /// No lab: run lbd on this machine itself with this configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    prepared: Prepared,
}

/// Runs the command.
///
/// # Errors
/// When something does not build or the lab does not come up.
pub fn run(args: &Args) -> Result<ExitCode> {
    if let Some(config) = &args.config {
        return run_on_this_host(config);
    }
    let binaries = args.prepared.binaries()?;
    signals::catch()?;
    let mut options = LabOptions::new(DEFAULT_PREFIX, binaries);
    args.network.apply_to(&mut options);
    let lab = Lab::up(options)?;
    lab.lose(args.network.loss())?;
    let verdict = first_requests(&lab)?;
    if args.once {
        lab.down()?;
        return Ok(if verdict {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    live_view::show(&lab)?;
    println!("taking the lab down");
    lab.down()?;
    Ok(ExitCode::SUCCESS)
}

/// Replaces this process by `lbd`.
fn run_on_this_host(config: &Path) -> Result<ExitCode> {
    setup::ensure(Needs::Build)?;
    let options = ebpf::Options::default();
    ebpf::build(&options)?;
    let programs = userspace::build(&options)?;
    // `lbd` keeps the name to read the file again; it must not depend on where this was started.
    let config = env::current_dir()?.join(config);
    println!("{} --config {}", programs.lbd.display(), config.display());
    Err(sudo::as_root(&programs.lbd, &[])?
        .arg("--config")
        .arg(config)
        .exec())
    .context("cannot run lbd")
}

/// Makes the first requests and says what came of them. Whether all was right.
fn first_requests(lab: &Lab) -> Result<bool> {
    let requests = lab.https_requests(VIP, FIRST)?;
    let split: Vec<_> = requests
        .split()
        .iter()
        .map(|(server, count)| format!("{server} {count}"))
        .collect();
    println!(
        "{FIRST} HTTPS requests to {VIP} on {FIRST} connections: {}",
        split.join(", ")
    );
    let problems = problems(lab, &requests);
    for problem in problems.iter().take(SHOWN) {
        println!("  wrong: {problem}");
    }
    if problems.len() > SHOWN {
        println!("  … and {} more", problems.len() - SHOWN);
    }
    if problems.is_empty() {
        let seen = lab.client_seen_at(VIP.into());
        let whose = if seen == IpAddr::from(lab.address(Node::Client)) {
            "the client's own address"
        } else {
            "the balancer's address"
        };
        println!("every certificate verified; every server saw {whose}, {seen}");
    }
    Ok(problems.is_empty())
}

/// Everything that is not as it should be, a line each.
fn problems(lab: &Lab, requests: &Requests) -> Vec<String> {
    let mut problems = requests.failures.clone();
    for node in Node::WEB {
        let answered = requests.split().get(node.name()).copied().unwrap_or(0);
        if answered != FIRST as usize / Node::WEB.len() {
            problems.push(format!(
                "{node} answered {answered} requests, not half of {FIRST}"
            ));
        }
        // nginx writes its line after the response has gone out.
        let logged = wait_for("the access log", Duration::from_secs(2), || {
            match logged(lab, node) {
                Ok(logged) if logged >= answered => Ok(logged),
                Ok(logged) => Err(format!("{logged} requests in it")),
                Err(error) => Err(format!("{error:#}")),
            }
        });
        match logged {
            Ok(logged) if logged == answered => {}
            Ok(logged) => problems.push(format!("{node} answered {answered} requests and logged {logged}")),
            Err(error) => problems.push(format!("{node}: {error:#}")),
        }
    }
    problems
}

/// How many of the first requests a web server has logged, as coming from the address that it should see.
fn logged(lab: &Lab, node: Node) -> Result<usize> {
    let log = fs::read_to_string(lab.web(node).access_log())?;
    let start = format!("{} ", lab.client_seen_at(VIP.into()));
    Ok(log
        .lines()
        .filter(|line| line.starts_with(&start) && line.contains("\"GET /request/"))
        .count())
}
