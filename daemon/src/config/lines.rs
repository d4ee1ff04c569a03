//! Cuts the bytes of a configuration file into lines of words, each with its place.
//!
//! The old format: blanks separate words, `#` starts a comment anywhere, CRLF ends a line as LF does. A comment may
//! hold any bytes but NUL (old files have Latin-1 in them); everything else is UTF-8.

use std::sync::Arc;

use super::diagnostic::{Diagnostic, Origin};

/// Longest line in bytes without its end. The old program stopped at 1056.
pub const MAX_LINE_LEN: usize = 4096;

/// A piece of a line between blanks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Its text, without blanks.
    pub text: String,
    /// Where it begins.
    pub origin: Origin,
}

/// The words of one line: at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The name.
    pub name: Word,
    /// What follows it.
    pub values: Vec<Word>,
}

/// Cuts `bytes` into lines. Empty lines and comments yield nothing; a line that cannot be read yields a diagnostic.
pub fn split(file: &Arc<str>, bytes: &[u8]) -> (Vec<Line>, Vec<Diagnostic>) {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut lines = Vec::new();
    let mut wrong = Vec::new();
    for (line_number, line) in (1u32..).zip(bytes.split(|byte| *byte == b'\n')) {
        let place = Place {
            file,
            line: line_number,
        };
        match place.words(line.strip_suffix(b"\r").unwrap_or(line)) {
            Ok(mut words) if !words.is_empty() => {
                let name = words.remove(0);
                lines.push(Line { name, values: words });
            }
            Ok(_) => {}
            Err(diagnostic) => wrong.push(diagnostic),
        }
    }
    (lines, wrong)
}

struct Place<'a> {
    file: &'a Arc<str>,
    line: u32,
}

impl Place<'_> {
    fn words(&self, line: &[u8]) -> Result<Vec<Word>, Diagnostic> {
        if line.len() > MAX_LINE_LEN {
            let message = format!(
                "the line has {} bytes; at most {MAX_LINE_LEN} are read",
                line.len()
            );
            return Err(self.wrong(line, MAX_LINE_LEN, message));
        }
        if let Some(at) = line.iter().position(|byte| *byte == 0) {
            return Err(self.wrong(line, at, "a NUL byte; is this a text file?".into()));
        }
        let content = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        let text = std::str::from_utf8(content).map_err(|error| {
            let byte = content.get(error.valid_up_to()).copied().unwrap_or_default();
            let message =
                format!("the byte 0x{byte:02x} is no UTF-8 text; outside comments the file must be UTF-8");
            self.wrong(line, error.valid_up_to(), message)
        })?;
        Ok(self.split_blanks(text))
    }

    fn split_blanks(&self, text: &str) -> Vec<Word> {
        let mut words: Vec<Word> = Vec::new();
        let mut inside = false;
        for (column, character) in (1u32..).zip(text.chars()) {
            if is_blank(character) {
                inside = false;
                continue;
            }
            match words.last_mut() {
                Some(word) if inside => word.text.push(character),
                _ => words.push(Word {
                    text: character.to_string(),
                    origin: self.at(column),
                }),
            }
            inside = true;
        }
        words
    }

    fn wrong(&self, line: &[u8], at: usize, message: String) -> Diagnostic {
        let before = String::from_utf8_lossy(line.get(..at).unwrap_or(line));
        let column = u32::try_from(before.chars().count())
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        Diagnostic {
            origin: self.at(column),
            message,
        }
    }

    fn at(&self, column: u32) -> Origin {
        Origin::File {
            file: Arc::clone(self.file),
            line: self.line,
            column,
        }
    }
}

/// What stands between words. A lone carriage return is a blank too: nobody sees it in an editor.
fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\u{b}' | '\u{c}')
}

impl Word {
    /// The pieces of the word between commas, each with its own place; none for a word of commas only.
    pub fn split_commas(&self) -> Vec<Self> {
        let mut pieces = Vec::new();
        let mut column_offset = 0u32;
        for piece in self.text.split(',') {
            if !piece.is_empty() {
                pieces.push(Self {
                    text: piece.to_owned(),
                    origin: self.origin_after(column_offset),
                });
            }
            let len = u32::try_from(piece.chars().count()).unwrap_or(u32::MAX);
            column_offset = column_offset.saturating_add(len).saturating_add(1);
        }
        pieces
    }

    fn origin_after(&self, characters: u32) -> Origin {
        match &self.origin {
            Origin::File { file, line, column } => Origin::File {
                file: Arc::clone(file),
                line: *line,
                column: column.saturating_add(characters),
            },
            other => other.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(bytes: &[u8]) -> (Vec<String>, Vec<String>) {
        let (lines, wrong) = split(&Arc::from("f"), bytes);
        let words = lines
            .iter()
            .flat_map(|line| std::iter::once(&line.name).chain(&line.values))
            .map(|word| format!("{}{}", word.origin, word.text))
            .collect();
        (words, wrong.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn blanks_comments_and_line_ends() {
        let (words, wrong) =
            cut(b"\xef\xbb\xbf# head\r\n\r\n \tMtu\t 1280 # why\r\nTtl 64#x\n\nUser\rnobody");
        let expected = [
            "f:3:3: Mtu",
            "f:3:8: 1280",
            "f:4:1: Ttl",
            "f:4:5: 64",
            "f:6:1: User",
            "f:6:6: nobody",
        ];
        assert_eq!(words, expected);
        assert!(wrong.is_empty());
    }

    #[test]
    fn columns_count_characters() {
        let (words, _) = cut("Müller ß x".as_bytes());
        assert_eq!(words, ["f:1:1: Müller", "f:1:8: ß", "f:1:10: x"]);
    }

    #[test]
    fn unreadable_lines() {
        let (words, wrong) = cut(b"Mtu 1280 # M\xfcller\nUser \xfc\nA\0b # c\n# c\0\nTtl 1");
        assert_eq!(words, ["f:1:1: Mtu", "f:1:5: 1280", "f:5:1: Ttl", "f:5:5: 1"]);
        let expected = [
            "f:2:6: the byte 0xfc is no UTF-8 text; outside comments the file must be UTF-8",
            "f:3:2: a NUL byte; is this a text file?",
            "f:4:4: a NUL byte; is this a text file?",
        ];
        assert_eq!(wrong, expected);
    }

    #[test]
    fn the_longest_line() {
        let longest = vec![b'a'; MAX_LINE_LEN];
        assert_eq!(cut(&longest).1, Vec::<String>::new());
        let longer = vec![b'a'; MAX_LINE_LEN + 1];
        assert_eq!(
            cut(&longer).1,
            ["f:1:4097: the line has 4097 bytes; at most 4096 are read"]
        );
    }

    #[test]
    fn commas_keep_their_places() {
        let (lines, _) = split(&Arc::from("f"), b"X ,a,,bc,");
        let pieces = lines[0].values[0].split_commas();
        let texts: Vec<_> = pieces
            .iter()
            .map(|piece| format!("{}{}", piece.origin, piece.text))
            .collect();
        assert_eq!(texts, ["f:1:4: a", "f:1:7: bc"]);
    }
}
