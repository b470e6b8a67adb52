//! `ade settings`: every setting, its value, and where the value came from.

use super::style::{BAD, DIM, STRONG, paint};
use super::{Exit, Output};
use crate::settings::{ServeSettings, Target, resolved};
use clap::ArgMatches;
use serde_json::json;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    serve: ServeSettings,
    // Shown, not used: what was parsed is taken from the matches.
    #[command(flatten)]
    _target: Target,
}

pub fn main(mut args: Args, matches: &ArgMatches, output: Output) -> ExitCode {
    if let Err(error) = args.serve.settle(matches) {
        if output.json {
            println!("{}", json!({"error": {"kind": "settings_invalid", "message": error.to_string()}}));
        } else {
            anstream::eprintln!("{} {error}", paint(BAD, "error[settings_invalid]:"));
        }
        return Exit::BadRequest.into();
    }
    let settings = resolved(&args.serve, matches);
    if output.json {
        println!("{}", json!({"settings": settings}));
        return ExitCode::SUCCESS;
    }
    let width = settings.iter().map(|setting| setting.variable.len()).max().unwrap_or_default();
    for setting in &settings {
        let source = format!("({}; {})", setting.unit, setting.source);
        // Padded before it is painted: the codes of colours have a length too.
        let name = paint(STRONG, format!("{:width$}", setting.variable));
        anstream::println!("{name}  {}  {}", crate::text::plain(&setting.value, 500), paint(DIM, source));
    }
    ExitCode::SUCCESS
}
