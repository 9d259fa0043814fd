//! What tests ask of the process that they run in.

/// Whether this process is root; else says on standard error what is not tested.
pub(crate) fn root_or_skip(what: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED: {what} (needs root)");
    }
    is_root
}
