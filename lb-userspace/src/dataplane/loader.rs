//! Loading, attaching, publishing.

use std::borrow::Cow;
use std::io::Read as _;

use aya::maps::{Map, MapData, PerCpuArray};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{ProgramError, TestRun as _, TestRunOptions, TestRunResult, Xdp, XdpMode as AyaMode};
use aya::{Ebpf, EbpfLoader};
use lb_common::abi::BACKEND_IDS;
use lb_common::abi::{
    Backend, Control, CopyHeader, ENDPOINT_BUCKETS, SERVICE_BUCKETS, SERVICE_NUMBERS, SLOT_LINES, Service,
    SlotLine,
};
use lb_common::connection_table::buckets_for;
use lb_common::hash::Seed;
use lb_common::lookup_table::LookupBucket;
use lb_common::tick::Tick;

use super::memory::MappedArray;
use super::{Clock, ConnectionTable, Counters, DataplaneError, Object, Snapshot};
use crate::config::XdpMode;

/// The program that balances.
pub const PROGRAM: &str = "lb";
/// The program that tells the time.
pub(super) const CLOCK: &str = "lb_clock";

/// What the program is loaded with; none of it can change while it runs.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// Connections that the table is made for.
    pub max_connections: u32,
    /// Whether answers go back where the client's last packet came from.
    pub learn_return_hops: bool,
    /// Seed of the choice of backends; the same on every balancer of a fleet.
    pub selection_seed: u64,
}

/// An interface that the program is attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its name.
    pub interface: String,
    /// Whether the driver runs the program (else the kernel does, later and slower).
    pub native: bool,
}

/// The loaded program and its maps. Dropping it detaches the program.
pub struct Dataplane {
    ebpf: Ebpf,
    clock: Clock,
    attachments: Vec<Attachment>,
    links: Vec<XdpLinkId>,
    control: MappedArray<Control>,
    service_table: MappedArray<LookupBucket>,
    endpoint_table: MappedArray<LookupBucket>,
    siblings: MappedArray<u64>,
    services: MappedArray<Service>,
    backends: MappedArray<Backend>,
    slots: MappedArray<SlotLine>,
    connections: ConnectionTable,
    counters: Counters,
}

impl Dataplane {
    /// Loads the program, attached to nothing yet.
    ///
    /// # Errors
    /// The kernel refuses it, or lacks what it needs.
    pub fn load(object: &Object, options: LoadOptions) -> Result<Self, DataplaneError> {
        let clock = measure_clock(object)?;
        let buckets = buckets_for(options.max_connections).max(2);
        let (table_seed, selection_seed) = (
            SeedBytes::from(random_seed()?),
            SeedBytes::from(options.selection_seed),
        );
        let (shift, learn) = (clock.shift(), u8::from(options.learn_return_hops));
        let mut loader = EbpfLoader::new();
        loader
            .map_max_entries("CONNECTIONS", buckets)
            .override_global("CONNECTION_BUCKETS", &buckets, true)
            .override_global("TABLE_SEED", &table_seed.0[..], true)
            .override_global("SELECTION_SEED", &selection_seed.0[..], true)
            .override_global("TICK_SHIFT", &shift, true)
            .override_global("LEARN_RETURN_HOPS", &learn, true);
        let mut ebpf = loader
            .load(object.bytes())
            .map_err(|error| DataplaneError::Load(Box::new(error)))?;
        for program in [PROGRAM, CLOCK] {
            load_program(&mut ebpf, program)?;
        }
        let counters = Counters::new(
            per_cpu(&mut ebpf, "OUTCOME_COUNTERS")?,
            per_cpu(&mut ebpf, "BACKEND_COUNTERS")?,
        );
        Ok(Self {
            clock,
            attachments: Vec::new(),
            links: Vec::new(),
            control: mapped(&ebpf, "CONTROL")?,
            service_table: mapped(&ebpf, "SERVICE_TABLE")?,
            endpoint_table: mapped(&ebpf, "ENDPOINT_TABLE")?,
            siblings: mapped(&ebpf, "SIBLINGS")?,
            services: mapped(&ebpf, "SERVICES")?,
            backends: mapped(&ebpf, "BACKENDS")?,
            slots: mapped(&ebpf, "SLOTS")?,
            connections: ConnectionTable::new(array(&ebpf, "CONNECTIONS")?)?,
            counters,
            ebpf,
        })
    }

    /// Attaches the program to interfaces. `Auto` means native on all of them or generic on all of them: a driver without
    /// native XDP does not take frames that are redirected from one with it, and the kernel drops them silently.
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub fn attach_all(&mut self, interfaces: &[String], mode: XdpMode) -> Result<(), DataplaneError> {
        for interface in interfaces {
            self.attach(interface, mode)?;
        }
        let has = |native| self.attachments.iter().any(|it| it.native == native);
        if has(true) && has(false) {
            tracing::warn!("not all interfaces can have native XDP, so all get the generic one");
            self.detach_all()?;
            for interface in interfaces {
                self.attach(interface, XdpMode::Generic)?;
            }
        }
        Ok(())
    }

    fn detach_all(&mut self) -> Result<(), DataplaneError> {
        self.attachments.clear();
        for link in self.links.drain(..) {
            program_mut(&mut self.ebpf, PROGRAM)?
                .detach(link)
                .map_err(|source| DataplaneError::Program {
                    program: PROGRAM,
                    source: Box::new(source),
                })?;
        }
        Ok(())
    }

    /// Attaches the program to an interface.
    ///
    /// # Errors
    /// The interface has a program already, or the mode asked for is not to be had.
    pub fn attach(&mut self, interface: &str, mode: XdpMode) -> Result<Attachment, DataplaneError> {
        let native = match mode {
            XdpMode::Native => self.attach_as(interface, true).map(|()| true),
            XdpMode::Generic => self.attach_as(interface, false).map(|()| false),
            XdpMode::Auto => match self.attach_as(interface, true) {
                Ok(()) => Ok(true),
                Err(error) if is_busy(&error) => Err(error),
                Err(error) => {
                    let reason = attach_reason(&error);
                    tracing::warn!(
                        interface,
                        reason,
                        "no native XDP here, falling back to generic, which is slower"
                    );
                    self.attach_as(interface, false).map(|()| false)
                }
            },
        };
        let native = native.map_err(|error| DataplaneError::Attach {
            interface: interface.to_owned(),
            mode: if mode == XdpMode::Generic {
                "generic"
            } else {
                "native"
            },
            reason: attach_reason(&error),
        })?;
        let attachment = Attachment {
            interface: interface.to_owned(),
            native,
        };
        self.attachments.push(attachment.clone());
        Ok(attachment)
    }

    fn attach_as(&mut self, interface: &str, native: bool) -> Result<(), ProgramError> {
        let Ok(program) = program_mut(&mut self.ebpf, PROGRAM) else {
            return Err(ProgramError::NotLoaded);
        };
        let mode = if native { AyaMode::Driver } else { AyaMode::Skb };
        let link = program.attach(interface, mode)?;
        self.links.push(link);
        Ok(())
    }

    /// The interfaces that the program is attached to.
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// Makes a snapshot what packets are judged by: writes the idle copy, flips, and waits until no packet looks at the
    /// old one any more, so that it can be written next time. Takes 10 to 20 ms.
    pub fn publish(&mut self, snapshot: &Snapshot) {
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
        let header = CopyHeader {
            service_seed: snapshot.services_by_endpoint.seed,
            endpoint_seed: snapshot.backends_by_endpoint.seed,
            service_mask: snapshot.services_by_endpoint.mask(),
            endpoint_mask: snapshot.backends_by_endpoint.mask(),
        };
        self.flip(idle, header);
        wait_for_grace_period();
    }

    fn control(&mut self) -> Control {
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

    /// The connection table.
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

    /// The loaded program, for whoever runs it in a way of his own.
    ///
    /// # Errors
    /// Never, once loaded.
    pub fn program(&self) -> Result<&Xdp, DataplaneError> {
        program(&self.ebpf, PROGRAM)
    }

    /// The loaded object, for the program's log.
    pub fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

/// A seed as the program's globals have it.
struct SeedBytes([u8; size_of::<Seed>()]);

impl From<u64> for SeedBytes {
    fn from(seed: u64) -> Self {
        // SAFETY: three words without padding.
        Self(unsafe { std::mem::transmute::<Seed, [u8; size_of::<Seed>()]>(Seed::new(seed)) })
    }
}

fn random_seed() -> Result<u64, DataplaneError> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| DataplaneError::Map {
            map: "CONNECTIONS",
            reason: format!("no random secret: {error}"),
        })?;
    Ok(u64::from_ne_bytes(bytes))
}

/// The clock program alone, to learn the tick's length, which the balancing program must know when it is loaded.
fn measure_clock(object: &Object) -> Result<Clock, DataplaneError> {
    let mut ebpf = EbpfLoader::new()
        .load(object.bytes())
        .map_err(|error| DataplaneError::Load(Box::new(error)))?;
    load_program(&mut ebpf, CLOCK)?;
    Clock::measure(program(&ebpf, CLOCK)?)
}

fn load_program(ebpf: &mut Ebpf, name: &'static str) -> Result<(), DataplaneError> {
    program_mut(ebpf, name)?
        .load()
        .map_err(|source| DataplaneError::Program {
            program: name,
            source: Box::new(source),
        })
}

fn program<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a Xdp, DataplaneError> {
    ebpf.program(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(DataplaneError::Missing(name))
}

fn program_mut<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, DataplaneError> {
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(DataplaneError::Missing(name))
}

fn array<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a MapData, DataplaneError> {
    match ebpf.map(name) {
        Some(Map::Array(data)) => Ok(data),
        _ => Err(DataplaneError::Missing(name)),
    }
}

fn mapped<T>(ebpf: &Ebpf, name: &'static str) -> Result<MappedArray<T>, DataplaneError> {
    MappedArray::new(name, array(ebpf, name)?)
}

fn per_cpu<T: aya::Pod>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<PerCpuArray<MapData, T>, DataplaneError> {
    let map = ebpf.take_map(name).ok_or(DataplaneError::Missing(name))?;
    PerCpuArray::try_from(map).map_err(|error| DataplaneError::Map {
        map: name,
        reason: error.to_string(),
    })
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
fn wait_for_grace_period() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

fn io_error(error: &ProgramError) -> Option<&std::io::Error> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return Some(error);
        }
        source = error.source();
    }
    None
}

fn is_busy(error: &ProgramError) -> bool {
    matches!(
        io_error(error).and_then(std::io::Error::raw_os_error),
        Some(libc::EBUSY | libc::EEXIST)
    )
}

fn attach_reason(error: &ProgramError) -> String {
    if is_busy(error) {
        return "another XDP program is attached there, perhaps another lbd's; `ip link show` and `bpftool net` name \
                it; stop it first"
            .to_owned();
    }
    match io_error(error) {
        Some(error) if error.raw_os_error() == Some(libc::EPERM) => {
            "not permitted: lbd needs CAP_NET_ADMIN and CAP_BPF".to_owned()
        }
        Some(error) => error.to_string(),
        None => Cow::from(error.to_string()).into_owned(),
    }
}
