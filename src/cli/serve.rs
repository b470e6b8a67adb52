//! `ade serve`: the REST service and its scheduler.

use super::progress::Screen;
use super::style::{BAD, paint};
use super::{Exit, Output, node};
use crate::service::{self, ServiceError};
use crate::settings::{ServeSettings, Settings};
use crate::telemetry;
use clap::ArgMatches;
use rustix::process::{Signal, set_parent_process_death_signal};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::sync::watch;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    serve: ServeSettings,
    /// End when the process does that started this one, however it ends
    #[arg(long, hide = true)]
    end_with_parent: bool,
}

/// Runs the command.
pub async fn main(mut args: Args, matches: &ArgMatches, settings: &Settings, output: Output) -> ExitCode {
    let refused = |kind: &str, message: &dyn std::fmt::Display, exit: Exit| -> ExitCode {
        if output.json {
            println!("{}", serde_json::json!({"error": {"kind": kind, "message": message.to_string()}}));
        } else {
            anstream::eprintln!("{} {message}", paint(BAD, format!("error[{kind}]:")));
        }
        exit.into()
    };
    if let Err(error) = args.serve.settle(matches) {
        return refused("settings_invalid", &error, Exit::BadRequest);
    }
    if let Err(error) = telemetry::init(&args.serve.log, args.serve.log_format) {
        return refused("settings_invalid", &error, Exit::BadRequest);
    }
    let signals = signals();
    if args.end_with_parent {
        // Where the system cannot, whoever started this one ends it all the same unless it is killed.
        set_parent_process_death_signal(Some(Signal::TERM)).ok();
    }
    let connecting = Arc::new(settings.clone());
    let connect = move || -> futures_util::future::BoxFuture<'static, _> {
        let settings = Arc::clone(&connecting);
        Box::pin(async move { node::ready(&settings, &Screen::new(true)).await })
    };
    match service::run(settings, &args.serve, connect, signals).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let (kind, exit) = match error {
                ServiceError::Store(crate::store::StoreError::BadUrl(_)) => ("settings_invalid", Exit::BadRequest),
                ServiceError::Store(crate::store::StoreError::TooNew { .. }) => ("database_too_new", Exit::Environment),
                ServiceError::Store(_) => ("database_unavailable", Exit::Environment),
                ServiceError::Blobs(_) => ("storage_unavailable", Exit::Environment),
                ServiceError::InUse(_) => ("data_dir_in_use", Exit::Environment),
                ServiceError::DataDir { .. } => ("data_dir_unusable", Exit::Environment),
                ServiceError::Listen { .. } => ("address_unavailable", Exit::Environment),
                ServiceError::Random(_) => ("random_unavailable", Exit::Environment),
            };
            refused(kind, &error, exit)
        }
    }
}

/// Counts SIGTERM and SIGINT.
fn signals() -> watch::Receiver<u32> {
    use tokio::signal::unix::{SignalKind, signal};
    let (sender, receiver) = watch::channel(0);
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        if let Ok(mut stream) = signal(kind) {
            let sender = sender.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    sender.send_modify(|count| *count += 1);
                }
            });
        }
    }
    receiver
}
