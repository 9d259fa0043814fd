//! A bed for tests through a mount: layers in a temporary directory, and an overlay of them that is mounted by plyfs or
//! by the kernel's overlayfs.
//!
//! `PLYFS_TEST_BACKEND=kernel` mounts with the kernel's overlayfs, which tests the tests. `PLYFS_TEST_DIR` says where the
//! layers are to be (the system's temporary directory unless told). Needs root.

mod fixture;
mod layer;
mod os;
mod snapshot;
mod user;
mod volume;
mod written;

pub use fixture::{Backend, Mounted, Setup};
pub use layer::{Form, Layer};
pub use os::*;
pub use snapshot::{Detail, Snapshot};
pub use user::{User, as_user, as_user_in};
pub use volume::{Filesystem, Volume};
pub use written::{FEW_BLOCKS, assert_same_lines, written};

/// Leaves the test where the process is not root, loudly.
macro_rules! needs_root {
    () => {
        if !rustix::process::geteuid().is_root() {
            skip!("needs root");
        }
    };
}

/// Leaves the test, loudly.
macro_rules! skip {
    ($reason:expr) => {{
        use std::io::Write as _;
        let thread = std::thread::current();
        let line = format!("SKIPPED: {}: {}\n", thread.name().unwrap_or("?"), $reason);
        // Past the capture of the test harness, which would keep it quiet.
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }};
}

/// Leaves the test on the kernel's overlayfs, which is known to differ.
macro_rules! plyfs_only {
    ($reason:expr) => {
        if $crate::common::Backend::chosen() == $crate::common::Backend::Kernel {
            skip!(format!("plyfs only: {}", $reason));
        }
    };
}

/// Leaves the test on plyfs.
#[allow(unused_macros)]
macro_rules! kernel_only {
    ($reason:expr) => {
        if $crate::common::Backend::chosen() == $crate::common::Backend::Plyfs {
            skip!(format!("kernel only: {}", $reason));
        }
    };
}

/// Mounts a [`Setup`], or leaves the test where that cannot be.
macro_rules! mount {
    ($setup:expr) => {{
        needs_root!();
        $setup.mount()
    }};
}
