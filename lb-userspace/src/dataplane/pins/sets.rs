//! The sets of tables, and which of them the daemon goes on from.

use std::path::PathBuf;

use lb_common::abi::{ABI_VERSION, TableHeader};

use super::shape::{Shape, Shapes};
use super::{PinError, Pins, Role, make_directory, names, remove_all, unusable};
use crate::dataplane::layout;

const SET: &str = "tables-";

/// A set of tables is known by its number: a later one has a higher one.
pub(crate) type SetNumber = u32;

/// What a daemon does about the tables that it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// There are none: make the first set.
    Make(SetNumber),
    /// They fit.
    Adopt(SetNumber),
    /// They fit, and connections of an older set are still to be brought over.
    Finish {
        /// The set to go on with.
        set: SetNumber,
        /// The one whose connections it lacks.
        older: SetNumber,
    },
    /// They do not fit, but a new set can take over what they hold.
    Replace {
        /// The number of the new one.
        set: SetNumber,
        /// The one that there is.
        older: SetNumber,
    },
}

/// A set that was found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Its number.
    pub(crate) number: SetNumber,
    /// What it says about itself.
    pub(crate) header: TableHeader,
}

/// Which of the sets hold what packets are judged by, in ascending order: the one to go on from, and the older one whose
/// connections it lacks. All others were never finished, or are done with.
pub(crate) fn current(found: &[Found]) -> (Option<&Found>, Option<&Found>) {
    let mut complete = found
        .iter()
        .rev()
        .filter(|set| set.header.complete == TableHeader::COMPLETE);
    let Some(newest) = complete.next() else {
        return (None, None);
    };
    if newest.header.migrating == 0 {
        return (Some(newest), None);
    }
    match complete.next() {
        // As if the new one had never been begun.
        Some(older) if newest.header.migrating == TableHeader::PREPARED => (Some(older), None),
        older => (Some(newest), older),
    }
}

/// Whether a set of tables can be used as it is, or else a new one in its place. `name` is what to say of the set in an error.
pub(crate) fn choose(
    pins: &Pins,
    found: &[Found],
    wanted: &Shapes,
    pinned: impl Fn(SetNumber) -> Result<Shapes, PinError>,
) -> Result<Choice, PinError> {
    let next = found.iter().map(|set| set.number).max().unwrap_or(0) + 1;
    let (Some(set), older) = current(found) else {
        return Ok(Choice::Make(next));
    };
    let abi = set.header.abi_version;
    if abi != ABI_VERSION && layout::of(abi).is_none() {
        let reason = format!(
            "these tables are of ABI version {abi}, and this lbd understands {}",
            layout::known()
        );
        return Err(unusable(&pins.set(set.number), reason));
    }
    let shapes = pinned(set.number)?;
    let mut fits = abi == ABI_VERSION;
    for (name, wanted) in wanted {
        let path = pins.set(set.number).join(name);
        let Some(shape) = shapes.get(name) else {
            if abi == ABI_VERSION || Role::of(name) == Role::State {
                return Err(unusable(&path, "it is missing"));
            }
            continue;
        };
        if shape == wanted {
            continue;
        }
        let mismatch = || unusable(&path, format!("it has {shape}, where this lbd needs {wanted}"));
        match Role::of(name) {
            Role::Connections | Role::Ports if shape.differs_in_length_only(*wanted) => fits = false,
            // Of another version anything else may be different that is made anew or may be forgotten.
            Role::Configuration | Role::Passing | Role::OfGeneration if abi != ABI_VERSION => {}
            _ => return Err(mismatch()),
        }
    }
    Ok(match older {
        // One thing after the other: what does not fit waits for the next start.
        Some(older) if abi == ABI_VERSION => Choice::Finish {
            set: set.number,
            older: older.number,
        },
        Some(_) => {
            let reason =
                "an upgrade to these tables was not finished, and only the lbd that began it can finish it";
            return Err(unusable(&pins.set(set.number), reason));
        }
        None if fits => Choice::Adopt(set.number),
        None => Choice::Replace {
            set: next,
            older: set.number,
        },
    })
}

impl Pins {
    /// The directory of a set.
    pub(crate) fn set(&self, number: SetNumber) -> PathBuf {
        self.directory.join(format!("{SET}{number}"))
    }

    /// The numbers of the sets that there are, in ascending order.
    pub(crate) fn sets(&self) -> Result<Vec<SetNumber>, PinError> {
        self.numbered(SET)
    }

    /// What is pinned in a set.
    pub(crate) fn shapes(&self, number: SetNumber) -> Result<Shapes, PinError> {
        let directory = self.set(number);
        names(&directory)?
            .into_iter()
            .map(|name| Ok((name.clone(), Shape::pinned(&directory.join(name))?)))
            .collect()
    }

    /// Makes the directory of a new set.
    pub(crate) fn make_set(&self, number: SetNumber) -> Result<PathBuf, PinError> {
        let directory = self.set(number);
        make_directory(&directory)?;
        Ok(directory)
    }

    /// Lets go of a set; the kernel frees what no program uses any more.
    pub(crate) fn remove_set(&self, number: SetNumber) -> Result<(), PinError> {
        remove_all(&self.set(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(number: SetNumber, complete: bool, migrating: u64) -> Found {
        Found {
            number,
            header: TableHeader {
                complete: if complete { TableHeader::COMPLETE } else { 0 },
                migrating,
                ..TableHeader::default()
            },
        }
    }

    /// The numbers of the current set and of the older one.
    fn numbers(found: &[Found]) -> (Option<SetNumber>, Option<SetNumber>) {
        let (set, older) = current(found);
        (set.map(|it| it.number), older.map(|it| it.number))
    }

    #[test]
    fn what_was_interrupted_is_told_from_what_there_is() {
        const DONE: u64 = 0;
        let usual = set(1, true, DONE);
        for (found, expected, what) in [
            (vec![], (None, None), "the first start"),
            (
                vec![set(1, false, DONE)],
                (None, None),
                "killed in the first start",
            ),
            (vec![usual.clone()], (Some(1), None), "the usual"),
            (
                vec![usual.clone(), set(2, false, DONE)],
                (Some(1), None),
                "killed while the new set was made",
            ),
            (
                vec![usual.clone(), set(2, true, TableHeader::PREPARED)],
                (Some(1), None),
                "killed before the first link had changed",
            ),
            (
                vec![usual.clone(), set(2, true, TableHeader::UNDER_WAY)],
                (Some(2), Some(1)),
                "killed while links changed",
            ),
            (
                vec![usual, set(2, true, DONE)],
                (Some(2), None),
                "killed before the old set was removed",
            ),
        ] {
            assert_eq!(numbers(&found), expected, "{what}");
        }
    }
}
