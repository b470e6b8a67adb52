//! The published table of attacks and the tests that exist are the same thing.

use std::collections::BTreeSet;
use std::path::Path;

const DOCUMENT: &str = include_str!("../../docs/operations/security.md");

/// Numbers of the catalogue that a config package or an upload can try against `ade run`, and a tenant against `ade serve`.
fn promised() -> impl Iterator<Item = u32> {
    1..=66
}

fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix('a')?.split('_').next()?;
    (digits.len() == 2).then(|| digits.parse().ok()).flatten()
}

/// Every test function `aNN_…` in the Rust sources below a folder.
fn tests_in(folder: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = std::fs::read_to_string(path).unwrap();
                let names = source.lines().filter_map(|line| line.trim_start().strip_prefix("fn "));
                found.extend(
                    names
                        .filter_map(|rest| rest.split('(').next())
                        .filter(|name| number_of(name).is_some())
                        .map(str::to_owned),
                );
            }
        }
    }
    found
}

#[test]
fn every_attack_has_a_test_and_the_published_table_lists_exactly_the_tests_there_are() {
    let here: BTreeSet<String> =
        ["tests/attacks", "tests/deps", "tests/service"].into_iter().flat_map(tests_in).collect();
    let all: BTreeSet<String> = here.union(&tests_in("src")).cloned().collect();
    let numbers: BTreeSet<u32> = here.iter().filter_map(|name| number_of(name)).collect();
    for number in promised() {
        assert!(numbers.contains(&number), "attack {number} has no end-to-end test");
    }
    let mut listed = BTreeSet::new();
    for line in DOCUMENT.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let Ok(number) = cells[0].parse::<u32>() else { continue };
        for name in cells.last().unwrap().split('`').skip(1).step_by(2) {
            assert_eq!(number_of(name), Some(number), "{name} stands in the row of attack {number}");
            assert!(all.contains(name), "{name} is in the table, but there is no such test");
            listed.insert(name.to_owned());
        }
    }
    let missing: Vec<_> = here.difference(&listed).collect();
    assert!(missing.is_empty(), "not in the table of docs/operations/security.md: {missing:#?}");
}
