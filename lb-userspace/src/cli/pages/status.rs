//! `status` and `service show`: what an operator looks at first, at three in the morning too. What is wrong stands out,
//! and says since when and why.

use crate::api::types::{Backend, BackendState, Service, Status, word};
use crate::cli::screen::{Colour, Screen};
use crate::cli::table::{Field, Rows, text};
use crate::cli::units::{bytes, clean, count, percent, seconds};
use crate::config::WhenAllDown;
use crate::config::shown::{endpoint, listener};

/// The whole page.
pub(in crate::cli) fn page(screen: &Screen, status: &Status) -> String {
    let mut page = format!(
        "lbd {}, process {}, up {}, configuration {}\n",
        clean(&status.version),
        status.pid,
        seconds(status.uptime_seconds),
        clean(&status.config_file)
    );
    page += &format!("interfaces   {}\n", interfaces(screen, status));
    page += &format!("connections  {}\n", table_use(screen, status));
    for service in &status.services {
        page.push('\n');
        page += &self::service(screen, service);
    }
    if status.services.is_empty() {
        page += "\nno services: add a [[service]] to the configuration, then: lbctl reload\n";
    }
    if !status.warnings.is_empty() {
        page += &format!("\n{}\n", screen.paint(Colour::Notice, "warnings"));
        page.extend(
            status
                .warnings
                .iter()
                .map(|warning| format!("  {}\n", clean(warning))),
        );
    }
    page
}

fn interfaces(screen: &Screen, status: &Status) -> String {
    if status.interfaces.is_empty() {
        return screen.paint(Colour::Bad, "none: nothing is balanced");
    }
    let each = status.interfaces.iter().map(|interface| {
        let colour = if interface.mode == "native" {
            Colour::Good
        } else {
            Colour::Notice
        };
        format!(
            "{} {}",
            clean(&interface.name),
            screen.paint(colour, &clean(&interface.mode))
        )
    });
    each.collect::<Vec<_>>().join(", ")
}

fn table_use(screen: &Screen, status: &Status) -> String {
    let share = percent(status.connections, status.max_connections);
    let nearly_full = status.connections >= status.max_connections / 10 * 9;
    let share = if nearly_full {
        screen.paint(Colour::Bad, &share)
    } else {
        share
    };
    format!(
        "{} of {} ({share}), {} of memory",
        count(status.connections),
        count(status.max_connections),
        bytes(status.table_bytes)
    )
}

/// One service with its backends.
pub(in crate::cli) fn service(screen: &Screen, service: &Service) -> String {
    let mut page = format!(
        "{}  {}/{}, {}, {}: {}\n",
        clean(&service.name),
        listener(service.vip, &service.ports),
        word(&service.protocol),
        word(&service.mode),
        word(&service.scheduler),
        verdict(screen, service)
    );
    page += &format!(
        "  {} connections, {} opened, {} in, {} out\n",
        count(service.traffic.connections),
        count(service.traffic.opened),
        bytes(service.traffic.bytes_in),
        bytes(service.traffic.bytes_out)
    );
    if service.backends.is_empty() {
        return page;
    }
    let titles = [
        "BACKEND",
        "ADDRESS",
        "STATE",
        ">WEIGHT",
        ">CONNECTIONS",
        ">OPENED",
        "~HEALTH",
        "~CHANGED BY HAND",
    ];
    let overridden = service
        .backends
        .iter()
        .any(|backend| !backend.overrides.is_empty());
    let columns = if overridden {
        titles.len()
    } else {
        titles.len() - 1
    };
    let mut rows = Rows::new(screen, titles.get(..columns).unwrap_or(&titles));
    for backend in &service.backends {
        let fields = [
            text(&backend.name),
            text(endpoint(backend.address, backend.port)),
            state(backend),
            Field::Count(backend.weight.into()),
            Field::Count(backend.traffic.connections),
            Field::Count(backend.traffic.opened),
            text(health(backend)),
            text(backend.overrides.join(", ")),
        ];
        rows.row(fields.into_iter().take(columns));
    }
    page + &rows.text(2)
}

/// How many backends take new connections, and what happens if none does.
fn verdict(screen: &Screen, service: &Service) -> String {
    let eligible = service.backends.iter().filter(|backend| backend.eligible).count();
    let all = service.backends.len();
    match (eligible, service.when_all_down) {
        (0, WhenAllDown::Refuse) => screen.paint(Colour::Bad, "NO BACKEND, new connections are refused"),
        (0, WhenAllDown::Drop) => screen.paint(Colour::Bad, "NO BACKEND, new connections are dropped"),
        (0, WhenAllDown::KeepSending) => screen.paint(Colour::Bad, "NO BACKEND"),
        _ if eligible == all => screen.paint(Colour::Good, &format!("{eligible} of {all} backends")),
        _ => screen.paint(Colour::Notice, &format!("{eligible} of {all} backends")),
    }
}

/// The state, in the colour of how bad it is.
pub(in crate::cli) fn state(backend: &Backend) -> Field {
    let colour = match backend.state {
        BackendState::Up => Colour::Good,
        BackendState::Down => Colour::Bad,
        BackendState::Checking | BackendState::Draining | BackendState::Disabled | BackendState::Leaving => {
            Colour::Notice
        }
    };
    Field::Coloured(word(&backend.state), colour)
}

/// `up for 3h 2m: HTTP 200 in 3 ms`.
pub(in crate::cli) fn health(backend: &Backend) -> String {
    let health = &backend.health;
    let mut text = format!("{} for {}", health.status, seconds(health.since_seconds));
    if !health.reason.is_empty() {
        text += &format!(": {}", health.reason);
    }
    text
}
