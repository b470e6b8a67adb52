//! Dependencies of config packages, installed by the real tools in real containers: from a package index that the test itself
//! serves, from wheelhouses, and from the real index.

#[path = "../support/mod.rs"]
mod support;

mod activation;
mod attacks;
mod commands;
mod diagnostics;
mod index;
mod install;
mod network;
mod sharing;
mod site;
mod wheel;
mod wheelhouse;
