//! `ade_native`: what the runner does once per cell of a large table, in a compiled module, and two system calls of its supervisor.
//!
//! It decides nothing that the Python around it does not decide too. The reader's side takes rows and shared strings in the one
//! spelling that nearly every program writes and leaves all else, every error included, to the XML parser; the writer's side asks
//! Python for the values that are rare. Its input is hostile: no unsafe code, nothing that panics on content, nothing that grows
//! with it beyond a fixed bound.

#![forbid(unsafe_code)]

mod cells;
mod rows;
mod strings;
mod text;

use pyo3::prelude::*;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Whether other processes of the same user may look into this one (prctl(2), `PR_SET_DUMPABLE`).
///
/// # Errors
/// What the kernel refused, as `OSError`.
#[pyfunction]
fn set_dumpable(dumpable: bool) -> PyResult<()> {
    let behavior = if dumpable { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable };
    Ok(set_dumpable_behavior(behavior).map_err(std::io::Error::from)?)
}

/// That this process and those it forks leave no core dumps (setrlimit(2), `RLIMIT_CORE`). The module `resource` can do that too,
/// but loading one more file takes longer than everything else that a start does here.
///
/// # Errors
/// What the kernel refused, as `OSError`.
#[pyfunction]
fn forbid_core_dumps() -> PyResult<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    Ok(setrlimit(Resource::Core, none).map_err(std::io::Error::from)?)
}

/// The module, as Python imports it.
#[pymodule]
mod ade_native {
    /// UTF-16 code units of a cell's text; from Excel's specifications and limits.
    #[pymodule_export]
    const MAX_TEXT: usize = crate::cells::MAX_TEXT;
    #[pymodule_export]
    use super::{forbid_core_dumps, set_dumpable};
    #[pymodule_export]
    use crate::cells::CellWriter;
    #[pymodule_export]
    use crate::rows::PlainRows;
    #[pymodule_export]
    use crate::strings::SharedStrings;
}
