//! Which versions a config has had, and which of them were active when.

use super::versions;
use crate::api::page::Page;
use crate::api::routes::configs::ConfigRecord;
use crate::api::routes::versions::{HistoryRecord, VersionRecord};
use crate::cli::remote::{Remote, moment, submit};
use crate::cli::{Exit, style};
use crate::client::{Blame, ClientError};
use crate::text::plain;
use serde::Serialize;
use serde_json::json;

/// A time in which a version was the active one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Span {
    since: String,
    /// None: it still is, or a version of another config took over.
    until: Option<String>,
    /// Who activated it.
    by: String,
}

async fn history(remote: &Remote, config: &ConfigRecord) -> Result<Vec<HistoryRecord>, ClientError> {
    let path = ["workspaces", remote.workspace().await?, "configs", config.config_id.as_str(), "history"];
    let page: Page<HistoryRecord> = remote.client.list(&path, &[], None).await?;
    Ok(page.items)
}

/// When a version was active, the earliest first; `history` is the newest first.
fn spans(version: &VersionRecord, history: &[HistoryRecord]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut open = false;
    for entry in history.iter().rev() {
        let own = entry.config_version_id.as_ref() == Some(&version.config_version_id);
        match entry.action.as_str() {
            "config.activate" if own => {
                // What is still open was ended by a version of another config, whose activation is not in this history.
                open = true;
                spans.push(Span { since: entry.created_at.clone(), until: None, by: entry.key_name.clone() });
            }
            "config.activate" | "config.deactivate" if open => {
                open = false;
                if let Some(last) = spans.last_mut() {
                    last.until = Some(entry.created_at.clone());
                }
            }
            _ => {}
        }
    }
    spans
}

/// Shows the versions of a config.
pub async fn show(remote: &Remote, named: &str) -> Result<Exit, ClientError> {
    let config = submit::config(remote, named).await?;
    let (versions, history) = (versions(remote, &config).await?, history(remote, &config).await?);
    if remote.output.json {
        let versions: Vec<_> = versions
            .iter()
            .map(|version| {
                let mut said = json!(version);
                said["active_times"] = json!(spans(version, &history));
                said
            })
            .collect();
        println!(
            "{}",
            json!({"config_id": config.config_id, "slug": config.slug, "versions": versions, "history": history})
        );
        return Ok(Exit::Success);
    }
    let mut rows = Vec::new();
    for version in &versions {
        let mut active = spans(version, &history).into_iter().rev().map(|span| {
            let until = match span.until {
                Some(until) => moment(&until),
                None if version.active => "now".to_owned(),
                None => "another config's".to_owned(),
            };
            format!("{} – {until} by {}", moment(&span.since), plain(&span.by, 40))
        });
        rows.push([
            plain(&version.version, 10),
            plain(&version.manifest_version, 20),
            moment(&version.created_at),
            plain(version.author.as_deref().unwrap_or_default(), 40),
            version.archived_at.as_deref().map(moment).unwrap_or_default(),
            active.next().unwrap_or_default(),
        ]);
        let blank = String::new;
        rows.extend(active.map(|span| [blank(), blank(), blank(), blank(), blank(), span]));
    }
    style::table(["VERSION", "MANIFEST", "PUBLISHED", "BY", "ARCHIVED", "ACTIVE"], &rows);
    Ok(Exit::Success)
}

/// The version of a config that was active before the one that is.
pub async fn before_the_active(remote: &Remote, config: &ConfigRecord) -> Result<VersionRecord, ClientError> {
    let slug = plain(&config.slug, 100);
    let refuse = |what: String| ClientError::new(Blame::Request, "no_earlier_version", what);
    let mut versions = versions(remote, config).await?;
    let Some(active) = versions.iter().find(|version| version.active).map(|version| version.config_version_id.clone())
    else {
        return Err(refuse(format!(
            "no version of {slug} is active; `ade config activate {slug}@VERSION` activates one"
        )));
    };
    let history = history(remote, config).await?;
    let activated = history.iter().filter(|entry| entry.action == "config.activate");
    let before = activated.filter_map(|entry| entry.config_version_id.as_ref()).find(|id| **id != active);
    let place = before.and_then(|id| versions.iter().position(|version| version.config_version_id == *id));
    let Some(place) = place else {
        return Err(refuse(format!(
            "no other version of {slug} was ever active; `ade config history {slug}` lists all"
        )));
    };
    Ok(versions.swap_remove(place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AuditId, ConfigId, KeyId, VersionId};

    fn version(id: &VersionId) -> VersionRecord {
        VersionRecord {
            config_version_id: id.clone(),
            config_id: ConfigId::generate(),
            version: "v1".to_owned(),
            manifest_version: "1.0.0".to_owned(),
            package_sha256: String::new(),
            manifest_sha256: String::new(),
            package_bytes: 0,
            active: false,
            active_since: None,
            created_by: None,
            author: None,
            created_at: String::new(),
            archived_at: None,
        }
    }

    #[test]
    fn a_version_is_active_from_its_activation_to_the_next_one_or_to_its_end() {
        let (one, two) = (VersionId::generate(), VersionId::generate());
        let told = [
            ("1", "config.create", &one),
            ("2", "config.activate", &one),
            ("3", "version.publish", &two),
            ("4", "config.activate", &two),
            ("5", "config.activate", &one),
            ("6", "config.deactivate", &one),
        ];
        let mut history: Vec<HistoryRecord> = told
            .into_iter()
            .map(|(at, action, version)| HistoryRecord {
                audit_id: AuditId::generate(),
                created_at: at.to_owned(),
                action: action.to_owned(),
                config_version_id: Some(version.clone()),
                previous_version_id: None,
                key_id: KeyId::generate(),
                key_name: "ci".to_owned(),
            })
            .collect();
        history.reverse();
        let times = |id: &VersionId| -> Vec<(String, Option<String>)> {
            spans(&version(id), &history).into_iter().map(|span| (span.since, span.until)).collect()
        };
        let span = |since: &str, until: &str| (since.to_owned(), Some(until.to_owned()));
        assert_eq!(times(&one), [span("2", "4"), span("5", "6")]);
        assert_eq!(times(&two), [span("4", "5")]);
    }
}
