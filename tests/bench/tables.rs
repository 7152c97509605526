//! The tables as the daemon sees them: how long a look at all of a million connections takes, and what memory they need.

use std::fs;
use std::hint::black_box;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use aya::maps::Map;
use lb::api::types::ConnectionFilter;
use lb::config::Protocol;
use lb::dataplane::{Dataplane, LoadOptions, Object};
use lb::listing::{self, Names};
use lb::observed_state::Observed;
use lb::reconcile::ServiceKey;
use lb_tests::programs;
use xtask::bench::experiment::{Reading, Sample, Turn};
use xtask::bench::measurement::{Conditions, Unit};
use xtask::bench::names::{candidate, quantity};
use xtask::bench::targets::control_row::{COUNT, LIST, SWEEP, TABLE_1M, TABLE_10M};

use crate::kind::Mode;
use crate::pool::OPTIONS;
use crate::repeater::Repeater;
use crate::scene::{Scene, Setting};
use crate::world::VIP;

/// As many connections as the rows' names say.
const CONNECTIONS: u32 = 1_000_000;

/// A full table.
pub struct Tables {
    scene: Scene,
    /// Of each row that says so, in bytes.
    memory: [(&'static str, f64); 2],
}

impl Tables {
    /// Opens a million connections, and asks the kernel what tables take.
    pub fn set_up() -> anyhow::Result<Self> {
        let setting = Setting {
            room: CONNECTIONS,
            established: CONNECTIONS,
            backends: 1,
            ..Setting::new(Mode::Nat, true, true)
        };
        Ok(Self {
            scene: Scene::load(setting, &mut Repeater::new()?)?,
            memory: [
                (TABLE_1M, memory_of_table(1_000_000)?),
                (TABLE_10M, memory_of_table(10_000_000)?),
            ],
        })
    }

    pub fn turns() -> Vec<Turn> {
        let rows = [LIST, COUNT, SWEEP, TABLE_1M, TABLE_10M];
        rows.map(|row| Turn::new(row, candidate::LBD)).to_vec()
    }

    pub fn take(&mut self, turn: &Turn) -> anyhow::Result<Sample> {
        let reading = match turn.row.as_str() {
            LIST => self.list()?,
            COUNT => self.count()?,
            SWEEP => self.sweep()?,
            row => {
                let mut memory = self.memory.iter();
                let memory = memory.find(|(known, _)| *known == row);
                let (_, bytes) = memory.with_context(|| format!("there is no row {row}"))?;
                Reading::new(quantity::MEMORY, Unit::Mebibytes, bytes / f64::from(1 << 20))
            }
        };
        Ok(Sample {
            readings: vec![reading],
            conditions: Conditions::new(),
        })
    }

    /// As for `lbctl connections`, to the last byte of the answer.
    fn list(&self) -> anyhow::Result<Reading> {
        let key = ServiceKey {
            vip: VIP.ip(),
            port: VIP.port(),
            protocol: Protocol::Tcp,
        };
        let names = Names::new([(1, &key, "www")], [(1, "web1")]);
        let filter = ConnectionFilter {
            limit: Some(usize::MAX),
            ..ConnectionFilter::default()
        };
        let dataplane = &self.scene.dataplane;
        let (now, clock) = (dataplane.now()?, dataplane.clock());
        let began = Instant::now();
        let listed = listing::connections(dataplane.connections(), now, clock, &names, &filter);
        let answer = serde_json::to_vec(&listed)?;
        let took = began.elapsed();
        ensure!(
            listed.total >= u64::from(CONNECTIONS) / 1000 * 998 && !answer.is_empty(),
            "only {} connections were listed",
            listed.total
        );
        Ok(time(took))
    }

    fn count(&self) -> anyhow::Result<Reading> {
        let dataplane = &self.scene.dataplane;
        let now = dataplane.now()?;
        let began = Instant::now();
        let observed = black_box(Observed::count(dataplane.connections(), now));
        let took = began.elapsed();
        ensure!(
            observed.open(1) >= u64::from(CONNECTIONS) / 1000 * 998,
            "only {} connections were counted",
            observed.open(1)
        );
        Ok(time(took))
    }

    /// A search for entries whose time is over, of which there are none.
    fn sweep(&self) -> anyhow::Result<Reading> {
        let dataplane = &self.scene.dataplane;
        let now = dataplane.now()?;
        let began = Instant::now();
        let swept = dataplane.connections().sweep(now);
        let took = began.elapsed();
        ensure!(
            swept < CONNECTIONS as usize / 100,
            "{swept} connections were over"
        );
        Ok(time(took))
    }
}

fn time(took: std::time::Duration) -> Reading {
    Reading::new(quantity::TIME, Unit::Milliseconds, took.as_secs_f64() * 1e3)
}

/// What the kernel has set aside for the table of so many IPv4 connections, in bytes.
fn memory_of_table(connections: u32) -> anyhow::Result<f64> {
    let object = Object::from_file(&programs::object("lb-ebpf")?)?;
    let options = LoadOptions {
        max_connections: connections,
        max_wide_connections: 1,
        full_nat_ports: 0,
        ..OPTIONS
    };
    let dataplane = Dataplane::load(&object, options)?;
    let Some(Map::Array(table)) = dataplane.ebpf().map("CONNECTIONS") else {
        anyhow::bail!("there is no array CONNECTIONS");
    };
    let descriptor = table.fd().as_fd().as_raw_fd();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}"))?;
    let mut lines = info.lines();
    let memory = lines.find_map(|line| line.strip_prefix("memlock:"));
    let bytes: u64 = memory
        .context("the kernel does not say what a map takes")?
        .trim()
        .parse()?;
    Ok(bytes as f64)
}
