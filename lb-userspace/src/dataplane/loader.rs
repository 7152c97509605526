//! The loaded program: publishing to it, reading what it wrote, running it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use aya::Ebpf;
use aya::maps::{MapData, ProgramArray};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{TestRun as _, TestRunOptions, TestRunResult, Xdp};
use lb_common::abi::{
    BACKEND_IDS, Backend, BackendState, Control, CopyHeader, ENDPOINT_BUCKETS, Outer, PortEntry, Pressure,
    SERVICE_BUCKETS, SERVICE_NUMBERS, SLOT_LINES, Service, SlotLine, TableHeader,
};
use lb_common::lookup_table::LookupBucket;
use lb_common::tick::Tick;

use super::attach::Attachment;
use super::load::{self, CLOCK, Constants, Lengths, LoadOptions, PROGRAM, array, mapped, per_cpu, program};
use super::memory::MappedArray;
use super::shared_maps::SharedMaps;
use super::takeover::Pinned;
use super::{Blueprint, Clock, ConnectionTable, Counters, DataplaneError, Object, Snapshot};
use crate::failpoint::{self, Failpoint};

type Word = std::sync::atomic::AtomicU64;

/// The loaded program and its maps. Dropping it detaches the program, unless it is pinned.
pub struct Dataplane {
    pub(super) ebpf: Ebpf,
    clock: Clock,
    object: Object,
    constants: Arc<Constants>,
    maps: Result<Arc<SharedMaps>, DataplaneError>,
    pub(super) attachments: Vec<Attachment>,
    /// By interface, and whether native; none that are pinned.
    pub(super) links: Vec<(String, bool, XdpLinkId)>,
    /// The attached program's successors are there as long as this is.
    pub(super) stages: ProgramArray<MapData>,
    /// What the tables are pinned as, of a data path that outlives the daemon.
    pub(super) pinned: Option<Pinned>,
    pub(super) header: MappedArray<TableHeader>,
    pub(super) notes: MappedArray<u64>,
    pub(super) control: MappedArray<Control>,
    service_table: MappedArray<LookupBucket>,
    endpoint_table: MappedArray<LookupBucket>,
    siblings: MappedArray<u64>,
    services: MappedArray<Service>,
    backends: MappedArray<Backend>,
    outers: MappedArray<Outer>,
    slots: MappedArray<SlotLine>,
    backend_states: MappedArray<BackendState<Word>>,
    pressure: MappedArray<Pressure<Word>>,
    pub(super) own_ports: MappedArray<PortEntry<Word>>,
    pub(super) connections: ConnectionTable,
    counters: Counters,
}

impl Dataplane {
    /// Loads the program with tables of its own, attached to nothing yet. All of it goes when this is dropped.
    ///
    /// # Errors
    /// The kernel refuses it, or lacks what it needs.
    pub fn load(object: &Object, options: LoadOptions) -> Result<Self, DataplaneError> {
        let clock = Clock::of_this_kernel()?;
        let constants = Constants::new(options, clock, Lengths::of(&options), load::random_seed()?);
        let ebpf = load::load_object(&mut constants.loader(), object)?;
        let maps = SharedMaps::of(&ebpf);
        Self::with(ebpf, object, (clock, constants), maps, None)
    }

    pub(super) fn with(
        mut ebpf: Ebpf,
        object: &Object,
        (clock, constants): (Clock, Constants),
        maps: Result<SharedMaps, DataplaneError>,
        pinned: Option<Pinned>,
    ) -> Result<Self, DataplaneError> {
        let counters = Counters::new(
            per_cpu(&mut ebpf, "OUTCOME_COUNTERS")?,
            per_cpu(&mut ebpf, "BACKEND_COUNTERS")?,
            per_cpu(&mut ebpf, "EVICTIONS")?,
        );
        Ok(Self {
            clock,
            object: object.clone(),
            constants: Arc::new(constants),
            maps: maps.map(Arc::new),
            attachments: Vec::new(),
            links: Vec::new(),
            stages: load::stages(&mut ebpf)?,
            pinned,
            header: mapped(&ebpf, "TABLE_HEADER")?,
            notes: mapped(&ebpf, "DAEMON_NOTES")?,
            control: mapped(&ebpf, "CONTROL")?,
            service_table: mapped(&ebpf, "SERVICE_TABLE")?,
            endpoint_table: mapped(&ebpf, "ENDPOINT_TABLE")?,
            siblings: mapped(&ebpf, "SIBLINGS")?,
            services: mapped(&ebpf, "SERVICES")?,
            backends: mapped(&ebpf, "BACKENDS")?,
            outers: mapped(&ebpf, "OUTERS")?,
            slots: mapped(&ebpf, "SLOTS")?,
            backend_states: mapped(&ebpf, "BACKEND_STATES")?,
            pressure: mapped(&ebpf, "PRESSURE")?,
            own_ports: mapped(&ebpf, "PORTS")?,
            connections: ConnectionTable::new(
                array(&ebpf, "CONNECTIONS")?,
                array(&ebpf, "WIDE_CONNECTIONS")?,
            )?,
            counters,
            ebpf,
        })
    }

    /// Makes a snapshot what packets are judged by: writes the idle copy, flips, and waits until no packet looks at the
    /// old one any more, so that it can be written next time. Takes 10 to 20 ms. `smallest_mtu` is the least MTU of the
    /// interfaces that packets leave by; 0: the program looks each packet's up.
    pub fn publish(&mut self, snapshot: &Snapshot, smallest_mtu: u32) {
        let idle = usize::from(self.control().active & 1 == 0);
        fill(
            &mut self.service_table,
            idle * SERVICE_BUCKETS as usize,
            &snapshot.services_by_endpoint.buckets,
        );
        fill(
            &mut self.endpoint_table,
            idle * ENDPOINT_BUCKETS as usize,
            &snapshot.backends_by_endpoint.buckets,
        );
        fill(
            &mut self.siblings,
            idle * BACKEND_IDS as usize,
            &snapshot.siblings,
        );
        fill(&mut self.slots, idle * SLOT_LINES as usize, &snapshot.slots);
        failpoint::reach(Failpoint::CopyHalfWritten);
        let services = copy_of(&mut self.services, idle, SERVICE_NUMBERS);
        for (number, service) in services.iter_mut().enumerate() {
            *service = snapshot
                .services
                .get(&(number as u16))
                .copied()
                .unwrap_or_default();
        }
        let backends = copy_of(&mut self.backends, idle, BACKEND_IDS);
        for (id, backend) in backends.iter_mut().enumerate() {
            match snapshot.backends.get(&(id as u16)) {
                Some(record) => *backend = *record,
                None => backend.flags = 0,
            }
        }
        let outers = copy_of(&mut self.outers, idle, BACKEND_IDS);
        for (id, outer) in outers.iter_mut().enumerate() {
            *outer = snapshot.outers.get(&(id as u16)).copied().unwrap_or_default();
        }
        for (id, weight) in &snapshot.weights {
            if let Some(state) = self.backend_states.shared().get(usize::from(*id)) {
                state.weight.store(u64::from(*weight), Relaxed);
            }
        }
        let header = CopyHeader {
            service_multiplier: snapshot.services_by_endpoint.multiplier,
            endpoint_multiplier: snapshot.backends_by_endpoint.multiplier,
            service_mask: snapshot.services_by_endpoint.mask(),
            endpoint_mask: snapshot.backends_by_endpoint.mask(),
            smallest_mtu,
            flags: flag(snapshot.several_ports, CopyHeader::SEVERAL_PORTS)
                | flag(self.is_migrating(), CopyHeader::MIGRATING),
        };
        failpoint::reach(Failpoint::CopyWritten);
        self.flip(idle, header);
        failpoint::reach(Failpoint::CopyActive);
        wait_for_grace_period();
    }

    /// The slots in force of a service that chooses by hashing, and those before, with the way in which it chooses; empty: none.
    pub fn slots(&mut self, service: u16) -> Option<(u32, Vec<u16>, Vec<u16>)> {
        let copy = usize::from(self.control().active & 1 != 0);
        let service = *copy_of(&mut self.services, copy, SERVICE_NUMBERS).get(usize::from(service))?;
        let lines = copy_of(&mut self.slots, copy, SLOT_LINES);
        let part = |first: u32, length: u32| {
            let pool = lines.iter().flat_map(|line| line.slots);
            pool.skip(first as usize).take(length as usize).collect()
        };
        Some((
            service.choice,
            part(service.first_slot, service.slots),
            part(service.previous_slot, service.previous_slots),
        ))
    }

    pub(super) fn control(&mut self) -> Control {
        self.control.exclusive().first().copied().unwrap_or_default()
    }

    fn flip(&mut self, idle: usize, header: CopyHeader) {
        let Some(control) = self.control.exclusive().first_mut() else {
            return;
        };
        if let Some(copy) = control.copies.get_mut(idle) {
            *copy = header;
        }
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        // SAFETY: an aligned word of our own mapping; volatile so that it is one store, after everything above.
        unsafe { (&raw mut control.active).write_volatile(idle as u64) };
    }

    /// Sets what the program believes of how many connections each backend has, by which it chooses the least loaded.
    pub fn set_loads(&self, connections: impl Fn(u16) -> u64) {
        for (id, state) in (0..).zip(self.backend_states.shared()) {
            state.load.store(connections(id), Relaxed);
        }
    }

    /// What the program believes of how many connections a backend has, and the weight that it divides that by.
    pub fn load_of(&self, id: u16) -> Option<(u64, u64)> {
        let state = self.backend_states.shared().get(usize::from(id))?;
        Some((state.load.load(Relaxed), state.weight.load(Relaxed)))
    }

    /// Whether the table is being flooded: many half-open connections that were but seconds old had to make room within the
    /// last half minute.
    pub fn is_flooded(&self, now: Tick) -> bool {
        /// As the program has it.
        const RECENT_TICKS: u16 = 8;
        let noted = self
            .pressure
            .shared()
            .first()
            .map_or(0, |it| it.flooded.load(Relaxed));
        noted != 0 && now.0.wrapping_sub((noted as u16).wrapping_sub(1)) <= RECENT_TICKS
    }

    /// Bytes of memory of the own ports of `full-nat` connections.
    pub fn own_ports_bytes(&self) -> u64 {
        size_of_val(self.own_ports.shared()) as u64
    }

    /// The connection tables.
    pub fn connections(&self) -> &ConnectionTable {
        &self.connections
    }

    /// What the program counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How long a tick of the table's clock lasts.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// What time it is in the table.
    ///
    /// # Errors
    /// The kernel does not let us run a program.
    pub fn now(&self) -> Result<Tick, DataplaneError> {
        self.clock.now(program(&self.ebpf, CLOCK)?)
    }

    /// Runs the program on a frame through the kernel's program runner; the frame as it leaves goes to `out`. What it
    /// writes is real: entries, counters, cursors.
    ///
    /// # Errors
    /// The kernel does not let us run a program, or `out` is too small.
    pub fn run(&self, frame: &[u8], out: &mut [u8]) -> Result<TestRunResult, DataplaneError> {
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(out),
            ..TestRunOptions::new()
        };
        program(&self.ebpf, PROGRAM)?
            .test_run(options)
            .map_err(|source| DataplaneError::Program {
                program: PROGRAM,
                source: Box::new(source),
            })
    }

    /// What a second instance over the same maps is loaded from.
    ///
    /// # Errors
    /// The maps could not be shared, in words: without pins that needs CAP_SYS_ADMIN when the program is loaded.
    pub fn blueprint(&self) -> Result<Blueprint, String> {
        let maps = self.maps.as_ref().map_err(ToString::to_string)?;
        Ok(Blueprint {
            object: self.object.clone(),
            constants: Arc::clone(&self.constants),
            maps: Arc::clone(maps),
        })
    }

    /// The loaded program, for whoever runs it in a way of his own.
    ///
    /// # Errors
    /// Never, once loaded.
    pub fn program(&self) -> Result<&Xdp, DataplaneError> {
        program(&self.ebpf, PROGRAM)
    }

    /// The loaded object, for whoever reads its maps in a way of his own.
    pub fn ebpf(&self) -> &Ebpf {
        &self.ebpf
    }

    /// The loaded object, for the program's log.
    pub fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

fn flag(is: bool, flag: u32) -> u32 {
    if is { flag } else { 0 }
}

fn copy_of<T>(map: &mut MappedArray<T>, copy: usize, elements: u32) -> &mut [T]
where
    T: super::memory::DaemonElement,
{
    let elements = elements as usize;
    map.exclusive()
        .get_mut(copy * elements..(copy + 1) * elements)
        .unwrap_or_default()
}

fn fill<T: super::memory::DaemonElement + Copy>(map: &mut MappedArray<T>, from: usize, content: &[T]) {
    for (element, value) in map.exclusive().iter_mut().skip(from).zip(content) {
        *element = *value;
    }
}

/// After this, no packet is judged by what was active before. `membarrier(2)`: MEMBARRIER_CMD_GLOBAL waits for an RCU
/// grace period, and XDP programs run inside RCU read-side sections. The kernel refuses it only with `nohz_full` CPUs.
pub(super) fn wait_for_grace_period() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
