//! What nodes say, so that a terminal shows what is there and does nothing.

/// Text of a node without what a terminal would execute, or show as other than it is.
#[must_use]
pub fn clean(text: &str) -> String {
    let keep = |c: char| match is_deceptive(c) && c != '\t' {
        true => '\u{fffd}',
        false => c,
    };
    text.chars().map(keep).collect()
}

/// JSON on one line: what a terminal would execute or show as other than it is stands there by its number.
#[must_use]
pub fn clean_json(document: &serde_json::Value) -> String {
    escape(&document.to_string())
}

/// The same for JSON that is text already.
#[must_use]
pub fn escape(document: &str) -> String {
    let mut line = String::new();
    // only strings hold such characters, and there an escape is the same
    for c in document.chars() {
        if is_deceptive(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                line += &format!("\\u{unit:04x}");
            }
        } else {
            line.push(c);
        }
    }
    line
}

/// Whether a terminal would execute the character, or it changes the order in which others are shown, or it is invisible
/// and no part of any writing: controls, marks of direction, ends of lines and paragraphs, annotations, tags.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{180e}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_terminal_shows_what_is_there() {
        for deceptive in [
            "\u{1b}[2J",
            "\u{202e}",
            "\u{2066}",
            "\u{200f}",
            "\u{61c}",
            "\u{9b}",
            "\u{2028}",
            "\u{feff}",
            "\u{e0041}",
        ] {
            let shown = clean(&format!("a{deceptive}b"));
            assert!(shown.starts_with("a\u{fffd}"), "{shown:?}");
        }
        let plain = "tab\tbüro 日本 \u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{1f468}\u{200d}\u{1f469}";
        assert_eq!(
            clean(plain),
            plain,
            "writings of all directions, joined ones too"
        );
    }

    #[test]
    fn json_is_the_same_data_and_harmless_on_a_terminal() {
        let text = "a\u{202e}b\u{9b}2J\u{7f}\u{e0041}é\n";
        let document = json!({ "data": text });
        let line = clean_json(&document);
        assert_eq!(line, r#"{"data":"a\u202eb\u009b2J\u007f\udb40\udc41é\n"}"#);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&line).unwrap(),
            document
        );
    }
}
