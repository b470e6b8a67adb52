//! The routes, a file for each resource.

pub mod activation;
pub mod audit;
pub mod configs;
pub mod documents;
mod download;
pub mod events;
pub mod health;
pub mod job_files;
pub mod job_record;
pub mod jobs;
pub mod keys;
pub mod network;
pub mod system;
pub mod workspaces;
