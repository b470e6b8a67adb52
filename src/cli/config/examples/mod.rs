//! The examples of a package: `examples/NAME/` holds inputs, and the results that are expected of them.
//!
//! `normalized.csv` is the output sheet for reading, `expected.json` all else. What `expected.json` leaves out is not compared.

mod compare;
mod expectation;
mod found;

pub use compare::{Difference, compare};
pub use expectation::{EXPECTED, Expectation, NORMALIZED, Sheet, to_text};
pub use found::Found;

use crate::packages::{EXAMPLES, Package};
use crate::sandbox::{Failure, FailureKind};
use crate::text::plain;
use std::collections::BTreeMap;

/// One example of a package.
#[derive(Debug)]
pub struct Example {
    /// The name of its folder.
    pub name: String,
    /// Its inputs in the order in which a job gets them: file name and content.
    pub inputs: Vec<(String, Vec<u8>)>,
    /// What `expected.json` says; nothing when there is none.
    pub expectation: Expectation,
    /// What `normalized.csv` says.
    pub sheet: Option<Sheet>,
}

impl Example {
    /// Whether anything is expected of it.
    pub fn expects(&self) -> bool {
        self.sheet.is_some() || self.expectation.claims()
    }
}

/// All examples of a package, by name.
///
/// # Errors
/// `package_invalid`, which names the file that cannot be used.
pub fn examples(package: &Package) -> Result<Vec<Example>, Failure> {
    let mut folders: BTreeMap<&str, BTreeMap<&str, &[u8]>> = BTreeMap::new();
    for (path, content) in package.example_files() {
        let mut parts = path.splitn(3, '/').skip(1);
        let (Some(folder), Some(file)) = (parts.next(), parts.next()) else { continue };
        folders.entry(folder).or_default().insert(file, content);
    }
    folders.into_iter().map(|(name, files)| example(name, &files)).collect()
}

fn example(name: &str, files: &BTreeMap<&str, &[u8]>) -> Result<Example, Failure> {
    let at = |file: &str| plain(&format!("{EXAMPLES}/{name}/{file}"), 300);
    let refuse = |file: &str, what: &str| Failure::new(FailureKind::PackageInvalid, format!("{}: {what}", at(file)));
    let expectation = match files.get(EXPECTED) {
        Some(bytes) => Expectation::parse(bytes).map_err(|what| refuse(EXPECTED, &what))?,
        None => Expectation::default(),
    };
    let sheet = match files.get(NORMALIZED) {
        Some(bytes) => Some(Sheet::parse(bytes).map_err(|what| refuse(NORMALIZED, &what))?),
        None => None,
    };
    let names: Vec<&str> = if expectation.inputs.is_empty() {
        files.keys().filter(|file| !matches!(**file, EXPECTED | NORMALIZED)).copied().collect()
    } else {
        expectation.inputs.iter().map(String::as_str).collect()
    };
    if names.is_empty() {
        return Err(refuse("", "there is no input; put a workbook there, or remove the folder"));
    }
    let mut inputs = Vec::new();
    for file in names {
        // In a folder below the example, files would have paths for names.
        let content = files.get(file).filter(|_| !file.contains('/')).ok_or_else(|| {
            refuse(
                file,
                "it is no file of the example; `inputs` in expected.json names those that a job gets, in order",
            )
        })?;
        inputs.push((file.to_owned(), content.to_vec()));
    }
    Ok(Example { name: name.to_owned(), inputs, expectation, sheet })
}
