//! Runs a program many times in one system call, each time on a fresh frame of the next client.

use anyhow::{Context as _, ensure};
use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray, PerCpuValues, ProgramArray};
use aya::programs::{ProgramFd, TestRun as _, TestRunOptions, Xdp};
use lb_common::bench::{LENGTH, Plan};
use lb_tests::programs;

use crate::frame::Frame;

const WRAPPER: &str = "wrapper";

/// A plan restores all but the type.
const FRAME: [u8; LENGTH] = {
    let mut frame = [0; LENGTH];
    frame[12] = 0x08;
    frame
};

type Words = [u64; size_of::<Plan>() / 8];

/// The wrapper, and what it calls.
pub struct Repeater {
    ebpf: Ebpf,
    plan: PerCpuArray<MapData, Words>,
    next: ProgramArray<MapData>,
}

impl Repeater {
    pub fn new() -> anyhow::Result<Self> {
        let mut ebpf = Ebpf::load_file(programs::object("bench")?)?;
        let plan = ebpf.take_map("PLAN").context("no map PLAN")?;
        let next = ebpf.take_map("NEXT").context("no map NEXT")?;
        let mut repeater = Self {
            plan: PerCpuArray::try_from(plan)?,
            next: ProgramArray::try_from(next)?,
            ebpf,
        };
        repeater.load(WRAPPER)?;
        Ok(repeater)
    }

    /// Loads another program of the wrapper's object.
    pub fn load(&mut self, name: &str) -> anyhow::Result<ProgramFd> {
        let program: &mut Xdp = self
            .ebpf
            .program_mut(name)
            .context("no such program")?
            .try_into()?;
        program.load()?;
        Ok(program.fd()?.try_clone()?)
    }

    /// What to run from now on, and on which frames: the plan of each CPU.
    pub fn prepare(
        &mut self,
        program: &ProgramFd,
        plan_of: impl Fn(usize) -> anyhow::Result<Plan>,
    ) -> anyhow::Result<()> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let plans = (0..cpus)
            .map(|cpu| {
                // SAFETY: integers, without padding.
                plan_of(cpu).map(|plan| unsafe { std::mem::transmute::<Plan, Words>(plan) })
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        self.plan.set(0, PerCpuValues::try_from(plans)?, 0)?;
        self.next.set(0, program, 0)?;
        Ok(())
    }

    /// Runs it so many times on this CPU; the mean of what a time took, in ns.
    pub fn run(&self, repeat: u32) -> anyhow::Result<f64> {
        let wrapper: &Xdp = self.ebpf.program(WRAPPER).context("no wrapper")?.try_into()?;
        let result = wrapper.test_run(TestRunOptions {
            data_in: Some(&FRAME),
            repeat,
            ..TestRunOptions::new()
        })?;
        ensure!(result.return_value != 0, "the wrapper could not call the program");
        Ok(result.duration.as_nanos() as f64)
    }
}

/// The plan for a frame, whose payload is made such that it has the length.
pub fn plan(frame: &Frame, client_at: u32, clients: u32) -> anyhow::Result<Plan> {
    let bytes = frame.clone().payload(&[0; LENGTH - 54]).bytes();
    Ok(Plan::new(bytes.as_slice().try_into()?, client_at, clients))
}
