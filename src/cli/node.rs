//! Docker and the image, ready for jobs, as a command needs them.

use super::progress::Screen;
use crate::image::{self, BuildOptions, ImageInfo, Route};
use crate::job::Node;
use crate::sandbox::{Failure, FailureKind, label, remove};
use crate::settings::Settings;
use bollard::Docker;
use bollard::query_parameters::ListContainersOptionsBuilder;
use std::collections::HashMap;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;

/// Label of containers that `ade run` and `ade validate` make.
const INSTANCE: &str = "cli";

/// Connects to Docker.
///
/// # Errors
/// `engine_unavailable`, with the way out.
pub async fn connect(settings: &Settings) -> Result<Docker, Failure> {
    let unavailable = |what: String| {
        Failure::new(
            FailureKind::EngineUnavailable,
            format!("{what}; is Docker running, and may you use it? `ade doctor` says how to mend it"),
        )
    };
    let docker = match &settings.docker_host {
        Some(host) => Docker::connect_with_host(host),
        None => Docker::connect_with_local_defaults(),
    }
    .map_err(|error| unavailable(format!("cannot connect to Docker: {error}")))?;
    docker.ping().await.map_err(|error| unavailable(format!("Docker does not answer: {error}")))?;
    Ok(docker)
}

/// Connects, finds or builds the image, and removes what crashed runs left.
///
/// # Errors
/// `engine_unavailable` or `image_missing`.
pub async fn ready(settings: &Settings, screen: &Screen) -> Result<Node, Failure> {
    let docker = connect(settings).await?;
    reap(&docker).await;
    let image = find_or_build(&docker, settings, screen).await?;
    Ok(Node {
        docker,
        image: image.tag,
        image_digest: image.id,
        runtime: settings.runtime.clone(),
        caps: settings.caps(),
        instance: INSTANCE.to_owned(),
        node: None,
    })
}

/// As [`ready`], and gives up as soon as `cancel` turns true.
///
/// # Errors
/// As [`ready`], or `cancelled`.
pub async fn ready_unless(
    settings: &Settings,
    screen: &Screen,
    mut cancel: watch::Receiver<bool>,
) -> Result<Node, Failure> {
    tokio::select! {
        node = ready(settings, screen) => node,
        Ok(_) = cancel.wait_for(|cancelled| *cancelled) => {
            Err(Failure::new(FailureKind::Cancelled, "interrupted before anything was started"))
        }
    }
}

async fn find_or_build(docker: &Docker, settings: &Settings, screen: &Screen) -> Result<ImageInfo, Failure> {
    let mut say = |text: &str| screen.line(text);
    image::ensure(docker, settings.image.as_deref(), &build_options(settings, Route::Auto), &mut say)
        .await
        .map_err(|error| failure(&error))
}

/// The settings that concern the building of the image.
pub fn build_options(settings: &Settings, route: Route) -> BuildOptions {
    BuildOptions {
        route,
        base_image: settings.base_image.clone(),
        debian_mirror: settings.debian_mirror.clone(),
        debian_security_mirror: settings.debian_security_mirror.clone(),
        index_url: settings.index_url.clone(),
        wheelhouse: settings.wheelhouse.clone(),
        ca_bundle: settings.ca_bundle.clone(),
    }
}

/// An image error as a failure of the environment.
pub fn failure(error: &image::ImageError) -> Failure {
    let kind =
        if error.kind() == "engine_unavailable" { FailureKind::EngineUnavailable } else { FailureKind::ImageMissing };
    Failure { detail: Some(serde_json::json!({"code": error.kind()})), ..Failure::new(kind, error.to_string()) }
}

/// Removes containers of earlier commands that were killed before they could remove them: those past the deadline in their
/// label. Containers of other instances are not looked at.
async fn reap(docker: &Docker) {
    let filters = HashMap::from([("label".to_owned(), vec![format!("{}={INSTANCE}", label::INSTANCE)])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    // What cannot be listed now will be found by a later run; it must not stop this one.
    let Ok(containers) = docker.list_containers(Some(options)).await else { return };
    let now = OffsetDateTime::now_utc();
    for container in containers {
        let deadline = container.labels.as_ref().and_then(|labels| labels.get(label::DEADLINE));
        let passed =
            deadline.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok()).is_none_or(|deadline| deadline < now);
        if let (true, Some(id)) = (passed, &container.id) {
            remove(docker, id).await.ok();
        }
    }
}
