//! What a plan says before a change, and what is so after it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb::api::types::{BackendState, Connections};
use lb::plan::{Fate, Plan};
use lb_tests::harness::Case;
use lb_tests::programs;
use xtask::lab::{Backends, Lab, LabOptions, Mode, Node, ServiceText, TRANSFER_PORT, VIP, wait_for};
use xtask::transfer::Protocol;

use crate::support::held::Held;
use crate::support::lbctl::{self, lbctl};
use crate::support::site;

/// The tests.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "plan/removal_names_a_thousand_connections",
            removal_names_a_thousand,
        ),
        Case::new("plan/maglev_names_who_would_move", maglev_names_who_would_move),
    ]
}

const EACH: u64 = 1000;

/// A backend with a thousand open connections: the plan names them, touches nothing, and is what then happens.
fn removal_names_a_thousand() -> Result<()> {
    let mut options = LabOptions::new("lb-t-plan", programs::of_the_lab()?);
    options.add_transfer_services();
    let lab = Lab::up(options)?;
    let mut held = Held::open(&lab, (VIP, TRANSFER_PORT).into(), 2 * EACH as usize)?;
    ensure!(
        held.split().values().all(|&count| count == EACH as usize),
        "{:?}",
        held.split()
    );
    let text = fs::read_to_string(lab.file("lb.toml"))?;
    let (before, service) = text
        .split_once("name = \"transfer-tcp\"")
        .context("the lab has no transfer-tcp")?;
    let web1 = "[[service.backend]]\nname = \"web1\"\naddress = \"198.18.1.2\"\n";
    let without = service.replacen(web1, "", 1);
    let file = lab.file("new.toml");
    fs::write(&file, format!("{before}name = \"transfer-tcp\"{without}"))?;
    let named = file.display().to_string();

    let state = site::running_state(&lab)?;
    let said = lbctl(&lab, &["plan", &named])?;
    ensure!(
        said.code == 0
            && said.out.starts_with(
                "backend transfer-tcp/web1: removed; its 1,000 connections go on until they end\n"
            )
            && said.out.contains(" live connections: 1,000 drain\n")
            && said.out.ends_with("nothing has been changed\n"),
        "{said:?}"
    );
    let plan: Plan = lbctl::json(&lab, &["plan", &named])?;
    ensure!((plan.impact.drain, plan.steps.len()) == (EACH, 1), "{plan:?}");
    let forced: Plan = lbctl::json(&lab, &["plan", &named, "--force"])?;
    ensure!(
        (forced.impact.drain, forced.impact.reset) == (0, EACH),
        "{forced:?}"
    );
    let by_hand: lb::api::types::Changed =
        lbctl::json(&lab, &["backend", "remove", "transfer-tcp/web1", "--dry-run"])?;
    ensure!(by_hand.plan == plan, "the same by hand: {:?}", by_hand.plan);
    ensure!(
        site::running_state(&lab)? == state,
        "a plan has changed something"
    );
    let unchanged = lbctl(&lab, &["plan"])?;
    ensure!(unchanged.out == "nothing would change\n", "{unchanged:?}");

    let said = lbctl(&lab, &["apply", &named])?;
    ensure!(said.code == 0, "{said:?}");
    ensure!(
        said.out.starts_with(&plan.lines()[0]),
        "what is done is what was planned: {said:?}"
    );
    let log = site::log(&lab)?;
    ensure!(
        log.contains(&format!("apply: {}", plan.lines()[0])),
        "and what is logged: {log}"
    );
    let web1 = site::backend(&lab, "transfer-tcp", "web1")?;
    ensure!(
        (web1.state, web1.traffic.connections) == (BackendState::Leaving, EACH),
        "{web1:?}"
    );
    held.check().context("a connection did not go on")?;

    // Now they are made to go.
    let said = lbctl(&lab, &["backend", "remove", "transfer-tcp/web1", "--force"])?;
    ensure!(said.code == 0, "{said:?}");
    ensure!(held.check().is_err(), "connections to web1 were not reset");
    let web2 = site::backend(&lab, "transfer-tcp", "web2")?;
    ensure!(web2.traffic.connections == EACH, "{web2:?}");
    lab.down()
}

/// UDP, so that the very same clients come again once nothing is remembered of them.
const CLIENTS: u16 = 300;
const SERVICE: &str = "mag";
const PORT: u16 = 5300;

/// A third backend for a Maglev service: the plan names as many as the kernel then sends elsewhere.
fn maglev_names_who_would_move() -> Result<()> {
    let mut options = LabOptions::new("lb-t-maglev", programs::of_the_lab()?);
    let mut service = ServiceText::new(SERVICE, VIP, PORT, Protocol::Udp, Mode::Nat);
    service.backends = Backends::Sinks;
    service.lines = "scheduler = \"maglev\"\ntimeouts = { half_open = \"5s\", udp = \"5s\" }\n".to_owned();
    options.add_service(&service);
    let lab = Lab::up(options)?;
    let file = lab.file("new.toml");
    let text = fs::read_to_string(lab.file("lb.toml"))?;
    let last = "name = \"sink-web2\"\naddress = \"198.18.2.200\"\n";
    ensure!(text.contains(last), "{text}");
    let third = "[[service.backend]]\nname = \"third\"\naddress = \"198.18.2.201\"\n";
    fs::write(&file, text.replacen(last, &format!("{last}{third}"), 1))?;

    let before = send(&lab)?;
    let plan: Plan = lbctl::json(&lab, &["plan", &file.display().to_string()])?;
    let remap = plan.steps.iter().find_map(|step| step.remap.clone());
    let remap = remap.with_context(|| format!("{plan:?}"))?;
    ensure!(
        (remap.connections, remap.elsewhere_before) == (u64::from(CLIENTS), 0),
        "each is where the present slots lead: {remap:?}"
    );
    ensure!(
        plan.steps
            .iter()
            .all(|step| step.effects.iter().all(|it| it.fate != Fate::Move)),
        "{plan:?}"
    );
    let share = f64::from(remap.changed_ppm) / 1e6;
    ensure!(
        (0.25..0.45).contains(&share),
        "a third, and little more: {remap:?}"
    );
    let said = lbctl(&lab, &["plan", &file.display().to_string()])?;
    let words = format!(
        "of its 300 connections {} would move if they were not remembered",
        remap.elsewhere
    );
    ensure!(said.out.contains(&words), "{said:?}");

    forget(&lab)?;
    let said = lbctl(&lab, &["apply", &file.display().to_string()])?;
    ensure!(said.code == 0, "{said:?}");
    let after = send(&lab)?;
    let moved = before
        .iter()
        .filter(|(port, backend)| after.get(port) != Some(backend));
    let moved = moved.count() as u64;
    ensure!(
        moved == remap.elsewhere,
        "{} were said to move, and {moved} did",
        remap.elsewhere
    );
    crate::support::measured(&format!(
        "{moved} of {CLIENTS} clients moved, as planned; {:.1} % of the slots",
        share * 100.0
    ));
    lab.down()
}

/// Waits until nothing is remembered: until all have timed out, and have been swept, which is done every second while something
/// leaves.
fn forget(lab: &Lab) -> Result<()> {
    wait_for(
        "the connections to end",
        Duration::from_secs(30),
        || match connections(lab).map_err(|error| format!("{error:#}"))?.len() {
            0 => Ok(()),
            left => Err(format!("{left} are left")),
        },
    )?;
    let said = lbctl(lab, &["backend", "remove", "www-http/web2"])?;
    ensure!(said.code == 0, "{said:?}");
    wait_for(
        "what leaves to be gone",
        Duration::from_secs(10),
        || match site::find_backend(lab, "www-http", "web2").map_err(|error| format!("{error:#}"))? {
            None => Ok(()),
            Some(backend) => Err(format!("{backend:?}")),
        },
    )
}

/// A datagram from each of the ports: which backend each went to.
fn send(lab: &Lab) -> Result<BTreeMap<u16, String>> {
    let to = SocketAddr::from((VIP, PORT));
    lab.namespace(Node::Client).run(|| {
        for port in 20_000..20_000 + CLIENTS {
            UdpSocket::bind((lab.address(Node::Client), port))?.send_to(b"?", to)?;
        }
        Ok(())
    })?;
    wait_for("all datagrams", Duration::from_secs(2), || {
        let there = connections(lab).map_err(|error| format!("{error:#}"))?;
        if there.len() == usize::from(CLIENTS) {
            Ok(there)
        } else {
            Err(format!("{} have arrived", there.len()))
        }
    })
}

/// The backend of each client, by port.
fn connections(lab: &Lab) -> Result<BTreeMap<u16, String>> {
    let all: Connections = lbctl::json(lab, &["connection", "list", "--service", SERVICE])?;
    let connections = all.connections.into_iter();
    Ok(connections
        .map(|it| (it.client_port, it.backend.to_string()))
        .collect())
}
