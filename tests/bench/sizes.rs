//! How large the programs are.

use anyhow::Context as _;
use lb::dataplane::Dataplane;
use xtask::bench::experiment::{Reading, Sample, Turn};
use xtask::bench::measurement::{Conditions, Unit};
use xtask::bench::names::quantity;

/// As the candidates' name.
const OBJECT: &str = "lb-ebpf";

/// The programs of a loaded object. They are the same each round.
pub struct Sizes {
    programs: Vec<(Turn, Sample)>,
}

impl Sizes {
    /// Asks the kernel about each program.
    pub fn of(dataplane: &Dataplane) -> anyhow::Result<Self> {
        let mut programs = Vec::new();
        for (name, program) in dataplane.ebpf().programs() {
            let aya::programs::Program::Xdp(xdp) = program else {
                continue;
            };
            // What only other instances load is not loaded here.
            if xdp.fd().is_err() {
                continue;
            }
            let info = xdp.info().with_context(|| name.to_owned())?;
            let bytes = |size: u32, of| Reading::new(of, Unit::Bytes, f64::from(size));
            let mut readings = vec![bytes(info.size_jitted(), "machine code")];
            readings.extend(info.size_translated().map(|size| bytes(size, quantity::SIZE)));
            readings.extend(
                info.verified_instruction_count()
                    .map(|count| Reading::new("verified", Unit::Instructions, f64::from(count))),
            );
            let sample = Sample {
                readings,
                conditions: Conditions::new(),
            };
            programs.push((Turn::new(format!("program {name}"), OBJECT), sample));
        }
        programs.sort_by(|(one, _), (other, _)| one.row.cmp(&other.row));
        Ok(Self { programs })
    }

    pub fn turns(&self) -> impl Iterator<Item = Turn> {
        self.programs.iter().map(|(turn, _)| turn.clone())
    }

    pub fn sample(&self, turn: &Turn) -> Option<Sample> {
        let mut programs = self.programs.iter();
        programs
            .find(|(known, _)| known == turn)
            .map(|(_, sample)| sample.clone())
    }
}
