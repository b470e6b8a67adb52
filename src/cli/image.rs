//! `ade image`: the base image of job containers.

use super::progress::Screen;
use super::style::{STRONG, bytes, paint};
use super::{Exit, Output, fail, node};
use crate::image::{self, ImageInfo, ImageSpec, Route};
use crate::sandbox::{Failure, FailureKind};
use crate::settings::Settings;
use serde_json::json;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Build the base image, also when it is there
    Build {
        /// Where the Python in it comes from
        #[arg(long, value_enum, default_value_t = Route::Auto)]
        route: Route,
    },
    /// Show the image that jobs run in
    Show,
}

/// Runs the command.
pub async fn main(args: Args, settings: &Settings, output: Output) -> ExitCode {
    let result = match args.command {
        Command::Build { route } => build(settings, route, output).await,
        Command::Show => show(settings).await,
    };
    match result {
        Ok(info) => {
            print(&info, output);
            Exit::Success.into()
        }
        Err(failure) => fail(&failure, &[], output),
    }
}

async fn build(settings: &Settings, route: Route, output: Output) -> Result<ImageInfo, Failure> {
    let docker = node::connect(settings).await?;
    let screen = Screen::new(output.quiet || output.json);
    let mut say = |text: &str| screen.line(text);
    image::build(&docker, &ImageSpec::embedded(), &node::build_options(settings, route), &mut say)
        .await
        .map_err(|error| node::failure(&error))
}

async fn show(settings: &Settings) -> Result<ImageInfo, Failure> {
    let docker = node::connect(settings).await?;
    let found = image::find(&docker, settings.image.as_deref()).await.map_err(|error| node::failure(&error))?;
    found.ok_or_else(|| {
        let tag = settings.image.clone().unwrap_or_else(|| ImageSpec::embedded().tag);
        Failure::new(
            FailureKind::ImageMissing,
            format!("the image {tag} is not on this Docker Engine; build it with `ade image build`"),
        )
    })
}

fn print(info: &ImageInfo, output: Output) {
    if output.json {
        println!(
            "{}",
            json!({"tag": info.tag, "id": info.id, "size": info.size, "created": info.created, "route": info.route, "labels": info.labels})
        );
        return;
    }
    let line = |name: &str, value: &str| anstream::println!("{}  {value}", paint(STRONG, format!("{name:8}")));
    line("image", &info.tag);
    line("id", &info.id);
    line("size", &bytes(u64::try_from(info.size).unwrap_or_default()));
    line("created", info.created.as_deref().unwrap_or("unknown"));
    line("route", info.route.as_deref().unwrap_or("unknown"));
}
