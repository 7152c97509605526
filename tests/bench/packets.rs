//! What packets cost, and how large the programs are.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use anyhow::{Context as _, bail, ensure};
use aya::programs::ProgramFd;
use lb_common::bench::Plan;
use lb_common::outcome::Outcome;
use xtask::bench::experiment::{Reading, Sample, Turn};
use xtask::bench::measurement::{Conditions, Unit};
use xtask::bench::names::quantity;

use crate::kind::Mode;
use crate::one_line::OneLine;
use crate::paths::{self, Path, Subject};
use crate::repeater::Repeater;
use crate::scene::{Scene, Setting, Way};
use crate::sizes::Sizes;

/// After so many ticks half-open connections are over, and others are not.
const LONG_AFTER: u16 = 100;

/// Everything that it takes.
pub struct Packets {
    repeater: Repeater,
    bare: ProgramFd,
    /// By the connections that a table would be made for, and whether they work besides.
    one_line: HashMap<(u32, bool), OneLine>,
    scenes: HashMap<Setting, Scene>,
    paths: Vec<Path>,
    sizes: Sizes,
}

impl Packets {
    /// Loads all programs and opens all connections: half a minute, or two.
    pub fn set_up(quick: bool) -> anyhow::Result<Self> {
        let mut repeater = Repeater::new()?;
        let bare = repeater.load("bare")?;
        let paths = paths::all(quick)?;
        let mut scenes = HashMap::new();
        for path in &paths {
            if let Subject::Scene(setting, _) = path.subject
                && let Entry::Vacant(vacant) = scenes.entry(setting)
            {
                vacant.insert(Scene::load(setting, &mut repeater)?);
            }
        }
        let work = as_much_work(&mut repeater, &scenes)?;
        let mut one_line = HashMap::new();
        for path in &paths {
            if let Subject::OneLine { connections, works } = path.subject
                && let Entry::Vacant(vacant) = one_line.entry((connections, works))
            {
                vacant.insert(OneLine::load(connections, if works { work } else { 0 })?);
            }
        }
        let (_, scene) = scenes.iter().next().context("nothing is measured")?;
        let sizes = Sizes::of(&scene.dataplane)?;
        Ok(Self {
            repeater,
            bare,
            one_line,
            scenes,
            paths,
            sizes,
        })
    }

    pub fn turns(&self) -> Vec<Turn> {
        let paths = self.paths.iter().map(|path| path.turn.clone());
        paths.chain(self.sizes.turns()).collect()
    }

    pub fn take(&mut self, turn: &Turn) -> anyhow::Result<Sample> {
        if let Some(sample) = self.sizes.sample(turn) {
            return Ok(sample);
        }
        let path = paths::find(&self.paths, turn)?;
        // Where flows are many, a sample meets others than the one before.
        let plan = path.plan.from(fastrand::u32(..));
        let took = match path.subject {
            Subject::Bare => {
                self.repeater.prepare(&self.bare, |_| Ok(plan))?;
                self.repeater.run(path.frames)?
            }
            Subject::OneLine { connections, works } => {
                let one_line = self
                    .one_line
                    .get(&(connections, works))
                    .context("it is not loaded")?;
                self.repeater.prepare(&one_line.program, |_| Ok(plan))?;
                self.repeater.run(path.frames)?
            }
            Subject::Scene(setting, expected) => {
                let scene = self.scenes.get(&setting).context("the scene is not set up")?;
                if path.opens {
                    let long_after = scene.dataplane.now()?.after(LONG_AFTER);
                    scene.dataplane.connections().sweep(long_after);
                }
                let before = count(scene, expected)?;
                let took = scene.run(&mut self.repeater, plan, path.frames)?;
                let came_to = count(scene, expected)? - before;
                // All but those that found no room in the table, and two of a thousand.
                ensure!(
                    came_to as f64 >= f64::from(path.frames) * (scene.placed - 0.002),
                    "only {came_to} of {} packets came to {}",
                    path.frames,
                    expected.name()
                );
                took
            }
        };
        Ok(Sample {
            readings: vec![Reading::new(quantity::TIME, Unit::Nanoseconds, took)],
            conditions: Conditions::new().with("runner", "the kernel's, on one processor"),
        })
    }
}

/// How much work the program that reads one line has to do to take as long as the balancer's, in mode `nat`, with a packet of the
/// only flow: the most that takes no longer.
fn as_much_work(repeater: &mut Repeater, scenes: &HashMap<Setting, Scene>) -> anyhow::Result<u32> {
    const MOST: u32 = 100;
    let setting = Setting::new(Mode::Nat, true, true);
    let scene = scenes.get(&setting).context("nat is not measured")?;
    let plan = setting.plan(&setting.talk()?.client_says(b""), Way::In, 1)?;
    for work in 1..MOST {
        let line = OneLine::load(1, work)?;
        let [nat, working] = least_times(repeater, plan, scene, &line)?;
        if working > nat {
            return Ok(work - 1);
        }
    }
    bail!("{MOST} times as much work takes no longer than the balancer")
}

/// What the balancer's program takes and what the other does, in ns, when least else goes on.
fn least_times(
    repeater: &mut Repeater,
    plan: Plan,
    scene: &Scene,
    line: &OneLine,
) -> anyhow::Result<[f64; 2]> {
    const ROUNDS: usize = 7;
    const FRAMES: u32 = 200_000;
    let mut least = [f64::MAX; 2];
    for _ in 0..ROUNDS {
        least[0] = least[0].min(scene.run(repeater, plan, FRAMES)?);
        repeater.prepare(&line.program, |_| Ok(plan))?;
        least[1] = least[1].min(repeater.run(FRAMES)?);
    }
    Ok(least)
}

fn count(scene: &Scene, outcome: Outcome) -> anyhow::Result<u64> {
    let outcomes = scene.dataplane.counters().outcomes()?;
    let found = outcomes.iter().find(|(other, _)| *other == outcome);
    Ok(found.map_or(0, |(_, count)| *count))
}
