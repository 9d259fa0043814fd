//! Maps, and what they make of owners, ACLs and capabilities.

use super::*;

fn map(text: &str) -> Map {
    Map::parse(text.as_bytes()).unwrap()
}

#[test]
fn maps_are_read_as_container_engines_write_them() {
    let two = map("0:1000:1:1:100000:65536");
    for text in [":0:1000:1:1:100000:65536", "0:1000:1::1:100000:65536:"] {
        assert_eq!(map(text), two);
    }
    for (stored, shown) in
        [(0, Some(1000)), (1, Some(100_000)), (65_536, Some(165_535)), (65_537, None), (1000, Some(100_999))]
    {
        assert_eq!(two.shown(stored), shown, "{stored}");
    }
    for (shown, stored) in [(1000, Some(0)), (100_000, Some(1)), (0, None), (99_999, None), (165_536, None)] {
        assert_eq!(two.stored(shown), stored, "{shown}");
    }
    assert_eq!((Map::default().shown(7), Map::default().stored(u32::MAX)), (Some(7), Some(u32::MAX)));
    let all = map("0:0:4294967295");
    assert_eq!((all.shown(u32::MAX - 1), all.shown(u32::MAX)), (Some(u32::MAX - 1), None));
}

#[test]
fn maps_that_make_no_sense_are_refused() {
    for text in ["", ":", "0", "0:1", "0:1:2:3", "0:1:x", "0:1:-1", "0:+1:1", "0:1:4294967296", "0:1: 1", "\u{e9}:0:1"]
    {
        assert!(Map::parse(text.as_bytes()).unwrap_err().starts_with("not numbers"), "{text}");
    }
    for text in ["0:1:0", "0:1:4294967295", "4294967295:0:1", "5:4294967290:7"] {
        assert_eq!(Map::parse(text.as_bytes()), Err("names more ids than there are, or none"), "{text}");
    }
    for text in ["0:1:5:4:100:1", "0:1:5:100:5:1", "0:1:1:0:2:1"] {
        assert_eq!(Map::parse(text.as_bytes()), Err("names an id twice"), "{text}");
    }
}

#[test]
fn one_owner_for_all_counts_for_more_than_a_map() {
    let ids = Ids::new(map("0:100000:10"), map("0:200000:10"), (Some(7), None));
    assert_eq!((ids.stored_uid(100_003), ids.stored_gid(200_003), ids.stored_gid(3)), (Some(7), Some(3), None));
    let none = Ids::new(Map::default(), Map::default(), (None, None));
    assert_eq!((none.stored_uid(3), none.stored_gid(4)), (Some(3), Some(4)));
}

#[test]
fn acls_name_whom_the_mount_shows() {
    let ids = Ids::new(map("0:100000:1000"), map("0:200000:1000"), (None, None));
    let acl = |user: u32, group: u32| {
        let entries = [(1_u16, 7_u16, u32::MAX), (2, 6, user), (4, 5, u32::MAX), (8, 4, group), (16, 7, u32::MAX)];
        let entries = entries.iter().flat_map(|(tag, perm, id)| {
            [tag.to_le_bytes(), perm.to_le_bytes()].concat().into_iter().chain(id.to_le_bytes())
        });
        2_u32.to_le_bytes().into_iter().chain(entries).collect::<Vec<u8>>()
    };
    assert_eq!(ids.show_xattr(acl::ACCESS, acl(5, 6)), Ok(acl(100_005, 200_006)));
    assert_eq!(ids.show_xattr(acl::DEFAULT, acl(1000, 6)), Ok(acl(65_534, 200_006)));
    assert_eq!(ids.store_xattr(acl::ACCESS, &acl(100_005, 200_006)), Ok(acl(5, 6)));
    assert_eq!(ids.store_xattr(acl::ACCESS, &acl(5, 200_006)), Err(Errno::INVAL));
    assert_eq!(ids.store_xattr(b"user.x", b"\x02\0\0\0"), Ok(b"\x02\0\0\0".to_vec()));
}

#[test]
fn capabilities_count_where_the_mount_is_shown() {
    let ids = Ids::new(map("0:100000:1000"), Map::default(), (None, None));
    let second = |flags: u8| [vec![flags, 0, 0, 2], vec![9; 16]].concat();
    let third = |root: u32| [vec![1, 0, 0, 3], vec![9; 16], root.to_le_bytes().to_vec()].concat();
    assert_eq!(ids.show_xattr(CAPABILITY, second(1)), Ok(third(100_000)));
    assert_eq!(ids.show_xattr(CAPABILITY, third(5)), Ok(third(100_005)));
    assert_eq!(ids.show_xattr(CAPABILITY, third(1000)), Err(Errno::NODATA));
    assert_eq!(ids.store_xattr(CAPABILITY, &third(100_000)), Ok(second(1)));
    assert_eq!(ids.store_xattr(CAPABILITY, &third(100_001)), Ok(third(1)));
    assert_eq!(ids.store_xattr(CAPABILITY, &third(1)), Err(Errno::INVAL));
    assert_eq!(ids.store_xattr(CAPABILITY, &second(0)), Ok(second(0)));
    for odd in [vec![], vec![1, 0, 0, 1], vec![1, 0, 0, 3, 9], vec![0; 24]] {
        assert_eq!(ids.show_xattr(CAPABILITY, odd.clone()), Ok(odd));
    }
}
