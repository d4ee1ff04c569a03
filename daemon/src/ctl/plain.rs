//! What the daemon says, as a terminal may have it: names of interfaces may be anything, and so may the answers of a daemon that somebody has
//! taken over (FAULTS 74).

use crate::launch::log::escaped;

/// `text` with its line breaks, and no other character that does anything but stand there.
pub(super) fn text(text: &str) -> String {
    text.split('\n').map(escaped).collect::<Vec<_>>().join("\n")
}

/// The same of JSON, which has its own way to write them, and escapes most itself.
pub(super) fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character == '\n'
            || escaped(character.encode_utf8(&mut [0; 4]))
                .chars()
                .eq([character])
        {
            out.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_a_cursor() {
        let hostile = "a\u{1b}[31m\tb\r\nc\u{9b}2J\u{202e}d\u{7f}ä\n";
        assert_eq!(
            text(hostile),
            "a\\u{1b}[31m\\tb\\r\nc\\u{9b}2J\\u{202e}d\\u{7f}ä\n"
        );
        let value = serde_json::json!({ "name": hostile });
        let shown = json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
