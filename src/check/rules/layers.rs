//! Rules about the layers: images that engines refuse to load.

use crate::check::rules::layer::{LayerFacts, LayerRefusal};
use crate::check::rules::report::Findings;
use crate::check::rules::rule::Rule;

/// Applies the rules.
pub(crate) fn check(layers: &LayerFacts, findings: &mut Findings) {
    for LayerRefusal { layer, path, why } in &layers.refusals {
        let message = match layer {
            Some(layer) => format!("in the layer {layer}: {why}"),
            None => why.clone(),
        };
        let fix = "build the image again: engines refuse to load or pull this one";
        match path {
            Some(path) => findings.add_at(Rule::Layer, path, message, fix),
            None => findings.add(Rule::Layer, message, fix),
        }
    }
    for layer in &layers.zstd {
        let message = format!("the layer {layer} is compressed with zstd");
        let fix =
            "compress it with gzip: balenaEngine, and Docker before version 23, cannot unpack it";
        findings.add(Rule::LayerZstd, message, fix);
    }
    for path in &layers.leading_out {
        let message =
            "this path in a layer leads out of the rootfs; engines put the file below the root";
        findings.add_at(Rule::PathOut, path, message, "write the path without ..");
    }
    if layers.may_be_cut_off {
        let message = "the archive has no end mark: files at its end may be missing";
        findings.add(Rule::CutOff, message, "export it again if it was copied or downloaded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::rules::tests::rules;

    #[test]
    fn every_fact_about_the_layers_is_reported() {
        let mut layers = LayerFacts {
            leading_out: vec!["../x".to_owned()],
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
