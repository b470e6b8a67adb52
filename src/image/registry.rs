//! The registry route: the embedded Dockerfile, built by the Docker Engine.

use super::script::Tail;
use super::{BuildOptions, ImageError, ImageSpec, Route, context, labels, script};
use bollard::Docker;
use bollard::query_parameters::{BuildImageOptions, CreateImageOptions, PruneImagesOptionsBuilder};
use bytes::Bytes;
use futures_util::StreamExt;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::Duration;

/// How long a registry may be silent, before and during a pull.
const SILENCE: Duration = Duration::from_secs(20);

/// Label of the build stage's intermediate images, by which they are removed.
const LABEL_STAGE: &str = "dev.ade.image.stage";

/// Makes sure that the engine has the base image, pulling it if need be. The error is one line that says why not.
pub async fn pull(docker: &Docker, base: &str) -> Result<(), String> {
    if docker.inspect_image(base).await.is_ok() {
        return Ok(());
    }
    let from_image = Some(with_tag(base));
    let mut progress =
        docker.create_image(Some(CreateImageOptions { from_image, ..CreateImageOptions::default() }), None, None);
    loop {
        match tokio::time::timeout(SILENCE, progress.next()).await {
            Ok(None) => return Ok(()),
            Ok(Some(Ok(info))) => {
                if let Some(error) = info.error_detail {
                    return Err(one_line(&error.message.unwrap_or_default()));
                }
            }
            Ok(Some(Err(error))) => return Err(one_line(&error.to_string())),
            Err(_) => return Err(format!("nothing heard for {} s", SILENCE.as_secs())),
        }
    }
}

/// Docker pulls *all* tags of a reference that has neither tag nor digest.
fn with_tag(reference: &str) -> String {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    if name.contains([':', '@']) { reference.to_owned() } else { format!("{reference}:latest") }
}

fn one_line(text: &str) -> String {
    let mut tail = Tail::default();
    text.lines().last().into_iter().for_each(|line| tail.push(line));
    tail.text()
}

/// Builds the Dockerfile from a base that [`pull`] has made present.
pub async fn build(
    docker: &Docker,
    spec: &ImageSpec,
    options: &BuildOptions,
    base: &str,
    say: &mut (dyn FnMut(&str) + Send),
) -> Result<(), ImageError> {
    let work = script::work_directory()?;
    // The build's own network may lack what the host has (a proxy, an authority, any route at all), so the host fetches when it
    // can. When it cannot, the build tries by itself.
    let wheels = work.path().join("wheels");
    let architecture = docker.version().await.map_err(ImageError::Engine)?.arch;
    let arguments = [OsStr::new("--wheels"), wheels.as_os_str()];
    if script::run(work.path(), &arguments, architecture.as_deref(), options, &mut |_| {}).await?.is_err() {
        say("image: this host cannot fetch the pinned wheels (is pip installed?); leaving that to the build");
        std::fs::remove_dir_all(&wheels).ok();
    }
    let archive =
        archive(&wheels, options.ca_bundle.as_deref()).map_err(ImageError::host("packing the build context"))?;

    let mut arguments = HashMap::from([("BASE_IMAGE".to_owned(), base.to_owned())]);
    arguments.extend(options.index_url.clone().map(|url| ("INDEX_URL".to_owned(), url)));
    let request = BuildImageOptions {
        t: Some(spec.tag.clone()),
        rm: true,
        forcerm: true,
        buildargs: Some(arguments),
        labels: Some(labels(spec, Route::Registry)),
        ..BuildImageOptions::default()
    };
    let result = tokio::select! {
        result = follow(docker, request, archive) => result,
        // Dropping the request makes the engine stop the build.
        _ = tokio::signal::ctrl_c() => Err(ImageError::Cancelled),
    };
    remove_stages(docker).await;
    result
}

async fn follow(docker: &Docker, request: BuildImageOptions, archive: Bytes) -> Result<(), ImageError> {
    let failed = |tail: &Tail| ImageError::Failed {
        route: Route::Registry,
        what: "docker build failed".to_owned(),
        output: tail.text(),
        hint: "the base image must be Debian with Python 3.11, pip and a shell (ADE_BASE_IMAGE); or build with --route debian",
    };
    let mut tail = Tail::default();
    let mut progress = docker.build_image(request, None, Some(bollard::body_full(archive)));
    while let Some(step) = progress.next().await {
        match step {
            Ok(info) => {
                info.stream
                    .iter()
                    .flat_map(|text| text.lines())
                    .filter(|line| !line.starts_with(" --->") && !line.starts_with("Removing intermediate"))
                    .for_each(|line| tail.push(line));
                if let Some(error) = info.error_detail {
                    tail.push(&error.message.unwrap_or_default());
                    return Err(failed(&tail));
                }
            }
            Err(bollard::errors::Error::DockerStreamError { error }) => {
                tail.push(&error);
                return Err(failed(&tail));
            }
            Err(bollard::errors::Error::DockerResponseServerError { message, .. }) => {
                tail.push(&message);
                return Err(failed(&tail));
            }
            Err(error) => return Err(ImageError::Engine(error)),
        }
    }
    Ok(())
}

/// Removes what the build stage leaves on the engine: some hundred megabytes that nothing refers to. Failing to is no error.
async fn remove_stages(docker: &Docker) {
    let filters = HashMap::from([
        ("dangling".to_owned(), vec!["true".to_owned()]),
        ("label".to_owned(), vec![LABEL_STAGE.to_owned()]),
    ]);
    docker.prune_images(Some(PruneImagesOptionsBuilder::default().filters(&filters).build())).await.ok();
}

/// The context as a tar archive, with the wheels and the authorities when there are any. Small: two or three megabytes.
fn archive(wheels: &Path, ca_bundle: Option<&Path>) -> io::Result<Bytes> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        archive.append_data(&mut header, path, content)
    };
    for (path, content) in context::files() {
        add(&path, content)?;
    }
    if wheels.is_dir() {
        for entry in std::fs::read_dir(wheels)? {
            let entry = entry?;
            add(&format!("wheels/{}", entry.file_name().to_string_lossy()), &std::fs::read(entry.path())?)?;
        }
    }
    if let Some(bundle) = ca_bundle {
        add("ca-bundle.pem", &std::fs::read(bundle)?)?;
    }
    Ok(archive.into_inner()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_pulled_as_one_tag_only() {
        assert_eq!(with_tag("mirror:5000/python"), "mirror:5000/python:latest");
        assert_eq!(with_tag("mirror:5000/python:3.11"), "mirror:5000/python:3.11");
        assert_eq!(with_tag("python@sha256:00"), "python@sha256:00");
    }
}
