//! Addresses and ports as people read them, IPv6 in brackets where a port follows; the same in listings, logs and metrics.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use super::Ports;

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(port) => write!(f, "{port}"),
            Self::Range(all) if *all == (1..=u16::MAX) => f.write_str("any"),
            Self::Range(ports) => write!(f, "{}-{}", ports.start(), ports.end()),
        }
    }
}

/// What clients connect to: `203.0.113.10:443`, `[2001:db8::10]:8000-8999`, `203.0.113.10:any`.
pub fn listener(vip: IpAddr, ports: &Ports) -> String {
    match vip {
        IpAddr::V4(vip) => format!("{vip}:{ports}"),
        IpAddr::V6(vip) => format!("[{vip}]:{ports}"),
    }
}

/// Where a backend listens: `198.18.1.2:443`, `[2001:db8::2]:443`; without a port, behind a service of several, `198.18.1.2`,
/// `2001:db8::2`.
pub fn endpoint(address: IpAddr, port: Option<NonZeroU16>) -> String {
    match port {
        Some(port) => SocketAddr::new(address, port.get()).to_string(),
        None => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_only_where_a_port_follows() {
        let (v4, v6): (IpAddr, IpAddr) = ("203.0.113.10".parse().unwrap(), "2001:db8::10".parse().unwrap());
        let port = NonZeroU16::new(443);
        let one = Ports::One(port.unwrap());
        assert_eq!(listener(v4, &one), "203.0.113.10:443");
        assert_eq!(listener(v6, &one), "[2001:db8::10]:443");
        assert_eq!(
            listener(v6, &Ports::Range(8000..=8999)),
            "[2001:db8::10]:8000-8999"
        );
        assert_eq!(listener(v4, &Ports::Range(1..=65535)), "203.0.113.10:any");
        assert_eq!(endpoint(v6, port), "[2001:db8::10]:443");
        assert_eq!(endpoint(v6, None), "2001:db8::10");
        assert_eq!(endpoint(v4, None), "203.0.113.10");
    }
}
