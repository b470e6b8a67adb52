//! `ade bench`: how fast it is here, and whether that is what is wanted.

use super::progress::Screen;
use super::remote::{Remote, fail};
use super::style::{self, BAD, DIM, GOOD, paint};
use super::{Output, cancel_on_signals, node};
use crate::bench::{FOLLOWERS, Figure, Figures, Plan, ROWS, Section, Setup, Site, measure};
use crate::client::{Blame, Client, ClientError};
use crate::settings::{ClientSettings, Settings, Target, local_data_dir};
use clap::ArgMatches;
use clap::parser::ValueSource;
use serde_json::json;
use std::ffi::OsString;
use std::process::ExitCode;
use tokio::sync::watch;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to measure [default: all; without idle and fairness on a service that is named]
    #[arg(value_name = "SECTION")]
    sections: Vec<Section>,
    /// Make everything small: shows that it works, and measures nothing
    #[arg(long)]
    quick: bool,
    /// Rows of the large table [default: 100000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=1_048_575))]
    rows: Option<u64>,
    /// Measure a table of 1,000,000 rows as well
    #[arg(long)]
    million: bool,
    /// Followers of events [default: 1000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=50_000))]
    followers: Option<u32>,
    /// Job containers at once of a service of its own [default: the CPUs]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    concurrency: Option<u32>,
    #[command(flatten)]
    target: Target,
}

/// Runs the command. `matches` is what it was parsed from.
pub async fn main(args: Args, matches: &ArgMatches, settings: &Settings, output: Output) -> ExitCode {
    let screen = Screen::new(output.quiet || output.json);
    let interrupted = cancel_on_signals();
    let measured = run(&args, matches, settings, output, &screen, interrupted).await;
    screen.close();
    match measured {
        Ok((machine, figures)) => {
            if output.json {
                let mut said = json!(figures);
                said["machine"] = machine;
                println!("{said}");
            } else {
                print(&figures);
            }
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, output).into(),
    }
}

async fn run(
    args: &Args,
    matches: &ArgMatches,
    settings: &Settings,
    output: Output,
    screen: &Screen,
    mut interrupted: watch::Receiver<bool>,
) -> Result<(serde_json::Value, Figures), ClientError> {
    let here = args.target.server.as_ref().is_none_or(String::is_empty);
    let finding = async {
        if here {
            own(args, matches, settings, screen).await
        } else {
            running(args, settings, output, &interrupted).await
        }
    };
    let stopped = || ClientError::interrupted("interrupted; nothing is left of the benchmark");
    let site = tokio::select! {
        site = finding => site?,
        () = wait(interrupted.clone()) => return Err(stopped()),
    };
    let mut figures = Figures::default();
    let plan = args.plan(here);
    let say = |text: &str| screen.say(text);
    let measured = tokio::select! {
        measured = measure(&site, &plan, &mut figures, &say) => measured,
        Ok(_) = interrupted.wait_for(|interrupted| *interrupted) => {
            screen.say("removing what was made");
            Err(stopped())
        }
    };
    site.tidy().await;
    measured.map(|()| (args.machine(&site), figures))
}

async fn wait(mut interrupted: watch::Receiver<bool>) {
    if interrupted.wait_for(|interrupted| *interrupted).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// This machine, with services of its own.
async fn own(args: &Args, matches: &ArgMatches, settings: &Settings, screen: &Screen) -> Result<Site, ClientError> {
    let node = node::ready(settings, screen).await?;
    let program = std::env::current_exe().map_err(|error| {
        let message = format!("this program cannot be started once more, as a service: {error}");
        ClientError::new(Blame::Environment, "service_not_started", message)
    })?;
    let setup =
        Setup { program, parent: std::env::temp_dir(), arguments: given(matches), concurrency: args.concurrency() };
    Ok(Site::here(setup, node, settings.docker_host.clone()).await)
}

/// The service that was named.
async fn running(
    args: &Args,
    settings: &Settings,
    output: Output,
    interrupted: &watch::Receiver<bool>,
) -> Result<Site, ClientError> {
    let named = || ClientSettings { target: args.target.clone(), data_dir: Some(local_data_dir()) };
    let found = || Client::find(&named(), settings.ca_bundle.as_deref());
    let remote = Remote::new(found()?, output, args.target.workspace.clone(), interrupted.clone());
    Ok(Site::there(found()?, remote.workspace().await?.to_owned()))
}

/// The settings of the instance that were given as flags: those of the environment are there for the service anyway.
fn given(matches: &ArgMatches) -> Vec<OsString> {
    let command = <Settings as clap::Args>::augment_args(clap::Command::new("ade"));
    let mut arguments = Vec::new();
    for argument in command.get_arguments() {
        let id = argument.get_id().as_str();
        if matches.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        for value in matches.get_raw(id).into_iter().flatten() {
            let mut flag = OsString::from(format!("--{}=", argument.get_long().unwrap_or_default()));
            flag.push(value);
            arguments.push(flag);
        }
    }
    arguments
}

impl Args {
    fn plan(&self, here: bool) -> Plan {
        let wanted = |section: &Section| match self.sections.as_slice() {
            // What would be a burden for others that use the service is measured there only when it is asked for.
            [] => here || !matches!(section, Section::Idle | Section::Fairness),
            named => named.contains(section),
        };
        let (rows, followers) = if self.quick { (1_000, 50) } else { (ROWS, FOLLOWERS) };
        Plan {
            sections: Section::ALL.into_iter().filter(wanted).collect(),
            quick: self.quick,
            rows: self.rows.unwrap_or(rows),
            million: self.million,
            followers: self.followers.map_or(followers, |count| usize::try_from(count).unwrap_or(usize::MAX)),
        }
    }

    fn concurrency(&self) -> u32 {
        let cpus = || std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(1));
        self.concurrency.unwrap_or_else(cpus)
    }

    /// What was measured on.
    fn machine(&self, site: &Site) -> serde_json::Value {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let version = env!("CARGO_PKG_VERSION");
        match site.node() {
            Some(node) => json!({
                "version": version, "debug": cfg!(debug_assertions), "cpus": cpus, "concurrency": self.concurrency(),
                "kernel": rustix::system::uname().release().to_string_lossy(), "image": node.image,
            }),
            None => json!({"version": version, "debug": cfg!(debug_assertions), "server": self.target.server}),
        }
    }
}

fn print(figures: &Figures) {
    let rows: Vec<[String; 5]> = figures.figures.iter().map(row).collect();
    style::table(["FIGURE", "WHAT", "RESULT", "WANTED", "HOW"], &rows);
    let told: Vec<bool> = figures.figures.iter().filter_map(|figure| figure.reached).collect();
    let reached = told.iter().filter(|reached| **reached).count();
    if figures.quick {
        anstream::println!("{}", paint(DIM, "a quick run shows that all of it works; its numbers say nothing"));
    } else if reached == told.len() {
        anstream::println!("{}", paint(GOOD, format!("all {reached} wanted values are reached")));
    } else {
        anstream::println!(
            "{}",
            paint(BAD, format!("{reached} of {} wanted values are reached; not reached:", told.len()))
        );
        for figure in figures.figures.iter().filter(|figure| figure.reached == Some(false)) {
            anstream::println!("  {}  {}", figure.id, figure.what);
        }
    }
    if cfg!(debug_assertions) {
        anstream::println!("{}", paint(DIM, "this is a debug build, which is slower than what users have"));
    }
    for note in &figures.notes {
        anstream::println!("{}", paint(DIM, note));
    }
}

fn row(figure: &Figure) -> [String; 5] {
    let digits = match figure.value {
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    [
        figure.id.to_owned(),
        figure.what.to_owned(),
        format!("{:.digits$} {}", figure.value, figure.unit),
        figure.wanted.map(|wanted| wanted.to_string()).unwrap_or_default(),
        figure.detail.clone(),
    ]
}
