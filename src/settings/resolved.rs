//! Every setting with the value that counts and where it came from.

use super::serve::{TWINS, winner};
use super::{ServeSettings, Settings, Target, mask};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args};
use serde::Serialize;

/// One setting as it counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resolved {
    /// Its environment variable, in the documented spelling.
    pub variable: String,
    /// Its flag, in the documented spelling.
    pub flag: String,
    /// The value, without secrets; for people where it says how the value is found.
    pub value: String,
    /// Unit or kind of the value.
    pub unit: String,
    /// `flag --…`, `environment ADE_…` or `default`, in the spelling that was used.
    pub source: String,
}

/// Every setting: those of the instance, of the service, and of clients. `matches` is what they were parsed from.
#[must_use]
pub fn resolved(serve: &ServeSettings, matches: &ArgMatches) -> Vec<Resolved> {
    let command = Target::augment_args(ServeSettings::augment_args(Settings::augment_args(clap::Command::new("ade"))));
    let arguments: Vec<&Arg> = command.get_arguments().filter(|argument| argument.get_env().is_some()).collect();
    let second = |argument: &&&Arg| TWINS.iter().any(|(_, second)| argument.get_id() == *second);
    arguments
        .iter()
        .filter(|argument| !second(argument))
        .map(|argument| {
            let twins = TWINS.iter().find(|(first, _)| argument.get_id() == *first);
            let used = twins.map_or(argument.get_id().as_str(), |twins| winner(matches, *twins));
            let spelling = arguments.iter().find(|argument| argument.get_id() == used).unwrap_or(argument);
            Resolved {
                variable: variable(argument),
                flag: flag(argument),
                value: mask(&value(argument, used, serve, matches)),
                unit: unit(argument),
                source: match matches.value_source(used) {
                    Some(ValueSource::CommandLine) => format!("flag {}", flag(spelling)),
                    Some(ValueSource::EnvVariable) => format!("environment {}", variable(spelling)),
                    _ => "default".into(),
                },
            }
        })
        .collect()
}

fn value(argument: &Arg, used: &str, serve: &ServeSettings, matches: &ArgMatches) -> String {
    if let Some(values) = matches.get_raw(used) {
        // Marked so where it may be a secret as a whole.
        if argument.is_hide_env_values_set() {
            return "***".into();
        }
        return values.map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(" ");
    }
    serve.computed(argument.get_id().as_str()).unwrap_or_else(|| {
        // What has neither a default nor a rule for one says in its help where the value comes from.
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        match help.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']')) {
            Some((text, _)) => text.to_owned(),
            None => "none".into(),
        }
    })
}

fn variable(argument: &Arg) -> String {
    argument.get_env().unwrap_or_default().to_string_lossy().into_owned()
}

fn flag(argument: &Arg) -> String {
    format!("--{}", argument.get_long().unwrap_or_default())
}

fn unit(argument: &Arg) -> String {
    let name = argument.get_value_names().and_then(<[_]>::first).map(ToString::to_string).unwrap_or_default();
    match name.as_str() {
        "MIB" => "MiB".into(),
        "URL" => name,
        "CPUS" => "CPUs".into(),
        "BOOL" => "true or false".into(),
        "SWITCH" => "on or off".into(),
        "DIR" => "folder".into(),
        name => name.to_lowercase().replace('_', " "),
    }
}
