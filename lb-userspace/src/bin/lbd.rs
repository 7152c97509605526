//! The load balancer's daemon.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "what happens before logging is set up goes to the terminal"
)]

use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use lb::api::Control as _;
use lb::config::{self, Config, DEFAULT_FILE, Daemon, ThisHost};
use lb::dataplane::Object;
use lb::engine::{Engine, EngineHandle};
use lb::handoff::SiteWorker;
use lb::manual::Printed;
use lb::moment::{Clock as _, HostClock};
use lb::{privileges, service_manager};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Balances connections to virtual IPs among web servers, in the kernel, by XDP.
#[derive(Debug, Parser)]
#[command(
    name = "lbd",
    version,
    after_help = "Needs root, or CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_NET_RAW, and keeps none but these; --check needs none of them. The scripts of a [site] are run by a process of their own (site-worker), which keeps what web servers need instead.\n\nExamples:\n  lbd --config /etc/lb/lb.toml\n  lbd --check --config new.toml   tells what is wrong with a file, changes nothing\n\n  lbd --cleanup                   ends what a stopped lbd has left running: program, connections, managed VIPs\n\nSignals: SIGHUP reloads the file; SIGTERM and SIGINT stop lbd. Connections, new ones included, go on without it, but nobody\nchecks the backends' health then; the next lbd goes on where this one was, also if it is of another version.\nlbctl manages a running lbd."
)]
struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
    /// Check the configuration and exit: 0 if it is good, 1 if not.
    #[arg(long)]
    check: bool,
    /// Leave this host as it was: detach the program, forget all connections, take managed VIPs off their interfaces, and
    /// exit. Only when no lbd runs.
    #[arg(long, conflicts_with = "check")]
    cleanup: bool,
    /// With --cleanup: where the program is pinned, instead of what the configuration file says, which is then not read.
    #[arg(long, value_name = "DIRECTORY", requires = "cleanup")]
    pin_directory: Option<PathBuf>,
    /// Use this eBPF object instead of the embedded one.
    #[arg(long, value_name = "FILE")]
    object: Option<PathBuf>,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t = LogFormat::Human)]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug or trace, also by module (`info,lb::health=debug`).
    #[arg(long, value_name = "FILTER", env = "LBD_LOG", default_value = "info")]
    log: String,
}

/// What this program is run as by something else than a person.
#[derive(Debug, Subcommand)]
enum Part {
    /// Runs the hand-off's scripts; lbd starts it, with a socket for standard input
    #[command(hide = true)]
    SiteWorker,
    /// Prints the manual page, or a completion script, for packages
    #[command(hide = true)]
    Print(Printed),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lbd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    match &args.part {
        Some(Part::SiteWorker) => return work_for_site(args),
        Some(Part::Print(what)) => return Ok(what.print(Args::command(), std::io::stdout())?),
        None => {}
    }
    if args.cleanup {
        return clean_up(args);
    }
    // What was applied and never confirmed is not what this shall start with.
    let taken_back = match args.check {
        true => None,
        false => lb::pending::at_start(&args.config, HostClock::new().now())?,
    };
    let config = config::load(&args.config, &ThisHost)?;
    if args.check {
        println!("{}: good", args.config.display());
        if let Some(warning) = lb::host_checks::about_time(&config) {
            eprintln!("lbd: warning: {warning}");
        }
        return Ok(());
    }
    let object = match &args.object {
        Some(file) => Object::from_file(file)?,
        None => Object::embedded()?,
    };
    set_up_logging(args)?;
    if let Some(taken_back) = taken_back {
        tracing::warn!("{taken_back}");
    }
    // What needs more than lbd's own rights comes first, and before there are other threads.
    let doors = Doors::open(&config.daemon)?;
    let worker = SiteWorker::start(&again(args)).context("cannot start the site worker")?;
    privileges::keep_the_daemons()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(serve(config, &object, doors, worker))
}

/// The arguments by which another process of this program reads the same file and logs as this one.
fn again(args: &Args) -> [String; 3] {
    [
        format!("--config={}", args.config.display()),
        format!("--log={}", args.log),
        format!("--log-format={}", args.log_format),
    ]
}

fn work_for_site(args: &Args) -> anyhow::Result<()> {
    set_up_logging(args)?;
    let orders = std::io::stdin().as_fd().try_clone_to_owned()?;
    privileges::keep_the_site_workers()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime
        .block_on(lb::handoff::serve(orders, &args.config))
        .context("site-worker is for lbd to start, with a socket for standard input")
}

/// Where requests come in.
struct Doors {
    api: std::os::unix::net::UnixListener,
    metrics: Option<std::net::TcpListener>,
}

impl std::fmt::Display for LogFormat {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Human => "human",
            Self::Json => "json",
        })
    }
}

impl Doors {
    fn open(daemon: &Daemon) -> anyhow::Result<Self> {
        let listen = |address| {
            let listener = std::net::TcpListener::bind(address)
                .with_context(|| format!("daemon.metrics = \"{address}\": cannot listen there"))?;
            listener.set_nonblocking(true)?;
            anyhow::Ok(listener)
        };
        Ok(Self {
            api: lb::api::socket::claim(&daemon.socket, daemon.socket_group)?,
            metrics: daemon.metrics.map(listen).transpose()?,
        })
    }
}

fn clean_up(args: &Args) -> anyhow::Result<()> {
    let directory = match &args.pin_directory {
        Some(directory) => directory.clone(),
        None => {
            config::load(&args.config, &ThisHost)
                .context("cannot tell where the program is pinned (daemon.pin_directory); name that with --pin-directory")?
                .daemon
                .pin_directory
        }
    };
    set_up_logging(args)?;
    if !directory.exists() {
        println!(
            "{}: nothing is there, so there is nothing to clean up",
            directory.display()
        );
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(lb::engine::clean_up(&directory))
}

fn set_up_logging(args: &Args) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&args.log).with_context(|| {
        format!(
            "--log {:?}: not a log filter; for example: info,lb::health=debug",
            args.log
        )
    })?;
    let logging = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Human => logging
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
        LogFormat::Json => logging.json().init(),
    }
    Ok(())
}

async fn serve(config: Config, object: &Object, doors: Doors, worker: SiteWorker) -> anyhow::Result<()> {
    let socket = UnixListener::from_std(doors.api)?;
    let metrics = doors.metrics.map(TcpListener::from_std).transpose()?;
    let (stop, stopped) = watch::channel(false);
    // Before anything is set up: a signal during the start is obeyed after it, and nothing is left behind.
    let signals = Signals::catch().context("cannot catch signals")?;
    let (engine, inbox, handle) = Engine::start(config, object).await?;
    let handle = handle.with_site_worker(worker);
    #[cfg(feature = "log")]
    let engine = {
        let mut engine = engine;
        engine.forward_program_log()?;
        engine
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        "lbd is running"
    );

    let api = tokio::spawn(lb::api::server::serve(
        socket,
        handle.clone(),
        until(stopped.clone()),
    ));
    let metrics = metrics.map(|listener| {
        tokio::spawn(lb::metrics::serve(
            listener,
            handle.clone(),
            until(stopped.clone()),
        ))
    });
    let watchdog = service_manager::watchdog(handle.clone()).map(tokio::spawn);
    let signals = tokio::spawn(signals.obey(handle, stop));
    service_manager::ready();
    engine.run(inbox, until(stopped)).await;

    signals.abort();
    if let Some(watchdog) = watchdog {
        watchdog.abort();
    }
    api.await?;
    if let Some(metrics) = metrics {
        metrics.await?;
    }
    tracing::info!("lbd has stopped");
    Ok(())
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that nobody can say stop any more, which comes to the same.
    drop(stopped.wait_for(|stopped| *stopped).await);
}

/// The signals that mean something.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn obey(mut self, handle: EngineHandle, stop: watch::Sender<bool>) {
        loop {
            tokio::select! {
                // What comes of a reload is in the log.
                Some(()) = self.hangup.recv() => drop(handle.reload().await),
                Some(()) = self.terminate.recv() => break,
                Some(()) = self.interrupt.recv() => break,
            }
        }
        tracing::info!("stopping");
        service_manager::stopping();
        stop.send_replace(true);
    }
}
