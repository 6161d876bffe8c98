//! Ids as engines show them to people.

/// The first 12 characters of an id of a container, image or kernel, without the name of the hash.
pub(crate) fn short_id(id: &str) -> &str {
    let id = id.trim_start_matches("sha256:");
    let end = id.char_indices().nth(12).map_or(id.len(), |(end, _)| end);
    id.get(..end).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_cut_to_twelve_characters() {
        for (id, expected) in [
            ("sha256:0123456789abcdef", "0123456789ab"),
            ("0123456789ab", "0123456789ab"),
            ("name", "name"),
            ("é123456789abc", "é123456789ab"),
            ("", ""),
        ] {
            assert_eq!(short_id(id), expected);
        }
    }
}
