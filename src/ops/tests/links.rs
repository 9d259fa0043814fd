//! Hard links.

use rustix::fs::RenameFlags;

use super::Bed;

#[test]
fn removing_one_name_of_a_lower_hard_link_keeps_the_inode() {
    let bed = Bed::new(&["g=two h==g"]);
    let before = bed.attr("h").unwrap();
    assert_eq!((before.ino, before.nlink), (bed.ino("g"), 2));
    bed.unlink("g").unwrap();
    let after = bed.attr("h").unwrap();
    assert_eq!((after.ino, after.nlink), (before.ino, 1));
    assert_eq!(bed.read("h"), "two");
    let bed = bed.reopen();
    let after = bed.attr("h").unwrap();
    assert_eq!((after.ino, after.nlink), (before.ino, 1));
    bed.finish();
}

#[test]
fn link_counts_survive_copy_up_remounts_and_removal() {
    let bed = Bed::new(&["d/b=x d/c==d/b e=y"]);
    bed.chmod("d/c", 0o600).unwrap();
    let bed = bed.reopen();
    assert_eq!(bed.read("d/b"), "x");
    assert_eq!(bed.attr("d/b").unwrap().nlink, 2);
    assert_eq!(bed.attr("d/c").unwrap().nlink, 2);
    bed.unlink("d/b").unwrap();
    assert_eq!(bed.attr("d/c").unwrap().nlink, 1);
    let bed = bed.reopen();
    assert_eq!(bed.attr("d/c").unwrap().nlink, 1);
    bed.rename_with("d/c", "e", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(bed.attr("e").unwrap().nlink, 1);
    let bed = bed.reopen();
    assert_eq!(bed.attr("e").unwrap().nlink, 1);
    bed.rename("e", "d/f").unwrap();
    let bed = bed.reopen();
    assert_eq!(bed.attr("d/f").unwrap().nlink, 1);
    bed.finish();
}

#[test]
fn renaming_over_a_name_of_a_lower_hard_link_takes_it_from_the_count() {
    let bed = Bed::new(&["b=x c==b f=y"]);
    bed.rename("f", "b").unwrap();
    assert_eq!(bed.attr("c").unwrap().nlink, 1);
    let bed = bed.reopen();
    assert_eq!((bed.attr("c").unwrap().nlink, bed.read("b").as_str()), (1, "y"));
    bed.finish();
}

#[test]
fn a_name_that_gets_its_upper_link_later_does_not_change_the_count() {
    let bed = Bed::new(&["d/b=x d/c==d/b e=y"]);
    // Known first under this name, which gets the upper link.
    bed.ino("d/b");
    bed.chmod("d/c", 0o600).unwrap();
    bed.unlink("d/b").unwrap();
    bed.rename_with("e", "d/c", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(bed.attr("e").unwrap().nlink, 1);
    let bed = bed.reopen();
    assert_eq!(bed.attr("e").unwrap().nlink, 1);
    bed.finish();
}
