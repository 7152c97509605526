//! A lab with everything up, and what is asked of it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb::api::types::{Backend, Service, Status};
use lb_tests::programs;
use xtask::lab::{Lab, LabOptions, Node, wait_for};

use super::lbctl::{self, lbctl};
use super::{measured, wrk};

/// A lab whose keep-alive connections end quickly, so that a drain takes a second or two.
pub(crate) fn up(prefix: &str) -> Result<Lab> {
    let mut options = LabOptions::new(prefix, programs::of_the_lab()?);
    options.keepalive_time = Duration::from_secs(2);
    Lab::up(options)
}

/// `count` verified requests to the VIP, each on its own connection: no failure, and shared exactly like this.
///
/// A client's port whose last connection was reset a moment ago, as `wrk` leaves them, stays with that one's server (a RST may
/// be forged), and opens nothing as the balancer counts it. Where there were such ports, what it did open must be shared
/// like this, to within one.
pub(crate) fn assert_split(lab: &Lab, count: u32, web1: usize, web2: usize) -> Result<()> {
    let before = opened(lab)?;
    let requests = lab.vip_requests(count)?;
    ensure!(requests.failures.is_empty(), "{:?}", requests.failures);
    let split = requests.split();
    let answered = Node::WEB.map(|node| split.get(node.name()).copied().unwrap_or(0));
    if answered == [web1, web2] {
        return Ok(());
    }
    let after = opened(lab)?;
    let opened = [0, 1].map(|web| after[web].saturating_sub(before[web]) as usize);
    let anew = opened[0] + opened[1];
    let is_share = |web: usize, share: usize| {
        let exact = share as f64 * anew as f64 / f64::from(count);
        opened[web] <= answered[web] && (opened[web] as f64 - exact).abs() <= 1.0
    };
    let kept = (count as usize).saturating_sub(anew);
    ensure!(
        anew > 0 && (1..=wrk::CONNECTIONS).contains(&kept) && is_share(0, web1) && is_share(1, web2),
        "{count} requests were shared {split:?}, not {web1} to {web2}; opened: {opened:?}"
    );
    measured(&format!(
        "of {count} requests {anew} opened a connection, shared {opened:?}; the others' ports had one that was reset"
    ));
    Ok(())
}

/// How many connections to the site each server has been given.
fn opened(lab: &Lab) -> Result<[u64; 2]> {
    let site = service(lab, "www")?;
    Ok(Node::WEB.map(|node| {
        let mut backends = site.backends.iter();
        let backend = backends.find(|backend| backend.name == node.name());
        backend.map_or(0, |backend| backend.traffic.opened)
    }))
}

/// All that `lbd` tells of itself.
pub(crate) fn status(lab: &Lab) -> Result<Status> {
    lbctl::json(lab, &["status"])
}

/// A service of that.
pub(crate) fn service(lab: &Lab, name: &str) -> Result<Service> {
    let services = status(lab)?.services;
    let service = services.into_iter().find(|service| service.name == name);
    service.with_context(|| format!("there is no service {name}"))
}

/// A backend of that.
pub(crate) fn backend(lab: &Lab, service: &str, name: &str) -> Result<Backend> {
    find_backend(lab, service, name)?.with_context(|| format!("there is no backend {service}/{name}"))
}

/// A backend of that, if it is there.
pub(crate) fn find_backend(lab: &Lab, service: &str, name: &str) -> Result<Option<Backend>> {
    let backends = self::service(lab, service)?.backends;
    Ok(backends.into_iter().find(|backend| backend.name == name))
}

/// Waits until a backend is in a state.
pub(crate) fn wait_for_backend(
    lab: &Lab,
    service: &str,
    name: &str,
    timeout: Duration,
    is_so: impl Fn(&Backend) -> bool,
) -> Result<Backend> {
    wait_for(&format!("{service}/{name}"), timeout, || {
        let backend = backend(lab, service, name).map_err(|error| format!("{error:#}"))?;
        if is_so(&backend) {
            Ok(backend)
        } else {
            Err(format!("it is {backend:?}"))
        }
    })
}

/// What of the running state does not change by itself: configuration, overrides, states; no counters, no times.
pub(crate) fn running_state(lab: &Lab) -> Result<Vec<String>> {
    let status = status(lab)?;
    let mut state = vec![
        format!("process {}", status.pid),
        format!("{:?}", status.interfaces),
    ];
    for service in &status.services {
        state.push(format!(
            "{} {} {:?} {:?} {:?}",
            service.name, service.vip, service.ports, service.scheduler, service.on_down
        ));
        state.extend(service.backends.iter().map(|it| {
            format!(
                "{}/{} {} {:?} {} {:?} {} {:?}",
                it.service, it.name, it.address, it.port, it.weight, it.state, it.eligible, it.overrides
            )
        }));
    }
    Ok(state)
}

/// Changes the configuration file: every occurrence of `from`, of which there must be one.
pub(crate) fn edit(lab: &Lab, from: &str, to: &str) -> Result<()> {
    let file = lab.file("lb.toml");
    let text = fs::read_to_string(&file)?;
    ensure!(text.contains(from), "the lab's lb.toml has no {from:?}");
    Ok(fs::write(file, text.replace(from, to))?)
}

/// Reloads, which must succeed: what it says has changed.
pub(crate) fn reload(lab: &Lab) -> Result<String> {
    let said = lbctl(lab, &["reload"])?;
    ensure!(said.code == 0, "{said:?}");
    Ok(said.out)
}

/// `lbd`'s log so far.
pub(crate) fn log(lab: &Lab) -> Result<String> {
    Ok(fs::read_to_string(lab.file("lbd.log"))?)
}

/// How many requests but for health probes a web server has answered.
pub(crate) fn answered(lab: &Lab, node: Node) -> Result<u64> {
    Ok(lab.app_stats(node)?.requests)
}
