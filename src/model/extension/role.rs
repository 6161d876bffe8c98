//! Decides from its labels whether a container is an extension. Labels are OCI annotations; if an engine does not
//! copy them into `config.json`, they are read from its container store (`model/extension/label_sources.rs`).

use crate::model::extension::label_sources::{Lookup, StoredLabels};
use crate::model::extension::labels::{CLASS, OVERLAY, PREFIX, SANDBOX};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The role of a container for this runtime.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A hostapp extension with its labels.
    Extension {
        labels: BTreeMap<String, String>,
        image: Option<String>,
        /// The data root of the engine of Moby's whose store has the labels.
        data_root: Option<PathBuf>,
    },
    /// The pause container of a Kubernetes pod: a plain proxy without labels and hooks.
    Sandbox,
}

/// Why a container is not an extension.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAnExtension {
    #[error("missing required label {CLASS}: {}, and {store}", without_it(*annotations))]
    ClassMissing { annotations: usize, store: Lookup },
    #[error("unsupported {CLASS}={class:?}, must be {OVERLAY:?}")]
    ClassUnsupported { class: String },
}

/// Says that a number of annotations in `config.json` do not include the class.
fn without_it(annotations: usize) -> String {
    match annotations {
        0 => "config.json has no annotations".to_owned(),
        1 => "the only annotation in config.json is another one".to_owned(),
        count => format!("it is not among the {count} annotations in config.json"),
    }
}

/// The role according to the annotations; `None` if that takes the store (see [`of_store`]). The first of the
/// two that has the class counts, and the other is ignored.
pub(crate) fn of_annotations(
    annotations: &BTreeMap<String, String>,
) -> Option<Result<Role, NotAnExtension>> {
    if is_sandbox(annotations) {
        return Some(Ok(Role::Sandbox));
    }
    annotations.contains_key(CLASS).then(|| of_labels(annotations.clone(), None, None))
}

/// What the container is, if its annotations, of which it has this many, do not say so.
pub(crate) fn of_store(annotations: usize, store: Lookup) -> Result<Role, NotAnExtension> {
    match store {
        Lookup::Found { stored: StoredLabels { labels, image }, data_root, .. }
            if labels.contains_key(CLASS) =>
        {
            of_labels(labels, image, data_root)
        }
        store @ (Lookup::Found { .. } | Lookup::Absent { .. } | Lookup::Unusable { .. }) => {
            Err(NotAnExtension::ClassMissing { annotations, store })
        }
    }
}

fn of_labels(
    labels: BTreeMap<String, String>,
    image: Option<String>,
    data_root: Option<PathBuf>,
) -> Result<Role, NotAnExtension> {
    match labels.get(CLASS).map(String::as_str) {
        Some(OVERLAY) => {
            let labels = labels.into_iter().filter(|(name, _)| name.starts_with(PREFIX));
            Ok(Role::Extension { labels: labels.collect(), image, data_root })
        }
        class => {
            let class = class.unwrap_or_default().to_owned();
            Err(NotAnExtension::ClassUnsupported { class })
        }
    }
}

fn is_sandbox(annotations: &BTreeMap<String, String>) -> bool {
    SANDBOX.iter().any(|(name, text)| annotations.get(*name).is_some_and(|found| found == text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::extension::label_sources::Store;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn role(annotations: &BTreeMap<String, String>, store: Lookup) -> Result<Role, NotAnExtension> {
        of_annotations(annotations).unwrap_or_else(|| of_store(annotations.len(), store))
    }

    fn absent() -> Lookup {
        let path = "/var/lib/docker/containers/x/config.v2.json".to_owned();
        Lookup::Absent { path, store: Store::Moby }
    }

    fn found(pairs: &[(&str, &str)]) -> Lookup {
        let stored = StoredLabels { labels: map(pairs), image: Some("sha256:1".to_owned()) };
        Lookup::Found { path: "/s".to_owned(), stored, data_root: Some("/d".into()) }
    }

    #[test]
    fn annotations_win_whole_over_the_store() {
        let annotations = map(&[(CLASS, "overlay"), ("other", "x")]);
        let role = role(&annotations, found(&[(CLASS, "overlay"), ("io.balena.image.a", "1")]));
        let labels = map(&[(CLASS, "overlay")]);
        assert_eq!(role.unwrap(), Role::Extension { labels, image: None, data_root: None });
    }

    #[test]
    fn a_class_in_the_annotations_is_final_even_when_the_store_has_a_better_one() {
        let annotations = map(&[(CLASS, "volume")]);
        let error = role(&annotations, found(&[(CLASS, "overlay")])).unwrap_err().to_string();
        assert_eq!(error, r#"unsupported io.balena.image.class="volume", must be "overlay""#);
    }

    #[test]
    fn labels_come_from_the_store_when_annotations_lack_the_class() {
        let role = role(&map(&[("a", "b")]), found(&[(CLASS, "overlay"), ("maintainer", "m")]));
        let labels = map(&[(CLASS, "overlay")]);
        let (image, data_root) = (Some("sha256:1".to_owned()), Some("/d".into()));
        assert_eq!(role.unwrap(), Role::Extension { labels, image, data_root });
    }

    #[test]
    fn a_missing_class_says_where_it_was_looked_for() {
        let error = role(&map(&[]), absent()).unwrap_err().to_string();
        assert_eq!(
            error,
            "missing required label io.balena.image.class: config.json has no annotations, and the \
             container store has no record of it (looked for \
             /var/lib/docker/containers/x/config.v2.json; is --docker-root right?)"
        );
        let (path, why) = ("/s".to_owned(), "truncated".to_owned());
        let unusable = Lookup::Unusable { path, why, store: Store::Moby };
        let error = role(&map(&[("a", "b")]), unusable).unwrap_err().to_string();
        assert!(error.contains("the only annotation in config.json is another one"), "{error}");
        assert!(error.contains("(/s: truncated)"), "{error}");
        let error = role(&map(&[]), found(&[("x", "y")])).unwrap_err().to_string();
        assert!(error.contains("labels in the container store (/s)"), "{error}");
    }

    #[test]
    fn a_kubernetes_sandbox_needs_no_labels() {
        let annotations = map(&[("io.kubernetes.cri.container-type", "sandbox")]);
        assert_eq!(role(&annotations, absent()).unwrap(), Role::Sandbox);
        let annotations = map(&[("io.kubernetes.cri.container-type", "container")]);
        assert!(role(&annotations, absent()).is_err());
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum NotAnExtension {
        ClassMissing {
            annotations,
            store = Lookup::Absent {
                path: sample("path"), store: crate::model::extension::label_sources::Store::Moby
            }
        },
        ClassUnsupported { class },
    }
}
