//! Removing what a crash left: containers of ours, found by their labels and by nothing else.
//!
//! A container is removed when it is of the given instance and either `orphaned` says that nobody has it any more, or the
//! deadline in its label has passed. Those of other instances on the same engine are not looked at.

use super::{label, remove};
use bollard::Docker;
use bollard::models::ContainerSummary;
use bollard::query_parameters::ListContainersOptionsBuilder;
use std::collections::HashMap;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Removes leftovers of an instance; how many. What cannot be listed or removed now is found by a later call.
pub async fn reap(docker: &Docker, instance: &str, orphaned: impl Fn(&Container<'_>) -> bool) -> usize {
    let containers = list(docker, instance).await.unwrap_or_default();
    let now = OffsetDateTime::now_utc();
    let mut removed = 0;
    for container in containers {
        let labels = container.labels.unwrap_or_default();
        let Some(id) = container.id else { continue };
        let names = container.names.unwrap_or_default();
        let name = names.first().map_or("", |name| name.trim_start_matches('/'));
        let deadline = labels.get(label::DEADLINE).and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
        let passed = deadline.is_none_or(|deadline| deadline < now);
        let node = labels.get(label::NODE).map(String::as_str);
        if (passed || orphaned(&Container { name, node })) && remove(docker, &id).await.is_ok() {
            removed += 1;
        }
    }
    removed
}

/// Names of the containers of an instance, running or not, in order; none when Docker does not say.
pub async fn names(docker: &Docker, instance: &str) -> Option<Vec<String>> {
    let listed = list(docker, instance).await?.into_iter().filter_map(|container| container.names?.into_iter().next());
    let mut names: Vec<String> = listed.map(|name| name.trim_start_matches('/').to_owned()).collect();
    names.sort_unstable();
    Some(names)
}

async fn list(docker: &Docker, instance: &str) -> Option<Vec<ContainerSummary>> {
    let filters = HashMap::from([("label".to_owned(), vec![format!("{}={instance}", label::INSTANCE)])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    docker.list_containers(Some(options)).await.ok()
}

/// What the reaper knows of a container.
#[derive(Debug)]
pub struct Container<'a> {
    /// Its name.
    pub name: &'a str,
    /// The node that made it.
    pub node: Option<&'a str>,
}
