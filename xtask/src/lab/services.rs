//! Services for `lb.toml`: those of the site, and more for tests.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::transfers::TRANSFER_PORT;
use super::{LabOptions, Mode, Node, Topology, VIP, VIP6};
use crate::transfer::Protocol;

/// What is behind a service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backends {
    /// The web servers, probed by TCP.
    #[default]
    WebServers,
    /// The web servers, not probed: nobody need listen.
    UnprobedWebServers,
    /// The sinks beside them, not probed.
    Sinks,
}

/// A service on the lab's balancer.
#[derive(Debug, Clone)]
pub struct ServiceText {
    /// Its name.
    pub name: String,
    /// What clients connect to; among [`LabOptions::vips`], or nothing leads there.
    pub vip: IpAddr,
    /// The port that clients connect to.
    pub port: u16,
    /// The last one of several in a row, beginning with `port`. Default: one port.
    pub last_port: Option<u16>,
    /// The protocol.
    pub protocol: Protocol,
    /// How packets get to the web servers, which must be prepared for it ([`LabOptions::mode`]).
    pub mode: Mode,
    /// Whether backends are named by their IPv6 addresses. Default: as the VIP.
    pub ipv6_backends: bool,
    /// What is behind it. Default: the web servers.
    pub backends: Backends,
    /// Another port of the backends than the service's.
    pub backend_port: Option<u16>,
    /// More lines of each `[[service.backend]]`, such as `backup = true`, each with its end. Default: none.
    pub backend_lines: [&'static str; Node::WEB.len()],
    /// How often they are probed and what that says, as lines of `[service.health]`; empty: as everybody is who does not say.
    /// Default: so that what is down is noticed within about a second.
    pub pace: &'static str,
    /// More lines of `[[service]]`, such as `scheduler = "maglev"`, each with its end.
    pub lines: String,
}

impl ServiceText {
    /// A service with nothing special.
    pub fn new(name: &str, vip: impl Into<IpAddr>, port: u16, protocol: Protocol, mode: Mode) -> Self {
        let vip = vip.into();
        Self {
            name: name.to_owned(),
            vip,
            port,
            last_port: None,
            protocol,
            mode,
            ipv6_backends: vip.is_ipv6(),
            backends: Backends::default(),
            backend_port: None,
            backend_lines: [""; Node::WEB.len()],
            pace: PACE,
            lines: String::new(),
        }
    }

    /// Its TOML; `health` is what is in `[service.health]`.
    pub(super) fn toml(&self, topology: Topology, health: &str) -> String {
        let Self { name, vip, port, .. } = self;
        let ports = match self.last_port {
            None => format!("port = {port}"),
            Some(last) => format!("ports = \"{port}-{last}\""),
        };
        let mut text =
            format!("[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\n{ports}\nmanage_vip = \"uplink\"\n");
        // Into a string, which does not fail.
        if self.protocol != Protocol::Tcp {
            let _ = writeln!(text, "protocol = \"{}\"", self.protocol.name());
        }
        if self.mode != Mode::Nat {
            let _ = writeln!(text, "mode = \"{}\"", self.mode.name());
        }
        if matches!(self.mode, Mode::FullNat | Mode::Ipip) {
            let (ipv4, ipv6) = (topology.address(Node::Lb), topology.address6(Node::Lb));
            let _ = writeln!(text, "source_address = \"{}\"", self.of_family(ipv4, ipv6));
        }
        text += &self.lines;
        let _ = write!(text, "\n[service.health]\n{health}");
        for (node, lines) in Node::WEB.into_iter().zip(self.backend_lines) {
            let (prefix, (ipv4, ipv6)) = match self.backends {
                Backends::WebServers | Backends::UnprobedWebServers => {
                    ("", (topology.address(node), topology.address6(node)))
                }
                Backends::Sinks => ("sink-", topology.sink(node)),
            };
            let address = self.of_family(ipv4, ipv6);
            let _ = write!(
                text,
                "\n[[service.backend]]\nname = \"{prefix}{node}\"\naddress = \"{address}\"\n"
            );
            if let Some(port) = self.backend_port {
                let _ = writeln!(text, "port = {port}");
            }
            text += lines;
        }
        text.push('\n');
        text
    }

    /// Whether a backend has a port of its own that speaks TCP.
    fn backends_can_be_probed(&self) -> bool {
        self.protocol == Protocol::Tcp && self.last_port.is_none()
    }

    fn of_family(&self, ipv4: Ipv4Addr, ipv6: Ipv6Addr) -> IpAddr {
        if self.ipv6_backends {
            ipv6.into()
        } else {
            ipv4.into()
        }
    }
}

/// How fast a stopped server is noticed in the lab.
pub(super) const PACE: &str =
    "interval = \"500ms\"\ntimeout = \"300ms\"\njitter = \"50ms\"\nrise = 2\nfall = 2\n";

impl LabOptions {
    /// Adds a service to `lb.toml`; the topology must have been chosen.
    pub fn add_service(&mut self, service: &ServiceText) {
        let health = match service.backends {
            Backends::WebServers if service.backends_can_be_probed() => {
                format!("type = \"tcp\"\n{}", service.pace)
            }
            Backends::WebServers => format!("type = \"tcp\"\nport = {TRANSFER_PORT}\n{}", service.pace),
            Backends::UnprobedWebServers | Backends::Sinks => "type = \"none\"\n".to_owned(),
        };
        let text = service.toml(self.topology, &health);
        self.more_services += &text;
    }

    /// Adds services in front of the web servers' transfer service, in the mode that these are prepared for: `transfer-tcp`,
    /// `transfer-udp` ([`VIP`]), `transfer6-tcp` and `transfer6-udp` ([`VIP6`]), all on port [`TRANSFER_PORT`]. Topology and
    /// mode must have been chosen.
    pub fn add_transfer_services(&mut self) {
        for (family, vip) in [("", IpAddr::from(VIP)), ("6", IpAddr::from(VIP6))] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let name = format!("transfer{family}-{}", protocol.name());
                self.add_service(&ServiceText::new(&name, vip, TRANSFER_PORT, protocol, self.mode));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::tests::options;
    use super::*;

    #[test]
    fn what_a_mode_needs_is_written() {
        let mut options = options();
        options.mode = Mode::Ipip;
        let mut service = ServiceText::new("four-in-six", VIP, 9001, Protocol::Udp, Mode::Ipip);
        service.ipv6_backends = true;
        service.lines = "scheduler = \"maglev\"\n".to_owned();
        options.add_service(&service);
        let wanted = r#"[[service]]
name = "four-in-six"
vip = "203.0.113.10"
port = 9001
manage_vip = "uplink"
protocol = "udp"
mode = "ipip"
source_address = "2001:db8:100::2"
scheduler = "maglev"

[service.health]
type = "tcp"
port = 9000
interval = "500ms"
timeout = "300ms"
jitter = "50ms"
rise = 2
fall = 2

[[service.backend]]
name = "web1"
address = "2001:db8:1::2"

[[service.backend]]
name = "web2"
address = "2001:db8:2::2"

"#;
        assert_eq!(options.more_services, wanted);
    }
}
