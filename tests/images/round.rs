//! The whole round: imported, mounted, changed, told, committed, exported.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::bed::Bed;
use crate::tree::{CHANGES, build, change, tree};

#[test]
fn the_whole_round() {
    needs_root!();
    let bed = Bed::new(build);
    bed.mounted("base", &["--name", "work"], |mnt| {
        change(mnt);
        // Told while it is mounted, by any of its names.
        let expected = CHANGES.replace("LONG", &"long-".repeat(40)).replace("NAME", &"name".repeat(50));
        let told = bed.ok(&["diff", mnt.to_str().unwrap()]);
        assert_eq!(told, expected);
        assert_eq!(bed.ok(&["diff", "work"]), expected);
        let upper = bed.path("store/containers/work/upper");
        assert_eq!(bed.ok(&["diff", upper.to_str().unwrap()]), expected);
        assert_eq!(bed.ok(&["diff", "work", "base"]), expected);
    });
    let before = bed.mounted("work", &[], tree);
    bed.ok(&["commit", "work", "changed"]);
    assert_eq!(bed.mounted("changed", &["--ephemeral"], tree), before, "the committed image is what was there");
    assert_eq!(bed.mounted("changed", &["--read-only"], tree), before, "read-only too");
    assert_eq!(bed.ok(&["diff", "changed"]), bed.ok(&["diff", "work"]), "the new layer tells the same");
    assert_eq!(bed.ok(&["diff", "changed", "base"]), bed.ok(&["diff", "work"]));
    for (compression, reference) in [("gzip", "one"), ("zstd", "two"), ("none", "three")] {
        bed.ok(&["image", "export", "--compression", compression, "changed", &format!("oci:out:{reference}")]);
        let again = Bed::empty();
        let source = format!("oci:{}:{reference}", bed.path("out").display());
        let id = again.ok(&["image", "import", &source, "again"]);
        assert!(bed.ok(&["image", "ls", "--json"]).contains(id.split(' ').nth(1).unwrap().trim_end()), "{id}");
        assert_eq!(again.mounted("again", &["--ephemeral"], tree), before);
    }
    bed.ok(&["image", "verify"]);
    let containers = fs::read_dir(bed.path("store/containers")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(containers.collect::<Vec<_>>(), ["work"], "what was ephemeral is gone");
}

#[test]
fn the_same_tree_is_the_same_layer() {
    needs_root!();
    let bed = Bed::new(build);
    let mut ids = Vec::new();
    for name in ["a", "b"] {
        bed.mounted("base", &["--name", name], |mnt| {
            fs::create_dir(mnt.join("new")).unwrap();
            let names = if name == "a" { ["x", "y"] } else { ["y", "x"] };
            for file in names {
                fs::write(mnt.join("new").join(file), file).unwrap();
            }
            fs::remove_file(mnt.join("etc/passwd")).unwrap();
        });
        let line = bed.ok(&["commit", "--source-date-epoch", "1700000000", name, "same"]);
        ids.push(line.split(' ').nth(1).unwrap().to_owned());
    }
    assert_eq!(ids[0], ids[1]);
    let inspected = bed.ok(&["image", "inspect", "same"]);
    assert!(inspected.contains("2023-11-14T22:13:20Z"), "{inspected}");
    bed.mounted("same", &["--ephemeral"], |mnt| {
        assert_eq!(fs::metadata(mnt.join("new/x")).unwrap().mtime(), 1_700_000_000);
    });
}

#[test]
fn metadata_only_copies_are_expanded() {
    needs_root!();
    let bed = Bed::new(build);
    let before = bed.mounted("base", &["--name", "meta", "-o", "metacopy=on"], |mnt| {
        fs::set_permissions(mnt.join("large"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::read(mnt.join("large")).unwrap()
    });
    let blocks = fs::metadata(bed.path("store/containers/meta/upper/large")).unwrap().blocks();
    assert!(blocks < 100, "no data was copied, but there are {blocks} blocks");
    assert_eq!(bed.ok(&["diff", "meta"]), "C /large\nC /larger\n");
    bed.ok(&["commit", "meta", "expanded"]);
    bed.mounted("expanded", &["--ephemeral"], |mnt| {
        for name in ["large", "larger"] {
            assert_eq!(fs::read(mnt.join(name)).unwrap(), before);
            assert_eq!(fs::metadata(mnt.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
        }
    });
}

/// What an upper tells by itself: a directory that was made again is new, and what was moved with one is not in it.
const ALONE: [(&str, &str); 6] = [
    ("A /keep/renamed/a/b\n", ""),
    ("A /keep/renamed/a/b/f\n", ""),
    ("C /replaced\n", "A /replaced\n"),
    ("D /replaced/old\n", ""),
    ("C /to-dir\n", "A /to-dir\n"),
    ("C /to-file\n", "A /to-file\n"),
];

#[test]
fn an_upper_of_no_container_is_told_by_its_layers_or_its_marks() {
    needs_root!();
    let bed = Bed::empty();
    build(&bed.path("root"));
    for name in ["up", "work"] {
        fs::create_dir(bed.path(name)).unwrap();
    }
    bed.ok(&["-o", "lowerdir=root,upperdir=up,workdir=work,redirect_dir=on", "mnt"]);
    change(&bed.path("mnt"));
    let said = bed.fails(&["diff", "mnt"], 1);
    bed.ok(&["umount", "mnt"]);
    assert_eq!(said, "mnt: mounted, but no container of the store: name its upper, and its layers by --lower");
    let expected = CHANGES.replace("LONG", &"long-".repeat(40)).replace("NAME", &"name".repeat(50));
    assert_eq!(bed.ok(&["diff", "--lower", "root", "up"]), expected);
    let alone = ALONE.iter().fold(expected, |text, (with, without)| {
        assert!(text.contains(with), "{with}");
        text.replacen(with, without, 1)
    });
    assert_eq!(bed.ok(&["diff", "up"]), alone);
    assert!(!bed.path("store").join("containers/mnt").exists());
}

#[test]
fn a_file_of_several_names_is_committed_as_it_is_shown() {
    needs_root!();
    let names = ["large", "larger", "keep/deep/largest"];
    let bed = Bed::new(|root| {
        build(root);
        fs::hard_link(root.join("large"), root.join(names[2])).unwrap();
        fs::set_permissions(root.join("keep"), fs::Permissions::from_mode(0o710)).unwrap();
    });
    let append = |mnt: &std::path::Path, name: &str| {
        let mut file = fs::File::options().append(true).open(mnt.join(name)).unwrap();
        std::io::Write::write_all(&mut file, b"changed").unwrap();
    };
    // Of one name, all change; also after a move, and where the changed name is gone.
    for (name, changes) in [
        ("one", "C /keep\nC /keep/deep\nC /keep/deep/largest\nC /large\nC /larger\n"),
        ("moved", "A /again\nA /again/largest\nC /keep\nD /keep/deep\nC /large\nC /larger\n"),
        ("gone", "C /keep\nC /keep/deep\nC /keep/deep/largest\nC /large\nD /larger\n"),
    ] {
        bed.mounted("base", &["--name", name, "-o", "metacopy=on"], |mnt| {
            append(mnt, "larger");
            match name {
                "moved" => {
                    fs::remove_file(mnt.join("keep/deep/f")).unwrap();
                    fs::rename(mnt.join("keep/deep"), mnt.join("again")).unwrap();
                }
                "gone" => fs::remove_file(mnt.join("larger")).unwrap(),
                _ => {}
            }
        });
        let before = bed.mounted(name, &[], tree);
        assert_eq!(bed.mounted(name, &["--read-only"], tree), before, "{name}, read-only");
        assert_eq!(bed.ok(&["diff", name]), changes);
        let image = format!("{name}-image");
        bed.ok(&["commit", name, &image]);
        assert_eq!(bed.mounted(&image, &["--ephemeral"], tree), before, "{name}");
        assert_eq!(bed.ok(&["diff", &image]), changes);
    }
}
