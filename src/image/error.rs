//! What can go wrong with the image.

use super::Route;

/// Why there is no image to run jobs in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Docker does not answer, or not as it should.
    #[error("Docker Engine: {0}; is it running, and may you use it? `ade doctor` looks closer")]
    Engine(#[source] bollard::errors::Error),

    /// An image that the administrator named is not there.
    #[error(
        "the image {reference} is not on this Docker Engine; `docker pull {reference}` it, or unset ADE_IMAGE to have one built"
    )]
    Missing {
        /// The name looked for.
        reference: String,
    },

    /// There is an image of that name, but it is not one of ours.
    #[error(
        "{reference} is not a usable runner image: {why}; rebuild it with `ade image build`, or name another with ADE_IMAGE"
    )]
    Invalid {
        /// Its name.
        reference: String,
        /// What is wrong with it.
        why: String,
    },

    /// A build did not succeed.
    #[error("building the image ({route} route): {what}{}{hint}", indented(output))]
    Failed {
        /// The route taken.
        route: Route,
        /// The step that failed.
        what: String,
        /// The last lines of its output.
        output: String,
        /// The way out.
        hint: &'static str,
    },

    /// The host does not let us work: no temporary directory, no program to run.
    #[error("building the image: {what}: {source}")]
    Host {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },

    /// Interrupted by the user.
    #[error("building the image was interrupted; nothing was left behind")]
    Cancelled,
}

impl ImageError {
    /// The stable machine code.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Engine(_) => "engine_unavailable",
            Self::Missing { .. } => "image_missing",
            Self::Invalid { .. } => "image_invalid",
            Self::Failed { .. } | Self::Host { .. } => "image_build_failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub(super) fn host(what: &str) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.to_owned();
        move |source| Self::Host { what, source }
    }
}

/// What stands between what failed and the way out: the output on lines of its own, when there is any.
fn indented(output: &str) -> String {
    if output.is_empty() {
        return "; ".to_owned();
    }
    let lines: String = output.lines().map(|line| format!("\n  | {line}")).collect();
    format!(":{lines}\n  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_build_shows_its_last_lines_between_what_failed_and_the_way_out() {
        let error = |output: &str| ImageError::Failed {
            route: Route::Debian,
            what: "it broke".to_owned(),
            output: output.to_owned(),
            hint: "mend it",
        };
        assert_eq!(error("").to_string(), "building the image (debian route): it broke; mend it");
        assert_eq!(
            error("one\ntwo").to_string(),
            "building the image (debian route): it broke:\n  | one\n  | two\n  mend it"
        );
    }
}
