//! Feeds `checks::entries` with what libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plyfs_fuzz::entries::check(data));
