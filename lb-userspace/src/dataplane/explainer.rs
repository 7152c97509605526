//! A second instance of the program, attached to nothing, over the same maps: it says what would become of a frame, and
//! changes nothing. `tests/packet/why.rs` holds it to both.

use std::sync::Arc;

use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray, PerCpuValues, ProgramArray};
use aya::programs::{TestRun as _, TestRunOptions};
use lb_common::explain::{Decision, Notes};
use lb_common::outcome::Outcome;

use super::load::{self, Constants, PROGRAM, per_cpu, program};
use super::shared_maps::{self, SharedMaps};
use super::{DataplaneError, Object};

const NOTES: &str = "NOTES";
/// A frame grows by a tunnel's header at most, or becomes the quote in an ICMP error, and that of the shortest one is longer.
const ROOM: usize = 256;

/// What a second instance is loaded from: cheap to have, and may be taken elsewhere, since loading takes most of a second.
#[derive(Debug, Clone)]
pub struct Blueprint {
    pub(super) object: Object,
    pub(super) constants: Arc<Constants>,
    pub(super) maps: Arc<SharedMaps>,
}

/// The second instance.
pub struct Explainer {
    ebpf: Ebpf,
    notes: PerCpuArray<MapData, NotesValue>,
    /// The program's successors are there as long as this is.
    _stages: ProgramArray<MapData>,
}

/// What would become of a frame.
#[derive(Debug, Clone)]
pub struct Explained {
    /// As the kernel's runner reports it (`enum xdp_action`).
    pub action: u32,
    /// The frame as it would leave.
    pub frame: Vec<u8>,
    /// What the program said on the way.
    pub notes: Notes,
}

impl Explained {
    /// What became of it, and the interface that it would leave by, 0 if that is of no consequence.
    pub fn outcome(&self) -> Option<(Outcome, u32)> {
        self.notes.decisions().find_map(|(decision, first, second)| {
            if decision != Decision::Outcome {
                return None;
            }
            let outcome = Outcome::from_index(u32::try_from(first).ok()?)?;
            Some((outcome, u32::try_from(second).ok()?))
        })
    }

    /// What was said about one kind of decision, the last time.
    pub fn last(&self, wanted: Decision) -> Option<(u64, u64)> {
        let all = self.notes.decisions();
        all.filter(|(decision, ..)| *decision == wanted)
            .last()
            .map(|(_, first, second)| (first, second))
    }
}

/// Notes as the map has them.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct NotesValue(Notes);

// SAFETY: integers, without padding.
unsafe impl aya::Pod for NotesValue {}

impl Explainer {
    /// Loads it; takes most of a second.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn load(blueprint: &Blueprint) -> Result<Self, DataplaneError> {
        let yes = 1u8;
        let mut loader = blueprint.constants.loader();
        loader
            .override_global("EXPLAIN", &yes, true)
            .override_global("DRY_RUN", &yes, true)
            // Of no use here: id 0 is nobody's.
            .map_max_entries("BACKEND_COUNTERS", 1);
        for name in shared_maps::STATE {
            loader.map_pin_path(name, blueprint.maps.path(name));
        }
        let mut ebpf = load::load_object(&mut loader, &blueprint.object)?;
        Ok(Self {
            notes: per_cpu(&mut ebpf, NOTES)?,
            _stages: load::stages(&mut ebpf)?,
            ebpf,
        })
    }

    /// What would become of a frame that comes in by an interface of this network namespace; 0: by the loopback device.
    ///
    /// # Errors
    /// The kernel does not run the program on it: shorter than an Ethernet header, longer than a page, or no such interface.
    pub fn explain(&mut self, frame: &[u8], interface_index: u32) -> Result<Explained, DataplaneError> {
        self.forget()?;
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        let length = frame.len() as u32;
        let context = [0, length, 0, interface_index, 0, 0].map(u32::to_ne_bytes);
        let mut out = vec![0; frame.len() + ROOM];
        let result = program(&self.ebpf, PROGRAM)?
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ctx_in: (interface_index != 0).then_some(context.as_flattened()),
                ..TestRunOptions::new()
            })
            .map_err(|source| DataplaneError::Program {
                program: PROGRAM,
                source: Box::new(source),
            })?;
        out.truncate(result.data_size_out as usize);
        Ok(Explained {
            action: result.return_value,
            frame: out,
            notes: self.notes()?,
        })
    }

    fn forget(&mut self) -> Result<(), DataplaneError> {
        let cpus = aya::util::nr_cpus().map_err(|(file, error)| refused(format!("{file}: {error}")))?;
        let nothing = PerCpuValues::try_from(vec![NotesValue(Notes::EMPTY); cpus])
            .map_err(|error| refused(error.to_string()))?;
        self.notes
            .set(0, nothing, 0)
            .map_err(|error| refused(error.to_string()))
    }

    /// Those of the CPU that the program has just run on.
    fn notes(&self) -> Result<Notes, DataplaneError> {
        let all = self
            .notes
            .get(&0, 0)
            .map_err(|error| refused(error.to_string()))?;
        let written = all.iter().find(|notes| notes.0.count > 0);
        Ok(written.map_or(Notes::EMPTY, |notes| notes.0))
    }
}

fn refused(reason: String) -> DataplaneError {
    DataplaneError::Map { map: NOTES, reason }
}
