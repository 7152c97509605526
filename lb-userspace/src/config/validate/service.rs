//! `[[service]]`.

use std::net::IpAddr;
use std::time::Duration;

use super::backend::{self, Of};
use super::{Across, forwarding, health, ports};
use crate::config::section::Section;
use crate::config::{
    OnDown, Ports, Protocol, Scheduler, Service, Timeouts, WhenAllDown, limits, rules, written,
};

pub(super) fn service(
    section: &mut Section<'_, '_>,
    given: &written::Service,
    across: &mut Across,
) -> Option<Service> {
    let name = section.unique_name(&given.name, "service", &mut across.names);
    section.need(
        "vip",
        &given.vip,
        "write the address that clients connect to, such as \"203.0.113.10\" or \"2001:db8::10\"",
    );
    let vip = section.text("vip", &given.vip, rules::vip);
    let protocol = section.word_or("protocol", &given.protocol, Protocol::Tcp);
    let title = given.name.as_ref().map_or_else(
        || "without a name".to_owned(),
        |name| format!("{:?}", name.get_ref()),
    );
    let ports = ports::ports(section, given, vip, protocol, &title, across);
    let forwarding = forwarding::forwarding(section, given, vip, across);
    let scheduler = section.word_or("scheduler", &given.scheduler, Scheduler::RoundRobin);
    let mode = forwarding.as_ref().map(|forwarding| forwarding.mode);
    let stateless = forwarding::stateless(section, given, protocol, mode, scheduler, ports.as_ref());
    let slow_start = slow_start(section, given, scheduler);
    let manage_vip = manage_vip(section, given, vip, &title, across);
    answer_ping(section, given, vip, &title, across);
    let when_all_down = section
        .word("when_all_down", &given.when_all_down)
        .unwrap_or(WhenAllDown::Refuse);
    let on_down = section.word("on_down", &given.on_down).unwrap_or(OnDown::Keep);
    let drain_timeout = drain_timeout(section, given, stateless);
    let timeouts = timeouts(section, given, protocol, stateless);
    let health = health::health(
        section,
        given.health.as_ref(),
        without_port(protocol, ports.as_ref()),
    );
    let of = Of {
        title,
        vip,
        ports: ports.as_ref(),
        protocol,
        forwarding: forwarding.as_ref(),
        stateless,
    };
    let backends = backend::backends(section, given, &of, across);
    let forwarding = forwarding?;
    Some(Service {
        name: name?,
        vip: vip?,
        ports: ports?,
        protocol: protocol?,
        mode: forwarding.mode,
        scheduler: scheduler?,
        stateless,
        source_address: forwarding.source_address,
        source_ports: forwarding.source_ports,
        answer_ping: true,
        slow_start,
        manage_vip,
        when_all_down,
        on_down,
        drain_timeout,
        timeouts,
        health,
        backends: backends?,
    })
}

/// Why the backends have no TCP port of their own that could be probed, if so.
fn without_port(protocol: Option<Protocol>, ports: Option<&Ports>) -> Option<&'static str> {
    match (protocol, ports) {
        (Some(Protocol::Udp), _) => Some("UDP cannot be probed"),
        (_, Some(Ports::Range(_))) => Some("the service has several ports"),
        _ => None,
    }
}

/// Zero with schedulers whose choice a growing share would change for clients that are there.
fn slow_start(
    section: &mut Section<'_, '_>,
    given: &written::Service,
    scheduler: Option<Scheduler>,
) -> Duration {
    let time = section.seconds("slow_start", &given.slow_start, limits::SLOW_START, "slow_start");
    if let (Some(typed), Some(time), Some(scheduler)) = (&given.slow_start, time, scheduler)
        && !time.is_zero()
        && scheduler.hashes()
    {
        let what = format!(
            "with scheduler {scheduler} each step of a growing share would move clients from one backend to another; take \
             it out, or use round-robin, least-connections or random"
        );
        section.wrong("slow_start", typed.span(), what);
    }
    time.unwrap_or(Duration::ZERO)
}

/// Nothing that a stateless service could have: it has no connections that could be reset.
fn drain_timeout(
    section: &mut Section<'_, '_>,
    given: &written::Service,
    stateless: bool,
) -> Option<Duration> {
    let limits = limits::BACKEND_DRAIN;
    let time = section.seconds("drain_timeout", &given.drain_timeout, limits, "drain_timeout")?;
    if let (Some(typed), true) = (&given.drain_timeout, stateless) {
        let what = "a stateless service has no connections that could be reset; take it out";
        section.wrong("drain_timeout", typed.span(), what);
    }
    Some(time)
}

/// The interface for the VIP; services that share a VIP must agree on it.
fn manage_vip(
    section: &mut Section<'_, '_>,
    given: &written::Service,
    vip: Option<IpAddr>,
    title: &str,
    across: &mut Across,
) -> Option<String> {
    let interface = section.interface("manage_vip", &given.manage_vip)?;
    let (typed, vip) = (given.manage_vip.as_ref()?, vip?);
    let (other, service) = across
        .managed_on
        .entry(vip)
        .or_insert_with(|| (interface.clone(), title.to_owned()))
        .clone();
    if other != interface {
        let what = format!("service {service} has the same VIP {vip} on {other:?}; name the same interface");
        section.wrong("manage_vip", typed.span(), what);
    }
    Some(interface)
}

/// Notes what is said about pings; services that share a VIP must agree on it, those that say nothing follow the others.
fn answer_ping(
    section: &mut Section<'_, '_>,
    given: &written::Service,
    vip: Option<IpAddr>,
    title: &str,
    across: &mut Across,
) {
    let (Some(typed), Some(vip)) = (&given.answer_ping, vip) else {
        return;
    };
    let (other, service) = across
        .answers_ping
        .entry(vip)
        .or_insert_with(|| (*typed.get_ref(), title.to_owned()))
        .clone();
    if other != *typed.get_ref() {
        let what =
            format!("service {service} has the same VIP {vip} with answer_ping = {other}; say the same");
        section.wrong("answer_ping", typed.span(), what);
    }
}

fn timeouts(
    section: &mut Section<'_, '_>,
    given: &written::Service,
    protocol: Option<Protocol>,
    stateless: bool,
) -> Timeouts {
    let default = Timeouts::default();
    let Some(given) = &given.timeouts else {
        return default;
    };
    let section = &mut section.inner("timeouts", given.span());
    let given = given.get_ref();
    let mut timeout = |key: &str, given: &written::Given<written::Time>, only: Option<Protocol>, default| {
        if let Some(typed) = given {
            match (only, protocol) {
                _ if stateless => {
                    let what = "a stateless service remembers nothing that could time out; take it out";
                    section.wrong(key, typed.span(), what);
                }
                (Some(only), Some(protocol)) if only != protocol => {
                    let what =
                        format!("only for protocol {only}, but the protocol is {protocol}; take it out");
                    section.wrong(key, typed.span(), what);
                }
                _ => {}
            }
        }
        section
            .time(key, given, limits::CONNECTION_TIMEOUT, "a timeout")
            .unwrap_or(default)
    };
    let (tcp, udp) = (Some(Protocol::Tcp), Some(Protocol::Udp));
    Timeouts {
        half_open: timeout("half_open", &given.half_open, None, default.half_open),
        established: timeout("established", &given.established, tcp, default.established),
        closing: timeout("closing", &given.closing, tcp, default.closing),
        udp: timeout("udp", &given.udp, udp, default.udp),
    }
}
