//! Reads from a `state.json` that is not a valid state whether it is ours, and which process the proxy was. The bytes
//! may be cut off or overwritten, so only complete values at the top level count.

use crate::model::container::proxy::Identity;

/// The keys of a state that no other runtime's has.
const OURS: [&[u8]; 2] = [b"role", b"pidStartTime"];

/// The values that could be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Salvaged {
    pub(crate) is_ours: bool,
    pid: Option<i32>,
    start_time: Option<u64>,
}

impl Salvaged {
    /// Looks for keys at the top level of what begins as a JSON object.
    pub(crate) fn from(bytes: &[u8]) -> Self {
        let mut found = Self::default();
        let mut rest = Scanner { bytes };
        if rest.next_token() != Some(Token::Open) {
            return found;
        }
        let mut depth: usize = 1;
        while let Some(token) = rest.next_token() {
            match token {
                Token::Open => depth += 1,
                // What follows the end of the object is not part of it.
                Token::Close if depth <= 1 => break,
                Token::Close => depth -= 1,
                Token::Text(key) if depth == 1 && rest.skip_colon() => {
                    found.is_ours |= OURS.contains(&key);
                    match key {
                        b"pid" => found.pid = rest.number().and_then(|text| text.parse().ok()),
                        b"pidStartTime" => {
                            found.start_time = rest.number().and_then(|text| text.parse().ok());
                        }
                        _ => {}
                    }
                }
                Token::Text(_) | Token::Other => {}
            }
        }
        found
    }

    /// The proxy, if both its pid and its start time are complete. A pid of 0 stands for none.
    pub(crate) fn proxy(&self) -> Option<Identity> {
        let (pid, start_time) = (self.pid.filter(|&pid| pid > 0)?, self.start_time?);
        Some(Identity { pid, start_time })
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token<'a> {
    Open,
    Close,
    /// A complete string, as it is written.
    Text(&'a [u8]),
    Other,
}

struct Scanner<'a> {
    bytes: &'a [u8],
}

impl<'a> Scanner<'a> {
    fn next_token(&mut self) -> Option<Token<'a>> {
        self.skip_blanks();
        let (&first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(match first {
            b'{' | b'[' => Token::Open,
            b'}' | b']' => Token::Close,
            b'"' => Token::Text(self.text()?),
            _ => Token::Other,
        })
    }

    /// The rest of a string; `None` if it has no end.
    fn text(&mut self) -> Option<&'a [u8]> {
        let mut escaped = false;
        let end = self.bytes.iter().position(|&byte| match byte {
            _ if escaped => {
                escaped = false;
                false
            }
            b'\\' => {
                escaped = true;
                false
            }
            byte => byte == b'"',
        })?;
        let text = self.bytes.get(..end)?;
        self.bytes = self.bytes.get(end + 1..)?;
        Some(text)
    }

    fn skip_colon(&mut self) -> bool {
        self.skip_blanks();
        match self.bytes.strip_prefix(b":") {
            Some(rest) => {
                self.bytes = rest;
                true
            }
            None => false,
        }
    }

    /// A number that something follows: at the end of the bytes, digits may be missing.
    fn number(&mut self) -> Option<&'a str> {
        self.skip_blanks();
        let end = self.bytes.iter().position(|byte| !byte.is_ascii_digit())?;
        let is_whole = self.bytes.get(end).is_some_and(|byte| b",} \t\r\n".contains(byte));
        let digits = self.bytes.get(..end).filter(|_| is_whole)?;
        std::str::from_utf8(digits).ok()
    }

    fn skip_blanks(&mut self) {
        self.bytes = self.bytes.trim_ascii_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_what_has_one_of_our_keys_at_the_top_level() {
        for (text, is_ours) in [
            (r#"{"role":"extension"}"#, true),
            (r#" { "id" : "x" , "role" :"#, true),
            (r#"{"a":{"b":[1,{"c":2}]},"pidStartTime":12"#, true),
            (r#"{"a\"":"role","b":"\\","role":"#, true),
            (r#"{"id":"x","config":{"role":1}}"#, false),
            (r#"{"id":"role","list":["role"]}"#, false),
            (r#"{"id":"x"}{"role":1}"#, false),
            (r#"{"role"#, false),
            (r#"{"role""#, false),
            (r#""role":"#, false),
            (r#"["role"]"#, false),
            ("\0\0\0\0", false),
            ("", false),
        ] {
            assert_eq!(Salvaged::from(text.as_bytes()).is_ours, is_ours, "{text}");
        }
    }

    #[test]
    fn the_proxy_is_known_only_if_both_numbers_are_complete() {
        let proxy = |text: &str| Salvaged::from(text.as_bytes()).proxy();
        let identity = Some(Identity { pid: 7, start_time: 99 });
        assert_eq!(proxy(r#"{"pid":7,"pidStartTime":99,"ro"#), identity);
        assert_eq!(proxy(r#"{ "pid" : 7 , "pidStartTime" : 99 }"#), identity);
        for text in [
            r#"{"pid":7,"pidStartTime":99"#,
            r#"{"pid":7"#,
            r#"{"pid":7,"role":"extension"}"#,
            r#"{"pid":0,"pidStartTime":99,"#,
            r#"{"pid":"7","pidStartTime":99,"#,
            r#"{"pid":-7,"pidStartTime":99,"#,
            r#"{"pid":7.5,"pidStartTime":99,"#,
            r#"{"pid":77777777777,"pidStartTime":99,"#,
            r#"{"a":{"pid":7,"pidStartTime":99}}"#,
        ] {
            assert_eq!(proxy(text), None, "{text}");
        }
    }
}
