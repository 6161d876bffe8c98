//! Refusals: an extension that is not applied although nothing has failed. `start` succeeds, the proxy ends
//! with status 1, and the engine shows `Exited (1)`. Only a restart policy such as `on-failure` retries that.

use crate::model::extension::labels::ABI;

/// Why an extension is not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The manager has found why the kernel cannot be used, on this machine or on any.
    #[error("the kernel of the image cannot be used: {reason}")]
    Kernel { reason: String },
    /// No kernel has such an ABI. An image with the label alone, and no file in `/boot`, claims something that no
    /// machine has, and is applied.
    #[error(
        "the image brings its own kernel (the file {file:?} in /boot), but its label {ABI} is {label:?} and not the \
         SHA-256 of that kernel, 64 lowercase hex digits: hooks/start was not run"
    )]
    MalformedAbi { file: String, label: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_file_and_the_label_on_one_line() {
        let (file, label) = ("a\n\u{1b}".to_owned(), "sha256:00".to_owned());
        let text = Refusal::MalformedAbi { file, label }.to_string();
        assert!(text.contains(r#""a\n\u{1b}""#) && !text.contains(['\n', '\u{1b}']), "{text}");
        assert!(text.contains(r#"io.balena.image.kernel-abi-id is "sha256:00""#), "{text}");
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Refusal {
        Kernel { reason }, MalformedAbi { file, label },
    }
}
