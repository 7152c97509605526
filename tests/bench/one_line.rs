//! The least that any table of connections takes, to compare with.

use anyhow::Context as _;
use aya::programs::{ProgramFd, Xdp};
use aya::{Ebpf, EbpfLoader};
use lb_common::connection_table::buckets_for;
use lb_common::hash::Seed;
use lb_tests::programs;

/// A program that looks at one line of as many as a table for so many connections has, and may do something else besides.
pub struct OneLine {
    _ebpf: Ebpf,
    pub program: ProgramFd,
}

impl OneLine {
    /// `work`: how often it does something else besides.
    pub fn load(connections: u32, work: u32) -> anyhow::Result<Self> {
        let lines = buckets_for(connections);
        let seed = Seed::new(fastrand::u64(..));
        // SAFETY: integers, without padding.
        let seed: [u64; 3] = unsafe { std::mem::transmute(seed) };
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("LINES", lines)
            .override_global("LINE_COUNT", &lines, true)
            .override_global("LINE_WORK", &work, true)
            .override_global("LINE_SEED", &seed[..], true)
            .load_file(programs::object("bench")?)?;
        let program: &mut Xdp = ebpf
            .program_mut("one_line")
            .context("no such program")?
            .try_into()?;
        program.load()?;
        Ok(Self {
            program: program.fd()?.try_clone()?,
            _ebpf: ebpf,
        })
    }
}
