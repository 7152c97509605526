//! VIPs that are put on an interface, or taken off.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Subject;
use super::draft::Drafts;
use crate::desired_state::DesiredService;

/// A step for each managed VIP that comes, goes or changes its interface. Returns those that are taken off while services that
/// stay need them.
pub(super) fn steps(before: &[DesiredService], after: &[DesiredService], drafts: &mut Drafts) -> Vec<IpAddr> {
    let (was, is) = (managed(before), managed(after));
    let served: BTreeSet<_> = after.iter().map(|desired| desired.service.vip).collect();
    let mut taken_off = Vec::new();
    for (vip, interface) in &is {
        let change = match was.get(vip) {
            Some(known) if known == interface => continue,
            Some(known) => format!("moves from {known} to {interface}"),
            None => format!("is put on {interface}"),
        };
        drafts.add(Subject::Vip, &vip.to_string(), change);
    }
    for (vip, interface) in was.iter().filter(|(vip, _)| !is.contains_key(*vip)) {
        let name = vip.to_string();
        if served.contains(vip) {
            drafts.add(Subject::Vip, &name, format!("is taken off {interface}"));
            taken_off.push(**vip);
        } else {
            let change = format!("stays on {interface} until the last connection to it has ended");
            drafts.add(Subject::Vip, &name, change);
        }
    }
    taken_off
}

fn managed(services: &[DesiredService]) -> BTreeMap<&IpAddr, &str> {
    services
        .iter()
        .filter_map(|it| Some((&it.service.vip, it.service.manage_vip.as_deref()?)))
        .collect()
}
