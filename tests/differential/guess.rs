//! What the tree probably looks like while a case is made up, so that most operations find something to work on.
//!
//! It knows neither permissions nor marks, and takes every operation for done: what it says may be wrong.

use std::collections::BTreeMap;

use super::case::{Bytes, Entry, Operation};

/// What is probably at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guess {
    Dir,
    File,
    Other,
}

/// What is probably where.
#[derive(Debug, Default)]
pub struct Guesses(BTreeMap<Bytes, Guess>);

impl Guesses {
    /// Of some layers, topmost first.
    pub fn of(layers: &[Vec<Entry>]) -> Self {
        let mut guesses = Self::default();
        for entry in layers.iter().rev().flatten() {
            let guess = match entry.kind.as_str() {
                "dir" => Guess::Dir,
                "file" | "sparse" | "link" => Guess::File,
                "whiteout" | "xattr-whiteout" => {
                    guesses.remove(&entry.path);
                    continue;
                }
                "opaque" | "xattr" | "acl" | "default-acl" | "capability" => continue,
                _ => Guess::Other,
            };
            guesses.add(&entry.path, guess);
        }
        guesses
    }

    /// The paths of all that is probably of one kind, or of any.
    pub fn paths(&self, kind: Option<Guess>) -> Vec<&Bytes> {
        self.0.iter().filter(|(_, guess)| kind.is_none_or(|kind| kind == **guess)).map(|(path, _)| path).collect()
    }

    fn add(&mut self, path: &Bytes, guess: Guess) {
        if path.0.is_empty() || (guess == Guess::Dir && self.0.get(path) == Some(&Guess::Dir)) {
            return;
        }
        self.add(&path.parent(), Guess::Dir);
        self.remove(path);
        self.0.insert(path.clone(), guess);
    }

    fn remove(&mut self, path: &Bytes) {
        self.0.retain(|other, _| !is_below(other, path));
    }

    fn take(&mut self, path: &Bytes) -> Vec<(Vec<u8>, Guess)> {
        let below = self.0.iter().filter(|(other, _)| is_below(other, path));
        let taken = below.map(|(other, guess)| (other.0[path.0.len()..].to_vec(), *guess)).collect();
        self.remove(path);
        taken
    }

    fn put(&mut self, path: &Bytes, taken: Vec<(Vec<u8>, Guess)>) {
        for (rest, guess) in taken {
            self.0.insert(Bytes([path.0.as_slice(), &rest].concat()), guess);
        }
    }

    /// An operation was done.
    pub fn done(&mut self, operation: &Operation) {
        let Operation { kind, path, other, who, .. } = operation;
        // Others may do little.
        if who.is_some() {
            return;
        }
        let (here, there) = (self.0.get(path).copied(), self.0.get(other).copied());
        let are_apart = !is_below(other, path) && !is_below(path, other);
        match kind.as_str() {
            "create" | "write" | "file" if self.is_free(path) => self.add(path, Guess::File),
            "mkdir" if self.is_free(path) => self.add(path, Guess::Dir),
            "symlink" | "fifo" | "socket" | "device" if self.is_free(path) => self.add(path, Guess::Other),
            "unlink" if here != Some(Guess::Dir) => self.remove(path),
            "rmdir" if here == Some(Guess::Dir) && self.count_below(path) == 1 => self.remove(path),
            "rename" | "noreplace" if here.is_some() && are_apart => {
                let fits = match there {
                    None => self.is_free(other),
                    Some(_) if kind == "noreplace" => false,
                    Some(Guess::Dir) => here == Some(Guess::Dir) && self.count_below(other) == 1,
                    Some(_) => here != Some(Guess::Dir),
                };
                if fits {
                    let taken = self.take(path);
                    self.remove(other);
                    self.put(other, taken);
                }
            }
            "exchange" if here.is_some() && there.is_some() && are_apart => {
                let (first, second) = (self.take(path), self.take(other));
                self.put(path, second);
                self.put(other, first);
            }
            "link" if here == Some(Guess::File) && self.is_free(other) => self.add(other, Guess::File),
            _ => {}
        }
    }

    /// Whether there is nothing, in a directory.
    fn is_free(&self, path: &Bytes) -> bool {
        let parent = path.parent();
        !self.0.contains_key(path) && (parent.0.is_empty() || self.0.get(&parent) == Some(&Guess::Dir))
    }

    fn count_below(&self, path: &Bytes) -> usize {
        self.0.keys().filter(|other| is_below(other, path)).count()
    }
}

/// Whether `path` is `top` or lies below it.
fn is_below(path: &Bytes, top: &Bytes) -> bool {
    path.0.strip_prefix(top.0.as_slice()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}
