//! Feeds `checks::documents` with what libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plyfs_fuzz::documents::check(data));
