//! Every program in every combination of what programs are loaded with: what the kernel's verifier prunes by them differs.

use anyhow::{Context as _, ensure};
use lb::dataplane::{Dataplane, Explainer, LoadOptions, Object, Tracer};
use lb_common::explain::TraceFilter;
use lb_tests::harness::Case;
use lb_tests::measured::measured;
use lb_tests::programs;
use lb_tests::recorded::{Compiler, hold_verified};

/// Of the million instructions that the verifier follows, how many it may at most need: the next change, or an older kernel,
/// may need some more.
const MOST_VERIFIED: u32 = 750_000;

/// The program that only an instance loads that traces.
const TRACER: &str = "lb_traced";

/// The least that programs can be loaded with.
pub const SMALLEST: LoadOptions = LoadOptions {
    max_connections: 1,
    max_wide_connections: 1,
    full_nat_ports: 0,
    learn_return_hops: true,
    selection_seed: 0,
};

/// Connections that the smallest and a large table are for, and own ports.
const SIZES: [(&str, u32, u32); 2] = [("smallest tables", 1, 0), ("large tables", 1_000_000, 65_536)];

/// Combinations whose figures are held against recorded ones: lengths of tables hardly make a difference.
const HELD: &str = "large tables";

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (sizes, connections, ports) in SIZES {
        for learn in [true, false] {
            let hops = if learn { "return hops" } else { "no return hops" };
            let combination = format!("{sizes}, {hops}");
            let name = format!("verifier::takes_all_programs_with_{combination}").replace([' ', ','], "_");
            // Without `..`: whoever adds an option has to say here which of its values make a difference.
            let options = LoadOptions {
                max_connections: connections,
                max_wide_connections: connections,
                full_nat_ports: ports,
                learn_return_hops: learn,
                selection_seed: u64::MAX,
            };
            cases.push(Case::new(name, move || loads(&combination, options)));
        }
    }
    cases
}

/// The balancer, whose every program the daemon loads.
pub fn object() -> anyhow::Result<Object> {
    Ok(Object::from_file(&programs::object("lb-ebpf")?)?)
}

/// The running kernel's version, as far as it matters to the verifier: `6.18`.
fn kernel() -> anyhow::Result<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut parts = release.split(['.', '-']);
    let (major, minor) = (parts.next(), parts.next());
    Ok(format!(
        "{}.{}",
        major.context("no version")?,
        minor.context("no version")?
    ))
}

fn loads(combination: &str, options: LoadOptions) -> anyhow::Result<()> {
    let mut dataplane = Dataplane::load(&object()?, options)?;
    let mut programs = Vec::new();
    for (name, program) in dataplane.ebpf_mut().programs() {
        if name == TRACER {
            continue;
        }
        let info = program
            .info()
            .with_context(|| format!("{name} is in the object, and was not loaded"))?;
        // Of every kernel since 5.16.
        let verified = info
            .verified_instruction_count()
            .with_context(|| format!("the kernel does not say what it took to verify {name}"))?;
        ensure!(
            verified <= MOST_VERIFIED,
            "{name} takes {verified} of the million instructions that the verifier follows; at most {MOST_VERIFIED} \
             should do"
        );
        programs.push((name.to_owned(), u64::from(verified)));
    }
    ensure!(programs.len() > 1, "the object has {} programs", programs.len());
    // The instances that explain, over the same maps.
    let blueprint = dataplane.blueprint().map_err(anyhow::Error::msg)?;
    Explainer::load(&blueprint).context("the instance that answers `lbctl why`")?;
    Tracer::load(&blueprint, TraceFilter::default()).context("the instance that traces")?;
    for (name, verified) in &programs {
        measured(
            "instructions that the verifier followed",
            name,
            combination,
            verified,
        );
    }
    if !combination.starts_with(HELD) {
        return Ok(());
    }
    let compiler = Compiler::of(object()?.bytes());
    hold_verified(&kernel()?, combination, &programs, &compiler)
}
