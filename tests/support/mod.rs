//! Real jobs for integration tests: build a config package, run it through the `ade` binary in a real container, and look
//! at what the *host* saw.
//!
//! ```ignore
//! #[path = "../support/mod.rs"]
//! mod support;
//! use support::{Package, Upload, run};
//!
//! let package = Package::new().hook("on_job_start", "def run(**_):\n    print('hello')\n");
//! let run = run(&package, &[Upload::csv("Name\nAda\n")], &["--memory-mb", "128"]);
//! assert_eq!(run.status(), "succeeded");
//! assert_eq!(run.log(), ["hello"]);
//! ```
//!
//! - [`Package`] builds packages, honest or not; [`Upload`] inputs; [`zips`] archives that no library would write.
//! - [`run`] runs `ade run --json` to its end and gives a [`Run`]; [`start`] gives a [`Running`] to signal or watch.
//! - [`server`] starts `ade serve` and gives workspaces with keys of every role; [`http`] asks it.
//! - [`postgres`] makes databases, empty at first.
//! - [`web`] is a server that a job may talk to; [`within`] runs jobs in the test's own process, with an egress as it likes.
//! - Every job gets a [`World`] of its own on the host. When the job has ended, [`World::assert_untouched`] has looked:
//!   no container is left, the output folder holds whole files and nothing else, nothing stays in the temporary folder,
//!   inputs, package and bystanders are as they were. A test need not ask for it.
//! - Dropping a [`World`], also in a panic, removes what containers its jobs have left. Nothing but containers with the
//!   job ids of this very test is touched.
//! - Dependency sets belong to the [`Sets`] of a world, or to the data folder of a server; their volumes go with it.
//!
//! Docker is found as `ade` finds it (`DOCKER_HOST`), and `ADE_IMAGE` chooses the image; without it `ade` builds its own.

// Each test crate uses the part it needs.
#![allow(dead_code, unused_imports)]

mod docker;
pub mod http;
mod package;
pub mod postgres;
mod real_index;
mod run;
pub mod server;
pub mod sets;
pub mod web;
pub mod within;
mod world;
pub mod zips;

pub use docker::Docker;
pub use package::{Package, function};
pub use real_index::real_index;
pub use run::{Run, Running, ade, beside_neighbours, image_id, lateness, run, run_file, start};
pub use sets::Sets;
pub use world::{Upload, World};
