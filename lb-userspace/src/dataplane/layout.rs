//! The versions of the ABI whose connection tables this daemon can read.

use lb_common::abi::ABI_VERSION;
use lb_common::connection_table::Packing;
use lb_common::connection_table::entry::{PACKING, PACKING_3};

/// By version, the present one last.
const KNOWN: &[(u32, &Packing)] = if ABI_VERSION == 4 {
    &[(3, &PACKING_3), (4, &PACKING)]
} else {
    &[(3, &PACKING_3), (4, &PACKING_3), (ABI_VERSION, &PACKING)]
};

/// How the entries of a version are packed; `None`: nobody here knows.
pub(super) fn of(version: u32) -> Option<&'static Packing> {
    KNOWN
        .iter()
        .find(|(known, _)| *known == version)
        .map(|(_, packing)| *packing)
}

/// The versions, in words.
pub(super) fn known() -> String {
    let versions: Vec<_> = KNOWN.iter().map(|(version, _)| version.to_string()).collect();
    format!("versions {}", versions.join(" and "))
}
