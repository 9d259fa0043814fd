//! Cases by chance, the same for the same seed.

use super::case::{Case, Entry, Operation};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }

    fn path(&mut self, most: u64) -> String {
        // Few names, so that operations meet; one of them long, one not ASCII.
        const NAMES: [&str; 6] = ["a", "b", "c", "d", "ä€", "long-name-long-name-long-name-long-name-long-name"];
        let depth = 1 + self.below(most);
        let names: Vec<&str> =
            (0..depth).map(|_| if self.one_in(12) { *self.of(&NAMES) } else { *self.of(&NAMES[..4]) }).collect();
        names.join("/")
    }
}

/// The case of a seed.
pub fn case(seed: u64, operations: usize) -> Case {
    let mut random = Random(seed);
    let layers = 1 + random.below(3);
    // Which name of a lower hard link a copy gets is the one known difference; every third case has such links.
    let with_links = seed.is_multiple_of(3);
    Case {
        layers: (0..layers).map(|_| layer(&mut random, with_links)).collect(),
        operations: (0..operations).map(|_| operation(&mut random)).collect(),
    }
}

fn layer(random: &mut Random, with_links: bool) -> Vec<Entry> {
    let mut entries = Vec::new();
    for _ in 0..5 + random.below(25) {
        let path = random.path(3);
        let (kind, target, mode) = match random.below(10) {
            0..=2 => ("dir", "-".to_owned(), *random.of(&[0o755, 0o700, 0o2775, 0o1777])),
            3..=5 => ("file", "-".to_owned(), *random.of(&[0o644, 0o600, 0o4755, 0o2755])),
            6 => ("symlink", random.path(1), 0),
            7 => ("fifo", "-".to_owned(), 0o644),
            8 if with_links => ("link", random.path(3), 0),
            8 => ("xattr", "-".to_owned(), 0),
            _ => ("whiteout", "-".to_owned(), 0),
        };
        let size = usize::try_from(random.below(9000)).unwrap();
        entries.push(Entry { kind: kind.to_owned(), path, target, mode, size });
    }
    for _ in 0..random.below(4) {
        let kind = if random.one_in(2) { "opaque" } else { "xattr" };
        entries.push(Entry { kind: kind.to_owned(), path: random.path(2), target: "-".to_owned(), mode: 0, size: 0 });
    }
    entries
}

fn operation(random: &mut Random) -> Operation {
    const KINDS: [&str; 33] = [
        "create",
        "write",
        "append",
        "truncate",
        "mkdir",
        "mkdir",
        "rmdir",
        "unlink",
        "unlink",
        "rename",
        "rename",
        "rename",
        "rename",
        "exchange",
        "noreplace",
        "link",
        "symlink",
        "fifo",
        "device",
        "chmod",
        "chown",
        "times",
        "setxattr",
        "removexattr",
        "list",
        "read",
        "stat",
        "open",
        "hold",
        "hold-write",
        "hold-read",
        "hold-stat",
        "allocate",
    ];
    Operation {
        kind: (*random.of(&KINDS)).to_owned(),
        path: random.path(3),
        other: random.path(3),
        number: u32::try_from(random.below(1 << 30)).unwrap(),
    }
}
