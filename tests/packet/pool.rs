//! Loaded programs, which tests take turns with: to load one takes the kernel most of a second.
//!
//! Before it is given to another test, everything that a program has written is taken back, but for its counters, those of
//! evictions among them, which only ever count up.

use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, bail};
use aya::Pod;
use aya::maps::{HashMap, Map, PerCpuArray, PerCpuValues};
use lb::dataplane::{Dataplane, LoadOptions, Object};
use lb_common::tick::Tick;
use memmap2::MmapOptions;

/// The load balancer among the kernel crate's binaries.
const OBJECT: &str = "lb-ebpf";

/// What most tests load.
pub const OPTIONS: LoadOptions = LoadOptions {
    max_connections: 10_000,
    max_wide_connections: 10_000,
    full_nat_ports: 4096,
    learn_return_hops: true,
    selection_seed: 7,
};

/// All that options say.
type Key = (u32, u32, u32, bool, u64);

static IDLE: Mutex<Vec<(Key, Dataplane)>> = Mutex::new(Vec::new());

/// A loaded program, given back when it is dropped if others may have it.
pub struct Leased {
    dataplane: Option<Dataplane>,
    /// `None`: nobody else may have it.
    key: Option<Key>,
}

impl Leased {
    /// One that others had before, or will have.
    pub fn shared(options: LoadOptions) -> anyhow::Result<Self> {
        let key = (
            options.max_connections,
            options.max_wide_connections,
            options.full_nat_ports,
            options.learn_return_hops,
            options.selection_seed,
        );
        let found = {
            let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
            let at = idle.iter().position(|(known, _)| *known == key);
            at.map(|at| idle.swap_remove(at).1)
        };
        let dataplane = match found {
            Some(dataplane) => dataplane,
            None => Dataplane::load(&object()?, options)?,
        };
        Ok(Self {
            dataplane: Some(dataplane),
            key: Some(key),
        })
    }

    /// One of its own: to be attached, or with counters that nothing was counted by yet.
    pub fn alone(options: LoadOptions) -> anyhow::Result<Self> {
        Ok(Self {
            dataplane: Some(Dataplane::load(&object()?, options)?),
            key: None,
        })
    }
}

impl Deref for Leased {
    type Target = Dataplane;

    fn deref(&self) -> &Dataplane {
        self.dataplane.as_ref().expect("it is there until it is dropped")
    }
}

impl DerefMut for Leased {
    fn deref_mut(&mut self) -> &mut Dataplane {
        self.dataplane.as_mut().expect("it is there until it is dropped")
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        let (Some(mut dataplane), Some(key)) = (self.dataplane.take(), self.key) else {
            return;
        };
        if !std::thread::panicking() {
            clean(&mut dataplane).expect("what tests leave behind can be taken back");
            IDLE.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((key, dataplane));
        }
    }
}

/// What `cargo xtask test` built, or what is embedded if the test was started without it.
fn object() -> anyhow::Result<Object> {
    match lb_tests::programs::object(OBJECT) {
        Ok(file) => Ok(Object::from_file(&file)?),
        Err(_) => Ok(Object::embedded()?),
    }
}

fn clean(dataplane: &mut Dataplane) -> anyhow::Result<()> {
    let now = dataplane.now()?;
    // No timeout of a test is as long.
    dataplane.connections().sweep(Tick(now.0.wrapping_add(20_000)));
    for map in [
        "SERVICE_STATES",
        "PRESSURE",
        "BACKEND_STATES",
        "PORTS",
        "RETURN_HOP_TABLE",
    ] {
        zero(dataplane, map)?;
    }
    forget_fragments(dataplane)?;
    zero_on_all_cpus::<u64>(dataplane, "ICMP_SENT")
}

fn zero_on_all_cpus<T: Pod + Default>(dataplane: &mut Dataplane, name: &str) -> anyhow::Result<()> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
    let map = dataplane.ebpf_mut().map_mut(name).context(name.to_owned())?;
    let mut array = PerCpuArray::<_, T>::try_from(map)?;
    for index in 0..array.len() {
        array.set(index, PerCpuValues::try_from(vec![T::default(); cpus])?, 0)?;
    }
    Ok(())
}

/// An array that user space may map into its memory.
fn zero(dataplane: &mut Dataplane, name: &str) -> anyhow::Result<()> {
    let Some(Map::Array(array)) = dataplane.ebpf_mut().map_mut(name) else {
        bail!("there is no array {name}");
    };
    let info = array.info()?;
    let length = info.value_size() as usize * info.max_entries() as usize;
    // SAFETY: no program runs, and nobody else has references into it: what the daemon's own mapping gives out are atomics.
    let mut memory = unsafe {
        MmapOptions::new()
            .len(length)
            .map_mut(array.fd().as_fd().as_raw_fd())?
    };
    memory.fill(0);
    Ok(())
}

fn forget_fragments(dataplane: &mut Dataplane) -> anyhow::Result<()> {
    let map = dataplane
        .ebpf_mut()
        .map_mut("FRAGMENTS")
        .context("no FRAGMENTS")?;
    let mut notes: HashMap<_, [u8; 40], [u8; 32]> = HashMap::try_from(map)?;
    let keys: Vec<_> = notes.keys().collect::<Result<_, _>>()?;
    for key in keys {
        notes.remove(&key)?;
    }
    Ok(())
}
