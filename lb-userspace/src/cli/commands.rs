//! Arguments to calls, answers to pages.

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use serde::Serialize;

use super::args::{
    Args, BackendCommand, BackendName, Command, ConfigCommand, ConnectionCommand, DryRun, QualifiedName,
    ServiceCommand, SiteCommand,
};
use super::drain;
use super::failure::Failure;
use super::pages::{self, plan, site, status, tables, why};
use super::screen::Screen;
use super::trace;
use super::units::{clean, plural};
use crate::api::client::Client;
use crate::api::types::{
    AddBackend, ApplyRequest, Backend, BackendChange, ChangeBackend, Changed, ConnectionFilter, Counters,
    PlanRequest, SiteRender, Text,
};
use crate::config::{self, ThisHost};
use crate::host_checks::{self, Severity};
use crate::manual;

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
        Command::Plan { file, force } => {
            let text = file.as_deref().map(text).transpose()?;
            let plan = lbd.plan(&PlanRequest { text, force }).await?;
            screen.show(&plan, |plan| plan::would(screen, plan))
        }
        Command::Apply { file, confirm, force } => {
            let request = ApplyRequest {
                text: text(&file)?,
                confirm_seconds: confirm.map(|time| time.as_secs()),
                force,
            };
            screen.show(&lbd.apply(&request).await?, |answer| {
                plan::applied(screen, answer)
            })
        }
        Command::Confirm => screen.show(&lbd.confirm().await?, |answer| {
            format!("confirmed: {} stays as it was applied\n", clean(&answer.file))
        }),
        Command::Rollback => screen.show(&lbd.rollback().await?, |answer| plan::rolled_back(screen, answer)),
        Command::Reload => screen.show(&lbd.reload().await?, |answer| plan::did(screen, &answer.plan)),
        Command::Config(ConfigCommand::Check { file }) => check(screen, &file),
        Command::Doctor { config } => doctor(&lbd, screen, config).await,
        Command::Site(command) => site(&lbd, screen, command).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "lbctl", &mut script);
            screen.print(&String::from_utf8_lossy(&script))
        }
        Command::ManualPages { directory } => Ok(manual::write_pages(Args::command(), &directory)?),
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
    let (name, change, dry) = match command {
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
            dry,
        } => {
            let backend = config::Backend {
                name,
                address: endpoint.address,
                port: endpoint.port,
                weight,
                backup,
            };
            let request = AddBackend {
                service,
                backend,
                dry_run: dry.only,
            };
            return show(screen, &lbd.add_backend(&request).await?, dry);
        }
        BackendCommand::Drain {
            name,
            wait,
            timeout,
            deadline,
            dry,
        } => {
            let deadline_seconds = deadline.map(|time| time.as_secs());
            let change = BackendChange::Drain { deadline_seconds };
            if wait {
                let changed = self::change(lbd, name, change, dry).await?;
                return drain::wait(lbd, screen, changed, timeout).await;
            }
            (name, change, dry)
        }
        BackendCommand::Undrain { name, dry } => (name, BackendChange::Undrain, dry),
        BackendCommand::Disable { name, dry } => (name, BackendChange::Disable, dry),
        BackendCommand::Enable { name, dry } => (name, BackendChange::Enable, dry),
        BackendCommand::Remove { name, force, dry } => (name, BackendChange::Remove { force }, dry),
        // `--reset` leaves the weight out.
        BackendCommand::Weight {
            name,
            weight,
            reset: _,
            dry,
        } => (name, BackendChange::Weight(weight), dry),
    };
    show(screen, &self::change(lbd, name, change, dry).await?, dry)
}

async fn change(
    lbd: &Client,
    name: BackendName,
    change: BackendChange,
    dry: DryRun,
) -> Result<Changed, Failure> {
    Ok(lbd
        .change_backend(&ChangeBackend {
            service: name.service,
            name: name.name,
            change,
            dry_run: dry.only,
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
    warnings: Vec<String>,
}

fn check(screen: &Screen, file: &Path) -> Result<(), Failure> {
    let config = config::load(file, &ThisHost)?;
    let checked = Checked {
        file: file.display().to_string(),
        services: config.services.len(),
        backends: config.services.iter().map(|service| service.backends.len()).sum(),
        site_servers: config.site.as_ref().map_or(0, |site| site.servers.len()),
        warnings: host_checks::about_time(&config)
            .iter()
            .map(ToString::to_string)
            .collect(),
    };
    screen.show(&checked, |checked| {
        let mut text = format!(
            "{} is in order: {}, {}, {}\n",
            checked.file,
            plural(checked.services as u64, "service"),
            plural(checked.backends as u64, "backend"),
            plural(checked.site_servers as u64, "web server"),
        );
        for warning in &checked.warnings {
            text += &format!("warning: {warning}\n");
        }
        text
    })
}

/// What was changed, or would be.
fn show(screen: &Screen, changed: &Changed, dry: DryRun) -> Result<(), Failure> {
    screen.show(changed, |changed| {
        if dry.only {
            plan::would(screen, &changed.plan)
        } else {
            lines(&changed.messages)
        }
    })
}

/// A configuration to be sent.
fn text(file: &Path) -> Result<Text, Failure> {
    Ok(Text {
        name: file.display().to_string(),
        toml: config::text(file, &ThisHost)?,
    })
}

/// Examines this host; a daemon is only asked which file it has read.
async fn doctor(lbd: &Client, screen: &Screen, file: Option<PathBuf>) -> Result<(), Failure> {
    let running = lbd
        .status()
        .await
        .ok()
        .map(|status| PathBuf::from(status.config_file));
    let is_running = running.is_some() && (file.is_none() || file == running);
    let file = file.or(running).unwrap_or_else(|| config::DEFAULT_FILE.into());
    let examination = host_checks::examine(&file, is_running).await;
    screen.show(&examination, |examination| {
        pages::doctor::page(screen, examination)
    })?;
    let wrong = examination
        .findings()
        .filter(|finding| finding.severity > Severity::Note)
        .count() as u64;
    if wrong > 0 {
        return Err(Failure::Unwell(format!("{} to mend", plural(wrong, "finding"))));
    }
    Ok(())
}

fn lines(lines: &[String]) -> String {
    lines.iter().map(|line| clean(line) + "\n").collect()
}
