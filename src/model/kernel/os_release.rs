//! os-release(5): the version of the operating system.

/// `VERSION_ID`. `None` if it is absent, empty, or not a valid shell value: half a value must not make
/// extensions stale.
pub(crate) fn version_id(text: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim);
    // The last assignment counts, as in a shell.
    let value = lines.rfind(|line| line.starts_with("VERSION_ID="))?.split_once('=')?.1;
    unquoted(value).filter(|version| !version.is_empty())
}

/// A value without the shell's quotes and escapes. `None` if a quote is not closed, or if anything follows
/// the value.
fn unquoted(value: &str) -> Option<String> {
    let (quote, inner) = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            (Some(quote), value.strip_prefix(quote)?.strip_suffix(quote)?)
        }
        Some(_) | None => (None, value),
    };
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(found) = chars.next() {
        match (found, quote) {
            ('\\', None | Some('"')) => text.push(chars.next()?),
            (found, Some(quote)) if found == quote => return None,
            ('"' | '\'' | ' ' | '\t', None) => return None,
            (found, _) => text.push(found),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_in_every_form() {
        for (text, expected) in [
            ("ID=balena-os\nVERSION_ID=\"2.113.4\"\n", Some("2.113.4")),
            ("VERSION_ID=12\n", Some("12")),
            ("VERSION_ID='2.1+rev1'", Some("2.1+rev1")),
            ("VERSION_ID=\"a\\\"b\"", Some("a\"b")),
            ("VERSION_ID=1\nVERSION_ID=2\n", Some("2")),
            ("VERSION_ID='a\\b'", Some("a\\b")),
            ("VERSION_ID=\"a b\"", Some("a b")),
            ("VERSION_ID=\"2.113\n", None),
            ("VERSION_ID=2.113\"\n", None),
            ("VERSION_ID=\"\n", None),
            ("VERSION_ID=\"2.113\\\"\n", None),
            ("VERSION_ID=\"2\" \"3\"\n", None),
            ("VERSION_ID=2 3\n", None),
            ("VERSION_ID=2\\\n", None),
            ("VERSION_ID=\n", None),
            ("VERSION_ID=\"\"\n", None),
            ("#VERSION_ID=1\nVERSION=3\nX_VERSION_ID=1\n", None),
            ("", None),
        ] {
            assert_eq!(version_id(text).as_deref(), expected, "{text}");
        }
    }
}
