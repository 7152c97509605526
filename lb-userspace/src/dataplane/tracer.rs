//! A second instance of the program that is called instead of the attached one, decides in its stead over the same maps, and
//! says what it decided.

use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray, ProgramArray, RingBuf};
use aya::programs::ProgramFd;
use lb_common::abi::TRACED_PLACE;
use lb_common::explain::{Notes, TraceFilter, TraceState};

use super::explainer::Blueprint;
use super::load::{self, PROGRAM, mapped, per_cpu, program};
use super::memory::MappedArray;
use super::shared_maps;
use super::{Dataplane, DataplaneError};

/// Its first program, which is the one that is called.
const FIRST: &str = "lb_traced";
/// Bytes of notes that wait to be read: about a thousand packets'.
const WAITING: u32 = 1 << 20;

/// The second instance.
pub struct Tracer {
    ebpf: Ebpf,
    filter: MappedArray<TraceFilter>,
    state: PerCpuArray<MapData, [u64; 3]>,
    notes: RingBuf<MapData>,
    /// The program's successors are there as long as this is.
    _stages: ProgramArray<MapData>,
}

impl Tracer {
    /// Loads it; takes most of a second. It traces nothing before [`Dataplane::trace`].
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn load(blueprint: &Blueprint, filter: TraceFilter) -> Result<Self, DataplaneError> {
        const { assert!(size_of::<TraceState>() == size_of::<[u64; 3]>()) };
        let yes = 1u8;
        let mut loader = blueprint.constants.loader();
        loader
            .override_global("EXPLAIN", &yes, true)
            .override_global("TRACE", &yes, true)
            .map_max_entries("TRACED", WAITING)
            .map_pin_path("LIVE_PROGRAMS", blueprint.maps.path(load::PROGRAMS));
        for name in shared_maps::STATE.into_iter().chain(shared_maps::COUNTERS) {
            loader.map_pin_path(name, blueprint.maps.path(name));
        }
        let mut ebpf = load::load_object(&mut loader, &blueprint.object)?;
        load::load_program(&mut ebpf, FIRST)?;
        let mut stages = load::stages(&mut ebpf)?;
        let attached = program(&ebpf, PROGRAM)?.fd().map_err(refused(PROGRAM))?;
        stages
            .set(TRACED_PLACE, attached, 0)
            .map_err(|error| DataplaneError::Map {
                map: load::PROGRAMS,
                reason: error.to_string(),
            })?;
        let ring = ebpf.take_map("TRACED").ok_or(DataplaneError::Missing("TRACED"))?;
        let notes = RingBuf::try_from(ring).map_err(|error| DataplaneError::Map {
            map: "TRACED",
            reason: error.to_string(),
        })?;
        let mut tracer = Self {
            filter: mapped(&ebpf, "TRACE_FILTER")?,
            state: per_cpu(&mut ebpf, "TRACE_STATE")?,
            notes,
            _stages: stages,
            ebpf,
        };
        if let Some(place) = tracer.filter.exclusive().first_mut() {
            *place = filter;
        }
        Ok(tracer)
    }

    /// What was decided about the next packet, if there was one.
    pub fn read(&mut self) -> Option<Notes> {
        let item = self.notes.next()?;
        // SAFETY: the program writes notes, which consist of integers.
        (item.len() == size_of::<Notes>()).then(|| unsafe { item.as_ptr().cast::<Notes>().read_unaligned() })
    }

    /// How many packets were left out: beyond the rate, or not read in time.
    ///
    /// # Errors
    /// The kernel does not let us read the map.
    pub fn left_out(&self) -> Result<u64, DataplaneError> {
        let states = self.state.get(&0, 0).map_err(|error| DataplaneError::Map {
            map: "TRACE_STATE",
            reason: error.to_string(),
        })?;
        Ok(states.iter().map(|[_, _, left_out]| left_out).sum())
    }

    /// The program to be called.
    ///
    /// # Errors
    /// Never, once loaded.
    pub fn first(&self) -> Result<ProgramFd, DataplaneError> {
        let descriptor = program(&self.ebpf, FIRST)?.fd().map_err(refused(FIRST))?;
        descriptor.try_clone().map_err(|error| DataplaneError::Program {
            program: FIRST,
            source: Box::new(aya::programs::ProgramError::IOError(error)),
        })
    }
}

fn refused(program: &'static str) -> impl Fn(aya::programs::ProgramError) -> DataplaneError {
    move |source| DataplaneError::Program {
        program,
        source: Box::new(source),
    }
}

impl Dataplane {
    /// Has all packets decided about by a [`Tracer`]'s first program, or (`None`) by the attached one again. Both do so by the
    /// same tables, so that it makes no difference to any packet.
    ///
    /// # Errors
    /// The kernel does not take the program.
    pub fn trace(&mut self, first: Option<&ProgramFd>) -> Result<(), DataplaneError> {
        if let Some(first) = first {
            self.stages
                .set(TRACED_PLACE, first, 0)
                .map_err(|error| DataplaneError::Map {
                    map: load::PROGRAMS,
                    reason: format!("cannot take {FIRST}: {error}"),
                })?;
        }
        if let Some(control) = self.control.exclusive().first_mut() {
            // SAFETY: an aligned word of our own mapping; volatile since the program reads it at any time.
            unsafe { (&raw mut control.traced).write_volatile(u64::from(first.is_some())) };
        }
        if first.is_none() {
            // It may be empty already.
            drop(self.stages.clear_index(&TRACED_PLACE));
        }
        Ok(())
    }
}
