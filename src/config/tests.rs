//! The options: what each means, and what is said of wrong ones.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::mount::MountFlags;

use super::table::{OPTIONS, Value};
use super::*;

fn options(lists: &[&str]) -> Options {
    let mut options = Options::default();
    for list in lists {
        options.add(OsStr::new(list)).unwrap();
    }
    options
}

fn config(list: &str) -> Config {
    options(&[list]).config
}

fn mount(list: &str) -> MountOptions {
    options(&[list]).mount
}

fn error(list: &str) -> String {
    let error = Options::default().add(OsStr::new(list)).unwrap_err().to_string();
    error.strip_prefix("read option ").unwrap().to_owned()
}

fn paths(list: &[&str]) -> Vec<PathBuf> {
    list.iter().map(PathBuf::from).collect()
}

#[test]
fn lowers_are_topmost_first_and_escapes_hold() {
    let cases: &[(&str, &[&str])] = &[
        ("lowerdir=/a", &["/a"]),
        ("lowerdir=a:b:c", &["a", "b", "c"]),
        (r"lowerdir=/a\:b:/c", &["/a:b", "/c"]),
        (r"lowerdir=/a\,b", &["/a,b"]),
        (r"lowerdir=/a\\:/b", &["/a\\", "/b"]),
        (r"lowerdir=/a\", &["/a\\"]),
        (r#"lowerdir="/a,b:/c\:d",ro"#, &["/a,b", "/c:d"]),
        (r#"lowerdir="/a\"b""#, &["/a\"b"]),
        (r#"lowerdir=/a"b,ro"#, &["/a\"b"]),
        ("lowerdir=/a=b", &["/a=b"]),
        ("lowerdir=/a,lowerdir=/b", &["/b"]),
        ("lowerdir=/a:/b,lowerdir+=/c:d", &["/a", "/b", "/c:d"]),
        (r"lowerdir+=/a,lowerdir+=/b\,c", &["/a", "/b,c"]),
        (",,lowerdir=/a,,", &["/a"]),
    ];
    for (list, lowers) in cases {
        assert_eq!(config(list).lowers, paths(lowers), "{list}");
    }
}

#[test]
fn layers_for_data_only_come_last() {
    let config = config("lowerdir=/a:/b::/c::/d,datadir+=/e");
    assert_eq!((config.lowers, config.data_layers), (paths(&["/a", "/b"]), paths(&["/c", "/d", "/e"])));
}

#[test]
fn paths_are_bytes() {
    let mut options = Options::default();
    options.add(OsStr::from_bytes(b"lowerdir=/\xff:/\xfe,upperdir=/\xfd")).unwrap();
    assert_eq!(options.config.lowers[1].as_os_str().as_bytes(), b"/\xfe");
    assert_eq!(options.config.upper.unwrap().as_os_str().as_bytes(), b"/\xfd");
}

#[test]
fn any_number_of_layers() {
    let list = format!("lowerdir={}", vec!["/some/layer"; 100_000].join(":"));
    assert_eq!(config(&list).lowers.len(), 100_000);
}

#[test]
fn later_options_win() {
    let both = options(&["ro,upperdir=/a,fsync=0", "rw,upperdir=/b,fsync=1"]);
    assert_eq!(both.config.upper, Some("/b".into()));
    assert!(both.config.fsync && !both.config.read_only);
    assert!(!both.mount.flags.contains(MountFlags::RDONLY));
}

#[test]
fn the_overlay_is_told() {
    assert_eq!(config("redirect_dir=on").redirect_dir, RedirectDir::On);
    assert_eq!(config("redirect_dir=off").redirect_dir, RedirectDir::Follow);
    assert_eq!(config("redirect_dir=nofollow").redirect_dir, RedirectDir::NoFollow);
    assert_eq!(config("whiteouts=file").whiteouts, Some(WhiteoutStyle::DotFile));
    assert_eq!(config("userxattr").userxattr, Some(true));
    assert_eq!((config("squash_to_root").squash_uid, config("squash_to_root").squash_gid), (Some(0), Some(0)));
    assert_eq!(config("squash_to_uid=7").squash_uid, Some(7));
    assert_eq!(config("xattr_permissions=2").keep_owners, Some(Key::Containers));
    assert_eq!(config("xattr_permissions=1").keep_owners, Some(Key::Security));
    assert_eq!(config("xattr_permissions=0").keep_owners, None);
    assert_eq!(config("squash_to_gid=8").squash_gid, Some(8));
    assert!(!config("noacl").acl && config("noacl,acl").acl);
    assert!(config("volatile").volatile && config("static_nlink").static_nlink);
    assert!(!config("fsync=0").fsync);
    assert!(config("noatime").noatime && !config("noatime,atime").noatime);
    assert!(config("ro").read_only);
    let sizes = config("cache_attrs=1,cache_missing=2,cache_listings=3,cache_dirs=4").cache;
    assert_eq!(sizes, CacheSizes { attrs: 1, missing: 2, listings: 3, dirs: 4 });
}

#[test]
fn the_mount_is_told() {
    let guarded = MountFlags::NOSUID | MountFlags::NODEV;
    assert_eq!(mount("").flags, guarded);
    assert_eq!(mount("dev,suid,noexec,sync").flags, MountFlags::NOEXEC | MountFlags::SYNCHRONOUS);
    assert_eq!(mount("dev,suid,nodev,nosuid").flags, guarded);
    assert_eq!(mount("noatime,relatime").flags, guarded | MountFlags::NOATIME | MountFlags::RELATIME);
    assert_eq!(mount(r"fsname=a\,b").source, Some("a,b".into()));
    assert_eq!(mount("subtype=x").subtype, "x");
    assert_eq!(mount(r#"context="a:b,c""#).contexts, [("context", "a:b,c".into())]);
    assert_eq!(mount("log=/x").log, Some("/x".into()));
    assert_eq!(mount("max_read=4096").max_read, Some(4096));
    assert_eq!((mount("").readers, mount("threads=3").readers), (1, 3));
    assert_eq!((mount("threads=3,threaded=0").readers, mount("threads=3,threaded=1").readers), (1, 3));
    assert!(mount("writeback=1").writeback && mount("writeback_cache").writeback);
    assert!(mount("allow_other").allow_other && mount("allow_root").allow_root);
}

#[test]
fn the_shortest_timeout_holds() {
    let timeout = |list| mount(list).timeouts.shortest();
    assert_eq!(timeout(""), None);
    assert_eq!(timeout("timeout=0"), Some(Duration::ZERO));
    assert_eq!(timeout("timeout=2.5"), Some(Duration::from_millis(2500)));
    assert_eq!(timeout("timeout=5,attr_timeout=3,entry_timeout=4"), Some(Duration::from_secs(3)));
    assert_eq!(timeout("timeout=5,timeout=1e300"), None);
    assert_eq!(timeout("negative_timeout=1"), Some(Duration::from_secs(1)));
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        ("timeout=abc", "timeout=abc: not a number of seconds"),
        ("timeout=-1", "timeout=-1: not a number of seconds"),
        ("timeout=NaN", "timeout=NaN: not a number of seconds"),
        ("ro,timeout,rw", "timeout: needs a value"),
        ("ro=1", "ro=1: takes no value"),
        ("fsync=2", "fsync=2: not 0 or 1"),
        ("threads=0", "threads=0: must be at least 1"),
        ("squash_to_uid=x", "squash_to_uid=x: not a number, or too large"),
        ("xino=maybe", "xino=maybe: not on, off or auto"),
        ("redirect_dir=x", "redirect_dir=x: not on, follow, nofollow or off"),
        ("whiteouts=x", "whiteouts=x: not device, xattr or file"),
        ("lowerdir=", "lowerdir=: names an empty path"),
        ("lowerdir=/a:", "lowerdir=/a:: names an empty path"),
        ("lowerdir=/a::", "lowerdir=/a::: names an empty path"),
        ("lowerdir=::/a", "lowerdir=::/a: names an empty path"),
        ("lowerdir=/a:::/b", "lowerdir=/a:::/b: names an empty path"),
        ("lowerdir=/a::/b:/c", "lowerdir=/a::/b:/c: has a layer to be merged (:) below one for data only (::)"),
        ("datadir+=/a,lowerdir+=/b", "lowerdir+=/b: has to come before the layers for data only"),
        ("upperdir=", "upperdir=: needs a value"),
        (r#"lowerdir="/a"#, r#"lowerdir="/a: the quote is not closed"#),
        (r#"lowerdir="/a"b"#, r#"lowerdir="/a"b: there is more after the closing quote"#),
        ("=x", "=x: no option before the equals sign"),
        ("uidmapping=0:1", "uidmapping=0:1: not numbers in threes with colons between (STORED:SHOWN:COUNT)"),
        ("gidmapping=0:1:2:0:5:1", "gidmapping=0:1:2:0:5:1: names an id twice"),
        ("nfs_export=on", "nfs_export=on: not supported"),
        ("verity=require", "verity=require: not supported"),
        ("xattr_permissions=3", "xattr_permissions=3: not 0, 1 or 2"),
        ("force_mask=755", "force_mask=755: not supported"),
    ];
    for (list, line) in cases {
        assert_eq!(error(list), line, "{list}");
    }
    assert!(error(&format!("lowerdir={}:", "x".repeat(10_000))).len() < 300);
}

#[test]
fn what_is_unknown_or_without_effect_is_told() {
    assert_eq!(options(&["foo,bar=1"]).warnings, ["unknown option foo ignored", "unknown option bar ignored"]);
    let quiet = "metacopy=off,x-systemd.automount,x-a=b,user=me,user,comment=hi,nofail,nonempty,verity=off,uuid=null,\
                 noxattrs=1,max_write=4096,xattr_permissions=0,nfs_export=off,index=on,defaults";
    assert_eq!(options(&[quiet]).warnings, [""; 0]);
}

#[test]
fn what_belongs_together_is_checked() {
    let finish = |list| {
        let mut options = options(&[list]);
        options.finish().map(|()| options).map_err(|error| error.to_string())
    };
    assert_eq!(finish("ro").unwrap_err(), "read option lowerdir: needs at least one layer");
    assert_eq!(finish("lowerdir=/l,upperdir=/u").unwrap_err(), "read option upperdir=/u: needs a workdir beside it");
    for (list, line) in [
        (
            "lowerdir=/l,upperdir=/u,workdir=/w,metacopy=on,redirect_dir=off",
            "read option metacopy=on: needs redirect_dir=on",
        ),
        ("lowerdir=/l,metacopy=on,redirect_dir=nofollow", "read option metacopy=on: needs redirects to be followed"),
        (
            "lowerdir=/l,userxattr,metacopy=on",
            "read option metacopy=on: does not go with userxattr, whose marks any user may set",
        ),
    ] {
        assert_eq!(finish(list).unwrap_err(), line);
    }
    assert!(finish("lowerdir=/l,metacopy=on,redirect_dir=follow").is_ok());
    let lone = finish("lowerdir=/l,workdir=/w").unwrap();
    assert_eq!(lone.warnings, ["workdir=/w ignored, as there is no upperdir"]);
    assert_eq!(lone.config.work, None);
    assert!(lone.mount.flags.contains(MountFlags::RDONLY));
}

#[test]
fn the_table_is_sound() {
    let mut names: Vec<&str> = OPTIONS.iter().flat_map(|spec| spec.names).copied().collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "a name is there twice");
    for spec in OPTIONS {
        assert!(!spec.help.is_empty() && !spec.help.ends_with('.') && spec.help.len() < 80, "{spec:?}");
        if let Value::Needed(what) | Value::Allowed(what) = spec.value {
            assert!(!what.is_empty());
        }
    }
}
