//! How a `[[service]]`'s packets get to its backends: `mode`, `source_address`, `source_ports` and `stateless`.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::Across;
use crate::config::section::Section;
use crate::config::{DEFAULT_SOURCE_PORTS, Mode, Ports, Protocol, Scheduler, rules, written};

/// A mode with what it needs.
pub(super) struct Forwarding {
    pub(super) mode: Mode,
    pub(super) source_address: Option<IpAddr>,
    pub(super) source_ports: RangeInclusive<u16>,
}

pub(super) fn forwarding(
    section: &mut Section<'_, '_>,
    given: &written::Service,
    vip: Option<IpAddr>,
    across: &Across,
) -> Option<Forwarding> {
    let mode = section.word_or("mode", &given.mode, Mode::Nat)?;
    let needs_address = matches!(mode, Mode::FullNat | Mode::Ipip);
    if needs_address {
        let what = format!(
            "mode {mode} needs the address of this host that packets to the backends come from; a VIP cannot be it"
        );
        section.need("source_address", &given.source_address, &what);
    } else if let Some(typed) = &given.source_address {
        let what = format!("only for modes full-nat and ipip, but the mode is {mode}; take it out");
        section.wrong("source_address", typed.span(), what);
    }
    if let (Some(typed), true) = (&given.source_ports, mode != Mode::FullNat) {
        let what = format!("only for mode full-nat, but the mode is {mode}; take it out");
        section.wrong("source_ports", typed.span(), what);
    }
    let source_address = section.text("source_address", &given.source_address, |text| {
        let source = rules::source_address(text, vip, mode)?;
        if across.vips.contains(&source) {
            return Err(
                "this is a VIP of this file; name an address that the host has for itself".to_owned(),
            );
        }
        Ok(source)
    });
    let source_ports = section.text("source_ports", &given.source_ports, rules::source_ports);
    Some(Forwarding {
        mode,
        source_address,
        source_ports: source_ports.unwrap_or(DEFAULT_SOURCE_PORTS),
    })
}

/// Whether nothing is remembered; then hashing alone must always lead to the same backend, and back.
pub(super) fn stateless(
    section: &mut Section<'_, '_>,
    given: &written::Service,
    protocol: Option<Protocol>,
    mode: Option<Mode>,
    scheduler: Option<Scheduler>,
    ports: Option<&Ports>,
) -> bool {
    let Some(typed) = given.stateless.as_ref().filter(|typed| *typed.get_ref()) else {
        return false;
    };
    let mut refuse = |what: String| section.wrong("stateless", typed.span(), what);
    if protocol == Some(Protocol::Tcp) {
        refuse("only for protocol udp: a TCP connection must be remembered to stay with its backend; take it out".to_owned());
    }
    if let Some(scheduler) = scheduler.filter(|scheduler| !scheduler.hashes()) {
        refuse(format!(
            "only with schedulers maglev and source-hash, which choose the same backend each time, but the scheduler is \
             {scheduler}; change it or take this out"
        ));
    }
    if mode == Some(Mode::FullNat) {
        refuse(
            "mode full-nat must remember whose each of its ports is; use another mode or take this out"
                .to_owned(),
        );
    }
    if let (Some(Mode::Nat), Some(Ports::Range(_))) = (mode, ports) {
        refuse(
            "in mode nat, whatever a backend sends by UDP would count as an answer of a service of several ports; use mode \
             dsr or ipip, or take this out"
                .to_owned(),
        );
    }
    true
}
