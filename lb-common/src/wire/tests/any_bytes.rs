//! Whatever comes, the parser neither panics nor lies.

use proptest::prelude::*;

use super::parser_promises::{check, check_quote};
use super::random_frames::RandomFrames;
use crate::wire::classify::{Classification, classify};

/// Damaged frames are still found to be something often enough for the promises to mean anything.
#[test]
fn damaged_frames() {
    let (mut passed, mut others) = (0u32, 0u32);
    for seed in 0..20 {
        for frame in RandomFrames::new(seed, &[])
            .filter(|frame| frame.damaged)
            .take(5_000)
        {
            check(&frame.bytes);
            check_quote(frame.bytes.get(14..).unwrap_or_default());
            match classify(&frame.bytes[..]) {
                Classification::Passes(_) => passed += 1,
                _ => others += 1,
            }
        }
    }
    assert!(
        passed > 20_000 && others > 20_000,
        "{passed} passed, {others} others"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_bytes(frame in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&frame);
        check_quote(&frame);
    }

    #[test]
    fn any_bytes_that_begin_like_ip(ipv6: bool, mut frame in prop::collection::vec(any::<u8>(), 15..300)) {
        frame[0] &= 0xfe;
        if ipv6 {
            frame[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
        } else {
            frame[12..15].copy_from_slice(&[8, 0, 0x45]);
        }
        check(&frame);
        check_quote(&frame[14..]);
    }

    #[test]
    fn every_beginning_of_a_frame(seed: u64) {
        let frame = RandomFrames::new(seed, &[]).next_whole();
        for length in 0..frame.bytes.len() {
            check(&frame.bytes[..length]);
        }
    }
}
