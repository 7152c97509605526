//! The daemon's notes beside the tables: what it must know to say what they mean. Two halves, of which one holds; the other is
//! written, and then one word says that it holds from now on. So a killed daemon leaves the old ones or the new ones.

use std::sync::atomic::{Ordering, fence};

use lb_common::abi::TableHeader;

use super::memory::MappedArray;

/// Length and checksum.
const PREFIX: usize = 2;

/// More than fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "lbd's notes on services, backends and their health would take {bytes} bytes, and there is room for {room}: use fewer or shorter names"
)]
pub struct TooLong {
    /// What there is to note.
    pub bytes: usize,
    /// What fits.
    pub room: usize,
}

/// The notes that hold; `None` if there never were any, or they are spoilt.
pub(super) fn read(header: &TableHeader, words: &[u64]) -> Option<Vec<u8>> {
    let half = half(words, header.notes)?;
    let ([length, sum], content) = half.split_first_chunk::<PREFIX>()?;
    let length = usize::try_from(*length).ok()?;
    if length == 0 || length > size_of_val(content) {
        return None;
    }
    let mut bytes: Vec<u8> = content
        .iter()
        .take(length.div_ceil(8))
        .flat_map(|word| word.to_le_bytes())
        .collect();
    bytes.truncate(length);
    (checksum(&bytes) == *sum).then_some(bytes)
}

/// Replaces the notes.
pub(super) fn write(
    header: &mut MappedArray<TableHeader>,
    words: &mut MappedArray<u64>,
    notes: &[u8],
) -> Result<(), TooLong> {
    let Some(header) = header.exclusive().first_mut() else {
        return Ok(());
    };
    let idle = u64::from(header.notes & 1 == 0);
    let words = words.exclusive();
    let room = (words.len() / 2).saturating_sub(PREFIX) * 8;
    if notes.len() > room {
        return Err(TooLong {
            bytes: notes.len(),
            room,
        });
    }
    let middle = words.len() / 2;
    let (first, second) = words.split_at_mut(middle);
    let half = if idle == 0 { first } else { second };
    let prefix = [notes.len() as u64, checksum(notes)];
    let content = notes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        for (place, byte) in word.iter_mut().zip(chunk) {
            *place = *byte;
        }
        u64::from_le_bytes(word)
    });
    for (place, word) in half.iter_mut().zip(prefix.into_iter().chain(content)) {
        *place = word;
    }
    fence(Ordering::SeqCst);
    header.notes = idle;
    fence(Ordering::SeqCst);
    Ok(())
}

fn half(words: &[u64], which: u64) -> Option<&[u64]> {
    let (first, second) = words.split_at(words.len() / 2);
    match which {
        0 => Some(first),
        1 => Some(second),
        _ => None,
    }
}

/// FNV-1a, 64 bits: against halves that somebody else has written to, not against malice.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
