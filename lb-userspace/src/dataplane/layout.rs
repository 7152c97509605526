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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_there_have_been_are_known() {
        assert_eq!(of(3).map(unpacked), Some(unpacked(&PACKING_3)));
        assert_eq!(of(ABI_VERSION).map(unpacked), Some(unpacked(&PACKING)));
        assert!(of(2).is_none() && of(ABI_VERSION + 1).is_none());
    }

    /// Each bit of an entry, unpacked.
    fn unpacked(packing: &Packing) -> Vec<u64> {
        (0..64).map(|bit| packing.unpack(1 << bit).0).collect()
    }
}
