//! What a service may be told to do with its clients: how it chooses their servers, whether pings are answered, and what
//! becomes of connections when no server is left. One lab for all.

mod all_down;
mod ping;
mod schedulers;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_tests::harness::Case;
use xtask::lab::{LabOptions, Mode, ServiceText, Topology, VIP, VIP6};
use xtask::transfer::Protocol;

use crate::support::counted::nothing_damaged;
use crate::support::kind::prepare;
use crate::support::shared::Shared;

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    let lab = Shared::planned("lb-t-policies", |options| {
        prepare(options, Topology::Routed, Mode::Nat);
        options.vips.extend([IpAddr::from(OTHER_VIP), OTHER_VIP6.into()]);
        for family in FAMILIES {
            schedulers::add_services(options, family);
            all_down::add_services(options, family);
        }
        Ok(())
    });
    let mut cases = ping::cases(&lab);
    cases.extend(schedulers::cases(&lab));
    cases.extend(all_down::cases(&lab));
    cases.push(Case::new("policies/nothing_damaged", move || {
        lab.with(|lab| nothing_damaged(lab))
    }));
    cases
}

/// VIPs whose pings are the kernel's.
const OTHER_VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 12);
const OTHER_VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x12);

/// The site's VIP and the other one, of each family.
const FAMILIES: [Vips; 2] = [
    Vips {
        name: "ipv4",
        first: IpAddr::V4(VIP),
        other: IpAddr::V4(OTHER_VIP),
    },
    Vips {
        name: "ipv6",
        first: IpAddr::V6(VIP6),
        other: IpAddr::V6(OTHER_VIP6),
    },
];

/// A family's VIPs.
#[derive(Clone, Copy)]
struct Vips {
    name: &'static str,
    first: IpAddr,
    other: IpAddr,
}

impl Vips {
    /// Adds a service of the first VIP, in front of another port of the servers, with more lines.
    fn add_service(
        self,
        options: &mut LabOptions,
        (name, protocol): (&str, Protocol),
        (port, backend_port): (u16, u16),
        lines: &str,
        backend_lines: [&'static str; 2],
    ) {
        let mut service = ServiceText::new(
            &format!("{name}-{}", self.name),
            self.first,
            port,
            protocol,
            Mode::Nat,
        );
        service.backend_port = Some(backend_port);
        lines.clone_into(&mut service.lines);
        service.backend_lines = backend_lines;
        options.add_service(&service);
    }
}
