//! Which elements of the table of the balancer's own ports belong to which `full-nat` backend.
//!
//! An element stands for one port of one own address towards one server, so that no two connections can come to look the
//! same to it. Backends that lead to one server from the same address and ports, such as one that is leaving and the one that
//! takes its place, therefore share their elements.

use std::net::{IpAddr, SocketAddr};

use crate::config::Protocol;
use crate::dataplane::PortLease;

/// Towards which server, from which address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Direction {
    /// The balancer's own address.
    pub source: IpAddr,
    /// The server; port 0: that of the packet.
    pub endpoint: SocketAddr,
    /// The transport protocol.
    pub protocol: Protocol,
}

/// Why a backend cannot have its own ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoLease {
    /// All elements are given away.
    #[error(
        "no room for {ports} own ports towards {endpoint}: daemon.full_nat_ports = {room} is in use, connections that are \
         still ending included; raise it and restart lbd, give the service fewer source_ports, or try again later"
    )]
    Full {
        /// Ports asked for.
        ports: u16,
        /// The server.
        endpoint: SocketAddr,
        /// Elements that there are.
        room: u32,
    },
    /// Others have some of the ports, and not only those.
    #[error(
        "source_ports {first}-{last} towards {endpoint} overlap with {}-{}, from where connections are still under way; \
         choose ports that lie within those or outside, or try again later",
        taken.first_port,
        last_port(taken)
    )]
    Overlap {
        /// The first port asked for.
        first: u16,
        /// The last.
        last: u16,
        /// The server.
        endpoint: SocketAddr,
        /// What others have.
        taken: PortLease,
    },
}

fn last_port(lease: &PortLease) -> u16 {
    lease.first_port.saturating_add(lease.ports.saturating_sub(1))
}

/// Leases ports `first` to `last` in a direction, given the leases that there are and `room` elements.
///
/// # Errors
/// There is no room, or others have some of the ports.
pub(super) fn lease(
    direction: Direction,
    (first, last): (u16, u16),
    given: &[(Direction, PortLease)],
    room: u32,
) -> Result<PortLease, NoLease> {
    let wanted = PortLease {
        first_port: first,
        // 65,536 ports cannot be asked for: 0 is none.
        ports: last.saturating_sub(first).saturating_add(1),
        first_element: 0,
    };
    let same = given.iter().filter(|(theirs, _)| *theirs == direction);
    let overlapping = same
        .map(|(_, lease)| lease)
        .find(|lease| lease.first_port <= last && first <= last_port(lease));
    if let Some(taken) = overlapping {
        if taken.first_port <= first && last <= last_port(taken) {
            let first_element = taken.first_element + u32::from(first - taken.first_port);
            return Ok(PortLease {
                first_element,
                ..wanted
            });
        }
        return Err(NoLease::Overlap {
            first,
            last,
            endpoint: direction.endpoint,
            taken: *taken,
        });
    }
    let first_element = first_gap(given, u32::from(wanted.ports), room).ok_or(NoLease::Full {
        ports: wanted.ports,
        endpoint: direction.endpoint,
        room,
    })?;
    Ok(PortLease {
        first_element,
        ..wanted
    })
}

/// Where so many elements in a row begin that nobody has.
fn first_gap(given: &[(Direction, PortLease)], elements: u32, room: u32) -> Option<u32> {
    let mut taken: Vec<(u32, u32)> = given
        .iter()
        .map(|(_, lease)| (lease.first_element, lease.first_element + u32::from(lease.ports)))
        .collect();
    taken.sort_unstable();
    let mut free = 0;
    for (start, end) in taken {
        if free + elements <= start {
            break;
        }
        free = free.max(end);
    }
    (free + elements <= room).then_some(free)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn towards(server: u8) -> Direction {
        Direction {
            source: [198, 18, 0, 1].into(),
            endpoint: SocketAddr::from(([198, 18, 1, server], 443)),
            protocol: Protocol::Tcp,
        }
    }

    #[test]
    fn leases_lie_one_after_the_other_and_gaps_are_filled() {
        let mut given = Vec::new();
        for server in 1..=3 {
            let lease = lease(towards(server), (10_000, 10_099), &given, 300).unwrap();
            assert_eq!(
                (lease.first_port, lease.ports, lease.first_element),
                (10_000, 100, (u32::from(server) - 1) * 100)
            );
            given.push((towards(server), lease));
        }
        assert_eq!(
            lease(towards(4), (10_000, 10_000), &given, 300),
            Err(NoLease::Full {
                ports: 1,
                endpoint: towards(4).endpoint,
                room: 300
            })
        );
        given.remove(1);
        assert!(lease(towards(4), (1, 101), &given, 300).is_err());
        assert_eq!(
            lease(towards(4), (1, 100), &given, 300).unwrap().first_element,
            100
        );
    }

    #[test]
    fn the_same_ports_towards_the_same_server_are_the_same_elements() {
        let first = lease(towards(1), (10_000, 10_099), &[], 100).unwrap();
        let given = [(towards(1), first)];
        assert_eq!(lease(towards(1), (10_000, 10_099), &given, 100), Ok(first));
        assert_eq!(
            lease(towards(1), (10_010, 10_019), &given, 100),
            Ok(PortLease {
                first_port: 10_010,
                ports: 10,
                first_element: 10
            })
        );
        let error = lease(towards(1), (10_050, 10_150), &given, 1000)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("10050-10150") && error.contains("10000-10099"),
            "{error}"
        );
        let udp = Direction {
            protocol: Protocol::Udp,
            ..towards(1)
        };
        assert_eq!(
            lease(udp, (10_050, 10_150), &given, 1000).unwrap().first_element,
            100
        );
    }

    proptest! {
        /// Whatever comes and goes: an element is one port towards one server, and stays below the room.
        #[test]
        fn an_element_means_one_thing(
            asked in prop::collection::vec((1u8..5, 1u16..200, 0u16..60, any::<bool>()), 1..40),
        ) {
            let mut given: Vec<(Direction, PortLease)> = Vec::new();
            for (server, first, more, leaves) in asked {
                if let Ok(new) = lease(towards(server), (first, first + more), &given, 500) {
                    prop_assert_eq!((new.first_port, new.ports), (first, more + 1));
                    given.push((towards(server), new));
                }
                if leaves && !given.is_empty() {
                    given.remove(given.len() / 2);
                }
                let mut meaning = std::collections::HashMap::new();
                for (direction, lease) in &given {
                    for offset in 0..lease.ports {
                        let element = lease.first_element + u32::from(offset);
                        prop_assert!(element < 500);
                        let is = (direction.endpoint, lease.first_port + offset);
                        prop_assert_eq!(*meaning.entry(element).or_insert(is), is);
                    }
                }
            }
        }
    }
}
