//! What becomes of frames on bad wires, and in bad hands.

use fastrand::Rng;

use super::{LONGEST, SHORTEST};

/// Where headers lie.
const HEADERS: usize = 128;
/// Values that parsers trip over.
const SPECIAL: [u8; 12] = [0, 1, 4, 6, 7, 8, 17, 44, 58, 0x7f, 0x80, 0xff];

/// Damages a frame in one to three places.
pub(super) fn damage(random: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..random.usize(1..=3) {
        match random.u8(..10) {
            0 => flip(random, bytes),
            1 | 2 => overwrite(random, bytes),
            3 => off_by_a_little(random, bytes),
            4 | 5 => truncate(random, bytes),
            6 => bytes.extend((0..random.usize(1..40)).map(|_| random.u8(..))),
            7 => shift(random, bytes),
            8 => repeat(random, bytes),
            _ => scramble(random, bytes),
        }
    }
    bytes.truncate(LONGEST);
    while bytes.len() < SHORTEST {
        bytes.push(random.u8(..));
    }
}

fn header_byte(random: &mut Rng, bytes: &[u8]) -> usize {
    random.usize(..bytes.len().clamp(1, HEADERS))
}

fn flip(random: &mut Rng, bytes: &mut [u8]) {
    let at = header_byte(random, bytes);
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << random.u8(..8);
    }
}

fn overwrite(random: &mut Rng, bytes: &mut [u8]) {
    let at = header_byte(random, bytes);
    if let Some(byte) = bytes.get_mut(at) {
        *byte = random.choice(SPECIAL).unwrap_or_default();
    }
}

/// Lengths and offsets are words, and worst when they are nearly right.
fn off_by_a_little(random: &mut Rng, bytes: &mut [u8]) {
    let at = header_byte(random, bytes) & !1;
    if let Some(word) = bytes.get_mut(at..at + 2) {
        let value = u16::from_be_bytes([word[0], word[1]]);
        let changed = match random.u8(..4) {
            0 => value.wrapping_add(1),
            1 => value.wrapping_sub(1),
            2 => value.wrapping_add(random.u16(..64)),
            _ => value.wrapping_sub(random.u16(..64)),
        };
        word.copy_from_slice(&changed.to_be_bytes());
    }
}

fn truncate(random: &mut Rng, bytes: &mut Vec<u8>) {
    let length = if random.bool() {
        header_byte(random, bytes)
    } else {
        random.usize(..=bytes.len())
    };
    bytes.truncate(length);
}

/// Takes some bytes out.
fn shift(random: &mut Rng, bytes: &mut Vec<u8>) {
    let at = header_byte(random, bytes);
    let end = (at + random.usize(1..16)).min(bytes.len());
    if at < end {
        bytes.drain(at..end);
    }
}

/// Puts some bytes in twice.
fn repeat(random: &mut Rng, bytes: &mut Vec<u8>) {
    let at = header_byte(random, bytes);
    let end = (at + random.usize(1..48)).min(bytes.len());
    if let Some(part) = bytes.get(at..end).map(<[u8]>::to_vec) {
        bytes.splice(at..at, part);
    }
}

fn scramble(random: &mut Rng, bytes: &mut [u8]) {
    let at = header_byte(random, bytes);
    let end = (at + random.usize(1..16)).min(bytes.len());
    if let Some(part) = bytes.get_mut(at..end) {
        random.fill(part);
    }
}
