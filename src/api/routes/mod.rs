//! The routes, a file for each resource.

pub mod activation;
pub mod audit;
pub mod configs;
pub mod documents;
mod download;
pub mod draft_files;
pub mod drafts;
pub mod events;
pub mod health;
pub mod job_files;
pub mod job_record;
pub mod jobs;
pub mod keys;
pub mod network;
mod package_form;
pub mod system;
pub mod validation;
pub mod versions;
pub mod workspaces;
