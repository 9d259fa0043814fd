//! Worlds: how the overlays of a case are mounted, and on what.

use super::case::Case;
use super::common::{Mounted, Setup};

/// What the words of a world say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct World {
    /// The options of the kernel's overlayfs.
    kernel: &'static str,
    /// Those of plyfs.
    plyfs: &'static str,
    /// Marks are `user.overlay.*`.
    pub is_user: bool,
    /// Attributes are copied up without data.
    pub has_metacopy: bool,
    /// The kernel gathers writes to plyfs.
    pub gathers_writes: bool,
    /// The upper has to be freed of what a volatile mount leaves, to be mounted again.
    is_volatile: bool,
    /// The lower layers are on a filesystem each.
    pub is_far: bool,
}

/// By the first word of a world; the default is the empty one.
const WORLDS: [(&str, World); 10] = [
    ("", both("redirect_dir=on,index=on,xino=auto")),
    ("metacopy", World { has_metacopy: true, ..both("redirect_dir=on,index=on,xino=auto,metacopy=on") }),
    // The kernel's overlayfs neither writes redirects with userxattr nor follows them.
    ("user", World { is_user: true, ..both("userxattr,redirect_dir=nofollow,index=on,xino=auto") }),
    ("xino", both("redirect_dir=on,index=on,xino=on")),
    ("off", both("redirect_dir=off,index=on,xino=auto")),
    ("volatile", World { is_volatile: true, ..both("redirect_dir=on,index=on,xino=auto,volatile") }),
    (
        "writeback",
        World { plyfs: "index=on,writeback=1", gathers_writes: true, ..both("redirect_dir=on,index=on,xino=auto") },
    ),
    ("threads", World { plyfs: "index=on,threads=4", ..both("redirect_dir=on,index=on,xino=auto") }),
    ("unindexed", both("redirect_dir=on,index=off,xino=auto")),
    ("daemon", World { plyfs: "index=on,passthrough=0,writeback=0", ..both("redirect_dir=on,index=on,xino=auto") }),
];

const fn both(options: &'static str) -> World {
    World {
        kernel: options,
        plyfs: options,
        is_user: false,
        has_metacopy: false,
        gathers_writes: false,
        is_volatile: false,
        is_far: false,
    }
}

impl World {
    /// The names of all, without what may be added.
    pub fn names() -> impl Iterator<Item = &'static str> {
        WORLDS.iter().map(|(name, _)| *name)
    }

    /// The one of a case.
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn of(case: &Case) -> Self {
        let is_far = case.world.split(' ').any(|word| word == "far");
        let name = case.world.split(' ').find(|word| *word != "far").unwrap_or_default();
        let found = WORLDS.iter().find(|(known, _)| *known == name);
        let (_, world) = found.unwrap_or_else(|| panic!("no such world: {name}"));
        Self { is_far, ..*world }
    }

    /// A bed with the options of this world.
    pub fn setup(self) -> Setup {
        Setup::new().option(self.plyfs).kernel_options(self.kernel)
    }

    /// Unmounts it, so that it can be mounted again.
    pub fn unmount(self, mounted: &mut Mounted) {
        let incompat = mounted.beside("work/work/incompat");
        if self.is_volatile && incompat.exists() {
            mounted.unmount_dirty();
            std::fs::remove_dir_all(incompat).unwrap();
        } else {
            mounted.unmount();
        }
    }
}
