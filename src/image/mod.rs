//! The runner image: found on the Docker Engine, or built without the user having to know how.
//!
//! The build context (`images/runner`) is embedded in the program, so an installed binary needs no checkout. Its digest names
//! the image: a program finds exactly the image it was made for, and two versions of the program never share one. Two routes
//! lead to the same file system: a registry's slim Python, or Debian packages. See `docs/operations/base-image.md`.

mod context;
mod debian;
mod error;
mod lock;
mod registry;
mod script;

pub use error::ImageError;

use bollard::Docker;
use bollard::errors::Error as DockerError;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

/// Label: the digest of the build context that an image was built from.
pub const LABEL_CONTEXT: &str = "dev.ade.image.context";
/// Label: the version of the runner in an image.
pub const LABEL_RUNNER: &str = "dev.ade.runner.version";
/// Label: where an image's Python comes from, `registry` or `debian`.
pub const LABEL_ROUTE: &str = "dev.ade.image.route";

/// How long a whole build may take. Slow mirrors are common; hanging for ever helps nobody.
const BUILD_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Where the image's Python comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Route {
    /// The registry when it answers, else Debian packages
    #[default]
    Auto,
    /// The official slim Python image, or `ADE_BASE_IMAGE`
    Registry,
    /// Debian packages, for sites without a registry
    Debian,
}

impl std::fmt::Display for Route {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Auto => "auto",
            Self::Registry => "registry",
            Self::Debian => "debian",
        })
    }
}

/// How to build. What is `None` is left to the tools' own configuration, which works where the internet does.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// Where the Python comes from.
    pub route: Route,
    /// Registry image to build from instead of the pinned official one. Must be Debian with Python 3.11, pip and a shell.
    pub base_image: Option<String>,
    /// Debian mirror.
    pub debian_mirror: Option<String>,
    /// Debian security mirror, or `none`.
    pub debian_security_mirror: Option<String>,
    /// Python package index for the pinned wheels.
    pub index_url: Option<String>,
    /// Directory that is asked for the wheels before the index.
    pub wheelhouse: Option<PathBuf>,
    /// PEM file of authorities that downloads trust.
    pub ca_bundle: Option<PathBuf>,
}

/// Which image a program wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSpec {
    /// Its local name, `ade-runner:<first 12 digits of the context's digest>`.
    pub tag: String,
    /// SHA-256 over names and contents of the build context, hexadecimal.
    pub context_sha256: String,
}

impl ImageSpec {
    /// The image that this program was made for.
    #[must_use]
    pub fn embedded() -> Self {
        let context_sha256 = context::sha256();
        Self { tag: format!("ade-runner:{}", &context_sha256[..12]), context_sha256 }
    }
}

/// An image on the Docker Engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    /// The name it was looked up by.
    pub tag: String,
    /// Its content digest, `sha256:…`; goes into artifacts.
    pub id: String,
    /// Its size, bytes.
    pub size: i64,
    /// When it was made, RFC 3339.
    pub created: Option<String>,
    /// `registry` or `debian`.
    pub route: Option<String>,
    /// All its labels.
    pub labels: HashMap<String, String>,
}

/// Looks for `reference`, or without one for the image this program was made for.
///
/// # Errors
/// `engine_unavailable`; `image_invalid` when the image of that name was not built by `ade`, or, for the embedded one, not from
/// the same context.
pub async fn find(docker: &Docker, reference: Option<&str>) -> Result<Option<ImageInfo>, ImageError> {
    let Some(reference) = reference else {
        return find_spec(docker, &ImageSpec::embedded()).await;
    };
    let Some(info) = inspect(docker, reference).await? else {
        return Ok(None);
    };
    if !info.labels.contains_key(LABEL_RUNNER) {
        return Err(ImageError::Invalid {
            reference: reference.to_owned(),
            why: format!("it has no label {LABEL_RUNNER}"),
        });
    }
    Ok(Some(info))
}

async fn find_spec(docker: &Docker, spec: &ImageSpec) -> Result<Option<ImageInfo>, ImageError> {
    let Some(info) = inspect(docker, &spec.tag).await? else {
        return Ok(None);
    };
    if info.labels.get(LABEL_CONTEXT) != Some(&spec.context_sha256) {
        return Err(ImageError::Invalid {
            reference: spec.tag.clone(),
            why: "it was built from something else".to_owned(),
        });
    }
    Ok(Some(info))
}

/// Finds the image, or builds it when it is the embedded one and missing. Of several processes that do so at once one builds
/// and the others wait for it.
///
/// # Errors
/// `image_missing` when a `reference` was given and is not on the engine, and what [`find`] and [`build`] say.
pub async fn ensure(
    docker: &Docker,
    reference: Option<&str>,
    options: &BuildOptions,
    say: &mut (dyn FnMut(&str) + Send),
) -> Result<ImageInfo, ImageError> {
    if let Some(info) = find(docker, reference).await? {
        return Ok(info);
    }
    match reference {
        Some(reference) => Err(ImageError::Missing { reference: reference.to_owned() }),
        None => build_unless(docker, &ImageSpec::embedded(), options, say, true).await,
    }
}

/// Builds the image, also when it is there: a rebuild picks up what the registry or Debian have updated since.
///
/// `say` gets a line for people now and then: what is being done, and why.
///
/// # Errors
/// `engine_unavailable`, `image_build_failed` with the last lines of output and the way out, `cancelled` on Ctrl-C.
pub async fn build(
    docker: &Docker,
    spec: &ImageSpec,
    options: &BuildOptions,
    say: &mut (dyn FnMut(&str) + Send),
) -> Result<ImageInfo, ImageError> {
    build_unless(docker, spec, options, say, false).await
}

/// Builds under the lock; with `found_suffices`, takes what another process has built in the meantime.
async fn build_unless(
    docker: &Docker,
    spec: &ImageSpec,
    options: &BuildOptions,
    say: &mut (dyn FnMut(&str) + Send),
    found_suffices: bool,
) -> Result<ImageInfo, ImageError> {
    let _lock = lock::acquire(&spec.context_sha256, say).await;
    if found_suffices && let Some(info) = find_spec(docker, spec).await? {
        return Ok(info);
    }
    tokio::time::timeout(BUILD_TIMEOUT, build_by_route(docker, spec, options, say)).await.map_err(|_| {
        ImageError::Failed {
            route: options.route,
            what: format!("not done after {} minutes", BUILD_TIMEOUT.as_secs() / 60),
            output: String::new(),
            hint: "use a nearer mirror or index (ADE_DEBIAN_MIRROR, ADE_INDEX_URL, ADE_BASE_IMAGE)",
        }
    })??;
    find_spec(docker, spec).await?.ok_or_else(|| ImageError::Missing { reference: spec.tag.clone() })
}

async fn build_by_route(
    docker: &Docker,
    spec: &ImageSpec,
    options: &BuildOptions,
    say: &mut (dyn FnMut(&str) + Send),
) -> Result<(), ImageError> {
    let base = options.base_image.clone().unwrap_or_else(context::base_image);
    match options.route {
        Route::Debian => {
            say("image: building it from Debian packages, as asked; this takes about 15 seconds");
            debian::build(docker, spec, options, say).await
        }
        Route::Registry => {
            say(&format!("image: building it from {base}, as asked"));
            registry::pull(docker, &base).await.map_err(|why| ImageError::Failed {
                route: Route::Registry,
                what: format!("cannot pull {base}"),
                output: why,
                hint: "name an image that the Docker Engine can pull with ADE_BASE_IMAGE, or build with --route debian",
            })?;
            registry::build(docker, spec, options, &base, say).await
        }
        Route::Auto => match registry::pull(docker, &base).await {
            Ok(()) => {
                say(&format!("image: building it once, from {base}"));
                registry::build(docker, spec, options, &base, say).await
            }
            Err(why) => {
                say(&format!(
                    "image: building it once, from Debian packages, about 15 seconds, because no registry answers ({why})"
                ));
                debian::build(docker, spec, options, say).await
            }
        },
    }
}

/// What Docker says of an image; `None` when it has none of that name.
async fn inspect(docker: &Docker, reference: &str) -> Result<Option<ImageInfo>, ImageError> {
    let found = match docker.inspect_image(reference).await {
        Ok(found) => found,
        Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => return Ok(None),
        Err(DockerError::DockerResponseServerError { status_code: 400, message }) => {
            return Err(ImageError::Invalid { reference: reference.to_owned(), why: message });
        }
        Err(error) => return Err(ImageError::Engine(error)),
    };
    let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
    Ok(Some(ImageInfo {
        tag: reference.to_owned(),
        id: found.id.unwrap_or_default(),
        size: found.size.unwrap_or_default(),
        created: found.created,
        route: labels.get(LABEL_ROUTE).cloned(),
        labels,
    }))
}

/// The labels that every image of ours carries.
fn labels(spec: &ImageSpec, route: Route) -> HashMap<String, String> {
    HashMap::from([
        (LABEL_CONTEXT.to_owned(), spec.context_sha256.clone()),
        (LABEL_RUNNER.to_owned(), context::runner_version()),
        (LABEL_ROUTE.to_owned(), route.to_string()),
    ])
}
