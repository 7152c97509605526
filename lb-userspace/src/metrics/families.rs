//! Which metrics there are and what they are called.

use super::exposition::Exposition;
use crate::api::types::{Backend, BackendState, Counters, Service, Status, Traffic, word};
use crate::config::shown::{endpoint, listener};

/// Every metric as one text.
pub(super) fn text(status: &Status, counters: &Counters) -> String {
    let mut out = Exposition::default();
    daemon(&mut out, status);
    outcomes(&mut out, counters);
    services(&mut out, &status.services);
    backends(
        &mut out,
        status
            .services
            .iter()
            .flat_map(|service| &service.backends)
            .map(Labelled::new)
            .collect(),
    );
    out.finish()
}

fn daemon(out: &mut Exposition, status: &Status) {
    out.gauge("lb_build_info", "The daemon's version.", |family| {
        family.sample(&[("version", &status.version)], 1);
    });
    out.gauge(
        "lb_uptime_seconds",
        "Seconds since the daemon started.",
        |family| {
            family.sample(&[], status.uptime_seconds);
        },
    );
    out.gauge(
        "lb_warnings",
        "Things that will not work; lbctl status names them.",
        |family| {
            family.sample(&[], status.warnings.len());
        },
    );
    out.gauge(
        "lb_interface_info",
        "Interfaces and the mode that the program is attached in.",
        |family| {
            for interface in &status.interfaces {
                family.sample(&[("interface", &interface.name), ("mode", &interface.mode)], 1);
            }
        },
    );
    let narrow = status.connections.saturating_sub(status.wide_connections);
    for (name, help, value) in [
        (
            "lb_table_connections",
            "Connections in the table of those over IPv4 to services of one port.",
            narrow,
        ),
        (
            "lb_table_max_connections",
            "Connections that this table has room for.",
            status.max_connections,
        ),
        (
            "lb_wide_table_connections",
            "Connections in the table of those over IPv6 or to services of several ports.",
            status.wide_connections,
        ),
        (
            "lb_wide_table_max_connections",
            "Connections that this table has room for.",
            status.max_wide_connections,
        ),
        (
            "lb_table_bytes",
            "Memory of both tables and of that of the full-nat ports.",
            status.table_bytes,
        ),
    ] {
        out.gauge(name, help, |family| family.sample(&[], value));
    }
}

fn outcomes(out: &mut Exposition, counters: &Counters) {
    out.counter(
        "lb_packets_total",
        "Packets by the decision that the program came to.",
        |family| {
            for outcome in &counters.outcomes {
                family.sample(
                    &[("outcome", &outcome.name), ("action", &outcome.action)],
                    outcome.packets,
                );
            }
        },
    );
}

fn services(out: &mut Exposition, services: &[Service]) {
    out.gauge("lb_service_info", "What a service is.", |family| {
        for service in services {
            let vip = listener(service.vip, &service.ports);
            family.sample(
                &[
                    ("service", &service.name),
                    ("vip", &vip),
                    ("protocol", &word(&service.protocol)),
                    ("mode", &word(&service.mode)),
                    ("scheduler", &word(&service.scheduler)),
                ],
                1,
            );
        }
    });
    let labelled: Vec<_> = services
        .iter()
        .map(|service| (vec![("service", &*service.name)], &service.traffic))
        .collect();
    traffic(out, "lb_service", "of a service", &labelled);
}

fn backends(out: &mut Exposition, backends: Vec<Labelled<'_>>) {
    out.gauge(
        "lb_backend_up",
        "Whether a backend's probes succeed; 1 as well if it is not probed.",
        |family| {
            for backend in &backends {
                let up = matches!(&*backend.backend.health.status, "up" | "unchecked");
                family.sample(&backend.labels(), u8::from(up));
            }
        },
    );
    out.gauge(
        "lb_backend_health_seconds",
        "Seconds since a backend's health last changed.",
        |family| {
            for backend in &backends {
                family.sample(&backend.labels(), backend.backend.health.since_seconds);
            }
        },
    );
    out.gauge(
        "lb_backend_eligible",
        "Whether new connections may be sent to a backend.",
        |family| {
            for backend in &backends {
                family.sample(&backend.labels(), u8::from(backend.backend.eligible));
            }
        },
    );
    out.gauge(
        "lb_backend_state",
        "1 for the state that a backend is in, 0 for the others.",
        |family| {
            for backend in &backends {
                for state in STATES {
                    let mut labels = backend.labels();
                    let word = word(&state);
                    labels.push(("state", &word));
                    family.sample(&labels, u8::from(backend.backend.state == state));
                }
            }
        },
    );
    out.gauge(
        "lb_backend_weight",
        "A backend's share of new connections relative to the others.",
        |family| {
            for backend in &backends {
                family.sample(&backend.labels(), backend.backend.weight);
            }
        },
    );
    out.gauge(
        "lb_backend_backup",
        "Whether a backend gets new connections only while no other can take any.",
        |family| {
            for backend in &backends {
                family.sample(&backend.labels(), u8::from(backend.backend.backup));
            }
        },
    );
    out.gauge(
        "lb_backend_slow_start_percent",
        "How much of its weight a backend has, while its share grows after a recovery; else 100.",
        |family| {
            for backend in &backends {
                let percent = backend.backend.slow_start_percent.unwrap_or(100);
                family.sample(&backend.labels(), percent);
            }
        },
    );
    out.gauge(
        "lb_backend_overrides",
        "Things about a backend that were changed at run time.",
        |family| {
            for backend in &backends {
                family.sample(&backend.labels(), backend.backend.overrides.len());
            }
        },
    );
    let labelled: Vec<_> = backends
        .iter()
        .map(|backend| (backend.labels(), &backend.backend.traffic))
        .collect();
    traffic(out, "lb_backend", "of a backend", &labelled);
}

/// The families that services and backends share.
fn traffic(out: &mut Exposition, prefix: &str, whose: &str, things: &[(Vec<(&str, &str)>, &Traffic)]) {
    out.gauge(
        &format!("{prefix}_connections"),
        &format!("Connections {whose} in the table."),
        |family| {
            for (labels, traffic) in things {
                family.sample(labels, traffic.connections);
            }
        },
    );
    out.counter(
        &format!("{prefix}_connections_opened_total"),
        &format!("Connections {whose} opened."),
        |family| {
            for (labels, traffic) in things {
                family.sample(labels, traffic.opened);
            }
        },
    );
    let mut both_ways = |unit: &str, help: &str, count: fn(&Traffic) -> [u64; 2]| {
        out.counter(&format!("{prefix}_{unit}_total"), help, |family| {
            for (labels, traffic) in things {
                for (direction, count) in ["in", "out"].into_iter().zip(count(traffic)) {
                    let mut labels = labels.clone();
                    labels.push(("direction", direction));
                    family.sample(&labels, count);
                }
            }
        });
    };
    let packets = format!("Packets {whose}, in from clients, out to clients.");
    both_ways("packets", &packets, |traffic| {
        [traffic.packets_in, traffic.packets_out]
    });
    let bytes = format!("Bytes {whose}, Ethernet header included, in from clients, out to clients.");
    both_ways("bytes", &bytes, |traffic| [traffic.bytes_in, traffic.bytes_out]);
}

const STATES: [BackendState; 6] = [
    BackendState::Up,
    BackendState::Checking,
    BackendState::Down,
    BackendState::Draining,
    BackendState::Disabled,
    BackendState::Leaving,
];

/// A backend with what its labels borrow.
struct Labelled<'a> {
    backend: &'a Backend,
    address: String,
}

impl<'a> Labelled<'a> {
    fn new(backend: &'a Backend) -> Self {
        Self {
            backend,
            address: endpoint(backend.address, backend.port),
        }
    }

    fn labels(&self) -> Vec<(&str, &str)> {
        vec![
            ("service", &self.backend.service),
            ("backend", &self.backend.name),
            ("address", &self.address),
        ]
    }
}
