//! Picking the two neighbours of every output column out of a line.
//!
//! One by one this is most of a letterbox's time. Four columns at once, the pairs
//! are 16 bytes out of a window of a few registers: a table of byte shuffles made
//! once per camera does it for any ratio of sizes.

/// Output columns of one shuffle: their pairs fill 16 bytes.
const GROUP: usize = 4;
/// Samples of a register.
const WORDS: usize = 8;
/// Registers of the widest window that is shuffled; eleven-fold shrinking.
const MAX_REGISTERS: usize = 4;
/// A shuffle index with this bit gives zero, on x86 and on Arm.
const NOTHING: u8 = 0x80;

/// Where the columns' pairs lie in a line.
#[derive(Debug, Clone, Default)]
pub(super) struct Picks {
    /// The left sample; the right one follows it. Sides are at most 65536, and the
    /// right sample is another one: u16 suffices.
    first: Vec<u16>,
    /// Registers of a group's window; over [`MAX_REGISTERS`] there are no tables.
    registers: usize,
    /// First sample of each group's window.
    starts: Vec<u16>,
    /// Shuffle of each register of each group.
    shuffles: Vec<[u8; 16]>,
}

impl Picks {
    pub(super) fn new(first: Vec<u16>) -> Self {
        let groups = || first.chunks(GROUP);
        // A pair's second sample belongs to the window.
        let width = |group: &[u16]| usize::from(group[group.len() - 1] - group[0]) + 2;
        let registers = groups().map(width).max().unwrap_or(0).div_ceil(WORDS);
        let (mut starts, mut shuffles) = (Vec::new(), Vec::new());
        if registers <= MAX_REGISTERS {
            for group in groups() {
                starts.push(group[0]);
                let mut table = [[NOTHING; 16]; MAX_REGISTERS];
                for (column, &first) in group.iter().enumerate() {
                    for side in 0..2 {
                        let sample = usize::from(first - group[0]) + side;
                        for byte in 0..2 {
                            table[sample / WORDS][4 * column + 2 * side + byte] =
                                (2 * (sample % WORDS) + byte) as u8;
                        }
                    }
                }
                shuffles.extend_from_slice(&table[..registers]);
            }
        }
        Self { first, registers, starts, shuffles }
    }

    /// Samples that a line needs behind its last one, so that windows end inside.
    pub(super) fn slack(&self) -> usize {
        WORDS * self.registers.min(MAX_REGISTERS) + 1
    }

    /// Length of the buffer for the pairs: whole groups.
    pub(super) fn pairs(&self) -> usize {
        self.first.len().next_multiple_of(GROUP)
    }

    #[inline(always)]
    fn one_by_one(&self, line: &[i16], pairs: &mut [[i16; 2]]) {
        for (pair, &first) in pairs.iter_mut().zip(&self.first) {
            let i = usize::from(first);
            *pair = [line[i], line[i + 1]];
        }
    }

    #[inline(always)]
    fn by_table(
        &self,
        line: &[i16],
        pairs: &mut [[i16; 2]],
        shuffle: impl Fn([i16; 8], [u8; 16]) -> [i16; 8] + Copy,
    ) {
        match self.registers {
            1 => self.groups::<1, { WORDS }>(line, pairs, shuffle),
            2 => self.groups::<2, { 2 * WORDS }>(line, pairs, shuffle),
            3 => self.groups::<3, { 3 * WORDS }>(line, pairs, shuffle),
            4 => self.groups::<4, { 4 * WORDS }>(line, pairs, shuffle),
            _ => self.one_by_one(line, pairs),
        }
    }

    /// `N` registers of together `W` samples per group.
    #[inline(always)]
    fn groups<const N: usize, const W: usize>(
        &self,
        line: &[i16],
        pairs: &mut [[i16; 2]],
        shuffle: impl Fn([i16; 8], [u8; 16]) -> [i16; 8],
    ) {
        let groups = pairs.as_chunks_mut::<GROUP>().0.iter_mut();
        let tables = self.shuffles.as_chunks::<N>().0;
        for ((group, &start), table) in groups.zip(&self.starts).zip(tables) {
            let start = usize::from(start);
            let window = &line[start..start + W];
            let mut words = [0; WORDS];
            for (register, &from) in window.as_chunks::<WORDS>().0.iter().zip(table) {
                let picked = shuffle(*register, from);
                for (word, picked) in words.iter_mut().zip(picked) {
                    *word |= picked;
                }
            }
            *group = pulp::cast(words);
        }
    }
}

/// A level of vector instructions, by what it does best here.
pub(super) trait Picker: Copy {
    /// Picks the pair of samples of every column. Picking apart from computing
    /// lets the latter run in vector registers.
    #[inline(always)]
    fn pick(self, picks: &Picks, line: &[i16], pairs: &mut [[i16; 2]]) {
        picks.one_by_one(line, pairs);
    }
}

impl Picker for pulp::Scalar {}

#[cfg(target_arch = "x86_64")]
impl Picker for pulp::x86::V3 {
    #[inline(always)]
    fn pick(self, picks: &Picks, line: &[i16], pairs: &mut [[i16; 2]]) {
        picks.by_table(line, pairs, |words, from| {
            pulp::cast(self.ssse3._mm_shuffle_epi8(pulp::cast(words), pulp::cast(from)))
        });
    }
}

#[cfg(target_arch = "x86_64")]
impl Picker for pulp::x86::V4 {
    #[inline(always)]
    fn pick(self, picks: &Picks, line: &[i16], pairs: &mut [[i16; 2]]) {
        Picker::pick(*self, picks, line, pairs);
    }
}

#[cfg(target_arch = "aarch64")]
impl Picker for pulp::aarch64::Neon {
    #[inline(always)]
    fn pick(self, picks: &Picks, line: &[i16], pairs: &mut [[i16; 2]]) {
        picks.by_table(line, pairs, |words, from| {
            pulp::cast(self.neon.vqtbl1q_u8(pulp::cast(words), pulp::cast(from)))
        });
    }
}
