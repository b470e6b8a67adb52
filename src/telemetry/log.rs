//! The log of the service, on stderr.

use crate::settings::LogFormat;
use std::io::IsTerminal;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The filter of the log cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("ADE_LOG or --log has no valid filter, such as `info` or `info,ade::queue=debug`: {0}")]
pub struct InvalidFilter(String);

/// Starts the log. Where something else has taken the log already, as in tests, it stays there.
///
/// # Errors
/// When `filter` cannot be read.
pub fn init(filter: &str, format: LogFormat) -> Result<(), InvalidFilter> {
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    match format {
        LogFormat::Pretty => start(pretty(filter, colours, std::io::stderr)?),
        LogFormat::Json => start(json(filter, std::io::stderr)?),
    }
    Ok(())
}

fn start(subscriber: impl Subscriber + Send + Sync + 'static) {
    // Fails only when there is one, and that one is wanted then.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

fn parse(filter: &str) -> Result<EnvFilter, InvalidFilter> {
    EnvFilter::try_new(filter).map_err(|error| InvalidFilter(error.to_string()))
}

fn pretty<W>(filter: &str, colours: bool, writer: W) -> Result<impl Subscriber + Send + Sync + 'static, InvalidFilter>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = parse(filter)?;
    Ok(tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(writer).finish())
}

fn json<W>(filter: &str, writer: W) -> Result<impl Subscriber + Send + Sync + 'static, InvalidFilter>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = parse(filter)?;
    Ok(tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_env_filter(filter)
        .with_writer(writer)
        .finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(subscriber: impl Subscriber + Send + Sync + 'static, memory: &Memory) -> String {
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("request", request_id = "r1").entered();
            tracing::warn!(count = 3, "two\nlines");
            tracing::debug!("not wanted");
        });
        String::from_utf8(memory.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_is_one_object_a_line_with_the_request_id() {
        let memory = Memory::default();
        let writer = memory.clone();
        let text = logged(json("info", move || writer.clone()).unwrap(), &memory);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&line["level"], &line["message"], &line["count"]),
            (&"WARN".into(), &"two\nlines".into(), &3.into())
        );
        assert_eq!(line["spans"][0]["request_id"], "r1");
    }

    #[test]
    fn pretty_is_for_people() {
        let memory = Memory::default();
        let writer = memory.clone();
        let text = logged(pretty("info", false, move || writer.clone()).unwrap(), &memory);
        assert!(text.contains("WARN") && text.contains("request_id=\"r1\"") && !text.contains("not wanted"), "{text}");
    }

    #[test]
    fn a_wrong_filter_names_the_setting() {
        let error = init("ade=loud", LogFormat::Json).unwrap_err().to_string();
        assert!(error.contains("ADE_LOG"), "{error}");
    }
}
