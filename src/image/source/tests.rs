//! Sources as they are written.

use super::*;

#[test]
fn sources_have_a_kind_a_path_and_a_reference() {
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join("a:b");
    std::fs::create_dir(&odd).unwrap();
    let odd = odd.to_str().unwrap().to_owned();
    let parse = |text: &str| text.parse::<Source>().map(|s| (s.kind, s.path.display().to_string(), s.reference));
    let some = |text: &str| Some(text.to_owned());
    for (text, expected) in [
        ("oci:missing", (Kind::Oci, "missing".to_owned(), None)),
        ("oci:missing:1", (Kind::Oci, "missing".to_owned(), some("1"))),
        ("oci:missing:app:1", (Kind::Oci, "missing".to_owned(), some("app:1"))),
        (&format!("oci:{odd}"), (Kind::Oci, odd.clone(), None)),
        (&format!("oci:{odd}:x:1"), (Kind::Oci, odd.clone(), some("x:1"))),
        (&format!("oci:{odd}:"), (Kind::Oci, odd.clone(), None)),
        ("tar:a:b", (Kind::Tar, "a:b".to_owned(), None)),
        ("docker-archive:x.tar:b", (Kind::DockerArchive, "x.tar".to_owned(), some("b"))),
    ] {
        assert_eq!(parse(text), Ok(expected), "{text}");
    }
    for bad in ["", "oci", "oci:", "dir:x", ":x", "docker://x"] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}
