//! `[daemon]`.

use std::os::unix::ffi::OsStrExt;

use toml::Spanned;

use crate::config::host::plain;
use crate::config::section::{Check, Section};
use crate::config::written::{self, Table};
use crate::config::{Daemon, XdpMode, limits, rules};

/// `full_nat_ports`, if they are needed.
const DEFAULT_FULL_NAT_PORTS: u32 = 262_144;

/// `full_nat`: whether there is a service that needs ports of the balancer's own.
pub(super) fn daemon(
    check: &mut Check<'_>,
    given: Option<&Spanned<Table<written::Daemon>>>,
    full_nat: bool,
) -> Option<Daemon> {
    let Some(given) = given else {
        let what = "write a table headed [daemon] with the interfaces to attach to";
        check.section(String::new(), 0..0).missing("daemon", what);
        return None;
    };
    let section = &mut check.section("daemon".to_owned(), given.span());
    let given = given.get_ref();

    section.need(
        "interfaces",
        &given.interfaces,
        "list the interfaces to attach to, such as [\"eth0\"]",
    );
    let exists = section.interface_rule();
    let interfaces = section.list("interfaces", &given.interfaces, "interface", exists);
    let metrics = section.text("metrics", &given.metrics, rules::endpoint);
    let socket = socket(section, given);
    let socket_group = group(section, given);
    let state_directory = section.path("state_directory", &given.state_directory);
    let pin_directory = section.path("pin_directory", &given.pin_directory);
    let mut entries = |key: &str, given| section.number::<u32>(key, given, limits::MAX_CONNECTIONS, key);
    let max_connections = entries("max_connections", &given.max_connections).unwrap_or(1_000_000);
    let max_wide_connections = entries("max_wide_connections", &given.max_wide_connections);
    let full_nat_ports = entries("full_nat_ports", &given.full_nat_ports);
    let seed = section.number("selection_seed", &given.selection_seed, limits::SEED, "a seed");
    Some(Daemon {
        xdp_mode: section.word("xdp_mode", &given.xdp_mode).unwrap_or(XdpMode::Auto),
        max_connections,
        max_wide_connections: max_wide_connections.unwrap_or((max_connections / 8).max(1024)),
        full_nat_ports: full_nat_ports.unwrap_or(if full_nat { DEFAULT_FULL_NAT_PORTS } else { 0 }),
        selection_seed: seed.unwrap_or(0),
        socket: socket.unwrap_or_else(|| "/run/lb/lbd.sock".into()),
        socket_group,
        state_directory: state_directory.unwrap_or_else(|| "/var/lib/lb".into()),
        pin_directory: pin_directory.unwrap_or_else(|| Daemon::PIN_DIRECTORY.into()),
        metrics,
        interfaces: interfaces?,
    })
}

fn socket(section: &mut Section<'_, '_>, given: &written::Daemon) -> Option<std::path::PathBuf> {
    let path = section.path("socket", &given.socket)?;
    let typed = given.socket.as_ref()?;
    if path.as_os_str().as_bytes().len() > limits::SOCKET_PATH {
        let what = format!("a socket's whole path is at most {} bytes", limits::SOCKET_PATH);
        section.wrong("socket", typed.span(), what);
    } else if typed.get_ref().ends_with('/') {
        section.wrong("socket", typed.span(), "name the socket itself, not a directory");
    }
    Some(path)
}

/// A group by its name or its number.
fn group(section: &mut Section<'_, '_>, given: &written::Daemon) -> Option<u32> {
    let typed = given.socket_group.as_ref()?;
    let name = typed.get_ref();
    let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    let told = match section.check.host.group(name) {
        Ok(Some(group)) => Ok(group),
        // The last number is none: it tells chown(2) to change nothing.
        Ok(None) if is_number => match name.parse() {
            Ok(group) if group != u32::MAX => Ok(group),
            _ => Err("a group's number is 0 to 4294967294".to_owned()),
        },
        Ok(None) => Err(format!(
            "there is no such group; make it (`groupadd --system {}`), or name another one, or its number",
            if name.is_empty() { "NAME" } else { name }
        )),
        Err(error) => Err(format!("cannot look this group up: {}", plain(&error))),
    };
    told.map_err(|what| section.wrong("socket_group", typed.span(), what))
        .ok()
}
