//! Rules about the layers: what engines refuse to load.

use crate::check::rules::layer::{LayerFacts, Refusal};
use crate::check::rules::report::Findings;
use crate::check::rules::rule::Rule;

/// Applies the rules.
pub(crate) fn check(layers: &LayerFacts, findings: &mut Findings) {
    for Refusal { layer, path, why } in &layers.refusals {
        let message = match layer {
            Some(layer) => format!("the layer {layer}: {why}"),
            None => why.clone(),
        };
        let mend = "build the image again: docker load and docker pull refuse this one";
        match path {
            Some(path) => findings.add_at(Rule::Layer, path, message, mend),
            None => findings.add(Rule::Layer, message, mend),
        }
    }
    for layer in &layers.zstd {
        let message = format!("the layer {layer} is compressed with zstd");
        let mend =
            "compress it with gzip: balenaEngine, and Docker before version 23, cannot unpack it";
        findings.add(Rule::LayerZstd, message, mend);
    }
    for path in &layers.climbing {
        let message =
            "this path in a layer leads out of the rootfs; engines put the file below its root";
        findings.add_at(Rule::PathOut, path, message, "write the path without ..");
    }
    if layers.may_be_cut_off {
        let message = "the archive has no end mark, so files at its end may be missing";
        findings.add(
            Rule::CutOff,
            message,
            "make the archive again if it was copied or downloaded",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::rules::tests::rules;

    #[test]
    fn what_is_known_of_the_layers_is_told() {
        let mut layers = LayerFacts {
            climbing: vec!["../x".to_owned()],
            zstd: vec!["a.tar".to_owned()],
            may_be_cut_off: true,
            ..LayerFacts::default()
        };
        layers.refuse(Some("a.tar"), Some("usr/x".to_owned()), "twice".to_owned());
        layers.refuse(None, None, "no rootfs".to_owned());
        let mut findings = Findings::default();
        check(&layers, &mut findings);
        assert_eq!(rules(findings), ["layer", "layer", "layer-zstd", "path-out", "cut-off"]);
    }
}
