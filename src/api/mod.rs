//! HTTP. [`app`] knows who calls and what they may, [`routes`] has a file for each resource, and the rest is what every
//! route shares: problems, extractors, request ids, header grammars and the server itself. [`openapi`] puts it together.

pub mod app;
pub mod cursor;
pub mod extract;
pub mod headers;
pub mod listen;
pub mod names;
pub mod openapi;
pub mod page;
pub mod problem;
pub mod refusal;
pub mod request_id;
pub mod room;
pub mod routes;

pub use cursor::Cursor;
pub use extract::{Body, Path, Query};
pub use problem::{Code, FieldError, Problem, ProblemBody};
pub use request_id::RequestId;
