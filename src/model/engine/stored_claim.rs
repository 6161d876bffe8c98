//! Parses a record of the engine's store for the kernel that its container claims. Stricter than
//! `model/engine/inspection.rs`: a claim that is overlooked costs the extension its kernel.

use crate::model::extension::labels::{ABI, CLASS, OVERLAY};
use crate::model::kernel::abi::Abi;
use crate::model::text::json_object::only_objects;
use serde::Deserialize;
use serde::de::Error as _;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(remote = "Self", rename_all = "PascalCase")]
struct ClaimingRecord {
    config: Option<ClaimingConfig>,
    state: Option<RemovalState>,
}

#[derive(Deserialize)]
#[serde(remote = "Self", rename_all = "PascalCase")]
struct ClaimingConfig {
    labels: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Deserialize)]
#[serde(remote = "Self", rename_all = "PascalCase")]
struct RemovalState {
    dead: Option<bool>,
    removal_in_progress: Option<bool>,
}

only_objects!(ClaimingRecord, ClaimingConfig, RemovalState);

/// The kernel that the container of this `config.v2.json` claims. An extension claims none while the engine is
/// removing it, nor if the label is malformed.
pub(crate) fn parse_stored_claim(bytes: &[u8]) -> serde_json::Result<Option<Abi>> {
    let ClaimingRecord { config, state } = serde_json::from_slice(bytes)?;
    let config = config.ok_or_else(|| serde_json::Error::custom("the record has no Config"))?;
    // Without a State, nothing shows that the engine is removing it.
    let is_ending = state.is_some_and(|RemovalState { dead, removal_in_progress }| {
        dead.unwrap_or_default() || removal_in_progress.unwrap_or_default()
    });
    let labels = config.labels.unwrap_or_default();
    let label = |name: &str| labels.get(name)?.as_deref();
    let claims = !is_ending && label(CLASS) == Some(OVERLAY);
    Ok(label(ABI).filter(|_| claims).and_then(Abi::parse))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(state: &str, labels: &str) -> String {
        format!(r#"{{"ID":"x","State":{state},"Config":{{"Image":"i","Labels":{labels}}}}}"#)
    }

    fn labels(class: &str, abi: &str) -> String {
        format!(r#"{{"{CLASS}":"{class}","{ABI}":"{abi}","other":null}}"#)
    }

    #[test]
    fn a_deployed_extension_claims_a_well_formed_abi() {
        let abi = "a1".repeat(32);
        let parsed = |state: &str, labels: &str| {
            parse_stored_claim(record(state, labels).as_bytes()).unwrap()
        };
        for (state, claims) in [
            ("{}", true),
            ("null", true),
            (r#"{"Running":true}"#, true),
            (r#"{"Dead":false,"RemovalInProgress":false,"Error":"no"}"#, true),
            (r#"{"Dead":null}"#, true),
            (r#"{"Dead":true}"#, false),
            (r#"{"RemovalInProgress":true}"#, false),
            // The engine ends a container after it has announced the removal.
            (r#"{"Running":true,"RemovalInProgress":true}"#, false),
        ] {
            let found = parsed(state, &labels(OVERLAY, &abi));
            assert_eq!(found, Abi::parse(&abi).filter(|_| claims), "{state}");
        }
        let upper = abi.to_uppercase();
        let prefixed = format!("sha256:{abi}");
        for malformed in ["", " ", "a1", upper.as_str(), prefixed.as_str()] {
            assert_eq!(parsed("{}", &labels(OVERLAY, malformed)), None, "{malformed:?}");
        }
        for other in [labels("volume", &abi), labels("", &abi), "{}".to_owned(), "null".to_owned()]
        {
            assert_eq!(parsed("{}", &other), None, "{other}");
        }
        assert_eq!(parsed("{}", &format!(r#"{{"{CLASS}":"overlay"}}"#)), None);
        assert_eq!(parsed("{}", &format!(r#"{{"{CLASS}":"overlay","{ABI}":null}}"#)), None);
    }

    #[test]
    fn a_record_that_is_not_whole_is_an_error() {
        let whole = record("{}", &labels(OVERLAY, &"a1".repeat(32)));
        for end in 0..whole.len() {
            assert!(parse_stored_claim(&whole.as_bytes()[..end]).is_err(), "{end} bytes");
        }
        for text in [
            "{}",
            "null",
            "[]",
            r#"{"Config":null}"#,
            r#"{"Config":[]}"#,
            r#"{"Config":{"Labels":[]}}"#,
            r#"{"Config":{"Labels":{"a":1}}}"#,
            r#"{"Config":{},"State":[]}"#,
            r#"{"Config":{},"State":{"Dead":1}}"#,
            r#"{"Config":{},"Config":{}}"#,
        ] {
            assert!(parse_stored_claim(text.as_bytes()).is_err(), "{text}");
        }
    }
}
