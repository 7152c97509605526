//! What hosts and the balancer have counted.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use lb::api::types::Counters;
use xtask::lab::{Lab, Node};

use super::lbctl::json;

/// Nothing that the balancer sent was wrong to those who got it, and nothing impossible happened.
pub(crate) fn nothing_wrong(lab: &Lab) -> Result<()> {
    for node in ENDS {
        let errors = host(lab, node)?.get("Tcp InErrs").copied();
        ensure!(errors == Some(0), "{node}: Tcp InErrs {errors:?}");
    }
    nothing_damaged(lab)
}

/// The same where packets may be lost: of TCP's errors only wrong checksums count, and not a handshake's last packet that is
/// sent again.
pub(crate) fn nothing_damaged(lab: &Lab) -> Result<()> {
    for node in ENDS {
        for (name, count) in host(lab, node)? {
            ensure!(
                !name.ends_with("InCsumErrors") || count == 0,
                "{node}: {name} {count}"
            );
        }
    }
    for (name, packets) in outcomes(lab)? {
        let is_wrong = ["impossible", "malformed_ip", "malformed_transport"].contains(&&*name);
        ensure!(!is_wrong || packets == 0, "{name}: {packets} packets");
    }
    Ok(())
}

/// Where packets go that the balancer has changed.
const ENDS: [Node; 3] = [Node::Client, Node::Web1, Node::Web2];

/// A host's own counters of IP, TCP and UDP by their names, such as `Tcp InCsumErrors` and `Udp6InCsumErrors`.
pub(crate) fn host(lab: &Lab, node: Node) -> Result<BTreeMap<String, u64>> {
    let (ipv4, ipv6) = lab.namespace(node).run(|| {
        let read = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
        Ok((read("snmp")?, read("snmp6")?))
    })?;
    let mut counters = BTreeMap::new();
    let lines: Vec<_> = ipv4.lines().collect();
    for [names, values] in lines.as_chunks::<2>().0 {
        let (protocol, names) = names.split_once(": ").context("a line without a protocol")?;
        let (_, values) = values.split_once(": ").context("a line without a protocol")?;
        for (name, value) in names.split(' ').zip(values.split(' ')) {
            // Of what may be negative nothing is a counter.
            counters.insert(format!("{protocol} {name}"), value.parse().unwrap_or(0));
        }
    }
    for line in ipv6.lines() {
        let (name, value) = line
            .split_once(char::is_whitespace)
            .context("a line without a value")?;
        counters.insert(name.to_owned(), value.trim().parse()?);
    }
    Ok(counters)
}

/// The balancer's outcomes with how many packets ended so.
pub(crate) fn outcomes(lab: &Lab) -> Result<BTreeMap<String, u64>> {
    let counters: Counters = json(lab, &["counters"])?;
    Ok(counters
        .outcomes
        .into_iter()
        .map(|outcome| (outcome.name, outcome.packets))
        .collect())
}

/// How many packets ended with this outcome.
pub(crate) fn outcome(lab: &Lab, name: &str) -> Result<u64> {
    let outcomes = outcomes(lab)?;
    outcomes
        .get(name)
        .copied()
        .with_context(|| format!("there is no outcome {name}"))
}
