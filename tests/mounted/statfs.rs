//! Filesystem statistics.

use crate::common::*;

#[test]
fn statistics_are_those_of_the_upper_filesystem() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x")).small_upper(64 << 20));
    let (shown, upper) = (rustix::fs::statvfs(tree.path("")).unwrap(), rustix::fs::statvfs(tree.upper("")).unwrap());
    assert_eq!(shown.f_blocks * shown.f_frsize, upper.f_blocks * upper.f_frsize);
    assert_eq!((shown.f_files, shown.f_namemax), (upper.f_files, upper.f_namemax));
    let free = shown.f_bavail * shown.f_frsize;
    tree.write("big", vec![1; 8 << 20]);
    let after = rustix::fs::statvfs(tree.path("f")).unwrap();
    assert!(free - after.f_bavail * after.f_frsize >= 8 << 20);
}

#[test]
fn read_only_mount_has_the_statistics_of_its_topmost_layer() {
    let tree = mount!(Setup::new().lower_elsewhere(|l| l.file("f", "x")).lower(|l| l.file("g", "x")).read_only());
    let (shown, layer) = (rustix::fs::statvfs(tree.path("")).unwrap(), rustix::fs::statvfs(tree.lower(0, "")).unwrap());
    assert_eq!(shown.f_blocks * shown.f_frsize, layer.f_blocks * layer.f_frsize);
}

#[test]
fn df_and_stat_work() {
    let tree = mount!(Setup::new().lower(|l| l.file("f", "x")));
    assert!(run(std::process::Command::new("df").arg(tree.path(""))).contains("mnt"));
    run(std::process::Command::new("stat").arg("-f").arg(tree.path("f")));
}
