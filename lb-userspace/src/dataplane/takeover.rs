//! A data path that outlives the daemon: tables, programs and links are pinned, and a new daemon takes them over while packets
//! go through.
//!
//! Each start loads the programs afresh and gives the links the new one, each from one packet to the next. Mostly the tables stay.
//! Where they do not fit any more, a new set takes their place:
//!
//! 1. the new set is made and filled, connections included; `MIGRATING` is set in it;
//! 2. the links get the programs that look at the new set, one after the other;
//! 3. when no packet looks at the old one any more, what has changed there since is brought over;
//! 4. `MIGRATING` is cleared, and the old set let go.
//!
//! Between 2 and 4 (some milliseconds) a packet that has no entry is dropped, and sent again by its sender. If the daemon dies in
//! between, the next one goes on; until then that ends by itself after some seconds.

use std::path::{Path, PathBuf};
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use aya::maps::MapData;
use lb_common::abi::{ABI_VERSION, CopyHeader, TableHeader};
use lb_common::hash::Seed;

use super::attach::Attachment;
use super::bring_over::{self, BroughtOver};
use super::load::{self, CLOCK, Constants, Lengths, LoadOptions, PROGRAM, program, program_mut};
use super::loader::wait_for_grace_period;
use super::memory::MappedArray;
use super::notes::{self, TooLong};
use super::pins::{self, Choice, Found, Link, PinError, Pins, Replaced, Role, SetNumber, Shapes};
use super::shared_maps::SharedMaps;
use super::{Clock, ConnectionTable, Dataplane, DataplaneError, Object, layout};
use crate::config::XdpMode;
use crate::failpoint::{self, Failpoint};

/// A migration takes milliseconds. If it takes longer, the daemon has died over it; a service manager starts another one within
/// a second or so.
const MIGRATION: Duration = Duration::from_secs(5);

/// What is pinned, and what is still to be done with it.
pub(super) struct Pinned {
    pins: Pins,
    set: SetNumber,
    /// The set whose connections this one takes over.
    older: Option<Older>,
    /// Whether this set was made by this daemon.
    is_new: bool,
    generation: u32,
    seed: u64,
    has_changed_links: bool,
    has_taken_over: bool,
}

/// A set of tables that programs look at until the links have changed.
struct Older {
    number: SetNumber,
    packing: &'static lb_common::connection_table::Packing,
    connections: ConnectionTable,
    own_ports: MappedArray<lb_common::abi::PortEntry<std::sync::atomic::AtomicU64>>,
    notes: Option<Vec<u8>>,
}

impl Dataplane {
    /// Loads the program over the tables that are pinned, or over new ones that are pinned from now on. It is attached to nothing
    /// yet; what was attached before goes on.
    ///
    /// # Errors
    /// What is pinned cannot be used; or the kernel refuses the program. Nothing has changed for any packet.
    pub fn open(object: &Object, options: LoadOptions, pins: Pins) -> Result<Self, DataplaneError> {
        let found = find(&pins)?;
        let asked = asked_for(&pins, &found, &options)?;
        let wanted = pins::wanted(object, &asked.by_map())?;
        let choice = pins::choose(&pins, &found, &wanted, |set| pins.shapes(set))?;
        // From here on it takes away again what it makes, should anything fail.
        let pinned = Pinned::begin(pins, &found, choice, &wanted)?;
        failpoint::reach(Failpoint::SetMade);
        let clock = Clock::of_this_kernel()?;
        let constants = Constants::new(options, clock, pinned.lengths(asked)?, pinned.seed);
        let (directory, programs) = (pinned.directory(), pinned.pins.programs(pinned.generation));
        let mut loader = constants.loader();
        for name in wanted.keys() {
            loader.map_pin_path(name, directory.join(name));
        }
        let ebpf = load::load_object(&mut loader, object)?;
        drop(loader);
        keep_programs(&ebpf, &programs)?;
        failpoint::reach(Failpoint::ProgramsPinned);
        let (is_new, table_seed) = (pinned.is_new, pinned.seed);
        let maps = SharedMaps::pinned(directory, programs);
        let mut dataplane = Self::with(ebpf, object, (clock, constants), Ok(maps), Some(pinned))?;
        if is_new && let Some(header) = dataplane.header.exclusive().first_mut() {
            *header = TableHeader {
                abi_version: ABI_VERSION,
                table_seed,
                ..TableHeader::default()
            };
        }
        failpoint::reach(Failpoint::ProgramLoaded);
        Ok(dataplane)
    }

    /// Whether connections of older tables are still to be brought over.
    pub(super) fn is_migrating(&self) -> bool {
        self.pinned.as_ref().is_some_and(|pinned| pinned.older.is_some())
    }

    /// What an earlier daemon has noted; `None`: there was none. Spoilt notes are an error, since nobody could say what the
    /// tables mean.
    ///
    /// # Errors
    /// See above.
    pub fn remembered(&mut self) -> Result<Option<Vec<u8>>, DataplaneError> {
        let Some(pinned) = &self.pinned else {
            return Ok(None);
        };
        let (set, notes) = match &pinned.older {
            Some(older) if pinned.is_new => (older.number, older.notes.clone()),
            None if pinned.is_new => return Ok(None),
            _ => {
                let header = self.header.exclusive().first().copied().unwrap_or_default();
                (pinned.set, notes::read(&header, self.notes.exclusive()))
            }
        };
        match notes {
            Some(notes) => Ok(Some(notes)),
            None => Err(PinError::Unusable {
                path: pinned.pins.set(set).join("DAEMON_NOTES"),
                reason: "lbd's notes on what the tables mean are spoilt".to_owned(),
            }
            .into()),
        }
    }

    /// Notes what a later daemon must know.
    ///
    /// # Errors
    /// It is too long; the notes are as before.
    pub fn remember(&mut self, notes: &[u8]) -> Result<(), TooLong> {
        if self.pinned.is_none() {
            return Ok(());
        }
        notes::write(&mut self.header, &mut self.notes, notes)
    }

    /// Makes this program the one that these interfaces run, and no others. The tables must have been published and the notes
    /// written.
    ///
    /// # Errors
    /// An interface has another program already, or the mode asked for is not to be had there; or connections would be lost by
    /// a smaller table. Interfaces that had the program before still have it, the old one or this one.
    pub fn take_over(&mut self, interfaces: &[String], mode: XdpMode) -> Result<(), DataplaneError> {
        let Some(pinned) = &self.pinned else {
            return self.attach_all(interfaces, mode);
        };
        let before = pinned.pins.links()?;
        self.change_over(&before, interfaces, mode)
    }

    fn change_over(
        &mut self,
        before: &[Link],
        interfaces: &[String],
        mode: XdpMode,
    ) -> Result<(), DataplaneError> {
        let brought = self.bring_over()?;
        if brought.homeless > 0 {
            return Err(DataplaneError::Map {
                map: "CONNECTIONS",
                reason: format!(
                    "{} connections find no room in tables of this size; raise daemon.max_connections and \
                     daemon.max_wide_connections, or wait until there are fewer connections",
                    brought.homeless
                ),
            });
        }
        failpoint::reach(Failpoint::ConnectionsCopied);
        let migrating = self.is_migrating();
        let until = self
            .clock()
            .jiffies_after(program(&self.ebpf, CLOCK)?, MIGRATION)?;
        if let Some(control) = self.control.exclusive().first_mut() {
            control.migrating_until = until;
        }
        if let Some(header) = self.header.exclusive().first_mut() {
            header.migrating = if migrating { TableHeader::PREPARED } else { 0 };
            fence(Ordering::SeqCst);
            header.complete = TableHeader::COMPLETE;
            fence(Ordering::SeqCst);
        }
        failpoint::reach(Failpoint::SetComplete);
        if migrating && let Some(header) = self.header.exclusive().first_mut() {
            header.migrating = TableHeader::UNDER_WAY;
            fence(Ordering::SeqCst);
        }
        self.change_links(before, interfaces, mode)?;
        failpoint::reach(Failpoint::LinksChanged);
        wait_for_grace_period();
        let brought = self.bring_over()?;
        if brought.homeless > 0 {
            tracing::error!(
                connections = brought.homeless,
                "connections that began during the change have found no room in the new tables"
            );
        }
        failpoint::reach(Failpoint::RestCopied);
        self.let_go_of_old(before, interfaces)
    }

    /// Copies the connections of older tables, or what is new of them.
    fn bring_over(&mut self) -> Result<BroughtOver, DataplaneError> {
        let now = self.now()?;
        let Some(Pinned {
            older: Some(older),
            seed,
            ..
        }) = &self.pinned
        else {
            return Ok(BroughtOver::default());
        };
        let seed = Seed::new(*seed);
        bring_over::ports(older.own_ports.shared(), self.own_ports.shared());
        let (from, to) = (&older.connections, &self.connections);
        let narrow = bring_over::connections(
            from.narrow.shared(),
            older.packing,
            to.narrow.shared(),
            &seed,
            now,
        );
        let wide = bring_over::connections(from.wide.shared(), older.packing, to.wide.shared(), &seed, now);
        tracing::info!(
            connections = narrow.entries + wide.entries,
            "connections are in the new tables"
        );
        Ok(BroughtOver {
            entries: narrow.entries + wide.entries,
            homeless: narrow.homeless + wide.homeless,
        })
    }

    /// Gives the links of these interfaces the new program, and attaches it where there is none yet.
    fn change_links(
        &mut self,
        before: &[Link],
        interfaces: &[String],
        mode: XdpMode,
    ) -> Result<(), DataplaneError> {
        let mut fresh = Vec::new();
        let mut how = None;
        for interface in interfaces {
            let known = before.iter().find(|link| link.interface == *interface);
            let replaced = match known {
                Some(link) => self.replace(link)?,
                None => Replaced::Dead,
            };
            match (known, replaced) {
                (Some(link), Replaced::Yes) => {
                    how = Some(link.native);
                    self.attachments.push(Attachment {
                        interface: interface.clone(),
                        native: link.native,
                    });
                    failpoint::reach(Failpoint::LinkChanged);
                }
                (Some(link), Replaced::Dead) => {
                    if let Some(pinned) = &self.pinned {
                        pinned.pins.remove_link(link)?;
                    }
                    fresh.push(interface.clone());
                }
                (None, _) => fresh.push(interface.clone()),
            }
        }
        let mode = match how {
            None => mode,
            Some(native) => {
                let asked = match mode {
                    XdpMode::Auto => native,
                    XdpMode::Native => true,
                    XdpMode::Generic => false,
                };
                if asked != native {
                    tracing::warn!(
                        mode = if native { "native" } else { "generic" },
                        "the program stays attached as it is, since packets would pass by it during a change of xdp_mode; \
                         to change that, stop lbd and run `lbd --cleanup` first"
                    );
                }
                if native { XdpMode::Native } else { XdpMode::Generic }
            }
        };
        self.attach_all(&fresh, mode)?;
        self.keep_links()
    }

    fn replace(&mut self, link: &Link) -> Result<Replaced, DataplaneError> {
        let Some(pinned) = &mut self.pinned else {
            return Ok(Replaced::Dead);
        };
        let replaced = pinned.pins.replace(link, program_mut(&mut self.ebpf, PROGRAM)?)?;
        pinned.has_changed_links |= replaced == Replaced::Yes;
        Ok(replaced)
    }

    /// Pins the links that were made just now.
    fn keep_links(&mut self) -> Result<(), DataplaneError> {
        let Some(pinned) = &mut self.pinned else {
            return Ok(());
        };
        let program = program_mut(&mut self.ebpf, PROGRAM)?;
        for (interface, native, id) in self.links.drain(..) {
            let link = program.take_link(id).map_err(|source| DataplaneError::Program {
                program: PROGRAM,
                source: Box::new(source),
            })?;
            pinned.pins.keep(&Link { interface, native }, link)?;
            pinned.has_changed_links = true;
            failpoint::reach(Failpoint::LinkPinned);
        }
        Ok(())
    }

    /// When nothing looks at what was before any more.
    fn let_go_of_old(&mut self, before: &[Link], interfaces: &[String]) -> Result<(), DataplaneError> {
        let active = self.control().active & 1;
        let Some(pinned) = &mut self.pinned else {
            return Ok(());
        };
        let older = pinned.older.take();
        if older.is_some() {
            if let Some(control) = self.control.exclusive().first_mut()
                && let Some(copy) = control.copies.get_mut(active as usize)
            {
                copy.flags &= !CopyHeader::MIGRATING;
            }
            fence(Ordering::SeqCst);
            if let Some(header) = self.header.exclusive().first_mut() {
                header.migrating = 0;
            }
            fence(Ordering::SeqCst);
            failpoint::reach(Failpoint::Migrated);
        }
        for link in before.iter().filter(|link| !interfaces.contains(&link.interface)) {
            tracing::info!(interface = link.interface, "detached");
            pinned.pins.remove_link(link)?;
        }
        for number in pinned.pins.sets()? {
            if number != pinned.set {
                pinned.pins.remove_set(number)?;
            }
        }
        failpoint::reach(Failpoint::OldSetRemoved);
        for generation in pinned.pins.generations()? {
            if generation != pinned.generation {
                pinned.pins.remove_programs(generation)?;
            }
        }
        pinned.has_taken_over = true;
        failpoint::reach(Failpoint::OldProgramsRemoved);
        Ok(())
    }
}

impl Pinned {
    /// Makes or finds the set of tables, and forgets those that were never finished or are done with.
    fn begin(pins: Pins, found: &[Found], choice: Choice, wanted: &Shapes) -> Result<Self, DataplaneError> {
        let (set, older, is_new) = match choice {
            Choice::Make(set) => (set, None, true),
            Choice::Adopt(set) => (set, None, false),
            Choice::Finish { set, older } => (set, Some(older), false),
            Choice::Replace { set, older } => (set, Some(older), true),
        };
        for number in pins.sets()? {
            if number != set && Some(number) != older {
                pins.remove_set(number)?;
            }
        }
        let directory = pins.make_set(set)?;
        let present = found.iter().find(|found| found.number == set && !is_new);
        let seed = match present {
            Some(present) => present.header.table_seed,
            None => load::random_seed()?,
        };
        let generation = pins.generations()?.last().map_or(1, |last| last.wrapping_add(1));
        let mut pinned = Self {
            pins,
            set,
            older: None,
            is_new,
            generation,
            seed,
            has_changed_links: false,
            has_taken_over: false,
        };
        if let Some(older) = older {
            if is_new {
                share(&pinned.pins, older, &directory, wanted)?;
            }
            pinned.older = Some(Older::open(&pinned.pins, older, found)?);
        }
        Ok(pinned)
    }

    fn directory(&self) -> PathBuf {
        self.pins.set(self.set)
    }

    /// How long the tables are: as asked for, if they are new.
    fn lengths(&self, asked: Lengths) -> Result<Lengths, DataplaneError> {
        if self.is_new {
            return Ok(asked);
        }
        let present = self.pins.shapes(self.set)?;
        let length = |map: &str, asked: u32| present.get(map).map_or(asked, |shape| shape.max_entries);
        Ok(Lengths {
            narrow: length("CONNECTIONS", asked.narrow),
            wide: length("WIDE_CONNECTIONS", asked.wide),
            ports: length("PORTS", asked.ports),
        })
    }
}

/// The lengths of tables that the options ask for; but of own ports there are never fewer than before, since leases name them.
fn asked_for(pins: &Pins, found: &[Found], options: &LoadOptions) -> Result<Lengths, DataplaneError> {
    let mut lengths = Lengths::of(options);
    if let (Some(set), _) = pins::current(found) {
        let present = pins.shapes(set.number)?;
        let ports = present.get("PORTS").map_or(0, |shape| shape.max_entries);
        lengths.ports = lengths.ports.max(ports);
    }
    Ok(lengths)
}

impl Drop for Pinned {
    /// Takes away what this daemon has made and nobody needs, unless it has taken over. What remains is put in order by the next
    /// one.
    fn drop(&mut self) {
        if self.has_taken_over || self.has_changed_links {
            return;
        }
        note(self.pins.remove_programs(self.generation));
        if self.is_new {
            note(self.pins.remove_set(self.set));
        }
    }
}

/// The kernel empties an array of programs when its last handle is closed; a pin is one.
fn keep_programs(ebpf: &aya::Ebpf, path: &Path) -> Result<(), DataplaneError> {
    let map = ebpf.map("PROGRAMS").ok_or(DataplaneError::Missing("PROGRAMS"))?;
    Ok(map.pin(path).map_err(|error| pins::not_pinned(path, &error))?)
}

fn note(result: Result<(), PinError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "cannot take away what was made");
    }
}

impl Older {
    fn open(pins: &Pins, number: SetNumber, found: &[Found]) -> Result<Self, DataplaneError> {
        let directory = pins.set(number);
        let header = found.iter().find(|it| it.number == number);
        let header = header.map(|it| it.header).unwrap_or_default();
        let packing = layout::of(header.abi_version).ok_or_else(|| PinError::Unusable {
            path: directory.clone(),
            reason: format!("nobody here knows ABI version {}", header.abi_version),
        })?;
        let map = |name: &'static str| {
            MapData::from_pin(directory.join(name)).map_err(|error| DataplaneError::Map {
                map: name,
                reason: error.to_string(),
            })
        };
        let mut words: MappedArray<u64> = MappedArray::new("DAEMON_NOTES", &map("DAEMON_NOTES")?)?;
        Ok(Self {
            number,
            packing,
            connections: ConnectionTable::new(&map("CONNECTIONS")?, &map("WIDE_CONNECTIONS")?)?,
            own_ports: MappedArray::new("PORTS", &map("PORTS")?)?,
            notes: notes::read(&header, words.exclusive()),
        })
    }
}

/// What a daemon has noted that does not run any more, as far as it can be read.
///
/// # Errors
/// What is pinned cannot be read.
pub fn pinned_notes(pins: &Pins) -> Result<Option<Vec<u8>>, DataplaneError> {
    let found = find(pins)?;
    let Some(set) = pins::current(&found).0 else {
        return Ok(None);
    };
    let map = MapData::from_pin(pins.set(set.number).join("DAEMON_NOTES")).map_err(|error| {
        DataplaneError::Map {
            map: "DAEMON_NOTES",
            reason: error.to_string(),
        }
    })?;
    let mut words: MappedArray<u64> = MappedArray::new("DAEMON_NOTES", &map)?;
    Ok(notes::read(&set.header, words.exclusive()))
}

/// The sets that there are.
fn find(pins: &Pins) -> Result<Vec<Found>, DataplaneError> {
    let header_of = |number| -> Result<TableHeader, PinError> {
        let path = pins.set(number).join("TABLE_HEADER");
        // Of a set that was never finished, it may be missing.
        if !path.exists() {
            return Ok(TableHeader::default());
        }
        let broken = |reason: String| PinError::Unusable {
            path: path.clone(),
            reason,
        };
        let map = MapData::from_pin(&path).map_err(|error| broken(error.to_string()))?;
        let mut mapped: MappedArray<TableHeader> =
            MappedArray::new("TABLE_HEADER", &map).map_err(|error| broken(error.to_string()))?;
        Ok(mapped.exclusive().first().copied().unwrap_or_default())
    };
    let found = pins.sets()?.into_iter().map(|number| {
        let header = header_of(number)?;
        Ok(Found { number, header })
    });
    found.collect()
}

/// Pins those maps of an older set in a new one that go over as they are.
fn share(pins: &Pins, older: SetNumber, directory: &Path, wanted: &Shapes) -> Result<(), DataplaneError> {
    let present = pins.shapes(older)?;
    for (name, shape) in wanted {
        let goes_over = matches!(Role::of(name), Role::State | Role::Passing);
        if !goes_over || present.get(name) != Some(shape) {
            continue;
        }
        let from = pins.set(older).join(name);
        let failed = |error: &dyn std::error::Error| pins::not_pinned(&directory.join(name), error);
        let map = MapData::from_pin(&from).map_err(|error| failed(&error))?;
        map.pin(directory.join(name)).map_err(|error| failed(&error))?;
        tracing::debug!(map = name, "taken over as it is");
    }
    Ok(())
}
