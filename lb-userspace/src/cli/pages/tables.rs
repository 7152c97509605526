//! The lists.

use std::net::SocketAddr;

use super::status::{health, state};
use crate::api::types::{Backend, Connections, Counters, Service, word};
use crate::cli::screen::Screen;
use crate::cli::table::{Field, Rows, text};
use crate::cli::units::{count, seconds};
use crate::config::shown::{endpoint, listener};

/// `service list`.
pub(in crate::cli) fn services(screen: &Screen, services: &[Service]) -> String {
    if services.is_empty() {
        return "no services\n".to_owned();
    }
    let mut rows = Rows::new(
        screen,
        &[
            "SERVICE",
            "VIP",
            "MODE",
            "SCHEDULER",
            "BACKENDS",
            ">CONNECTIONS",
            ">OPENED",
            ">IN",
            ">OUT",
        ],
    );
    for service in services {
        let eligible = service.backends.iter().filter(|backend| backend.eligible).count();
        rows.row([
            text(&service.name),
            text(format!(
                "{}/{}",
                listener(service.vip, &service.ports),
                word(&service.protocol)
            )),
            text(word(&service.mode)),
            text(word(&service.scheduler)),
            text(format!("{eligible} of {}", service.backends.len())),
            Field::Count(service.traffic.connections),
            Field::Count(service.traffic.opened),
            Field::Bytes(service.traffic.bytes_in),
            Field::Bytes(service.traffic.bytes_out),
        ]);
    }
    rows.text(0)
}

/// `backend list`.
pub(in crate::cli) fn backends(screen: &Screen, backends: &[Backend]) -> String {
    if backends.is_empty() {
        return "no backends\n".to_owned();
    }
    let mut rows = Rows::new(
        screen,
        &[
            "BACKEND",
            "ADDRESS",
            "STATE",
            ">WEIGHT",
            ">CONNECTIONS",
            ">OPENED",
            ">IN",
            ">OUT",
            "~HEALTH",
            "NEXT HOP",
            "~CHANGED BY HAND",
        ],
    );
    for backend in backends {
        rows.row([
            text(format!("{}/{}", backend.service, backend.name)),
            text(endpoint(backend.address, backend.port)),
            state(backend),
            Field::Count(backend.weight.into()),
            Field::Count(backend.traffic.connections),
            Field::Count(backend.traffic.opened),
            Field::Bytes(backend.traffic.bytes_in),
            Field::Bytes(backend.traffic.bytes_out),
            text(health(backend)),
            text(backend.next_hop.as_deref().unwrap_or("by the kernel")),
            text(backend.overrides.join(", ")),
        ]);
    }
    rows.text(0)
}

/// `connection list`.
pub(in crate::cli) fn connections(screen: &Screen, answer: &Connections) -> String {
    if answer.connections.is_empty() {
        return match answer.total {
            0 => "no connections\n".to_owned(),
            total => format!("{} connections, none shown\n", count(total)),
        };
    }
    let titles = ["CLIENT", "VIP", "BACKEND", "STATE", "EXPIRES IN", ">OWN PORT"];
    let full_nat = answer
        .connections
        .iter()
        .any(|connection| connection.own_port.is_some());
    let columns = if full_nat { titles.len() } else { titles.len() - 1 };
    let mut rows = Rows::new(screen, titles.get(..columns).unwrap_or(&titles));
    for connection in &answer.connections {
        let vip = SocketAddr::new(connection.vip, connection.vip_port);
        let fields = [
            text(SocketAddr::new(connection.client, connection.client_port).to_string()),
            text(format!("{vip}/{}", word(&connection.protocol))),
            text(format!("{}/{}", connection.service, connection.backend)),
            text(&*connection.state),
            text(seconds(connection.expires_seconds)),
            text(
                connection
                    .own_port
                    .map_or_else(String::new, |port| port.to_string()),
            ),
        ];
        rows.row(fields.into_iter().take(columns));
    }
    let shown = answer.connections.len() as u64;
    let mut page = rows.text(0);
    if shown < answer.total {
        page += &format!(
            "{} of {}; --limit shows more\n",
            count(shown),
            count(answer.total)
        );
    }
    page
}

/// `counters`.
pub(in crate::cli) fn counters(screen: &Screen, counters: &Counters, all: bool) -> String {
    let mut rows = Rows::new(screen, &["OUTCOME", "ACTION", ">PACKETS", "~MEANING"]);
    let mut hidden = 0;
    for outcome in &counters.outcomes {
        if outcome.packets == 0 && !all {
            hidden += 1;
            continue;
        }
        rows.row([
            text(&outcome.name),
            text(&outcome.action),
            Field::Count(outcome.packets),
            text(&outcome.meaning),
        ]);
    }
    let mut page = rows.text(0);
    if hidden > 0 {
        page += &format!("{hidden} more are zero; --all shows them\n");
    }
    page
}
