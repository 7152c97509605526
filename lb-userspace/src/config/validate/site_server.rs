//! `[[site.server]]`.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::num::NonZeroU16;

use super::Across;
use crate::config::section::{Section, title};
use crate::config::{SiteScripts, SiteServer, rules, written};

/// The web servers, at least one.
pub(super) fn servers(
    site: &mut Section<'_, '_>,
    given: &written::Site,
    https_port: NonZeroU16,
    across: &Across,
) -> Option<Vec<SiteServer>> {
    let listed = given.server.as_deref().unwrap_or_default();
    if listed.is_empty() {
        site.missing("server", "name at least one web server, headed [[site.server]]");
    }
    let mut names = HashMap::new();
    let mut addresses = HashSet::new();
    let mut places = HashSet::new();
    let mut servers = Vec::new();
    for (index, given) in listed.iter().enumerate() {
        let name = given.get_ref().name.as_ref().map(|name| name.get_ref().as_str());
        let section = &mut site.inner(&title("server", name, index), given.span());
        let server = server(section, given.get_ref(), &mut names, https_port, across);
        if let Some(server) = &server {
            if !addresses.insert(server.address) {
                section.refuse(format!(
                    "another server of the site has the address {} already",
                    server.address
                ));
            }
            if !places.insert((server.via.clone(), server.directory.clone())) {
                section.refuse(
                    "another server of the site has the same via and directory; they would overwrite one \
                                another",
                );
            }
        }
        servers.push(server);
    }
    servers.into_iter().collect()
}

fn server(
    section: &mut Section<'_, '_>,
    given: &written::SiteServer,
    names: &mut HashMap<String, usize>,
    https_port: NonZeroU16,
    across: &Across,
) -> Option<SiteServer> {
    let name = section.unique_name(&given.name, "server of the site", names);
    let address = match &given.address {
        Some(_) => section.text("address", &given.address, |text| {
            let address = rules::server(text)?;
            if across.vips.contains(&address.ip()) {
                return Err("this is a VIP of this file; name the web server's own address".to_owned());
            }
            Ok(address)
        }),
        None => name
            .as_deref()
            .and_then(|name| address_of_backend(section, name, https_port, across)),
    };
    let via = via(section, given);
    let directory = section.text("directory", &given.directory, rules::directory);
    let nginx = section.text("nginx", &given.nginx, rules::one_line_command);
    let scripts = scripts(section, given);
    Some(SiteServer {
        name: name?,
        address: address?,
        via,
        directory: directory.unwrap_or_else(|| "/etc/nginx/lb".to_owned()),
        nginx: nginx.unwrap_or_else(|| "nginx".to_owned()),
        scripts,
    })
}

/// The address of the backends of this name, with the site's HTTPS port.
fn address_of_backend(
    section: &mut Section<'_, '_>,
    name: &str,
    https_port: NonZeroU16,
    across: &Across,
) -> Option<SocketAddr> {
    let mut addresses = across
        .backends
        .iter()
        .filter(|(backend, _)| backend == name)
        .map(|(_, address)| *address);
    let Some(address) = addresses.next() else {
        let what = "there is no backend of this name to take it from; write address and HTTPS port, such as \
                    \"198.18.1.2:443\"";
        section.missing("address", what);
        return None;
    };
    let address = address?;
    if let Some(other) = addresses.flatten().find(|other| *other != address) {
        let what =
            format!("backends of this name are at {address} and at {other}; write which one, with its port");
        section.missing("address", what);
    }
    Some(SocketAddr::new(address, https_port.get()))
}

/// The command before the script.
fn via(section: &mut Section<'_, '_>, given: &written::SiteServer) -> Vec<String> {
    let Some(typed) = &given.via else {
        return vec!["sh".to_owned(), "-c".to_owned()];
    };
    if typed.get_ref().is_empty() {
        let what = "name the command that runs a script there, such as [\"ssh\", \"root@web1\"]; for this machine \
                    leave via out";
        section.wrong("via", typed.span(), what);
    }
    for word in typed.get_ref() {
        if let Err(what) = rules::command(word.get_ref()) {
            section.wrong("via", word.span(), what);
        }
    }
    typed
        .get_ref()
        .iter()
        .map(|word| word.get_ref().clone())
        .collect()
}

fn scripts(section: &mut Section<'_, '_>, given: &written::SiteServer) -> SiteScripts {
    let Some(given) = &given.scripts else {
        return SiteScripts::default();
    };
    let section = &mut section.inner("scripts", given.span());
    let given = given.get_ref();
    SiteScripts {
        stage: section.text("stage", &given.stage, rules::command),
        test: section.text("test", &given.test, rules::command),
        swap: section.text("swap", &given.swap, rules::command),
        reload: section.text("reload", &given.reload, rules::command),
        restore: section.text("restore", &given.restore, rules::command),
    }
}
