//! The load balancer's daemon.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "what happens before logging is set up goes to the terminal"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use lb::api::Control as _;
use lb::config::{self, Config, ThisHost};
use lb::dataplane::Object;
use lb::engine::{Engine, EngineHandle};
use lb::moment::{Clock as _, HostClock};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Balances connections to virtual IPs among web servers, in the kernel, by XDP.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Needs root, or CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_NET_RAW; --check needs none of them.\n\nExamples:\n  lbd --config /etc/lb/lb.toml\n  lbd --check --config new.toml   tells what is wrong with a file, changes nothing\n\n  lbd --cleanup                   ends what a stopped lbd has left running: program, connections, managed VIPs\n\nSignals: SIGHUP reloads the file; SIGTERM and SIGINT stop lbd. Connections, new ones included, go on without it, but nobody\nchecks the backends' health then; the next lbd goes on where this one was, also if it is of another version.\nlbctl manages a running lbd."
)]
struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/lb/lb.toml")]
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(serve(config, &object))
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

async fn serve(config: Config, object: &Object) -> anyhow::Result<()> {
    let socket = lb::api::socket::bind(&config.daemon.socket)?;
    let metrics = match config.daemon.metrics {
        Some(address) => Some(
            tokio::net::TcpListener::bind(address)
                .await
                .with_context(|| format!("daemon.metrics = \"{address}\": cannot listen there"))?,
        ),
        None => None,
    };
    let (stop, stopped) = watch::channel(false);
    // Before anything is set up: a signal during the start is obeyed after it, and nothing is left behind.
    let signals = Signals::catch().context("cannot catch signals")?;
    let (engine, inbox, handle) = Engine::start(config, object).await?;
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
    let signals = tokio::spawn(signals.obey(handle, stop));
    engine.run(inbox, until(stopped)).await;

    signals.abort();
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
        stop.send_replace(true);
    }
}
