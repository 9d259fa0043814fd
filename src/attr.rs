//! Attributes of a file as the overlay handles them: `statx` in, what the caller is shown out.

use rustix::fs::{Statx, StatxAttributes, StatxTimestamp};

/// The file type, which an inode never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device.
    Char,
    /// A block device.
    Block,
}

impl Kind {
    /// The type in the upper bits of `mode`; `None` for bits that stand for none.
    pub const fn of_mode(mode: u32) -> Option<Self> {
        Some(match mode & libc::S_IFMT {
            libc::S_IFREG => Self::File,
            libc::S_IFDIR => Self::Dir,
            libc::S_IFLNK => Self::Symlink,
            libc::S_IFIFO => Self::Fifo,
            libc::S_IFSOCK => Self::Socket,
            libc::S_IFCHR => Self::Char,
            libc::S_IFBLK => Self::Block,
            _ => return None,
        })
    }

    /// The type's bits of `st_mode`.
    pub const fn mode_bits(self) -> u32 {
        match self {
            Self::File => libc::S_IFREG,
            Self::Dir => libc::S_IFDIR,
            Self::Symlink => libc::S_IFLNK,
            Self::Fifo => libc::S_IFIFO,
            Self::Socket => libc::S_IFSOCK,
            Self::Char => libc::S_IFCHR,
            Self::Block => libc::S_IFBLK,
        }
    }
}

/// A point in time; `nsec` counts up from `sec`, also before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds since 1970, negative before.
    pub sec: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nsec: u32,
}

impl From<StatxTimestamp> for Time {
    fn from(time: StatxTimestamp) -> Self {
        Self { sec: time.tv_sec, nsec: time.tv_nsec }
    }
}

/// What `stat` tells of one object, in one layer or in the overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Inode number: in the layer's filesystem when it comes from a layer, else the one shown.
    pub ino: u64,
    /// Device of the layer's filesystem, as `major << 32 | minor`.
    pub dev: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Link count.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node: major and minor.
    pub rdev: (u32, u32),
    /// Size in bytes.
    pub size: u64,
    /// Allocated blocks of 512 bytes.
    pub blocks: u64,
    /// Preferred size of a transfer, in bytes.
    pub blksize: u32,
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// The layer's filesystem says that the file is immutable.
    pub immutable: bool,
    /// The layer's filesystem says that the file can only grow.
    pub append_only: bool,
    /// Its times may change with nobody being told: it may be mapped for writing without us.
    pub is_volatile: bool,
}

impl Attr {
    /// The file type.
    pub const fn kind(&self) -> Kind {
        match Kind::of_mode(self.mode) {
            Some(kind) => kind,
            // Linux has no other type; whatever else a filesystem says is shown as a plain file.
            None => Kind::File,
        }
    }

    /// A character device 0:0: the mark that hides a name.
    pub const fn is_whiteout(&self) -> bool {
        matches!(self.kind(), Kind::Char) && self.rdev.0 == 0 && self.rdev.1 == 0
    }

    /// A set-user-id or set-group-id bit is set.
    pub const fn is_setid(&self) -> bool {
        self.mode & (libc::S_ISUID | libc::S_ISGID) != 0
    }
}

impl From<Statx> for Attr {
    fn from(stat: Statx) -> Self {
        let attributes = stat.stx_attributes & stat.stx_attributes_mask;
        Self {
            ino: stat.stx_ino,
            dev: (u64::from(stat.stx_dev_major) << 32) | u64::from(stat.stx_dev_minor),
            mode: u32::from(stat.stx_mode),
            nlink: stat.stx_nlink,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            rdev: (stat.stx_rdev_major, stat.stx_rdev_minor),
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            blksize: stat.stx_blksize,
            atime: stat.stx_atime.into(),
            mtime: stat.stx_mtime.into(),
            ctime: stat.stx_ctime.into(),
            immutable: attributes.contains(StatxAttributes::IMMUTABLE),
            append_only: attributes.contains(StatxAttributes::APPEND),
            is_volatile: false,
        }
    }
}
