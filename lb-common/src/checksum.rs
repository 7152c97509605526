//! Internet checksums, changed incrementally (RFC 1624) or computed whole (RFC 1071).
//!
//! Everything here works on 16-bit words as they lie in memory: one's-complement sums do not care about byte order as
//! long as it is the same throughout (RFC 1071 section 2 B).

/// What a rewrite adds to a checksum: the one's-complement sum of the complements of the old words and of the new ones.
/// Known before the packet comes, since what is replaced (the VIP) and by what (the backend) is known.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delta(u16);

impl Delta {
    /// No change.
    pub const ZERO: Self = Self(0);

    /// The delta of replacing the words of `old` by those of `new`; both must have an even length.
    pub fn replacing(old: &[u8], new: &[u8]) -> Self {
        let removed = old
            .chunks_exact(2)
            .map(|word| !u16::from_ne_bytes([word[0], word[1]]));
        let added = new
            .chunks_exact(2)
            .map(|word| u16::from_ne_bytes([word[0], word[1]]));
        Self(fold(removed.chain(added).map(u32::from).sum()))
    }

    /// The delta of replacing one word.
    #[inline(always)]
    pub fn of_word(old: u16, new: u16) -> Self {
        Self(add(!old, new))
    }

    /// The delta of a word, not 0, that becomes less by one as it lies in memory.
    pub const ONE_LESS: Self = Self(!1);

    /// The delta of replacing words of 32 bits.
    #[inline(always)]
    pub fn of_words<const N: usize>(old: [u32; N], new: [u32; N]) -> Self {
        let mut sum = 0;
        let mut at = 0;
        while at < N {
            sum += u64::from(!old[at]) + u64::from(new[at]);
            at += 1;
        }
        Self(fold_wide(sum))
    }

    /// The delta of adding words, so far zero, that sum up to this.
    #[inline(always)]
    pub fn of_sum(sum: u16) -> Self {
        Self(sum)
    }

    /// Both changes.
    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        Self(add(self.0, other.0))
    }

    /// The delta that undoes this one.
    #[inline(always)]
    pub fn inverse(self) -> Self {
        Self(!self.0)
    }

    /// The checksum after the change (RFC 1624, equation 3: HC' = ~(~HC + ~m + m')).
    #[inline(always)]
    pub fn apply(self, checksum: u16) -> u16 {
        !add(!checksum, self.0)
    }

    /// UDP's checksum after the change. Zero says that there is none, which stays so; the other zero of one's complement
    /// stands for the checksum that is zero (RFC 768).
    #[inline(always)]
    pub fn apply_to_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        match self.apply(checksum) {
            0 => 0xffff,
            changed => changed,
        }
    }
}

/// The one's-complement sum of two words: one fold is enough, since the carry cannot carry again.
#[inline(always)]
fn add(a: u16, b: u16) -> u16 {
    let sum = u32::from(a) + u32::from(b);
    (sum + (sum >> 16)) as u16
}

/// Folds a sum of words to 16 bits with end-around carry. Two folds are enough for up to 65,536 words.
#[inline(always)]
pub fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// Folds a sum of words of 32 bits, or of 16, likewise.
#[inline(always)]
pub fn fold_wide(sum: u64) -> u16 {
    let once = (sum & 0xffff_ffff) + (sum >> 32);
    let twice = (once & 0xffff) + (once >> 16 & 0xffff) + (once >> 32);
    fold(twice as u32)
}

/// The checksum of whole data (RFC 1071), continuing from `initial` (a sum of words, not complemented); an odd last byte
/// is padded with zero.
pub fn of_bytes(initial: u32, data: &[u8]) -> u16 {
    let mut sum = u64::from(initial);
    for word in data.chunks(2) {
        sum += u64::from(u16::from_ne_bytes([word[0], *word.get(1).unwrap_or(&0)]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests;
