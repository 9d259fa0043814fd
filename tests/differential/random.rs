//! Cases by chance, the same for the same seed.

use super::case::{Bytes, Case, Entry, LONGEST, Operation};
use super::guess::{Guess, Guesses};
use super::perform::XATTRS;
use super::world::World;

/// SplitMix64.
struct Random {
    state: u64,
    /// Names may be as long as they can be, and redirects longer than the kernel's overlayfs writes them.
    with_longest: bool,
}

impl Random {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
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

    /// One of `choices`, each as often as its weight says.
    fn weighted(&mut self, choices: &[(u64, &'static str)]) -> &'static str {
        let index = self.weighted_index(choices.iter().map(|(weight, _)| *weight));
        choices[index].1
    }

    /// The index of one of these weights, each as often as it says.
    fn weighted_index(&mut self, weights: impl Iterator<Item = u64> + Clone) -> usize {
        let mut left = self.below(weights.clone().sum());
        let is_it = |weight: u64| {
            let is_it = left < weight;
            left = left.wrapping_sub(weight);
            is_it
        };
        weights.into_iter().position(is_it).unwrap()
    }

    fn path(&mut self, most: u64) -> Bytes {
        // Few names, so that operations meet.
        const NAMES: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
        // A blank, a line's end, no UTF-8, the longest there can be, and what is hidden from `ls` but not from us.
        const ODD: [&[u8]; 6] = [b"a b", b"a\nb", b"\xff\xfe", "ä€".as_bytes(), b".a%", &LONGEST];
        let depth = 1 + self.below(most);
        let odd = &ODD[..if self.with_longest { 6 } else { 5 }];
        let names: Vec<&[u8]> =
            (0..depth).map(|_| if self.one_in(12) { *self.of(odd) } else { *self.of(&NAMES) }).collect();
        Bytes(names.join(&b'/'))
    }
}

/// The case of a seed.
pub fn case(seed: u64, operations: usize) -> Case {
    let mut random = Random { state: seed, with_longest: seed % 5 == 1 };
    // Most are in the world of the default options; the others are taken in turn.
    let worlds: Vec<&str> = World::names().collect();
    let world = if seed.is_multiple_of(2) { worlds[usize::try_from(seed / 2).unwrap() % worlds.len()] } else { "" };
    let world = if seed % 5 == 4 { format!("{world} far").trim().to_owned() } else { world.to_owned() };
    // By which name a lower hard link is changed is not told to plyfs; every third case has such links.
    // [SEMANTICS: Hard links of lower layers stay one file with `index=off`, too.]
    let with_links = seed.is_multiple_of(3) && !world.starts_with("unindexed");
    // Where they are, the case may end early.
    let with_xattr_whiteouts = seed % 7 == 6;
    let layers: Vec<_> =
        (0..1 + random.below(3)).map(|_| layer(&mut random, with_links, with_xattr_whiteouts)).collect();
    let mut guesses = Guesses::of(&layers);
    let mut operations: Vec<_> = (0..operations).map(|_| operation(&mut random, &mut guesses)).collect();
    if world.ends_with("far") {
        // The kernel's overlayfs does not copy ranges between filesystems.
        operations.retain(|operation| !matches!(operation.kind.as_str(), "copy-range" | "hold-copy"));
    }
    Case { world, layers, operations }
}

fn layer(random: &mut Random, with_links: bool, with_xattr_whiteouts: bool) -> Vec<Entry> {
    const KINDS: [(u64, &str); 11] = [
        (30, "dir"),
        (28, "file"),
        (3, "sparse"),
        (8, "symlink"),
        (3, "fifo"),
        (2, "socket"),
        (2, "device"),
        (1, "block"),
        (8, "link"),
        (6, "whiteout"),
        (3, "xattr-whiteout"),
    ];
    const MARKS: [(u64, &str); 5] = [(6, "opaque"), (8, "xattr"), (4, "acl"), (3, "default-acl"), (3, "capability")];
    let mut entries = Vec::new();
    for _ in 0..5 + random.below(25) {
        let mut kind = random.weighted(&KINDS);
        if kind == "link" && !with_links {
            kind = "file";
        }
        if kind == "xattr-whiteout" && !with_xattr_whiteouts {
            kind = "whiteout";
        }
        let mode = match kind {
            "dir" => *random.of(&[0o755, 0o755, 0o700, 0o777, 0o2775, 0o1777]),
            "file" | "sparse" => *random.of(&[0o644, 0o600, 0o666, 0o4755, 0o2755, 0o2666]),
            _ => *random.of(&[0o644, 0o666]),
        };
        let target = if matches!(kind, "symlink" | "link") { random.path(3) } else { Bytes::default() };
        let size = usize::try_from(random.below(9000)).unwrap();
        entries.push(Entry { kind: kind.to_owned(), path: random.path(3), target, mode, size });
    }
    for _ in 0..random.below(8) {
        let kind = random.weighted(&MARKS);
        // Mostly one that is there.
        let path =
            if random.one_in(3) || entries.is_empty() { random.path(2) } else { random.of(&entries).path.clone() };
        let target = if kind == "xattr" { Bytes::from(*random.of(&XATTRS[..4])) } else { Bytes::default() };
        let size = usize::try_from(random.below(4096)).unwrap();
        entries.push(Entry { kind: kind.to_owned(), path, target, mode: 0, size });
    }
    entries
}

/// What an operation mostly finds at its path, or at its other one.
#[derive(Debug, Clone, Copy)]
enum On {
    File,
    Dir,
    Other,
    Any,
    /// Nothing: a name in some directory.
    Free,
    /// It does not matter.
    None,
}

/// How often each operation is done, and on what.
const OPERATIONS: [(u64, &str, On, On); 67] = [
    (6, "create", On::Free, On::None),
    (6, "write", On::File, On::None),
    (5, "overwrite", On::File, On::None),
    (5, "append", On::File, On::None),
    (5, "truncate", On::File, On::None),
    (9, "mkdir", On::Free, On::None),
    (7, "rmdir", On::Dir, On::None),
    (8, "unlink", On::File, On::None),
    (8, "rename", On::Dir, On::Free),
    (6, "rename", On::File, On::Free),
    (4, "rename", On::Dir, On::Dir),
    (6, "rename", On::Any, On::Any),
    (6, "exchange", On::Any, On::Any),
    (4, "noreplace", On::Any, On::Free),
    (1, "rename-whiteout", On::Any, On::Free),
    (6, "link", On::File, On::Free),
    (1, "link", On::Any, On::Any),
    (4, "symlink", On::Free, On::None),
    (2, "fifo", On::Free, On::None),
    (1, "socket", On::Free, On::None),
    (1, "file", On::Free, On::None),
    (2, "device", On::Free, On::None),
    (6, "chmod", On::Any, On::None),
    (7, "chown", On::Any, On::None),
    (5, "times", On::Any, On::None),
    (6, "setxattr", On::Any, On::None),
    (3, "getxattr", On::Any, On::None),
    (3, "listxattr", On::Any, On::None),
    (4, "removexattr", On::Any, On::None),
    (3, "set-acl", On::Any, On::None),
    (2, "set-default-acl", On::Dir, On::None),
    (1, "remove-acl", On::Any, On::None),
    (6, "list", On::Dir, On::None),
    (5, "read", On::File, On::None),
    (1, "readlink", On::Other, On::None),
    (4, "stat", On::Any, On::None),
    (2, "access", On::Any, On::None),
    (3, "open", On::File, On::None),
    (2, "open-truncated", On::File, On::None),
    (3, "allocate", On::File, On::None),
    (3, "copy-range", On::File, On::File),
    (2, "seek", On::File, On::None),
    (5, "hold", On::File, On::None),
    (5, "hold-reader", On::File, On::None),
    (2, "hold-writer", On::File, On::None),
    (2, "hold-appender", On::File, On::None),
    (5, "hold-write", On::None, On::None),
    (3, "hold-append", On::None, On::None),
    (5, "hold-read", On::None, On::None),
    (2, "hold-map", On::None, On::None),
    (5, "hold-stat", On::None, On::None),
    (3, "hold-truncate", On::None, On::None),
    (2, "hold-chmod", On::None, On::None),
    (2, "hold-chown", On::None, On::None),
    (2, "hold-times", On::None, On::None),
    (1, "hold-sync", On::None, On::None),
    (2, "hold-allocate", On::None, On::None),
    (2, "hold-seek", On::None, On::None),
    (2, "hold-setxattr", On::None, On::None),
    (1, "hold-getxattr", On::None, On::None),
    (2, "hold-copy", On::None, On::None),
    (1, "hold-close", On::None, On::None),
    (4, "hold-dir", On::Dir, On::None),
    (3, "hold-dir-list", On::None, On::None),
    (2, "hold-dir-create", On::None, On::None),
    (2, "hold-dir-mkdir", On::None, On::None),
    (4, "hold-dir-other", On::Any, On::None),
];

/// What is done in a directory that is open, to a name that may be there.
const IN_DIR: [&str; 5] = ["hold-dir-unlink", "hold-dir-rmdir", "hold-dir-stat", "hold-dir-sync", "hold-dir-chmod"];

fn operation(random: &mut Random, guesses: &mut Guesses) -> Operation {
    let (_, kind, on, other) = &OPERATIONS[random.weighted_index(OPERATIONS.iter().map(|(weight, ..)| *weight))];
    let kind = if *kind == "hold-dir-other" { *random.of(&IN_DIR) } else { kind };
    let operation = Operation {
        kind: kind.to_owned(),
        who: random.one_in(6).then(|| (1000, random.one_in(2))),
        path: path_to(random, guesses, *on),
        other: path_to(random, guesses, *other),
        number: u32::try_from(random.below(1 << 30)).unwrap(),
    };
    guesses.done(&operation);
    operation
}

/// A path at which there probably is what is wanted, or now and then any.
fn path_to(random: &mut Random, guesses: &Guesses, on: On) -> Bytes {
    let kind = match on {
        On::File => Some(Guess::File),
        On::Dir | On::Free => Some(Guess::Dir),
        On::Other => Some(Guess::Other),
        On::Any => None,
        On::None => return random.path(1),
    };
    let paths = guesses.paths(kind);
    if paths.is_empty() || random.one_in(6) {
        return random.path(3);
    }
    let found = (*random.of(&paths)).clone();
    match on {
        On::Free => Bytes([found.0.as_slice(), b"/", &random.path(1).0].concat()),
        _ => found,
    }
}
