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
    if let Some(unconfirmed) = &status.unconfirmed {
        let line = format!(
            "{} goes back by itself in {}: lbctl confirm, or lbctl rollback",
            clean(&unconfirmed.file),
            seconds(unconfirmed.seconds_left)
        );
        page += &format!("unconfirmed  {}\n", screen.paint(Colour::Notice, &line));
    }
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

/// How full the tables are; of the wide one only if anything is in it.
fn table_use(screen: &Screen, status: &Status) -> String {
    let used = |connections: u64, most: u64| {
        let mut share = percent(connections, most);
        if connections >= most / 10 * 9 {
            share = screen.paint(Colour::Bad, &share);
        }
        format!("{} of {} ({share})", count(connections), count(most))
    };
    let wide = match status.wide_connections {
        0 => String::new(),
        wide => format!(
            ", {} over IPv6 or to several ports",
            used(wide, status.max_wide_connections)
        ),
    };
    let narrow = status.connections.saturating_sub(status.wide_connections);
    format!(
        "{}{wide}, {} of memory",
        used(narrow, status.max_connections),
        bytes(status.table_bytes)
    )
}

/// One service with its backends.
pub(in crate::cli) fn service(screen: &Screen, service: &Service) -> String {
    let mut page = format!(
        "{}  {}/{}, {}: {}\n",
        clean(&service.name),
        listener(service.vip, &service.ports),
        word(&service.protocol),
        kind(service),
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

/// `nat, round-robin`, and what else is not as in most services.
fn kind(service: &Service) -> String {
    let mut mode = word(&service.mode);
    if let Some(source) = service.source_address {
        mode += &format!(" from {source}");
    }
    if let Some(ports) = &service.source_ports {
        mode += &format!(" ports {}-{}", ports.start(), ports.end());
    }
    let mut kind = vec![mode, word(&service.scheduler)];
    if service.stateless {
        kind.push("stateless".to_owned());
    }
    if service.slow_start_seconds > 0 {
        kind.push(format!("slow start {}", seconds(service.slow_start_seconds)));
    }
    if let Some(timeout) = service.drain_timeout_seconds {
        kind.push(format!("drains for {}", seconds(timeout)));
    }
    if !service.answer_ping {
        kind.push("pings left to the kernel".to_owned());
    }
    kind.join(", ")
}

/// How many backends take new connections, and what happens if none does.
fn verdict(screen: &Screen, service: &Service) -> String {
    let eligible = service.backends.iter().filter(|backend| backend.eligible).count();
    let standing_by = service
        .backends
        .iter()
        .filter(|backend| backend.backup && !backend.eligible && backend.state == BackendState::Up)
        .count();
    let all = service.backends.len() - standing_by;
    let mut text = format!("{eligible} of {all} backends");
    if standing_by > 0 {
        text += &format!(", {standing_by} standing by");
    }
    let backups = service
        .backends
        .iter()
        .any(|backend| backend.backup && backend.eligible);
    if backups {
        text += ", backups in use";
    }
    match (eligible, service.when_all_down) {
        (0, WhenAllDown::Refuse) => screen.paint(Colour::Bad, "NO BACKEND, new connections are refused"),
        (0, WhenAllDown::Drop) => screen.paint(Colour::Bad, "NO BACKEND, new connections are dropped"),
        (0, WhenAllDown::KeepSending) => screen.paint(Colour::Bad, "NO BACKEND"),
        _ if eligible == all && !backups => screen.paint(Colour::Good, &text),
        _ => screen.paint(Colour::Notice, &text),
    }
}

/// The state, in the colour of how bad it is: `up`, `up, backup`, `up, at 30 %`, `draining, reset in 5m 0s`.
pub(in crate::cli) fn state(backend: &Backend) -> Field {
    let colour = match backend.state {
        BackendState::Up => Colour::Good,
        BackendState::Down => Colour::Bad,
        BackendState::Checking | BackendState::Draining | BackendState::Disabled | BackendState::Leaving => {
            Colour::Notice
        }
    };
    let mut text = word(&backend.state);
    if backend.backup {
        text += ", backup";
    }
    if let Some(percent) = backend.slow_start_percent {
        text += &format!(", at {percent} %");
    }
    match backend.reset_in_seconds {
        Some(0) => text += ", resetting",
        Some(left) => text += &format!(", reset in {}", seconds(left)),
        None => {}
    }
    Field::Coloured(text, colour)
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
