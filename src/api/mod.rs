//! HTTP: what every route shares. Problems, extractors, request ids, header grammars and the server itself.

pub mod cursor;
pub mod extract;
pub mod headers;
pub mod listen;
pub mod names;
pub mod problem;
pub mod request_id;

pub use cursor::Cursor;
pub use extract::{Body, Path, Query};
pub use problem::{Code, FieldError, Problem, ProblemBody};
pub use request_id::RequestId;
