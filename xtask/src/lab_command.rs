//! `cargo xtask lab`: the lab by hand.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde_json::json;

use crate::lab::{DEFAULT_PREFIX, Lab, LabOptions, Node, VIP, VIP6};
use crate::network_args::NetworkArgs;
use crate::prepared::{Prepared, become_root};
use crate::signals;

/// Bring up a client, a router, the balancer and two web servers, each in a network namespace
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask lab up\n  cargo xtask lab exec client -- curl https://www.foobar.com\n  \
                  cargo xtask lab stop web1\n  cargo xtask lab down"
)]
pub struct Args {
    /// What the lab's namespaces and its directory below /run are named after
    #[arg(long, global = true, default_value = DEFAULT_PREFIX)]
    prefix: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring the lab up and leave it running in the background
    #[command(after_help = "Examples:\n  cargo xtask lab up\n  \
                            cargo xtask lab up --topology l2 --mode dsr         one segment; answers go past the balancer\n  \
                            cargo xtask lab up --delay 50 --loss 2              a client that is far away\n  \
                            cargo xtask lab up --client-mtu 1280                a narrow link before the client")]
    Up {
        /// Without lbd: the web servers get a plain site, and the balancer is a plain router
        #[arg(long)]
        no_balancer: bool,
        #[command(flatten)]
        network: NetworkArgs,
        #[command(flatten)]
        prepared: Prepared,
    },
    /// Take the lab down, whatever state it is in
    Down,
    /// Show the lab's nodes, addresses, processes and files
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a command on a node
    #[command(
        after_help = "Only the network is the node's: files and processes are this machine's.\n\n\
                            Examples:\n  cargo xtask lab exec client -- curl https://www.foobar.com\n  \
                            cargo xtask lab exec lb -- curl http://127.0.0.1:9100/metrics"
    )]
    Exec {
        /// Where
        node: Node,
        /// What
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Stop a web server (nginx and the application server)
    Stop {
        /// `web1` or `web2`
        node: Node,
    },
    /// Start a web server that was stopped
    Start {
        /// `web1` or `web2`
        node: Node,
    },
}

/// Runs the command.
///
/// # Errors
/// When the lab cannot be brought into the wanted state; the message says why.
pub fn run(args: &Args) -> Result<ExitCode> {
    match &args.command {
        Command::Up {
            no_balancer,
            network,
            prepared,
        } => {
            let binaries = prepared.binaries()?;
            signals::catch()?;
            let mut options = LabOptions::new(&args.prefix, binaries);
            options.balancer = !no_balancer;
            options.keep = true;
            network.apply_to(&mut options);
            let mut lab = Lab::up(options)?;
            lab.lose(network.loss())?;
            show(&mut lab);
            println!("take it down with: {}", take_down(&args.prefix));
        }
        Command::Down => {
            become_root()?;
            Lab::remove(&args.prefix)?;
        }
        Command::Status { json } => {
            become_root()?;
            let mut lab = Lab::open(&args.prefix)?;
            if *json {
                println!("{:#}", describe(&mut lab));
            } else {
                show(&mut lab);
            }
        }
        Command::Exec { node, command } => {
            become_root()?;
            let lab = Lab::open(&args.prefix)?;
            let (program, arguments) = command.split_first().context("the command is empty")?;
            let mut here = match node {
                Node::Client => lab.client_command(VIP, program)?,
                _ => lab.command(*node, program)?,
            };
            let error = here.args(arguments).exec();
            return Err(error).with_context(|| format!("cannot run {program}"));
        }
        Command::Stop { node } => {
            become_root()?;
            Lab::open(&args.prefix)?.stop_web(web_server(*node)?)?;
        }
        Command::Start { node } => {
            become_root()?;
            Lab::open(&args.prefix)?.start_web(web_server(*node)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn take_down(prefix: &str) -> String {
    if prefix == DEFAULT_PREFIX {
        "cargo xtask lab down".to_owned()
    } else {
        format!("cargo xtask lab --prefix {prefix} down")
    }
}

fn web_server(node: Node) -> Result<Node> {
    if !Node::WEB.contains(&node) {
        bail!("{node} is no web server; web1 and web2 are");
    }
    Ok(node)
}

/// The names of the processes that belong to a node.
fn processes_of(node: Node) -> &'static [&'static str] {
    match node {
        Node::Client | Node::Router => &[],
        Node::Lb => &["lbd"],
        Node::Web1 => &["web1-nginx", "web1-app"],
        Node::Web2 => &["web2-nginx", "web2-app"],
    }
}

fn describe(lab: &mut Lab) -> serde_json::Value {
    let nodes = Node::ALL.map(|node| {
        let processes: serde_json::Map<_, _> = processes_of(node)
            .iter()
            .map(|&name| (name.to_owned(), json!(lab.process(name))))
            .collect();
        let files = Node::WEB.contains(&node).then(|| {
            let web = lab.web(node);
            json!({ "access_log": web.access_log(), "error_log": web.error_log(), "site": web.handed_over() })
        });
        json!({
            "name": node.name(),
            "namespace": lab.namespace(node).name(),
            "address": lab.address(node),
            "address6": lab.address6(node),
            "processes": processes,
            "files": files,
        })
    });
    json!({
        "prefix": lab.options().prefix,
        "topology": lab.options().topology,
        "mode": lab.options().mode,
        "client_mtu": lab.options().client_mtu,
        "wan": lab.options().wan,
        "vip": VIP,
        "vip6": VIP6,
        "balancer": lab.options().balancer,
        "directory": lab.directory(),
        "files": {
            "config": lab.file("lb.toml"),
            "socket": lab.file("lbd.sock"),
            "log": lab.file("lbd.log"),
            "ca": lab.file("ca.pem"),
            "certificate": lab.file("site.pem"),
            "key": lab.file("site.key"),
        },
        "nodes": nodes,
    })
}

fn show(lab: &mut Lab) {
    for node in Node::ALL {
        let processes = processes_of(node).iter().map(|&name| match lab.process(name) {
            Some(pid) => format!("{name} (pid {pid})"),
            None => format!("{name} (not running)"),
        });
        let processes: Vec<_> = processes.collect();
        println!(
            "{:7} {:14} {:17} {}",
            node.name(),
            lab.address(node).to_string(),
            lab.address6(node).to_string(),
            processes.join(", ")
        );
    }
    println!("{:7} {:14} {VIP6}", "VIP", VIP.to_string());
    println!("network {}", network(lab.options()));
    println!("files   {}", lab.directory().display());
    if lab.options().balancer {
        println!("lbctl   {}", lab.lbctl_for_humans());
    }
}

/// The network in words.
fn network(options: &LabOptions) -> String {
    let mut text = format!(
        "topology {}, web servers prepared for {}",
        options.topology.name(),
        options.mode.name()
    );
    if let Some(wan) = options.wan {
        text += &format!(
            ", client {} ms away, {} % overtaken",
            wan.delay.as_millis(),
            wan.reorder_percent
        );
    }
    if options.client_mtu < 1500 {
        text += &format!(", client behind an MTU of {}", options.client_mtu);
    }
    text
}
