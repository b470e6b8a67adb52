//! The Debian route: a root file system from packages, imported as an image of one layer.

use super::{BuildOptions, ImageError, ImageSpec, Route, context, labels, script};
use bollard::Docker;
use bollard::query_parameters::CreateImageOptions;
use bytes::Bytes;
use futures_util::stream::{self, Stream, TryStreamExt};
use std::io;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

/// How much of the archive is read at a time, bytes.
const CHUNK: usize = 256 * 1024;

/// Builds the file system and imports it under the wanted name.
pub async fn build(
    docker: &Docker,
    spec: &ImageSpec,
    options: &BuildOptions,
    say: &mut (dyn FnMut(&str) + Send),
) -> Result<(), ImageError> {
    let work = script::work_directory()?;
    let archive = work.path().join("rootfs.tar");
    script::run(work.path(), &[archive.as_os_str()], None, options, say)
        .await?
        .map_err(|output| script::failed(Route::Debian, output))?;

    let file = File::open(&archive).await.map_err(ImageError::host("reading the root file system"))?;
    let (repository, tag) = spec.tag.rsplit_once(':').unwrap_or((&spec.tag, "latest"));
    let mut changes = context::configuration();
    changes.extend(labels(spec, Route::Debian).into_iter().map(|(name, value)| format!("LABEL {name}={value}")));
    changes.sort();
    let import = CreateImageOptions {
        from_src: Some("-".to_owned()),
        repo: Some(repository.to_owned()),
        tag: Some(tag.to_owned()),
        message: Some("Built by ade from Debian packages".to_owned()),
        changes,
        ..CreateImageOptions::default()
    };
    let done = docker
        .create_image(Some(import), Some(bollard::body_try_stream(chunks(file))), None)
        .try_collect::<Vec<_>>()
        .await;
    done.map(drop).map_err(|error| match error {
        bollard::errors::Error::DockerStreamError { error } => ImageError::Failed {
            route: Route::Debian,
            what: "Docker refused the import".to_owned(),
            output: error,
            hint: "is its disk full? `docker system df` tells",
        },
        error => ImageError::Engine(error),
    })
}

/// A file as a stream of chunks: 50 MB need not be in memory.
fn chunks(file: File) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::try_unfold(file, |mut file| async move {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = (&mut file).take(CHUNK as u64).read_to_end(&mut chunk).await?;
        Ok((read > 0).then(|| (Bytes::from(chunk), file)))
    })
}
