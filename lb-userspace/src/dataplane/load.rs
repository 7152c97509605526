//! Loading the object: sizes of maps, constants, and all programs.

use std::io::Read as _;

use aya::maps::{Map, MapData, PerCpuArray, ProgramArray};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use lb_common::abi::{ATTACHED_PLACE, PortEntry, Stage};
use lb_common::connection_table::{Bucket, buckets_for};
use lb_common::hash::Seed;

use super::memory::MappedArray;
use super::{Clock, DataplaneError, Object};

/// The program that balances.
pub const PROGRAM: &str = "lb";
/// The map of the programs that the attached one calls.
pub(super) const PROGRAMS: &str = "PROGRAMS";
/// The program that tells the time.
pub(super) const CLOCK: &str = "lb_clock";

/// What the program is loaded with; none of it can change while it runs.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// IPv4 connections to services of one port that the table is made for.
    pub max_connections: u32,
    /// All other connections that the wide table is made for.
    pub max_wide_connections: u32,
    /// Own ports of all `full-nat` backends together; 0: there are none.
    pub full_nat_ports: u32,
    /// Whether answers go back where the client's last packet came from.
    pub learn_return_hops: bool,
    /// Seed of the choice of backends by hashing; the same on every balancer of a fleet.
    pub selection_seed: u64,
}

/// Numbers of elements that are not the same for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lengths {
    /// Buckets of IPv4 connections to services of one port.
    pub(super) narrow: u32,
    /// Buckets of all other connections.
    pub(super) wide: u32,
    /// Own ports.
    pub(super) ports: u32,
}

impl Lengths {
    /// Those that are asked for.
    pub(super) fn of(options: &LoadOptions) -> Self {
        Self {
            narrow: buckets_for(options.max_connections).max(2),
            wide: buckets_for(options.max_wide_connections).max(2),
            ports: options.full_nat_ports.max(1),
        }
    }

    /// With the names of their maps.
    pub(super) fn by_map(&self) -> [(&'static str, u32); 3] {
        [
            ("CONNECTIONS", self.narrow),
            ("WIDE_CONNECTIONS", self.wide),
            ("PORTS", self.ports),
        ]
    }
}

impl LoadOptions {
    /// Bytes of memory that tables of these sizes take, all of them from the start.
    #[must_use]
    pub fn table_bytes(&self) -> u64 {
        let table = |connections, bucket| u64::from(buckets_for(connections)) * bucket as u64;
        table(self.max_connections, size_of::<Bucket<u64, 1>>())
            + table(self.max_wide_connections, size_of::<Bucket<u64, 3>>())
            + u64::from(self.full_nat_ports.max(1)) * size_of::<PortEntry<u64>>() as u64
    }
}

/// Sizes of maps, and constants: the same for all instances that share maps.
#[derive(Debug)]
pub(super) struct Constants {
    lengths: Lengths,
    table_seed: SeedBytes,
    selection_seed: SeedBytes,
    shift: u32,
    learn: u8,
}

impl Constants {
    /// For tables of these lengths, in which this secret places connections.
    pub(super) fn new(options: LoadOptions, clock: Clock, lengths: Lengths, table_seed: u64) -> Self {
        Self {
            lengths,
            table_seed: SeedBytes::from(table_seed),
            selection_seed: SeedBytes::from(options.selection_seed),
            shift: clock.shift(),
            learn: u8::from(options.learn_return_hops),
        }
    }

    /// A loader that knows them.
    pub(super) fn loader(&self) -> EbpfLoader<'_> {
        let mut loader = EbpfLoader::new();
        for (map, length) in self.lengths.by_map() {
            loader.map_max_entries(map, length);
        }
        loader
            .override_global("CONNECTION_BUCKETS", &self.lengths.narrow, true)
            .override_global("WIDE_BUCKETS", &self.lengths.wide, true)
            .override_global("TABLE_SEED", &self.table_seed.0[..], true)
            .override_global("SELECTION_SEED", &self.selection_seed.0[..], true)
            .override_global("TICK_SHIFT", &self.shift, true)
            .override_global("LEARN_RETURN_HOPS", &self.learn, true);
        loader
    }
}

/// Loads the object with all of its programs, attached to nothing.
pub(super) fn load_object(loader: &mut EbpfLoader<'_>, object: &Object) -> Result<Ebpf, DataplaneError> {
    let mut ebpf = loader
        .load(object.bytes())
        .map_err(|error| DataplaneError::Load(Box::new(error)))?;
    let stages = Stage::ALL.iter().map(|stage| stage.program());
    for program in [PROGRAM, CLOCK].into_iter().chain(stages) {
        load_program(&mut ebpf, program)?;
    }
    Ok(ebpf)
}

/// Puts the other programs where the attached one finds them. The kernel empties the array when the last handle on it is
/// closed: it must be kept.
pub(super) fn stages(ebpf: &mut Ebpf) -> Result<ProgramArray<MapData>, DataplaneError> {
    let refused = |reason: String| DataplaneError::Map {
        map: PROGRAMS,
        reason,
    };
    let map = ebpf.take_map(PROGRAMS).ok_or(DataplaneError::Missing(PROGRAMS))?;
    let mut programs = ProgramArray::try_from(map).map_err(|error| refused(error.to_string()))?;
    let stages = Stage::ALL.iter().map(|stage| (*stage as u32, stage.program()));
    for (place, name) in stages.chain([(ATTACHED_PLACE, PROGRAM)]) {
        let program = program(ebpf, name)?;
        let descriptor = program.fd().map_err(|error| refused(error.to_string()))?;
        programs
            .set(place, descriptor, 0)
            .map_err(|error| refused(format!("cannot take {name}: {error}")))?;
    }
    Ok(programs)
}

/// A seed as the program's globals have it.
#[derive(Debug)]
struct SeedBytes([u8; size_of::<Seed>()]);

impl From<u64> for SeedBytes {
    fn from(seed: u64) -> Self {
        // SAFETY: three words without padding.
        Self(unsafe { std::mem::transmute::<Seed, [u8; size_of::<Seed>()]>(Seed::new(seed)) })
    }
}

pub(super) fn random_seed() -> Result<u64, DataplaneError> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| DataplaneError::Map {
            map: "CONNECTIONS",
            reason: format!("no random secret: {error}"),
        })?;
    Ok(u64::from_ne_bytes(bytes))
}

pub(super) fn load_program(ebpf: &mut Ebpf, name: &'static str) -> Result<(), DataplaneError> {
    program_mut(ebpf, name)?
        .load()
        .map_err(|source| DataplaneError::Program {
            program: name,
            source: Box::new(source),
        })
}

pub(super) fn program<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a Xdp, DataplaneError> {
    ebpf.program(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(DataplaneError::Missing(name))
}

pub(super) fn program_mut<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, DataplaneError> {
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(DataplaneError::Missing(name))
}

pub(super) fn array<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a MapData, DataplaneError> {
    match ebpf.map(name) {
        Some(Map::Array(data)) => Ok(data),
        _ => Err(DataplaneError::Missing(name)),
    }
}

pub(super) fn mapped<T>(ebpf: &Ebpf, name: &'static str) -> Result<MappedArray<T>, DataplaneError> {
    MappedArray::new(name, array(ebpf, name)?)
}

pub(super) fn per_cpu<T: aya::Pod>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<PerCpuArray<MapData, T>, DataplaneError> {
    let map = ebpf.take_map(name).ok_or(DataplaneError::Missing(name))?;
    PerCpuArray::try_from(map).map_err(|error| DataplaneError::Map {
        map: name,
        reason: error.to_string(),
    })
}
