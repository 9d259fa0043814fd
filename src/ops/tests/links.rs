//! Hard links.

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
