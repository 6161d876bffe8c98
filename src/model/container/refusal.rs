//! Refusals: an extension that is not applied although nothing has failed. `start` succeeds, the proxy ends
//! with status 1, and the engine shows `Exited (1)`. Only a restart policy such as `on-failure` retries that.

use crate::model::extension::labels::ABI;

/// Why an extension is not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The label names the kernel, and the image has it. An image with the label alone needs that kernel
    /// and does not bring it.
    #[error(
        "the image brings its own kernel (the file {file:?} in /boot, and the label {ABI}), which this version of \
         balena-extension-runtime cannot install: hooks/start was not run; an image that only needs that kernel \
         must not have files in /boot"
    )]
    BringsKernel { file: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_file_and_the_label_on_one_line() {
        let text = |file: &str| Refusal::BringsKernel { file: file.to_owned() }.to_string();
        assert!(text("vmlinuz").contains(
            r#"the file "vmlinuz" in /boot, and the label io.balena.image.kernel-abi-id"#
        ));
        let odd = text("a\n\u{1b}");
        assert!(odd.contains(r#""a\n\u{1b}""#) && !odd.contains(['\n', '\u{1b}']), "{odd}");
    }
}

#[cfg(test)]
crate::golden_tests::errors! {
    enum Refusal {
        BringsKernel { file },
    }
}
