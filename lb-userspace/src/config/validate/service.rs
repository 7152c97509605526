//! `[[service]]`.

use std::net::IpAddr;

use super::{Across, backend, health};
use crate::config::section::Section;
use crate::config::{
    Mode, OnDown, Protocol, Scheduler, Service, Timeouts, WhenAllDown, limits, rules, written,
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
        "write the address that clients connect to, such as \"203.0.113.10\"",
    );
    let vip = section.text("vip", &given.vip, rules::vip);
    section.need(
        "port",
        &given.port,
        "write the port that clients connect to, 1 to 65535",
    );
    let port = section.port("port", &given.port);
    let protocol = section.word("protocol", &given.protocol).unwrap_or(Protocol::Tcp);
    let title = given.name.as_ref().map_or_else(
        || "without a name".to_owned(),
        |name| format!("{:?}", name.get_ref()),
    );
    if let (Some(vip), Some(port)) = (vip, port) {
        let taken = across
            .endpoints
            .insert((vip, port.get(), protocol), title.clone());
        if let (Some(other), Some(typed)) = (taken, &given.port) {
            let what = format!(
                "service {other} has {vip} port {port}/{protocol} already; one of the two must change"
            );
            section.wrong("port", typed.span(), what);
        }
    }

    let mode = section.word("mode", &given.mode).unwrap_or(Mode::Nat);
    let scheduler = section
        .word("scheduler", &given.scheduler)
        .unwrap_or(Scheduler::RoundRobin);
    let manage_vip = manage_vip(section, given, vip, &title, across);
    let when_all_down = section
        .word("when_all_down", &given.when_all_down)
        .unwrap_or(WhenAllDown::Refuse);
    let on_down = section.word("on_down", &given.on_down).unwrap_or(OnDown::Keep);
    let timeouts = timeouts(section, given);
    let health = health::health(section, given.health.as_ref());
    let backends = backend::backends(section, given, vip, port, protocol, across);
    Some(Service {
        name: name?,
        vip: vip?,
        port: port?,
        protocol,
        mode,
        scheduler,
        manage_vip,
        when_all_down,
        on_down,
        timeouts,
        health,
        backends: backends?,
    })
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

fn timeouts(section: &mut Section<'_, '_>, given: &written::Service) -> Timeouts {
    let default = Timeouts::default();
    let Some(given) = &given.timeouts else {
        return default;
    };
    let section = &mut section.inner("timeouts", given.span());
    let given = given.get_ref();
    let mut timeout = |key: &str, given, default| {
        section
            .time(key, given, limits::CONNECTION_TIMEOUT, "a timeout")
            .unwrap_or(default)
    };
    Timeouts {
        half_open: timeout("half_open", &given.half_open, default.half_open),
        established: timeout("established", &given.established, default.established),
        closing: timeout("closing", &given.closing, default.closing),
    }
}
