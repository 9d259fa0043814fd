//! plyfs lays read-only layers under one writable layer and shows them as one tree.
//!
//! ```text
//!        the merged tree      /a  /b  /c/x  /c/y  /d
//!                              │   │    │     │    │
//!   upper  (writable)          │   b'   │     │    │     changed: copied up
//!   lower 1                    a   b    c/x   │   (d)    (d): a whiteout in the upper would hide it
//!   lower 2                             c/…   c/y  d
//! ```
//!
//! # Vocabulary
//!
//! *Layer*: a directory of the *stack*, which is the *upper* and the *lowers*. *Merged directory*: one that several
//! layers hold. *Whiteout*: an entry that hides its name in the layers below; an *opaque* directory hides all of its
//! namesakes below. *Copy-up*: giving a lower object its part in the upper before its first change; it is *staged* in
//! the *work directory* and *published* by one rename. *Redirect*: under which path the layers below know a renamed
//! directory. *Origin*: which lower inode a copy came from. *Impure*: a directory with entries that came from elsewhere.
//! *Node id*: the number by which the kernel knows an inode, which is also the inode number shown. *Lookup count*: how
//! often it was told of it; *forget* takes that back. *Backing file*: the file of a layer behind an open file.
//!
//! # Floors
//!
//! Imports go down only, and within a floor to the left only.
//!
//! ```text
//! F0  error lock name attr acl override_stat ids sys calls at scan times running mounts counters
//! F1  layer config image
//! F2  merge
//! F3  listing inode cache handle
//! F4  overlay resolve copy_up ops
//! F5  changes inspect fuse
//! F6  control mount run doctor cli
//! ```
//!
//! # Lock order
//!
//! Debug builds check it ([`lock`]): who holds one takes only those further down.
//!
//! 1. [`Overlay::moves`](overlay::Overlay), for renames between two directories;
//! 2. an inode's copy-up lock (`Overlay::copy_ups`), a child's before those of its parents;
//! 3. [`Inode::entries`](inode::Inode) of directories: the one of the parent; both parents, by number, under `moves`;
//! 4. [`OpenFile::backing`](handle::OpenFile), while the file behind a handle is replaced by the upper's;
//! 5. [`Inode::state`](inode::Inode): a descendant's before its ancestors', two unrelated ones by number;
//! 6. the work directory's shared whiteout, while a link to it is made;
//! 7. caches and tables: leaves, held for a moment, never across a syscall, and never two of them.
//!
//! A copy-up moves data under the second only; it takes the later ones to publish. No lock is held while replying.

pub mod acl;
pub mod at;
pub mod attr;
pub mod cache;
mod calls;
pub mod changes;
pub mod cli;
pub mod config;
pub mod control;
mod copy_up;
pub mod counters;
pub mod doctor;
pub mod error;
pub mod fuse;
pub mod handle;
pub mod ids;
pub mod image;
pub mod inode;
pub mod inspect;
pub mod layer;
pub mod listing;
pub mod lock;
pub mod merge;
pub mod mount;
pub mod mounts;
pub mod name;
pub mod ops;
pub mod overlay;
pub mod override_stat;
mod resolve;
pub mod run;
pub mod running;
pub mod scan;
pub mod sys;
pub mod times;
