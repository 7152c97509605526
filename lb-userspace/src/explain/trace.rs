//! Traced packets in words, and filters as the program has them.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lb_common::abi::address;
use lb_common::explain::{Decision, HEAD, Notes, TraceFilter};
use lb_common::outcome::{Action, OUTCOMES, Outcome};
use lb_common::wire::network::{TCP, UDP};

use super::{Site, Told, packet};
use crate::api::Refusal;
use crate::api::trace::{Filter, TracedPacket, TracedProtocol};

/// A filter as the program has it.
///
/// # Errors
/// It names an outcome or a family that there is not.
pub fn filter(wanted: &Filter, rate: u32) -> Result<TraceFilter, Refusal> {
    let mut outcomes = 0;
    for name in &wanted.outcomes {
        let outcome = OUTCOMES.iter().find(|outcome| outcome.name() == name);
        let outcome = outcome.ok_or_else(|| {
            Refusal::Unknown(format!(
                "there is no outcome {name:?}; `lbctl counters --all` shows all"
            ))
        })?;
        outcomes |= 1 << *outcome as u64;
    }
    let version = match wanted.family {
        None => 0,
        Some(family @ (4 | 6)) => u32::from(family),
        Some(other) => {
            return Err(Refusal::Invalid(format!("family {other}: there are 4 and 6")));
        }
    };
    Ok(TraceFilter {
        address: match wanted.host {
            None => [0; 2],
            Some(IpAddr::V4(host)) => address(&host.octets()),
            Some(IpAddr::V6(host)) => address(&host.octets()),
        },
        outcomes,
        rate: rate.into(),
        port: wanted.port.map_or(0, |port| port.get().to_be()),
        protocol: match wanted.protocol {
            None => 0,
            Some(TracedProtocol::Tcp) => TCP.into(),
            Some(TracedProtocol::Udp) => UDP.into(),
            Some(TracedProtocol::Icmp) => TraceFilter::ICMP,
        },
        version,
    })
}

/// A traced packet in words; `booted`: when the kernel's clock was zero.
pub fn traced(site: &Site, notes: &Notes, booted: Duration) -> Option<TracedPacket> {
    let kept = (notes.length as usize).min(HEAD);
    let came = notes.head.get(..kept)?;
    let told = Told {
        site,
        notes,
        came,
        left: None,
    };
    let outcome = told.outcome()?;
    Some(TracedPacket {
        time: u64::try_from(booted.as_nanos()).ok()?.saturating_add(notes.time),
        interface: site.interface_name(notes.interface_index),
        packet: words(came, notes.length),
        length: notes.length,
        head: came.iter().map(|byte| format!("{byte:02x}")).collect(),
        decisions: told.decisions(),
        service: told.service(),
        backend: told.backend(),
        outcome: outcome.name().to_owned(),
        action: action(notes, outcome).to_owned(),
    })
}

/// In words, by its beginning: a packet that is cut off does not say that it is whole.
fn words(came: &[u8], length: u32) -> String {
    let mut whole = came.to_vec();
    whole.resize(length as usize, 0);
    packet::words(&whole)
}

/// What is redirected to where it came from is transmitted.
fn action(notes: &Notes, outcome: Outcome) -> &'static str {
    let back = notes.decisions().any(|(decision, _, interface)| {
        decision == Decision::Outcome && interface == u64::from(notes.interface_index)
    });
    if back && outcome.action() == Action::Redirect {
        Action::Transmit.name()
    } else {
        outcome.action().name()
    }
}

/// When the kernel's monotonic clock was zero, since 1970: notes have its time.
pub fn booted() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut monotonic = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the clock is there, and writes the time to a place that outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut monotonic) };
    let seconds = u64::try_from(monotonic.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(monotonic.tv_nsec).unwrap_or(0);
    now.saturating_sub(Duration::new(seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::explain::Step;

    #[test]
    fn filters_say_what_was_asked_for() {
        let all = filter(&Filter::default(), 7).unwrap();
        assert_eq!(
            all,
            TraceFilter {
                rate: 7,
                ..TraceFilter::default()
            }
        );
        let wanted = Filter {
            host: Some("198.18.0.2".parse().unwrap()),
            port: 443.try_into().ok(),
            protocol: Some(TracedProtocol::Icmp),
            family: Some(4),
            outcomes: vec!["to_backend".to_owned(), "not_ours".to_owned()],
        };
        let filter = filter(&wanted, 1).unwrap();
        assert_eq!(filter.address, address(&[198, 18, 0, 2]));
        assert_eq!(filter.port, 443u16.to_be());
        assert_eq!((filter.protocol, filter.version), (TraceFilter::ICMP, 4));
        let bits = 1 << Outcome::ToBackend as u64 | 1 << Outcome::NotOurs as u64;
        assert_eq!(filter.outcomes, bits);
    }

    #[test]
    fn what_cannot_be_filtered_for_is_named() {
        let outcome = Filter {
            outcomes: vec!["nonsense".to_owned()],
            ..Filter::default()
        };
        let family = Filter {
            family: Some(5),
            ..Filter::default()
        };
        let said = |wanted| filter(&wanted, 1).unwrap_err().to_string();
        assert!(said(outcome).contains("there is no outcome \"nonsense\""));
        assert!(said(family).contains("family 5: there are 4 and 6"));
    }

    #[test]
    fn a_packet_is_told_by_its_beginning() {
        let frame = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([198, 18, 0, 2], [203, 0, 113, 10], 64)
            .tcp(40_000, 443, 1, 1);
        let mut bytes = Vec::new();
        frame.write(&mut bytes, &[7; 1000]).unwrap();
        let mut notes = Notes::EMPTY;
        notes.length = bytes.len() as u32;
        notes.interface_index = 5;
        notes.time = 1_000;
        notes.head.copy_from_slice(&bytes[..HEAD]);
        notes.count = 1;
        notes.steps[0] = Step {
            what: Decision::Outcome as u64,
            first: Outcome::ToBackend as u64,
            second: 5,
        };
        let traced = traced(&Site::default(), &notes, Duration::from_secs(1)).unwrap();
        assert_eq!(traced.time, 1_000_001_000);
        assert_eq!(
            traced.packet,
            "TCP 198.18.0.2:40000 → 203.0.113.10:443, no flags, 1040 bytes"
        );
        assert_eq!(traced.head.len(), 2 * HEAD);
        assert_eq!((&*traced.outcome, &*traced.action), ("to_backend", "transmit"));
        notes.interface_index = 6;
        let elsewhere = super::traced(&Site::default(), &notes, Duration::ZERO).unwrap();
        assert_eq!(elsewhere.action, "redirect");
    }

    #[test]
    fn the_kernels_clock_began_in_the_past() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(booted() <= now);
    }
}
