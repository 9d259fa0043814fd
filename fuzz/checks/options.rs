//! Lists of mount options.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use plyfs::config::Options;

/// Any list is understood or refused; what two lists say one after the other, the two joined say as well.
pub fn check(data: &[u8]) {
    let parse = |lists: &[&[u8]]| {
        let mut options = Options::default();
        lists.iter().try_for_each(|list| options.add(OsStr::from_bytes(list))).map(|()| options)
    };
    match parse(&[data]) {
        Ok(mut options) => {
            assert_eq!(parse(&[data]).ok(), Some(options.clone()), "the same list means the same");
            let has_no_layer = options.config.lowers.is_empty();
            if options.finish().is_ok() {
                assert!(!has_no_layer, "a mount has a lower layer");
                assert_eq!(
                    options.config.upper.is_some(),
                    options.config.work.is_some(),
                    "an upper has a work directory"
                );
            }
        }
        Err(error) => assert!(error.to_string().chars().count() < 1000, "a message is short: {error}"),
    }
    for at in data.iter().enumerate().filter(|(_, byte)| **byte == b',').map(|(at, _)| at) {
        let (first, second) = (&data[..at], &data[at + 1..]);
        // A backslash or a quote may take the comma along.
        if let Ok(apart) = parse(&[first, second])
            && !first.contains(&b'\\')
            && !first.contains(&b'"')
        {
            assert_eq!(parse(&[data]).ok(), Some(apart), "joined by a comma, lists mean the same");
        }
    }
}
