//! Reading and writing: in sequence and at random, by 4 KiB and 1 MiB, through the page cache, past it, and mapped.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use super::super::Outcome;
use super::{Bed, Group, Workload};

const BLOCK: usize = 4096;
const MIB: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Buffered,
    Direct,
    Mapped,
}

#[derive(Debug, Clone, Copy)]
struct Job {
    way: Way,
    writes: bool,
    random: bool,
    /// Bytes of each operation.
    size: usize,
}

impl Job {
    fn name(self) -> String {
        let order = if self.random { "random" } else { "sequential" };
        let what = if self.writes { "write" } else { "read" };
        let size = if self.size == MIB { "1 MiB" } else { "4 KiB" };
        let way = match self.way {
            Way::Buffered => "buffered",
            Way::Direct => "direct",
            Way::Mapped => "mapped",
        };
        format!("{order} {what} of {size}, {way}")
    }
}

pub fn all() -> Vec<Workload> {
    let mut all = vec![Workload::new(Group::Data, "sequential read of 1 MiB, of lower files", |bed| {
        (0..4).try_for_each(|number| {
            let read = fs::read(bed.srv(&format!("large/{number}")))?.len();
            if read == bed.scale.large * MIB { Ok(()) } else { Err("a short read".into()) }
        })
    })];
    for way in [Way::Buffered, Way::Direct, Way::Mapped] {
        for writes in [false, true] {
            for random in [false, true] {
                for size in [BLOCK, MIB] {
                    // A mapping knows no size.
                    if way == Way::Mapped && size == MIB {
                        continue;
                    }
                    let job = Job { way, writes, random, size };
                    all.push(Workload::new(Group::Data, job.name(), move |bed| run(bed, job)).after(file));
                }
            }
        }
    }
    all
}

/// A file of the upper, whose pages are in memory where the filesystem keeps them.
fn file(bed: &Bed<'_>) -> Outcome<()> {
    fs::write(bed.srv("file"), vec![7; bed.scale.large * MIB])?;
    fs::read(bed.srv("file"))?;
    Ok(())
}

fn run(bed: &Bed<'_>, job: Job) -> Outcome<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(job.writes);
    if job.way == Way::Direct {
        options.custom_flags(libc::O_DIRECT);
    }
    let file = options.open(bed.srv("file"))?;
    let places = bed.scale.large * MIB / job.size;
    // Past the page cache each takes as long as the disk does.
    let blocks = if job.way == Way::Direct { bed.scale.blocks / 16 } else { bed.scale.blocks };
    let count = if job.size == MIB { places } else { blocks.min(places) };
    let offsets = (0..count).map(|number| {
        // Another odd number would do as well: each place comes once.
        let place = if job.random { number.wrapping_mul(0x9e37_79b1) % places } else { number };
        place * job.size
    });
    if job.way == Way::Mapped {
        return mapped(&file, bed.scale.large * MIB, offsets, job.writes);
    }
    // What is read and written directly has to begin at a block.
    let mut buffer = vec![7; job.size + BLOCK];
    let start = buffer.as_ptr().align_offset(BLOCK);
    let buffer = &mut buffer[start..start + job.size];
    for offset in offsets {
        if job.writes {
            file.write_all_at(buffer, offset as u64)?;
        } else {
            file.read_exact_at(buffer, offset as u64)?;
        }
    }
    Ok(())
}

#[allow(unsafe_code)]
fn mapped(file: &File, len: usize, offsets: impl Iterator<Item = usize>, writes: bool) -> Outcome<()> {
    let protection = if writes { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
    // SAFETY: the kernel chooses the address, so that nothing that is in use is replaced.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    if address == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error().into());
    }
    let mut sum = 0_u64;
    for offset in offsets {
        assert!(offset < len);
        let byte = address.cast::<u8>().wrapping_add(offset);
        // SAFETY: it is within the mapping, which nobody else has, and the file is not made shorter.
        unsafe {
            if writes {
                byte.write_volatile(1);
            } else {
                sum += u64::from(byte.read_volatile());
            }
        }
    }
    std::hint::black_box(sum);
    // SAFETY: this is what was mapped above, and no reference to it is left.
    if unsafe { libc::munmap(address, len) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(())
}
