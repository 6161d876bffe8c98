//! What `--version` says. Engines read it: Docker takes the last word of the line with `version`, and
//! the line that starts with `commit:`.

use crate::model::container::spec::OCI_VERSION;

/// The version that the build was given, or the package's.
pub(crate) const VERSION: &str = match option_env!("BALENA_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// The commit that the build was given.
pub(crate) const COMMIT: &str = match option_env!("BALENA_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// The whole answer for the program `name`.
pub(crate) fn text(name: &str) -> String {
    format!("{name} version {VERSION}\ncommit: {COMMIT}\nspec: {OCI_VERSION}\n")
}
