//! Locks that know their place in the lock order. Debug builds check it at every turn: who takes them in another order
//! panics, instead of waiting for ever some day.

use std::ops::{Deref, DerefMut};

/// The places in the lock order: who holds a lock takes only those of a higher rank. The crate's documentation tells what
/// each is for.
pub mod rank {
    /// Moves between two directories.
    pub const MOVES: u8 = 1;
    /// The copy-up of one inode; a child's is held while its parents are copied up.
    pub const COPY_UP: u8 = 2;
    /// The entries of a directory, or of two.
    pub const ENTRIES: u8 = 3;
    /// The backing file of a handle.
    pub const BACKING: u8 = 4;
    /// The state of inodes.
    pub const STATE: u8 = 5;
    /// The shared whiteout of the work directory.
    pub const WHITEOUT: u8 = 6;
    /// Caches and tables.
    pub const LEAF: u8 = 7;
    /// Those of which a thread may hold several, in an order of their own.
    #[cfg(debug_assertions)]
    pub(super) const SEVERAL: [u8; 3] = [COPY_UP, ENTRIES, STATE];
}

/// A mutex.
#[derive(Debug, Default)]
pub struct Mutex<T, const RANK: u8>(parking_lot::Mutex<T>);

/// A lock for many readers or one writer.
#[derive(Debug, Default)]
pub struct RwLock<T, const RANK: u8>(parking_lot::RwLock<T>);

/// A held mutex.
#[derive(Debug)]
pub struct MutexGuard<'l, T> {
    guard: parking_lot::MutexGuard<'l, T>,
    _held: Held,
}

/// A lock held by one of many readers.
#[derive(Debug)]
pub struct ReadGuard<'l, T> {
    guard: parking_lot::RwLockReadGuard<'l, T>,
    _held: Held,
}

/// A lock held by its writer.
#[derive(Debug)]
pub struct WriteGuard<'l, T> {
    guard: parking_lot::RwLockWriteGuard<'l, T>,
    _held: Held,
}

impl<T, const RANK: u8> Mutex<T, RANK> {
    /// A mutex that nobody holds.
    pub const fn new(value: T) -> Self {
        Self(parking_lot::Mutex::new(value))
    }

    /// Waits for the mutex.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let held = Held::take(RANK, address(self), false);
        MutexGuard { guard: self.0.lock(), _held: held }
    }
}

impl<T, const RANK: u8> RwLock<T, RANK> {
    /// A lock that nobody holds.
    pub const fn new(value: T) -> Self {
        Self(parking_lot::RwLock::new(value))
    }

    /// Waits until nobody writes or waits to write.
    pub fn read(&self) -> ReadGuard<'_, T> {
        let held = Held::take(RANK, address(self), false);
        ReadGuard { guard: self.0.read(), _held: held }
    }

    /// Waits until nobody writes; for who may be reading already.
    pub fn read_recursive(&self) -> ReadGuard<'_, T> {
        let held = Held::take(RANK, address(self), true);
        ReadGuard { guard: self.0.read_recursive(), _held: held }
    }

    /// Waits until nobody reads or writes.
    pub fn write(&self) -> WriteGuard<'_, T> {
        let held = Held::take(RANK, address(self), false);
        WriteGuard { guard: self.0.write(), _held: held }
    }

    /// The value, of which nobody else knows.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// What tells locks apart.
fn address<T>(lock: &T) -> usize {
    std::ptr::from_ref(lock).addr()
}

#[cfg(debug_assertions)]
use checked::Held;
#[cfg(not(debug_assertions))]
use unchecked::Held;

#[cfg(debug_assertions)]
mod checked {
    use std::cell::RefCell;

    use crate::lock::rank;

    thread_local!(static HELD: RefCell<Vec<(u8, usize)>> = const { RefCell::new(Vec::new()) });

    /// Notes that this thread holds a lock, or is about to.
    #[derive(Debug)]
    pub(super) struct Held(u8, usize);

    impl Held {
        pub(super) fn take(rank: u8, address: usize, again: bool) -> Self {
            HELD.with_borrow_mut(|held| {
                for (other, other_address) in &*held {
                    let is_ordered = *other < rank || (*other == rank && rank::SEVERAL.contains(&rank));
                    assert!(is_ordered, "a lock of rank {rank} is taken under one of rank {other}");
                    assert!(again || *other_address != address, "a lock of rank {rank} is taken twice");
                }
                held.push((rank, address));
            });
            Self(rank, address)
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            HELD.with_borrow_mut(|held| {
                if let Some(place) = held.iter().rposition(|held| *held == (self.0, self.1)) {
                    held.remove(place);
                }
            });
        }
    }
}

#[cfg(not(debug_assertions))]
mod unchecked {
    #[derive(Debug)]
    pub(super) struct Held;

    impl Held {
        #[inline(always)]
        pub(super) const fn take(_rank: u8, _address: usize, _again: bool) -> Self {
            Self
        }
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn panics(f: impl FnOnce()) -> bool {
        catch_unwind(AssertUnwindSafe(f)).is_err()
    }

    #[test]
    fn locks_are_taken_in_order_and_not_twice() {
        let moves = Mutex::<(), { rank::MOVES }>::new(());
        let states = [const { RwLock::<(), { rank::STATE }>::new(()) }; 2];
        let leaves = [const { Mutex::<(), { rank::LEAF }>::new(()) }; 2];
        let _moves = moves.lock();
        let state = states[0].read();
        drop(states[0].read_recursive());
        let leaf = leaves[0].lock();
        assert!(panics(|| drop(leaves[1].lock())), "two leaves");
        assert!(panics(|| drop(states[1].write())), "below a leaf");
        drop(leaf);
        drop(states[1].write());
        assert!(panics(|| drop(states[0].read())), "twice, where a writer may wait in between");
        drop(state);
        drop(states[0].write());
        drop(leaves[1].lock());
    }
}
