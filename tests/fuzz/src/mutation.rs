//! Random inputs made from seeds, without libFuzzer. The same number gives the same input.

/// Words that valid inputs are made of, and words that break parsers.
const WORDS: &[&str] = &[
    "null",
    "true",
    "-1",
    "0",
    "1e400",
    "18446744073709551616",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "{}",
    "[]",
    "[[",
    "{\"a\":",
    ",",
    ":",
    "\n",
    "\r\n",
    "\0",
    "\u{1b}[31m",
    "\u{feff}",
    "\u{202e}",
    "é",
    "::mycli:",
    "exit:0",
    "::",
    "&a",
    "*a",
    "<<: *a",
    "- ",
    "? ",
    "!!binary ",
    "|",
    "%",
    "'",
    "$(x)",
    "--",
    "STOPPED",
    "RUNNING",
    "exec_",
    "attempt",
    "env",
    "command",
    "repo",
];

/// The SplitMix64 generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap_or(1)).unwrap_or(0)
    }
}

/// The input with this number.
#[must_use]
pub fn input(seeds: &[&str], number: u64) -> Vec<u8> {
    let mut random = Random(number);
    let seed = |random: &mut Random| seeds[random.below(seeds.len())].as_bytes().to_vec();
    let mut bytes = seed(&mut random);
    for _ in 0..random.below(6) {
        let (from, to) = (random.below(bytes.len() + 1), random.below(bytes.len() + 1));
        let (from, to) = (from.min(to), from.max(to));
        match random.below(6) {
            0 => drop(bytes.splice(from..from, WORDS[random.below(WORDS.len())].bytes())),
            1 => drop(bytes.drain(from..to.min(from + 8))),
            2 => bytes.extend_from_within(from..to),
            3 if from < bytes.len() => bytes[from] ^= 1 << random.below(8),
            4 => {
                let other = seed(&mut random);
                let part = random.below(other.len() + 1);
                drop(bytes.splice(from..to, other[part..].iter().copied()));
            }
            _ => drop(bytes.splice(
                from..to.min(from + 4),
                WORDS[random.below(WORDS.len())].bytes(),
            )),
        }
    }
    bytes
}
