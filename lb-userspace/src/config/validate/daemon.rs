//! `[daemon]`.

use std::os::unix::ffi::OsStrExt;

use toml::Spanned;

use crate::config::section::{Check, Section};
use crate::config::written::{self, Table};
use crate::config::{Daemon, XdpMode, limits, rules};

pub(super) fn daemon(
    check: &mut Check<'_>,
    given: Option<&Spanned<Table<written::Daemon>>>,
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
    let state_directory = section.path("state_directory", &given.state_directory);
    Some(Daemon {
        xdp_mode: section.word("xdp_mode", &given.xdp_mode).unwrap_or(XdpMode::Auto),
        max_connections: section
            .number(
                "max_connections",
                &given.max_connections,
                limits::MAX_CONNECTIONS,
                "max_connections",
            )
            .unwrap_or(1_000_000),
        socket: socket.unwrap_or_else(|| "/run/lb/lbd.sock".into()),
        state_directory: state_directory.unwrap_or_else(|| "/var/lib/lb".into()),
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
