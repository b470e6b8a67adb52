//! The docs, followed to the letter: every block of shell commands is run against the real program, service and containers, every
//! example in JSON is read and held to its schema, every Python example compiles.

mod compose;
mod page;
mod shell;
#[path = "../support/mod.rs"]
mod support;

use page::{Block, Note, Page};
use serde_json::Value;
use shell::Shell;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// What a page finds running when its reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Nothing: it starts what it needs.
    Nothing,
    /// A service, whose address and admin's key are in `ADE_SERVER` and `ADE_API_KEY`.
    Service,
    /// The address of an empty database in `DATABASE`, and nothing that uses it.
    Postgres,
    /// Nothing, and the package index can be reached.
    Index,
    /// A checkout, and an `.env` that keeps the installation apart from others of the machine.
    Compose,
}

/// Every page that has commands which are run, with what it starts from. Pages below docs/, and the README.
const GUIDES: &[(&str, Start)] = &[
    ("docs/developers/events.md", Start::Nothing),
    ("docs/examples/README.md", Start::Nothing),
    ("docs/examples/invoices/README.md", Start::Nothing),
    ("docs/examples/membership/README.md", Start::Nothing),
    ("docs/examples/price_list/README.md", Start::Nothing),
    ("docs/operations/air-gapped.md", Start::Index),
    ("docs/operations/audit.md", Start::Service),
    ("docs/operations/backup.md", Start::Postgres),
    ("docs/operations/compose.md", Start::Compose),
    ("docs/operations/hosted.md", Start::Service),
    ("docs/operations/install.md", Start::Nothing),
    ("docs/operations/monitoring.md", Start::Service),
    ("docs/operations/network.md", Start::Service),
    ("docs/operations/service.md", Start::Postgres),
    ("docs/users/config-commands.md", Start::Service),
    ("docs/users/configs.md", Start::Service),
    ("docs/users/first-package.md", Start::Nothing),
    ("docs/users/submit-jobs.md", Start::Nothing),
];

#[test]
fn every_page_with_commands_is_a_guide_that_is_run_and_every_guide_is_a_page() {
    let pages = page::all();
    let with_commands: BTreeSet<&str> =
        pages.iter().filter(|page| page.commands().next().is_some()).map(|page| page.path.as_str()).collect();
    let guides: BTreeSet<&str> = GUIDES.iter().map(|(page, _)| *page).collect();
    assert_eq!(with_commands, guides, "pages with commands, and the guides that are run");
    for page in &pages {
        for block in page.blocks.iter().filter(|block| block.language == "console") {
            let lines = block.text.lines();
            assert!(
                lines.clone().next().is_some_and(|line| line.starts_with("$ ")),
                "{}:{}: a block of commands begins with one, after `$ `",
                page.path,
                block.line
            );
        }
        let shells = ["sh", "bash", "shell"];
        let other = page.blocks.iter().find(|block| shells.contains(&block.language.as_str()));
        assert!(other.is_none(), "{}: commands are in blocks of `console`", page.path);
    }
}

/// Makes a test of every guide, so that they run side by side and fail by name.
macro_rules! guides {
    ($($name:ident: $page:literal,)*) => {
        $(#[test] fn $name() { follow($page); })*

        #[test]
        fn every_guide_has_a_test() {
            let tested: BTreeSet<&str> = [$($page),*].into();
            assert_eq!(tested, GUIDES.iter().map(|(page, _)| *page).collect());
        }
    };
}

guides! {
    events_for_people: "docs/developers/events.md",
    the_examples: "docs/examples/README.md",
    the_invoices: "docs/examples/invoices/README.md",
    the_membership_roster: "docs/examples/membership/README.md",
    the_price_list: "docs/examples/price_list/README.md",
    a_site_without_network: "docs/operations/air-gapped.md",
    the_audit: "docs/operations/audit.md",
    backup_and_restore: "docs/operations/backup.md",
    docker_compose: "docs/operations/compose.md",
    many_tenants: "docs/operations/hosted.md",
    installing: "docs/operations/install.md",
    monitoring: "docs/operations/monitoring.md",
    network_policy: "docs/operations/network.md",
    the_service: "docs/operations/service.md",
    the_commands_of_package_authors: "docs/users/config-commands.md",
    the_life_of_a_config: "docs/users/configs.md",
    the_first_package: "docs/users/first-package.md",
    submitting_jobs: "docs/users/submit-jobs.md",
}

fn follow(path: &str) {
    let page = Page::read(path);
    let (_, start) = GUIDES.iter().find(|(guide, _)| *guide == path).unwrap();
    let shell = Shell::new(&page, *start);
    shell.follow();
}

#[test]
fn what_is_not_run_says_why() {
    for page in page::all() {
        for block in &page.blocks {
            if let Some(Note::NotRun(why)) = &block.note {
                assert!(why.len() >= 20, "{}:{}: {why:?} is no reason", page.path, block.line);
                assert_eq!(block.language, "console", "{}:{}: only commands are run", page.path, block.line);
            }
        }
    }
}

#[test]
fn every_example_in_json_is_json_and_what_its_schema_wants() {
    let schema = |name: &str| {
        let text = std::fs::read_to_string(page::root().join("docs/schemas").join(name)).unwrap();
        jsonschema::validator_for(&serde_json::from_str::<Value>(&text).unwrap()).unwrap()
    };
    let (manifest, artifact) = (schema("manifest.v1.0.schema.json"), schema("artifact.v1.2.schema.json"));
    let events: BTreeSet<&str> = ade::events::EVENTS.iter().map(|event| event.name).collect();
    let mut seen = [0; 3];
    for page in page::all() {
        // What is shown of a file that is there may be a part of it; the file has tests of its own.
        let part = |block: &Block| matches!(&block.note, Some(Note::File(path)) if page.home(&page::root()).join(path).exists());
        for block in page.blocks.iter().filter(|block| block.language == "json" && !part(block)) {
            let place = format!("{}:{}", page.path, block.line);
            let value: Value = serde_json::from_str(&block.text).unwrap_or_else(|error| panic!("{place}: {error}"));
            let errors = |schema: &jsonschema::Validator| {
                let errors: Vec<String> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
                assert!(errors.is_empty(), "{place}: {errors:#?}");
            };
            if value.get("config_script_api_version").is_some() {
                errors(&manifest);
                seen[0] += 1;
            } else if value.get("artifact_version").is_some() {
                errors(&artifact);
                seen[1] += 1;
            } else if let Some(event) = value.get("event").and_then(Value::as_str) {
                assert!(events.contains(event), "{place}: {event:?} is no event");
                seen[2] += 1;
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "manifests, artifacts and events have examples: {seen:?}");
}

#[test]
fn every_example_in_python_compiles() {
    for page in page::all() {
        for block in page.blocks.iter().filter(|block| block.language == "python") {
            let check = "import ast, sys; ast.parse(sys.argv[1])";
            let done = Command::new("python3").args(["-c", check, &block.text]).output().expect("python3 starts");
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{}:{}: {said}", page.path, block.line);
        }
    }
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    for page in page::all() {
        let folder = Path::new(&page.path).parent().unwrap();
        for (line, target) in page.links() {
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let file = if file.is_empty() { Path::new(&page.path).to_owned() } else { folder.join(file) };
            let place = format!("{}:{line}: {target}", page.path);
            assert!(page::root().join(&file).exists(), "{place}: there is no such file");
            if !anchor.is_empty() && file.extension().is_some_and(|extension| extension == "md") {
                let headings = Page::read(file.to_str().unwrap()).anchors();
                assert!(headings.contains(anchor), "{place}: there is no such heading, but {headings:?}");
            }
        }
    }
}

fn is_run(block: &Block) -> bool {
    block.language == "console" && !matches!(block.note, Some(Note::NotRun(_)))
}
