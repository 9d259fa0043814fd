//! Faults by order: a test looks a name up that says what is to become of the calls on layers.

use std::ffi::OsStr;

use rustix::fs::{Mode, OFlags, open};

use crate::calls::failpoint::{Calls, Fault, Plan, plan_for_process};
use crate::error::{Context, Errno, Error, Result};

const PREFIX: &str = "plyfs-failpoint-";

/// Does what a name like `plyfs-failpoint-fail-3-28` says: the third changing call from now on fails with errno 28. As
/// well `abort-3`, `panic-change-3`, `panic-3` (of all calls, also those that only read), and `off`. `outside` opens what is
/// no layer.
///
/// # Errors
/// `ENOENT` for such a name; for `outside`, those of open(2).
pub(super) fn obey(name: &OsStr) -> Result<()> {
    let Some(order) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { return Ok(()) };
    let words: Vec<&str> = order.split('-').collect();
    let number = |word: &str| word.parse().ok();
    if order == "outside" {
        open("/", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).during("open the root")?;
    }
    let plan = match words.as_slice() {
        ["fail", nth, errno] => (|| {
            let fault = Fault::Fail(Errno::from_raw_os_error(errno.parse().ok()?));
            Some(Plan { calls: Calls::Changes, nth: number(nth)?, fault })
        })(),
        ["abort", nth] => number(nth).map(|nth| Plan { calls: Calls::Changes, nth, fault: Fault::Abort }),
        ["panic", nth] => number(nth).map(|nth| Plan { calls: Calls::All, nth, fault: Fault::Panic }),
        ["panic", "change", nth] => number(nth).map(|nth| Plan { calls: Calls::Changes, nth, fault: Fault::Panic }),
        _ => None,
    };
    plan_for_process(plan);
    Err(Error::new(Errno::NOENT, "look up an order for faults"))
}
