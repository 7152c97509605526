//! Runs a program many times in one system call, each time on a fresh frame of the next flow.

use anyhow::{Context as _, ensure};
use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray, PerCpuValues, ProgramArray};
use aya::programs::{ProgramFd, TestRun as _, TestRunOptions, Xdp};
use lb_common::bench::{LENGTH, Plan};
use lb_tests::programs;

use crate::frame::Frame;

const WRAPPER: &str = "wrapper";

type Words = [u64; size_of::<Plan>() / 8];

/// The wrapper, and what it calls.
pub struct Repeater {
    ebpf: Ebpf,
    plan: PerCpuArray<MapData, Words>,
    next: ProgramArray<MapData>,
    /// Of the frames' type; plans restore everything else.
    frame: [u8; LENGTH],
}

impl Repeater {
    pub fn new() -> anyhow::Result<Self> {
        let mut ebpf = Ebpf::load_file(programs::object("bench")?)?;
        let plan = ebpf.take_map("PLAN").context("no map PLAN")?;
        let next = ebpf.take_map("NEXT").context("no map NEXT")?;
        let mut repeater = Self {
            plan: PerCpuArray::try_from(plan)?,
            next: ProgramArray::try_from(next)?,
            frame: [0; LENGTH],
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

    /// What to run from now on, and on which frames, all of one family: the plan of each CPU.
    pub fn prepare(
        &mut self,
        program: &ProgramFd,
        plan_of: impl Fn(usize) -> anyhow::Result<Plan>,
    ) -> anyhow::Result<()> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let plans = (0..cpus).map(plan_of).collect::<anyhow::Result<Vec<_>>>()?;
        if let Some(plan) = plans.first() {
            self.frame[12..14].copy_from_slice(&plan.ether_type());
        }
        let plans: Vec<Words> = plans
            .into_iter()
            // SAFETY: integers, without padding.
            .map(|plan| unsafe { std::mem::transmute::<Plan, Words>(plan) })
            .collect();
        self.plan.set(0, PerCpuValues::try_from(plans)?, 0)?;
        self.next.set(0, program, 0)?;
        Ok(())
    }

    /// Runs it so many times on this CPU; the mean of what a time took, in ns.
    pub fn run(&self, repeat: u32) -> anyhow::Result<f64> {
        let wrapper: &Xdp = self.ebpf.program(WRAPPER).context("no wrapper")?.try_into()?;
        let result = wrapper.test_run(TestRunOptions {
            data_in: Some(&self.frame),
            repeat,
            ..TestRunOptions::new()
        })?;
        ensure!(result.return_value != 0, "the wrapper could not call the program");
        Ok(result.duration.as_nanos() as f64)
    }
}

/// The plan for a frame, whose payload is made such that it has the length.
pub fn plan(frame: &Frame, flow_at: u32, flows: u32) -> anyhow::Result<Plan> {
    let bytes = frame.clone().filled_to(LENGTH - 14).bytes();
    Ok(Plan::new(bytes.as_slice().try_into()?, flow_at, flows))
}
