//! The daemon itself: how fast it takes a failed backend out, how fast it reads a large configuration again, what memory it
//! takes.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::experiment::{Effort, Experiment, Reading, Sample, Turn};
use super::measurement::{Conditions, Section, Unit};
use super::names::{candidate, quantity};
use crate::lab::{Backends, Binaries, Lab, LabOptions, Mode, Node, ServiceText, VIP, wait_for};
use crate::transfer::Protocol;

/// Not the labs of other commands and experiments, which may be up.
const SMALL_LAB: &str = "lb-bench-few";
const LARGE_LAB: &str = "lb-bench-many";
/// What the large lab has.
const SERVICES: u16 = 1000;
/// The first port of these services.
const FIRST_PORT: u16 = 10_000;

/// From a web server's end until no new connection is sent to it.
const FAILURE: &str = "a backend fails: until it is out of the tables";
/// The same by hand, which leaves out the time that probes take.
const DISABLED: &str = "a backend is disabled: until it is out of the tables";
const RELOAD: &str = "reload, 1,000 services × 4 backends, one changed";
const RELOAD_ALL: &str = "reload, 1,000 services × 4 backends, all changed";
const MEMORY_FEW: &str = "memory of the daemon, 2 services × 2 backends";
const MEMORY_MANY: &str = "memory of the daemon, 1,000 services × 4 backends";

/// Two labs: one with a small site, one with many services.
#[derive(Debug)]
pub struct Daemon {
    binaries: Binaries,
    few: Option<Lab>,
    many: Option<Lab>,
    /// Reloads so far: each writes another configuration.
    reloads: u32,
}

impl Daemon {
    /// With these programs.
    pub fn new(binaries: Binaries) -> Self {
        Self {
            binaries,
            few: None,
            many: None,
            reloads: 0,
        }
    }

    /// Stops a web server, and has it up again afterwards.
    fn failure(&mut self) -> Result<Duration> {
        let lab = self.few.as_mut().context(NO_LAB)?;
        let began = Instant::now();
        lab.stop_nginx(Node::Web1)?;
        let took = until(lab, "down", began);
        lab.start_nginx(Node::Web1)?;
        lab.wait_until_all_up(Duration::from_secs(10))?;
        took
    }

    fn disabled(&mut self) -> Result<Duration> {
        let lab = self.few.as_mut().context(NO_LAB)?;
        let began = Instant::now();
        // It answers after the change is in force.
        lab.lbctl(&["backend", "disable", "www/web1"])?;
        let took = began.elapsed();
        let found = state(lab)?;
        ensure!(found != "up", "web1 is {found} after it was disabled");
        lab.lbctl(&["backend", "enable", "www/web1"])?;
        lab.wait_until_all_up(Duration::from_secs(10))?;
        Ok(took)
    }

    /// Gives another weight to the first backend of one service, or of all.
    fn reload(&mut self, services: u16) -> Result<Duration> {
        let lab = self.many.as_mut().context(NO_LAB)?;
        self.reloads += 1;
        let weight = 2 + self.reloads % 100;
        let text = lab_options(&self.binaries, services, weight).more_services;
        let file = lab.file("lb.toml");
        let old = fs::read_to_string(&file)?;
        let begin = old
            .find(FIRST_NAME)
            .context("the lab's lb.toml lacks its services")?;
        let end = old.find("[site]\n").context("the lab's lb.toml lacks the site")?;
        let services_begin = old[..begin].rfind("[[service]]").unwrap_or(begin);
        fs::write(&file, [&old[..services_begin], &text, &old[end..]].concat())?;
        let began = Instant::now();
        let said = lab.lbctl(&["reload"])?;
        let took = began.elapsed();
        ensure!(
            said.contains(&format!("becomes {weight}")),
            "the reload changed something else: {said}"
        );
        Ok(took)
    }
}

const NO_LAB: &str = "the lab is not up";
/// The line that names the first of the many services.
const FIRST_NAME: &str = "name = \"many-0\"";

/// The state of `www/web1`.
fn state(lab: &Lab) -> Result<String> {
    let status = lab.status()?;
    let mut backends = status.backends();
    let found = backends.find(|(service, backend)| *service == "www" && backend.name == "web1");
    Ok(found.context("there is no www/web1")?.1.state.clone())
}

/// How long after it began `www/web1` is in a state: at most the 20 ms longer between two looks.
fn until(lab: &Lab, wanted: &str, began: Instant) -> Result<Duration> {
    wait_for(
        &format!("web1 to be {wanted}"),
        Duration::from_secs(10),
        || match state(lab) {
            Ok(found) if found == wanted => Ok(began.elapsed()),
            Ok(found) => Err(format!("it is {found}")),
            Err(error) => Err(format!("{error:#}")),
        },
    )
}

/// The large lab; the first so many services' first backend has this weight.
fn lab_options(binaries: &Binaries, weighted: u16, weight: u32) -> LabOptions {
    let mut options = LabOptions::new(LARGE_LAB, binaries.clone());
    for index in 0..SERVICES {
        let mut service = ServiceText::new(
            &format!("many-{index}"),
            VIP,
            FIRST_PORT + index,
            Protocol::Tcp,
            Mode::Nat,
        );
        service.backends = Backends::UnprobedWebServers;
        options.add_service(&service);
        let weight = if index < weighted { weight } else { 1 };
        // Nobody listens there, and nobody asks: two more, on ports that no other service uses.
        for (place, node) in Node::WEB.into_iter().enumerate() {
            let port = FIRST_PORT + SERVICES + index;
            let weight = if place == 0 {
                format!("weight = {weight}\n")
            } else {
                String::new()
            };
            options.more_services += &format!(
                "[[service.backend]]\nname = \"more-{node}\"\naddress = \"{}\"\nport = {port}\n{weight}\n",
                options.topology.address(node)
            );
        }
    }
    options
}

/// What the daemon's own memory is, in bytes: not the tables, which it only sees.
fn memory(lab: &mut Lab) -> Result<f64> {
    let pid = lab.process("lbd").context("lbd does not run")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mut lines = status.lines();
    let anonymous = lines.find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = anonymous.and_then(|text| text.trim().strip_suffix(" kB"));
    let kib: f64 = kib
        .context("the kernel does not say what memory lbd has")?
        .parse()?;
    Ok(kib * 1024.0)
}

fn mebibytes(bytes: f64) -> Reading {
    Reading::new(quantity::MEMORY, Unit::Mebibytes, bytes / f64::from(1 << 20))
}

fn time(took: Duration) -> Reading {
    Reading::new(quantity::TIME, Unit::Milliseconds, took.as_secs_f64() * 1e3)
}

impl Experiment for Daemon {
    fn section(&self) -> Section {
        Section::Control
    }

    fn name(&self) -> &str {
        "daemon"
    }

    fn set_up(&mut self, _effort: &Effort) -> Result<Vec<Turn>> {
        self.few = Some(Lab::up(LabOptions::new(SMALL_LAB, self.binaries.clone()))?);
        self.many = Some(Lab::up(lab_options(&self.binaries, SERVICES, 1))?);
        let rows = [FAILURE, DISABLED, RELOAD, RELOAD_ALL, MEMORY_FEW, MEMORY_MANY];
        Ok(rows.map(|row| Turn::new(row, candidate::LBD)).to_vec())
    }

    fn take(&mut self, turn: &Turn) -> Result<Sample> {
        let (reading, probes) = match turn.row.as_str() {
            FAILURE => (time(self.failure()?), Some("every 500 ms, two in a row decide")),
            DISABLED => (time(self.disabled()?), None),
            RELOAD => (time(self.reload(1)?), None),
            RELOAD_ALL => (time(self.reload(SERVICES)?), None),
            MEMORY_FEW => (mebibytes(memory(self.few.as_mut().context(NO_LAB)?)?), None),
            _ => (mebibytes(memory(self.many.as_mut().context(NO_LAB)?)?), None),
        };
        let conditions = Conditions::new();
        Ok(Sample {
            readings: vec![reading],
            conditions: match probes {
                Some(probes) => conditions.with("probes", probes),
                None => conditions,
            },
        })
    }

    fn take_down(&mut self) -> Result<()> {
        let few = self.few.take().map_or(Ok(()), Lab::down);
        let many = self.many.take().map_or(Ok(()), Lab::down);
        few.and(many)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_services_have_four_backends_each() {
        let text = |weighted| lab_options(&Binaries::unbuilt(), weighted, 7).more_services;
        let one = text(1);
        assert_eq!(one.matches("[[service]]").count(), 1000);
        assert_eq!(one.matches("[[service.backend]]").count(), 4000);
        assert_eq!(one.matches("weight = 7\n").count(), 1);
        assert_eq!(text(SERVICES).matches("weight = 7\n").count(), 1000);
        assert_eq!(one.matches(FIRST_NAME).count(), 1);
    }
}
