//! What opens, what is refused and why, and what the hashes are of. `aNN_` names a case of the catalogue of attacks.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::process::Command;

use ade::packages::{Package, PackageCaps, PackageError};
use proptest::prelude::*;

use crate::support::{Entry, Place, open, raw_zip, zip_of};

const FILES: [(&str, &[u8]); 3] = [
    ("columns/a.py", b"x = 1\n"),
    ("manifest.json", b"{\"b\": 1.0, \"a\": [true]}"),
    ("resources/stra\u{df}e.csv", b"a;b\n"),
];

fn refused(result: Result<Package, PackageError>, code: &str) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    assert!(PackageError::CODES.contains(&code));
    error.to_string()
}

fn refused_zip(entries: &[Entry], code: &str) -> String {
    let mut all = vec![Entry::new("manifest.json", b"{}")];
    all.extend_from_slice(entries);
    refused(Place::new().open_zip(&raw_zip(&all), &PackageCaps::default()), code)
}

#[test]
fn a_folder_and_any_zip_of_it_are_the_same_package() {
    let place = Place::new();
    let folder = open(&place.folder("p", &FILES)).unwrap();
    let mut shuffled = vec![("resources/", &b""[..]), (".DS_Store", b"x"), ("__MACOSX/._a", b"x")];
    shuffled.extend(FILES.iter().rev());
    let zip = open(&place.file("p.zip", &zip_of(&shuffled))).unwrap();

    assert_eq!(folder.package_sha256(), zip.package_sha256());
    assert_eq!(folder.manifest_sha256(), zip.manifest_sha256());
    assert_eq!(folder.files().collect::<Vec<_>>(), FILES);
    assert_eq!(zip.files().collect::<Vec<_>>(), FILES);
    assert_eq!(zip.unpacked_bytes(), 6 + 23 + 4);

    let canonical = zip.canonical_zip().unwrap();
    let again = open(&place.file("q.zip", &canonical)).unwrap();
    assert_eq!(again.package_sha256(), zip.package_sha256());
    assert_eq!(sha256(&canonical), zip.package_sha256());
}

#[test]
fn the_hashes_are_frozen() {
    let package = open(&Place::new().folder("p", &FILES)).unwrap();
    // Both as Python's zipfile and json make them of the same rules.
    assert_eq!(package.package_sha256(), "04e31e15cbd6383860328a535a8feefe6e5ed302a1754fc9e44104f9536f4650");
    assert_eq!(sha256(b"{\"a\":[true],\"b\":1}"), package.manifest_sha256().unwrap());
}

#[test]
fn a_changed_byte_or_name_changes_the_hash_and_spacing_changes_only_that_of_the_package() {
    let place = Place::new();
    let hashes = |name: &str, files: &[(&str, &[u8])]| {
        let package = open(&place.folder(name, files)).unwrap();
        (package.package_sha256().to_owned(), package.manifest_sha256())
    };
    let base = hashes("a", &[("manifest.json", b"{\"a\":1}"), ("x", b"1")]);
    let byte = hashes("b", &[("manifest.json", b"{\"a\":1}"), ("x", b"2")]);
    let name = hashes("c", &[("manifest.json", b"{\"a\":1}"), ("y", b"1")]);
    let space = hashes("d", &[("manifest.json", b"{ \"a\": 1 }"), ("x", b"1")]);
    assert_ne!(base.0, byte.0);
    assert_ne!(base.0, name.0);
    assert_ne!(base.0, space.0);
    assert_eq!(base.1, space.1);
    assert_eq!(hashes("e", &[("manifest.json", b"{")]).1, None);
}

#[test]
fn dotfiles_dot_directories_and_bytecode_are_left_out_of_folders() {
    let place = Place::new();
    let files: &[(&str, &[u8])] = &[
        ("manifest.json", b"{}"),
        (".git/config", b"x"),
        ("columns/__pycache__/a.pyc", b"x"),
        ("columns/.a.py.swp", b"x"),
    ];
    let root = place.folder("p", files);
    symlink("/nowhere", root.join(".link")).unwrap();
    let package = open(&root).unwrap();
    assert_eq!(package.files().map(|(path, _)| path).collect::<Vec<_>>(), ["manifest.json"]);
}

#[test]
fn what_is_not_there_or_no_package_is_named() {
    let place = Place::new();
    refused(open(&place.path("absent")), "package_not_found");
    let file = place.file("x", b"x");
    refused(open(&file.join("below")), "package_not_found");
    for (name, contents, says) in [
        ("a.tar.gz", &b"\x1f\x8b\x08"[..], "gzip"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c", "7-Zip"),
        ("a.rar", b"Rar!\x1a\x07", "RAR"),
        ("empty", b"", "empty file"),
        ("manifest.json", b"{}", "a manifest alone"),
        ("a.zip", b"hello world", "another kind"),
    ] {
        let message = refused(open(&place.file(name, contents)), "package_not_a_zip");
        assert!(message.contains(says), "{message}");
    }
    let pipe = place.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(refused(open(&pipe), "package_not_a_zip").contains("pipe"));
}

#[test]
fn a_package_without_a_manifest_is_told_where_it_may_be() {
    let place = Place::new();
    let wrapped = zip_of(&[("members/manifest.json", b"{}"), ("members/columns/a.py", b"")]);
    let message = refused(open(&place.file("w.zip", &wrapped)), "package_no_manifest");
    assert!(message.contains("\"members\"") && message.contains("zip its contents"), "{message}");
    let message = refused(open(&place.folder("c", &[("Manifest.JSON", b"{}")])), "package_no_manifest");
    assert!(message.contains("Rename \"Manifest.JSON\""), "{message}");
    assert!(refused(open(&place.folder("e", &[])), "package_no_manifest").contains("empty"));
    assert!(refused(open(&place.file("e.zip", &raw_zip(&[]))), "package_no_manifest").contains("empty"));
}

#[test]
fn a01_links_in_a_folder_are_refused_and_never_followed() {
    let place = Place::new();
    for (name, target) in [("file", "/etc/passwd"), ("folder", "/etc"), ("dangling", "/nowhere")] {
        let root = place.folder(name, &[("manifest.json", b"{}")]);
        symlink(target, root.join("resources")).unwrap();
        let message = refused(open(&root), "package_entry_unsafe");
        assert!(message.contains("\"resources\"") && message.contains("symbolic link"), "{message}");
    }
}

#[test]
fn the_packages_own_folder_may_be_reached_by_a_link() {
    let place = Place::new();
    let root = place.folder("real", &[("manifest.json", b"{}")]);
    symlink(&root, place.path("link")).unwrap();
    assert!(open(&place.path("link")).is_ok());
}

#[test]
fn a03_special_files_are_refused_without_blocking() {
    let root = Place::new();
    let folder = root.folder("p", &[("manifest.json", b"{}")]);
    assert!(Command::new("mkfifo").arg(folder.join("pipe")).status().unwrap().success());
    assert!(refused(open(&folder), "package_entry_unsafe").contains("\"pipe\""));
    for mode in [0o010_644, 0o020_644, 0o060_644, 0o140_644] {
        refused_zip(&[Entry { mode, ..Entry::new("x", b"") }], "package_entry_unsafe");
    }
}

#[test]
fn a04_names_that_are_unsafe_are_refused_in_zips_and_folders() {
    for name in
        [&b"../x"[..], b"a/../../x", b"/etc/x", b"C:/x", b"a\\x", b"a\0x", b"a\nx", b"caf\xe9", b"a//x", b"..", b"."]
    {
        if name != b"." {
            refused_zip(&[Entry::new(name, b"")], "package_entry_unsafe");
        }
    }
    let place = Place::new();
    let root = place.folder("p", &[("manifest.json", b"{}")]);
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"caf\xe9")), b"").unwrap();
    assert!(refused(open(&root), "package_entry_unsafe").contains("UTF-8"));
}

#[test]
fn a04_two_entries_of_one_name_or_differing_only_in_case_are_refused() {
    let pair = |first: &str, second: &str| {
        refused_zip(&[Entry::new(first, b"1"), Entry::new(second, b"2")], "package_entry_conflict")
    };
    let message = pair("columns/a.py", "columns/a.py");
    assert!(message.contains("\"columns/a.py\""), "{message}");
    let message = pair("columns/a.py", "columns/A.py");
    assert!(message.contains("\"columns/a.py\" and \"columns/A.py\""), "{message}");
    pair("columns", "columns/a.py");
}

#[test]
fn a01_links_in_a_zip_are_refused() {
    let link = Entry { mode: 0o120_777, ..Entry::new("resources", b"/etc") };
    assert!(refused_zip(&[link], "package_entry_unsafe").contains("symbolic link"));
}

#[test]
fn encrypted_entries_and_other_methods_are_refused() {
    let locked = Entry { flags: 1, ..Entry::new("secret", b"0123456789ab") };
    assert!(refused_zip(&[locked], "package_entry_unsupported").contains("encrypted"));
    for method in [9, 12, 14, 93, 95, 1_000] {
        let packed = Entry { method, ..Entry::new("x", b"0123456789ab") };
        refused_zip(&[packed], "package_entry_unsupported");
    }
}

#[test]
fn a_size_that_lies_is_caught_while_reading() {
    for declared in [1, 4, 6, 900_000] {
        let liar = Entry { declared, ..Entry::new("x", b"01234") };
        let message = refused_zip(&[liar], "package_zip_corrupt");
        assert!(message.contains("\"x\""), "{message}");
    }
}

#[test]
fn damaged_zips_are_refused() {
    let whole = zip_of(&[("manifest.json", b"{}"), ("x", &[b'x'; 1000])]);
    let place = Place::new();
    let caps = PackageCaps::default();
    refused(place.open_zip(&whole[..whole.len() / 2], &caps), "package_zip_corrupt");
    let mut checksum = raw_zip(&[Entry::new("manifest.json", b"{}")]);
    let at = checksum.windows(2).position(|window| window == b"{}").unwrap();
    checksum[at] = b'[';
    assert!(refused(place.open_zip(&checksum, &caps), "package_zip_corrupt").contains("\"manifest.json\""));
}

#[test]
fn a07_bombs_are_refused_by_one_entry_and_by_the_whole() {
    let zeros = vec![0; 4 * 1024 * 1024];
    let bomb = zip_of(&[("manifest.json", b"{}"), ("zeros", &zeros)]);
    let place = Place::new();
    let message = refused(place.open_zip(&bomb, &PackageCaps::default()), "package_zip_bomb");
    assert!(message.contains("\"zeros\"") && message.contains("200 times"), "{message}");

    // Each entry is honest by itself, but all share the bytes of the first.
    let noise: Vec<u8> = (0..200_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut entries = vec![Entry::new("manifest.json", &noise)];
    entries.extend((0..20).map(|n| Entry { overlaps: true, ..Entry::new(format!("{n}"), &noise) }));
    let caps = PackageCaps { ratio: 10, ..PackageCaps::default() };
    assert!(refused(place.open_zip(&raw_zip(&entries), &caps), "package_zip_bomb").starts_with("The zip unpacks"));
}

#[test]
fn small_repetitive_files_are_no_bombs() {
    let zeros = vec![0; 1024 * 1024 - 2];
    let zip = zip_of(&[("manifest.json", b"{}"), ("zeros", &zeros)]);
    assert!(Place::new().open_zip(&zip, &PackageCaps::default()).is_ok());
}

#[test]
fn every_cap_names_the_thing_and_both_numbers() {
    let place = Place::new();
    let files: &[(&str, &[u8])] = &[("a/b/c", b"12345"), ("a/d", b"123"), ("manifest.json", b"{}")];
    let folder = place.folder("p", files);
    let zip = place.file("p.zip", &zip_of(files));
    let caps = PackageCaps::default();
    let cases: [(PackageCaps, &[&str]); 5] = [
        (PackageCaps { file_bytes: 4, ..caps.clone() }, &["\"a/b/c\"", "5 bytes", "4 bytes"]),
        (PackageCaps { unpacked_bytes: 9, ..caps.clone() }, &["10 bytes", "9 bytes", "\"manifest.json\""]),
        (PackageCaps { entries: 2, ..caps.clone() }, &["files and folders", "is 2"]),
        (PackageCaps { depth: 2, ..caps.clone() }, &["\"a/b/c\"", "3 parts", "2 parts"]),
        (PackageCaps { path_bytes: 4, ..caps.clone() }, &["\"a/b/c\"", "5 bytes", "4 bytes"]),
    ];
    for (caps, says) in cases {
        for path in [&folder, &zip] {
            let message = refused(Package::open(path, &caps), "package_too_large");
            assert!(says.iter().all(|part| message.contains(part)), "{message}");
        }
    }
    let caps = PackageCaps { zip_bytes: 100, ..caps };
    let message = refused(Package::open(&zip, &caps), "package_too_large");
    assert!(
        message.contains(&fs::metadata(&zip).unwrap().len().to_string()) && message.contains("100 bytes"),
        "{message}"
    );
}

#[test]
fn exactly_at_every_cap_a_package_opens() {
    let place = Place::new();
    let files: &[(&str, &[u8])] = &[("a/b", b"12345"), ("manifest.json", b"{}")];
    let zip = zip_of(files);
    let caps = PackageCaps {
        zip_bytes: zip.len() as u64,
        unpacked_bytes: 7,
        file_bytes: 5,
        entries: 3,
        ratio: 1,
        depth: 2,
        path_bytes: 13,
    };
    assert!(Package::open(&place.folder("p", files), &caps).is_ok());
    assert!(place.open_zip(&zip, &caps).is_ok());
}

#[test]
fn a07_a_directory_of_countless_entries_is_refused_before_it_is_read() {
    let entries: Vec<Entry> = (0..30_000).map(|n| Entry::new(format!("{n}"), b"")).collect();
    let message = refused(Place::new().open_zip(&raw_zip(&entries), &PackageCaps::default()), "package_too_large");
    // The exact number would mean that all of them had been read.
    assert!(message.contains("more than 2000"), "{message}");
}

#[test]
fn workbooks_stored_as_they_are_do_not_count_as_entries() {
    let inner = zip_of(&[("a", b""), ("b", b""), ("c", b"")]);
    let caps = PackageCaps { entries: 2, ..PackageCaps::default() };
    let zip = raw_zip(&[Entry::new("manifest.json", b"{}"), Entry::new("book.xlsx", &inner)]);
    assert!(Place::new().open_zip(&zip, &caps).is_ok());
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whatever opens is safe and within the caps.
fn holds_its_promises(package: &Package, caps: &PackageCaps) {
    let mut total = 0;
    for (path, contents) in package.files() {
        assert!(!path.is_empty() && !path.starts_with('/') && !path.contains(['\\', '\0']), "{path:?}");
        assert!(path.split('/').all(|part| !part.is_empty() && !part.starts_with('.')), "{path:?}");
        assert!(path.len() <= caps.path_bytes && path.split('/').count() <= caps.depth, "{path:?}");
        total += contents.len() as u64;
    }
    assert!(total <= caps.unpacked_bytes && total == package.unpacked_bytes());
    let _ = package.manifest_sha256();
    let _ = ade::packages::validate(package, &crate::support::CAPS);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), zip in any::<bool>()) {
        if zip {
            bytes.splice(0..0, *b"PK\x03\x04");
        }
        prop_assert!(Place::new().open_zip(&bytes, &PackageCaps::default()).is_err());
    }

    #[test]
    fn a_mutated_zip_is_refused_or_a_package_like_any_other(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        stored in any::<bool>(),
    ) {
        let mut files = FILES.to_vec();
        files.push(("dir/", b""));
        let mut bytes = if stored {
            raw_zip(&FILES.map(|(path, contents)| Entry::new(path, contents)))
        } else {
            zip_of(&files)
        };
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let caps = PackageCaps::default();
        if let Ok(package) = Place::new().open_zip(&bytes, &caps) {
            holds_its_promises(&package, &caps);
        }
    }

    #[test]
    fn zips_of_any_names_and_modes_never_yield_an_unsafe_path(
        names in prop::collection::vec("[a./\\\\:A_ \u{e9}]{0,9}", 1..6),
        modes in prop::collection::vec(any::<u16>(), 6),
        declared in prop::collection::vec(0..4_u32, 6),
    ) {
        let mut entries = vec![Entry::new("manifest.json", b"{}")];
        for ((name, mode), declared) in names.iter().zip(modes).zip(declared) {
            entries.push(Entry { mode: mode.into(), declared, ..Entry::new(name, b"ab") });
        }
        let caps = PackageCaps::default();
        if let Ok(package) = Place::new().open_zip(&raw_zip(&entries), &caps) {
            holds_its_promises(&package, &caps);
        }
    }
}
