//! The engine's last word on `artifact.json`.
//!
//! The runner writes the artifact after every pass, inside the container and next to tenant code. The engine takes what it
//! wrote as data: it must be one JSON object with the known keys, and the blocks that only the engine can vouch for
//! (`job`, `runtime`, `network`, `dependencies`) are replaced by its own.

use crate::sandbox::{Failure, FailureKind};
use indexmap::IndexMap;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;

/// Largest artifact that is taken from a container, bytes.
pub const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// Deepest nesting that is taken; what the runner writes has about ten levels.
const MAX_DEPTH: usize = 64;

/// Keys that an artifact must have, in the order they are written (contract, section 4), with the value that stands in when
/// the runner never came to write one.
fn skeleton() -> [(&'static str, Value); 16] {
    [
        ("schema", json!("ade.artifact/v1")),
        ("artifact_version", json!("1.2")),
        ("job", Value::Null),
        ("config", Value::Null),
        ("engine", Value::Null),
        ("inputs", json!([])),
        ("rules", json!({"row_types": {}, "column_detect": {}, "transform": {}, "validate": {}})),
        ("sheets", json!([])),
        ("output", Value::Null),
        ("summary", Value::Null),
        ("pass_history", json!([])),
        ("annotations", json!([])),
        ("diagnostics", json!([])),
        ("runtime", Value::Null),
        ("network", Value::Null),
        ("dependencies", Value::Null),
    ]
}

/// Writes the final artifact to `path`: what the runner left there, where it did and it is usable, under the engine's own blocks.
///
/// `own` holds the engine's blocks; `fallback` those for an artifact that the runner never wrote (`config`, `engine`, `inputs`).
///
/// # Errors
/// `output_invalid` when a job that succeeded has no usable artifact, and then nothing is written; `host_io` when it cannot be.
pub fn finalize(
    path: &Path,
    is_there: bool,
    own: &[(&str, Value)],
    fallback: &[(&str, Value)],
    must_be_usable: bool,
) -> Result<(), Failure> {
    let written = match is_there.then(|| read(path)) {
        Some(Ok(artifact)) => artifact,
        Some(Err(reason)) if must_be_usable => {
            return Err(Failure::new(
                FailureKind::OutputInvalid,
                format!("artifact.json {reason}: scripts must leave the files in /job/out to the runner"),
            ));
        }
        _ => IndexMap::new(),
    };
    let mut lines = Vec::with_capacity(16);
    for (key, stand_in) in skeleton() {
        let value = if let Some((_, value)) = own.iter().find(|(name, _)| *name == key) {
            value.to_string()
        } else if let Some(raw) = written.get(key) {
            raw.get().to_owned()
        } else if let Some((_, value)) = fallback.iter().find(|(name, _)| *name == key) {
            value.to_string()
        } else {
            stand_in.to_string()
        };
        lines.push(format!("{}:{value}", Value::from(key)));
    }
    std::fs::write(path, format!("{{{}}}\n", lines.join(",\n")))
        .map_err(|error| Failure::new(FailureKind::HostIo, format!("cannot write {}: {error}", path.display())))
}

fn read(path: &Path) -> Result<IndexMap<String, Box<RawValue>>, String> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| format!("cannot be read ({error})"))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("is over {MAX_BYTES} bytes"));
    }
    if depth(text.as_bytes()) > MAX_DEPTH {
        return Err(format!("is nested deeper than {MAX_DEPTH} levels"));
    }
    let artifact: IndexMap<String, Box<RawValue>> =
        serde_json::from_str(&text).map_err(|error| format!("is not a JSON object ({error})"))?;
    for (key, stand_in) in skeleton() {
        let Some(raw) = artifact.get(key) else {
            return Err(format!("lacks {key:?}"));
        };
        let first = raw.get().as_bytes().first();
        let fits = match stand_in {
            Value::Array(_) => first == Some(&b'['),
            Value::Object(_) => first == Some(&b'{'),
            Value::String(ref text) => serde_json::from_str::<&str>(raw.get()).is_ok_and(|written| written == text),
            _ => true,
        };
        if !fits {
            return Err(format!("has a wrong {key:?}"));
        }
    }
    Ok(artifact)
}

/// Deepest nesting outside of strings. Raw values are copied unparsed, so that readers further on could be made to overflow.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finalized(written: Option<&str>, must: bool) -> Result<Value, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("artifact.json");
        // What is there and was not received whole is not looked at.
        std::fs::write(&path, written.unwrap_or("{\"sche")).unwrap();
        let (own, fallback) = ([("job", json!({"status": "failed"}))], [("inputs", json!([1]))]);
        let done = finalize(&path, written.is_some(), &own, &fallback, must);
        let now = std::fs::read_to_string(&path).unwrap();
        assert!(done.is_ok() || written == Some(now.as_str()), "it is as it was");
        done.map(|()| serde_json::from_str(&now).unwrap())
    }

    fn whole() -> String {
        let map: serde_json::Map<String, Value> =
            skeleton().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Value::Object(map).to_string()
    }

    #[test]
    fn a_job_that_never_ran_still_gets_an_artifact() {
        let artifact = finalized(None, false).unwrap();
        assert_eq!(artifact["job"]["status"], "failed");
        assert_eq!(artifact["inputs"], json!([1]));
        assert_eq!(artifact["schema"], "ade.artifact/v1");
    }

    #[test]
    fn a14_the_engines_blocks_win_over_the_containers() {
        let forged = whole().replace("\"job\":null", "\"job\":{\"status\":\"succeeded\"}");
        assert_eq!(finalized(Some(&forged), true).unwrap()["job"]["status"], "failed");
    }

    #[test]
    fn unknown_keys_do_not_pass() {
        let extra = whole().replacen('{', "{\"secret\":1,", 1);
        assert!(finalized(Some(&extra), true).unwrap().get("secret").is_none());
    }

    #[test]
    fn junk_is_refused_for_success_and_replaced_for_failure() {
        let deep =
            whole().replace("\"output\":null", &format!("\"output\":{}{}", "[".repeat(100_000), "]".repeat(100_000)));
        for junk in ["", "[]", "{", "null", "{\"schema\":1}", &deep, &whole().replace("\"sheets\":[]", "\"sheets\":{}")]
        {
            assert_eq!(finalized(Some(junk), true).unwrap_err().kind, FailureKind::OutputInvalid);
            assert_eq!(finalized(Some(junk), false).unwrap()["sheets"], json!([]));
        }
    }
}
