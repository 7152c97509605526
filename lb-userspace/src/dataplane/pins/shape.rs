//! What a map looks like to the kernel: what the object wants, and what is pinned.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use aya::maps::MapInfo;
use aya_obj::EbpfSectionKind;

use super::{PinError, Role, unusable};
use crate::dataplane::{DataplaneError, Object, ObjectError};

/// Kind and size of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// `enum bpf_map_type`.
    pub(crate) map_type: u32,
    /// Bytes of a key.
    pub(crate) key_size: u32,
    /// Bytes of a value.
    pub(crate) value_size: u32,
    /// Elements.
    pub(crate) max_entries: u32,
    /// `BPF_F_…`.
    pub(crate) flags: u32,
}

/// By name; only of maps that outlive a generation of programs.
pub(crate) type Shapes = BTreeMap<String, Shape>;

impl Shape {
    /// What is pinned somewhere.
    pub(crate) fn pinned(path: &Path) -> Result<Self, PinError> {
        let info = MapInfo::from_pin(path).map_err(|error| unusable(path, format!("not a map: {error}")))?;
        let map_type = info.map_type().map_or(u32::MAX, |kind| kind as u32);
        Ok(Self {
            map_type,
            key_size: info.key_size(),
            value_size: info.value_size(),
            max_entries: info.max_entries(),
            flags: info.map_flags(),
        })
    }

    /// Whether the two differ in nothing but the number of elements.
    pub(crate) fn differs_in_length_only(self, other: Self) -> bool {
        Self {
            max_entries: other.max_entries,
            ..self
        } == other
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "type {}, keys of {} and values of {} bytes, {} elements, flags {:#x}",
            self.map_type, self.key_size, self.value_size, self.max_entries, self.flags
        )
    }
}

/// What an object wants of the maps that outlive a generation of programs; `lengths` overrides the numbers of elements.
pub(crate) fn wanted(object: &Object, lengths: &[(&str, u32)]) -> Result<Shapes, DataplaneError> {
    let parsed = aya_obj::Object::parse(object.bytes()).map_err(|error| ObjectError::Foreign {
        origin: "eBPF object".to_owned(),
        reason: error.to_string(),
    })?;
    let maps = parsed.maps.iter().filter(|(name, map)| {
        let is_global = matches!(
            map.section_kind(),
            EbpfSectionKind::Rodata | EbpfSectionKind::Data | EbpfSectionKind::Bss
        );
        !is_global && Role::of(name) != Role::OfGeneration
    });
    let shape = |(name, map): (&String, &aya_obj::Map)| {
        let length = lengths.iter().find(|(known, _)| known == name);
        let shape = Shape {
            map_type: map.map_type(),
            key_size: map.key_size(),
            value_size: map.value_size(),
            max_entries: length.map_or(map.max_entries(), |(_, length)| *length),
            flags: map.map_flags(),
        };
        (name.clone(), shape)
    };
    Ok(maps.map(shape).collect())
}
