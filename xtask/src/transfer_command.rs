//! `cargo xtask lab-transfer` (hidden): a transfer by hand, such as
//! `cargo xtask lab exec client -- target/debug/xtask lab-transfer udp get 203.0.113.10:9000`.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Result;

use crate::transfer::Protocol;
use crate::transfer::client::{Connection, Datagrams, Direction, Report};

/// Bytes to or from a transfer service of the lab, checked
#[derive(Debug, clap::Args)]
pub struct Args {
    /// By which protocol
    protocol: Protocol,
    /// Which way
    direction: Direction,
    /// Address and port of the service
    to: SocketAddr,
    /// How many
    #[arg(long, default_value_t = 20_000_000)]
    bytes: u64,
    /// Bytes in a datagram; more than 1400 makes fragments of it
    #[arg(long, default_value_t = Datagrams::BLOCK)]
    block: usize,
    /// Own address and port
    #[arg(long)]
    from: Option<SocketAddr>,
}

/// Transfers, and prints what came of it as JSON.
///
/// # Errors
/// When not all bytes arrive as they were sent.
pub fn run(args: &Args) -> Result<ExitCode> {
    println!("{}", serde_json::to_string(&transfer(args)?)?);
    Ok(ExitCode::SUCCESS)
}

fn transfer(args: &Args) -> Result<Report> {
    let to = args.to;
    match (args.protocol, args.from) {
        (Protocol::Tcp, from) => {
            let mut connection = match from {
                Some(from) => Connection::open_from(from, to)?,
                None => Connection::open(to)?,
            };
            match args.direction {
                Direction::Get => connection.get(args.bytes),
                Direction::Put => connection.put(args.bytes),
            }
        }
        (Protocol::Udp, from) => {
            let mut datagrams = match from {
                Some(from) => Datagrams::open_from(from, to)?,
                None => Datagrams::open(to)?,
            };
            datagrams.transfer(args.direction, args.bytes, args.block)
        }
    }
}
