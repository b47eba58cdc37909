//! Text of others, made harmless: a terminal shows it and executes nothing, a shell reads it as one word.

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Whether a terminal would execute the character, or it changes the order in which others are shown, or nobody sees it:
/// control characters, ends of lines among them, and characters that only format. Two joiners stay, as writings need them,
/// and signs that stand before numbers, as they are seen.
#[must_use]
pub fn is_deceptive(c: char) -> bool {
    // most text: without a look at the tables
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    is_hidden(c)
        && !matches!(
            c,
            '\u{200c}' | '\u{200d}' | '\u{600}'
                ..='\u{605}'
                    | '\u{6dd}'
                    | '\u{70f}'
                    | '\u{890}'
                    | '\u{891}'
                    | '\u{8e2}'
                    | '\u{110bd}'
                    | '\u{110cd}'
        )
}

/// Whether Unicode says that the character controls, formats or separates: joiners, too.
pub(crate) fn is_hidden(c: char) -> bool {
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator};
    let hidden = [Control, Format, LineSeparator, ParagraphSeparator];
    hidden.contains(&c.general_category())
}

/// One line of text of others: a replacement character stands for each deceptive one but tabs.
#[must_use]
pub fn clean(text: &str) -> String {
    let keep = |c: char| match is_deceptive(c) && c != '\t' {
        true => '\u{fffd}',
        false => c,
    };
    text.chars().map(keep).collect()
}

/// Whole output, lines of text or JSON: `\u` and a number stand for each deceptive character but ends of lines and tabs. JSON
/// stays the same data.
#[must_use]
pub fn escape(output: &str) -> String {
    let mut escaped = String::with_capacity(output.len());
    // JSON holds such characters in strings alone, where an escape means the same
    for c in output.chars() {
        if is_deceptive(c) && !matches!(c, '\n' | '\t') {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                escaped += &format!("\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Text as one word of a shell's command (POSIX.1, 2.2.2), whatever stands in it. It is [`clean`] before it is quoted.
#[must_use]
pub fn quoted(text: &str) -> String {
    format!("'{}'", clean(text).replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_shows_what_is_there() {
        for deceptive in [
            "\u{1b}[2J",
            "\n",
            "\r",
            "\u{7f}",
            "\u{9b}",
            "\u{ad}",
            "\u{61c}",
            "\u{180e}",
            "\u{200b}",
            "\u{200f}",
            "\u{2028}",
            "\u{202e}",
            "\u{2066}",
            "\u{206a}",
            "\u{feff}",
            "\u{fffb}",
            "\u{e0041}",
        ] {
            let shown = clean(&format!("a{deceptive}b"));
            assert!(shown.starts_with("a\u{fffd}"), "{shown:?}");
        }
        let plain = "tab\tbüro 日本 \u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{1f468}\u{200d}\u{1f469} می\u{200c}خواهم \u{6dd}";
        assert_eq!(
            clean(plain),
            plain,
            "writings of all directions, joined ones too"
        );
    }

    #[test]
    fn output_is_the_same_data_and_harmless_on_a_terminal() {
        let json = "{\"data\":\"a\u{202e}b\u{9b}2J\u{7f}\u{e0041}é\\n\"}";
        let escaped = r#"{"data":"a\u202eb\u009b2J\u007f\udb40\udc41é\n"}"#;
        assert_eq!(escape(json), escaped);
        assert_eq!(
            escape("one\n\ttwo\r\u{1b}c\n"),
            "one\n\ttwo\\u000d\\u001bc\n"
        );
    }

    #[test]
    fn a_word_is_one_word_for_a_shell() {
        assert_eq!(quoted("lc:plans"), "'lc:plans'");
        let hostile = "plans'; touch /tmp/x; echo '";
        assert_eq!(quoted(hostile), r"'plans'\''; touch /tmp/x; echo '\'''");
        assert_eq!(quoted("$(a)\n`b`\\"), "'$(a)\u{fffd}`b`\\'");
    }

    /// What sh makes of it.
    #[cfg(unix)]
    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for word in [
            "",
            "it's",
            "''",
            "a'; exit 7; echo '",
            "$HOME \"x\" \\ `id` * ~",
        ] {
            let script = format!("printf %s {}", quoted(word));
            let run = std::process::Command::new("sh")
                .args(["-c", &script])
                .output();
            let run = run.unwrap();
            assert!(run.status.success());
            assert_eq!(String::from_utf8(run.stdout).unwrap(), word);
        }
    }
}
