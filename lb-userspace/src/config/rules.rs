//! What single values must look like. Each rule is pure and says what is wrong and what is allowed, so that the API
//! refuses with the same words as the file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::RangeInclusive;

use super::{Mode, Ports};

/// The name of a service, a backend or a web server.
///
/// # Errors
/// What is allowed, in words.
pub fn name(text: &str) -> Result<(), String> {
    let right = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !(1..=63).contains(&text.len()) || !text.bytes().all(right) {
        return Err("a name is 1 to 63 letters, digits, dots, underscores and hyphens".to_owned());
    }
    Ok(())
}

/// A service's address.
///
/// # Errors
/// What is allowed, in words.
pub fn vip(text: &str) -> Result<IpAddr, String> {
    let vip = address(text)?;
    unicast(vip)?;
    Ok(vip)
}

/// A backend's address: of the VIP's family, or, in a tunnel, of that of the tunnel's near end (`source`).
///
/// # Errors
/// What is wrong with it, in words.
pub fn backend_address(
    address: IpAddr,
    vip: IpAddr,
    mode: Mode,
    source: Option<IpAddr>,
) -> Result<(), String> {
    let tunnels = mode == Mode::Ipip && vip.is_ipv4();
    let wrong = |like: &str, other: IpAddr| {
        Err(format!(
            "a backend's address must be {} like the {like} {other}",
            family(other)
        ))
    };
    match source {
        Some(source) if address == source => {
            return Err("this is the service's source_address; name the server's own address".to_owned());
        }
        Some(source) if tunnels && address.is_ipv4() != source.is_ipv4() => {
            return wrong("source_address", source);
        }
        _ if !tunnels && address.is_ipv4() != vip.is_ipv4() => return wrong("VIP", vip),
        _ => {}
    }
    unicast(address)
}

/// The address that a service's connections or tunnels to its backends come from.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn source_address(text: &str, vip: Option<IpAddr>, mode: Mode) -> Result<IpAddr, String> {
    let source = address(text)?;
    unicast(source)?;
    if let Some(vip) = vip
        && (mode != Mode::Ipip || vip.is_ipv6())
        && source.is_ipv4() != vip.is_ipv4()
    {
        return Err(format!("must be {} like the VIP {vip}", family(vip)));
    }
    Ok(source)
}

/// The port of a backend: what is given, or else the service's; none behind a service of several.
///
/// # Errors
/// What is wrong with it, in words.
pub fn backend_port(
    given: Option<NonZeroU16>,
    ports: &Ports,
    mode: Mode,
) -> Result<Option<NonZeroU16>, String> {
    match (given, ports) {
        (None, Ports::Range(_)) => Ok(None),
        (Some(_), Ports::Range(_)) => {
            Err("the service has several ports, and its backends have the same ones; take it out".to_owned())
        }
        (None, Ports::One(port)) => Ok(Some(*port)),
        (Some(given), Ports::One(port)) if given != *port && !mode.maps_ports() => Err(format!(
            "mode {mode} leaves ports as they are, so it must be the service's, {port}; take it out, or use mode nat \
             or full-nat"
        )),
        (Some(given), Ports::One(_)) => Ok(Some(given)),
    }
}

/// Ports in a row, `8000-8999`.
fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port @ 1..) if text.bytes().all(|byte| byte.is_ascii_digit()) => Some(port),
        _ => None,
    };
    let (first, last) = text
        .split_once('-')
        .and_then(|(first, last)| Some((port(first)?, port(last)?)))
        .ok_or_else(|| "ports are written FIRST-LAST, such as \"8000-8999\", each 1 to 65535".to_owned())?;
    if first > last {
        return Err(format!(
            "the first port is greater than the last; write \"{last}-{first}\""
        ));
    }
    Ok(first..=last)
}

/// The ports of a service of several: `8000-8999` or `any`.
pub(super) fn service_ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    if text == "any" {
        return Ok(1..=u16::MAX);
    }
    let ports = port_range(text).map_err(|what| format!("{what}; or \"any\""))?;
    if ports.start() == ports.end() {
        return Err(format!("that is a single port; write port = {}", ports.start()));
    }
    Ok(ports)
}

/// The ports that `full-nat` connections come from: `10240-26623`.
pub(super) fn source_ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    port_range(text)
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// An IP address alone.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| {
        "not an IP address; write one such as \"198.18.1.2\" or \"2001:db8::2\", without port, brackets, prefix length \
         or host name"
            .to_owned()
    })
}

fn unicast(address: IpAddr) -> Result<(), String> {
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Err(format!(
            "an IPv4 address in IPv6 notation, which no packet carries; write {v4}"
        ));
    }
    let what = if address.is_loopback() {
        "a loopback address"
    } else if address.is_multicast() {
        "a multicast address"
    } else if address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        "the broadcast address"
    } else if address.is_unspecified() {
        "the unspecified address"
    } else if matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 0) {
        "not an address of a host (0.0.0.0/8)"
    } else if matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        "a link-local address, which is another host's on every link"
    } else {
        return Ok(());
    };
    Err(format!(
        "{what}; use a unicast address that other hosts can reach"
    ))
}

/// Address and port of a server to connect to.
pub(super) fn server(text: &str) -> Result<SocketAddr, String> {
    let server = endpoint(text)?;
    if server.ip().is_unspecified() || server.ip().is_multicast() {
        return Err("nothing can be connected to there; name the server's own address".to_owned());
    }
    Ok(server)
}

/// Address and port, to connect to or to listen on.
pub(super) fn endpoint(text: &str) -> Result<SocketAddr, String> {
    let endpoint: SocketAddr = text.parse().map_err(|_| {
        "not an address with a port; write \"192.0.2.1:443\" or \"[2001:db8::1]:443\", no host names"
            .to_owned()
    })?;
    if endpoint.port() == 0 {
        return Err("a port is 1 to 65535".to_owned());
    }
    Ok(endpoint)
}

/// A DNS name, in ASCII. Underscores are let through: some networks have them and TLS stacks take them.
pub(super) fn dns_name(text: &str) -> Result<(), String> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(letter)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !text.is_ascii() {
        return Err("a DNS name is written in ASCII; use the xn-- form of this one".to_owned());
    }
    let last = text.rsplit('.').next().unwrap_or(text);
    let ends_in_a_number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    if text.len() > 253 || !text.split('.').all(label) || ends_in_a_number {
        return Err("not a DNS name such as \"www.example.com\"".to_owned());
    }
    Ok(())
}

/// A name of the site: a DNS name, the first label of which may be `*`. Names are compared and kept in lower case.
pub(super) fn site_name(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix("*.").unwrap_or(text);
    dns_name(bare)?;
    Ok(text.to_ascii_lowercase())
}

/// The name that a probe expects in a certificate: a DNS name or an IP address.
pub(super) fn server_name(text: &str) -> Result<String, String> {
    if text.parse::<IpAddr>().is_err() {
        dns_name(text).map_err(|wrong| format!("{wrong}, nor an IP address"))?;
    }
    Ok(text.to_owned())
}

/// A Host header: a DNS name or an IP address (IPv6 in brackets), with or without a port.
pub(super) fn host_header(text: &str) -> Result<String, String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_is_right = port.is_none_or(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    let host_is_right = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok() || dns_name(host).is_ok(),
    };
    if !port_is_right || !host_is_right {
        return Err(
            "a Host header is a DNS name or an IP address (IPv6 in brackets), with or without a port, such as \
             \"www.example.com\" or \"192.0.2.1:8080\""
                .to_owned(),
        );
    }
    Ok(text.to_owned())
}

/// The path that an HTTP probe asks for, query included.
pub(super) fn probe_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err("a path begins with /".to_owned());
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains('#') {
        return Err(
            "a path has no spaces, control characters, # or letters beyond ASCII; write them as %20, %23, …"
                .to_owned(),
        );
    }
    if text.len() > 2048 {
        return Err("a path is at most 2048 bytes".to_owned());
    }
    Ok(text.to_owned())
}

/// The directory on a web server that the hand-off owns: it ends up in shell scripts and is replaced as a whole.
pub(super) fn directory(text: &str) -> Result<String, String> {
    let right = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
    let Some(below_root) = text.strip_prefix('/') else {
        return Err("must be absolute, such as \"/etc/nginx/lb\"".to_owned());
    };
    if !text.bytes().all(right) {
        return Err("only letters, digits, dots, underscores, hyphens and slashes are allowed".to_owned());
    }
    if below_root.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("no final slash, no // and no . or .. on the way, please".to_owned());
    }
    if !below_root.contains('/') || text == "/etc/nginx" {
        return Err(
            "the hand-off owns this directory; give it one of its own, such as \"/etc/nginx/lb\"".to_owned(),
        );
    }
    Ok(text.to_owned())
}

/// A command or a script: something, and nothing that cannot be passed to a process.
pub(super) fn command(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.contains('\0') {
        return Err("must not be empty or contain a zero byte".to_owned());
    }
    Ok(text.to_owned())
}

/// As `command`, on one line.
pub(super) fn one_line_command(text: &str) -> Result<String, String> {
    if text.chars().any(char::is_control) {
        return Err("must be one line".to_owned());
    }
    command(text)
}
