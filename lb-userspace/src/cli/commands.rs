//! Arguments to calls, answers to pages.

use clap::CommandFactory;
use serde::Serialize;

use super::args::{
    Args, BackendCommand, BackendName, Command, ConfigCommand, ConnectionCommand, QualifiedName,
    ServiceCommand, SiteCommand,
};
use super::drain;
use super::failure::Failure;
use super::pages::{site, status, tables, why};
use super::screen::Screen;
use super::trace;
use super::units::{clean, plural};
use crate::api::client::Client;
use crate::api::types::{
    AddBackend, Backend, BackendChange, ChangeBackend, Changed, ConnectionFilter, Counters, SiteRender,
};
use crate::config::{self, ThisHost};

/// Carries out what was typed.
pub(super) async fn run(args: Args, screen: &Screen) -> Result<(), Failure> {
    let lbd = Client::new(args.socket);
    match args.command {
        Command::Status => screen.show(&lbd.status().await?, |answer| status::page(screen, answer)),
        Command::Service(command) => service(&lbd, screen, command).await,
        Command::Backend(command) => backend(&lbd, screen, command).await,
        Command::Connection(command) => connection(&lbd, screen, command).await,
        Command::Counters { all } => screen.show(&lbd.counters().await?, |answer: &Counters| {
            tables::counters(screen, answer, all)
        }),
        Command::Why(asked) => screen.show(&lbd.why(&asked.question()).await?, |answer| {
            why::why(screen, answer)
        }),
        Command::Trace(args) => trace::run(&lbd, screen, args).await,
        Command::Reload => screen.show(&lbd.reload().await?, |answer| match answer.changes.as_slice() {
            [] => "nothing changed\n".to_owned(),
            changes => lines(changes),
        }),
        Command::Config(ConfigCommand::Check { file }) => check(screen, &file),
        Command::Site(command) => site(&lbd, screen, command).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "lbctl", &mut script);
            screen.print(&String::from_utf8_lossy(&script))
        }
    }
}

async fn service(lbd: &Client, screen: &Screen, command: ServiceCommand) -> Result<(), Failure> {
    match command {
        ServiceCommand::List => {
            screen.show(&lbd.services().await?, |answer| tables::services(screen, answer))
        }
        ServiceCommand::Show { name } => screen.show(&lbd.service(&name).await?, |answer| {
            status::service(screen, answer)
        }),
    }
}

async fn backend(lbd: &Client, screen: &Screen, command: BackendCommand) -> Result<(), Failure> {
    let (name, change) = match command {
        BackendCommand::List { service } => {
            let backends: Vec<Backend> = match service {
                Some(service) => lbd.service(&service).await?.backends,
                None => lbd.backends().await?,
            };
            return screen.show(&backends, |answer| tables::backends(screen, answer));
        }
        BackendCommand::Add {
            name: QualifiedName { service, name },
            endpoint,
            weight,
            backup,
        } => {
            let backend = config::Backend {
                name,
                address: endpoint.address,
                port: endpoint.port,
                weight,
                backup,
            };
            let changed = lbd.add_backend(&AddBackend { service, backend }).await?;
            return screen.show(&changed, done);
        }
        BackendCommand::Drain {
            name,
            wait: true,
            timeout,
        } => {
            let changed = change(lbd, name, BackendChange::Drain).await?;
            return drain::wait(lbd, screen, changed, timeout).await;
        }
        BackendCommand::Drain { name, .. } => (name, BackendChange::Drain),
        BackendCommand::Undrain { name } => (name, BackendChange::Undrain),
        BackendCommand::Disable { name } => (name, BackendChange::Disable),
        BackendCommand::Enable { name } => (name, BackendChange::Enable),
        BackendCommand::Remove { name } => (name, BackendChange::Remove),
        // `--reset` leaves the weight out.
        BackendCommand::Weight {
            name,
            weight,
            reset: _,
        } => (name, BackendChange::Weight(weight)),
    };
    screen.show(&self::change(lbd, name, change).await?, done)
}

async fn change(lbd: &Client, name: BackendName, change: BackendChange) -> Result<Changed, Failure> {
    Ok(lbd
        .change_backend(&ChangeBackend {
            service: name.service,
            name: name.name,
            change,
        })
        .await?)
}

async fn connection(lbd: &Client, screen: &Screen, command: ConnectionCommand) -> Result<(), Failure> {
    let ConnectionCommand::List {
        service,
        backend,
        client,
        state,
        limit,
    } = command;
    let filter = ConnectionFilter {
        service,
        backend,
        client,
        state,
        limit,
    };
    screen.show(&lbd.connections(&filter).await?, |answer| {
        tables::connections(screen, answer)
    })
}

async fn site(lbd: &Client, screen: &Screen, command: SiteCommand) -> Result<(), Failure> {
    match command {
        SiteCommand::Render { server } => {
            let rendered = lbd.site_render().await?;
            screen.show(&only(rendered, server.as_deref())?, site::rendered)
        }
        SiteCommand::Apply => {
            let applied = lbd.site_apply().await?;
            screen.show(&applied, |answer| site::applied(screen, answer))?;
            if applied.ok {
                return Ok(());
            }
            let failed: Vec<_> = applied
                .servers
                .iter()
                .filter(|server| !server.ok)
                .map(|server| &*server.server)
                .collect();
            Err(Failure::Failed(format!(
                "the site was not handed to every web server (failed: {}): see the steps, repair and apply again",
                failed.join(", ")
            )))
        }
        SiteCommand::Status => screen.show(&lbd.site_status().await?, |answer| site::status(screen, answer)),
    }
}

/// Only the configuration of the web server of this name, if one is given.
fn only(rendered: SiteRender, server: Option<&str>) -> Result<SiteRender, Failure> {
    let Some(wanted) = server else { return Ok(rendered) };
    let names: Vec<_> = rendered
        .servers
        .iter()
        .map(|server| server.server.clone())
        .collect();
    let servers: Vec<_> = rendered
        .servers
        .into_iter()
        .filter(|server| server.server == wanted)
        .collect();
    if servers.is_empty() {
        let names = names.join(", ");
        return Err(Failure::Unknown(format!(
            "there is no web server {wanted:?}; web servers: {names}"
        )));
    }
    Ok(SiteRender { servers })
}

/// What `config check` found in a file that is in order.
#[derive(Serialize)]
struct Checked {
    file: String,
    services: usize,
    backends: usize,
    site_servers: usize,
}

fn check(screen: &Screen, file: &std::path::Path) -> Result<(), Failure> {
    let config = config::load(file, &ThisHost)?;
    let checked = Checked {
        file: file.display().to_string(),
        services: config.services.len(),
        backends: config.services.iter().map(|service| service.backends.len()).sum(),
        site_servers: config.site.map_or(0, |site| site.servers.len()),
    };
    screen.show(&checked, |checked| {
        format!(
            "{} is in order: {}, {}, {}\n",
            checked.file,
            plural(checked.services as u64, "service"),
            plural(checked.backends as u64, "backend"),
            plural(checked.site_servers as u64, "web server"),
        )
    })
}

fn done(changed: &Changed) -> String {
    lines(&changed.messages)
}

fn lines(lines: &[String]) -> String {
    lines.iter().map(|line| clean(line) + "\n").collect()
}
