//! `ade events`: the log of a job on this machine.

use super::explain::Account;
use super::style::{BAD, paint};
use super::summary::Summary;
use super::timeline::{Timeline, View};
use super::{Exit, Output};
use crate::events::read::{Heard, LogSource};
use serde_json::json;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How often a file is looked at that may have grown. Asked rather than notified: the system tells nobody what another machine
/// has written to a shared disk.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// An events.ndjson, the folder that has it, or - for standard input
    file: PathBuf,
    /// Go on as the file grows, is replaced or is cut, until the job has ended
    #[arg(long, short)]
    follow: bool,
    /// Say in a few sentences what happened, where the time went, and what to do
    #[arg(long, conflicts_with = "follow")]
    explain: bool,
    #[command(flatten)]
    view: View,
}

/// Why there is nothing to show.
enum Trouble {
    Unreadable(io::Error),
    NoEvents,
    Unwritable(io::Error),
}

/// Runs the command.
pub fn main(args: &Args, output: Output) -> ExitCode {
    let path = if args.file.is_dir() { args.file.join("events.ndjson") } else { args.file.clone() };
    let done = if args.explain { explain(&path, output) } else { show(&path, args, output) };
    let (kind, message, exit) = match done {
        Ok(()) => return Exit::Success.into(),
        // Whoever reads has read enough, as `head` has.
        Err(Trouble::Unwritable(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Exit::Success.into(),
        Err(Trouble::Unwritable(error)) => {
            ("host_io", format!("cannot write standard output: {error}"), Exit::Environment)
        }
        Err(Trouble::Unreadable(error)) => {
            ("input_unreadable", format!("cannot read {}: {error}", path.display()), Exit::BadRequest)
        }
        Err(Trouble::NoEvents) => (
            "events_invalid",
            format!("{} has no event: name the events.ndjson of a job, or the folder that has it", path.display()),
            Exit::BadRequest,
        ),
    };
    if output.json {
        println!("{}", json!({"error": {"kind": kind, "message": message}}));
    } else {
        anstream::eprintln!("{} {message}", paint(BAD, format!("error[{kind}]:")));
    }
    exit.into()
}

fn show(path: &Path, args: &Args, output: Output) -> Result<(), Trouble> {
    let mut source = LogSource::open(path).map_err(Trouble::Unreadable)?;
    let mut timeline = Timeline::new(&args.view, output, None);
    loop {
        let Some(heard) = source.more().map_err(Trouble::Unreadable)? else {
            if !args.follow || !source.may_grow() || timeline.ended() {
                break;
            }
            std::thread::sleep(LOOK);
            continue;
        };
        for heard in heard {
            match heard {
                Heard::Line(line) => timeline.line(&line).map_err(Trouble::Unwritable)?,
                Heard::Cut => timeline.note("the file was cut; it is read from its start"),
                Heard::Replaced => timeline.note("another file has its name now; that is read from its start"),
            }
        }
    }
    if let Some(line) = source.end() {
        timeline.line(&line).map_err(Trouble::Unwritable)?;
    }
    timeline.close().map_err(Trouble::Unwritable)?;
    if timeline.has_nothing_but_damage() { Err(Trouble::NoEvents) } else { Ok(()) }
}

fn explain(path: &Path, output: Output) -> Result<(), Trouble> {
    let mut source = LogSource::open(path).map_err(Trouble::Unreadable)?;
    let (mut account, mut events, mut damaged) = (Account::default(), 0_u64, 0_u64);
    let mut take = |line: crate::events::read::Line| match line.event {
        Ok((event, _)) => {
            events += 1;
            account.event(&event);
        }
        Err(_) => damaged += 1,
    };
    while let Some(heard) = source.more().map_err(Trouble::Unreadable)? {
        for heard in heard {
            if let Heard::Line(line) = heard {
                take(line);
            }
        }
    }
    source.end().into_iter().for_each(&mut take);
    if events == 0 {
        return Err(Trouble::NoEvents);
    }
    if damaged > 0 {
        account.finding(format!("{damaged} lines of its log are damaged."));
    }
    if let Some(summary) = Summary::read(&path.with_file_name("artifact.json")) {
        account.artifact(&summary);
    }
    account.print(output);
    Ok(())
}
