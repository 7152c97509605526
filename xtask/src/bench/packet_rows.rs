//! The names of the rows of packets, for the harness that takes the samples and for the targets.

use super::names::row::flows;

/// A packet of a connection that is known, on its way to the backend.
pub const ESTABLISHED: &str = "established";
/// A packet of a connection that is known, on its way to the client.
pub const REPLY: &str = "reply";
/// The first packet of a connection.
pub const NEW: &str = "new connection";
/// A packet that is not the balancer's business.
pub const NOT_OURS: &str = "not ours";
/// The row of the program that does nothing.
pub const BARE: &str = "bare";

/// More flows than a processor's nearest caches hold.
pub const MANY: u32 = 1 << 16;
/// As many as the table of a million has room for.
pub const MOST: u32 = 1 << 20;
/// As many as the table of sixteen million has, and more than ten million.
pub const HUGE: u32 = 10 << 20;
/// So many clients that each connection is a new one.
pub const SOURCES: u32 = 1 << 24;

/// `IPv4, TCP, established, 64k flows`.
pub fn row(family: &str, protocol: &str, what: &str, count: u32) -> String {
    format!("{family}, {protocol}, {what}, {}", of_flows(what, count))
}

/// The row that prices a number of services and of backends: IPv4 and TCP, with flows spread over all of them.
pub fn sized_row(what: &str, count: u32, services: u32, backends: u32) -> String {
    format!(
        "IPv4, TCP, {what}, {}, services: {services}, backends: {backends}",
        of_flows(what, count)
    )
}

/// The row that prices features: IPv4, one at a time.
pub fn feature_row(protocol: &str, what: &str, count: u32) -> String {
    format!("features: {}", row("IPv4", protocol, what, count))
}

fn of_flows(what: &str, count: u32) -> String {
    if what == NEW {
        flows(count).replace("flows", "sources")
    } else {
        flows(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_named() {
        assert_eq!(
            row("IPv4", "TCP", ESTABLISHED, MANY),
            "IPv4, TCP, established, 64k flows"
        );
        assert_eq!(
            row("IPv6", "UDP", NEW, SOURCES),
            "IPv6, UDP, new connection, 16M sources"
        );
        assert_eq!(
            sized_row(ESTABLISHED, MANY, 1000, 2),
            "IPv4, TCP, established, 64k flows, services: 1000, backends: 2"
        );
    }
}
