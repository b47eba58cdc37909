//! Foreign text made harmless: a terminal only displays it, a shell reads it as one word.
//!
//! One rule for all programs. Text keeps the joiners and marks that scripts need. A character is
//! *deceptive* if it moves the cursor, hides text, or reorders text beyond its field:
//!
//! | characters | deceptive |
//! |---|---|
//! | controls, line and paragraph separators, overrides, deprecated marks, annotations | always |
//! | isolates (U+2066 to U+2069) | an end without a beginning; open ones end with the line |
//! | embeddings (U+202A to U+202C) | one without its end, an end without its beginning |
//! | tags (U+E0020 to U+E007F) | outside of the flag of a region |

use std::ops::Range;

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Ends an isolate of direction.
const END_OF_ISOLATE: char = '\u{2069}';

/// The character before the tags of a region's flag.
const BLACK_FLAG: char = '\u{1f3f4}';

/// Tags between [`BLACK_FLAG`] and the last one: letters and digits of a region (UTS #51, ED-14a;
/// UTS #35, `unicode_subdivision_id`).
const TAGS_OF_FLAG: Range<usize> = 3..8;

/// Returns whether the character is deceptive in any place; line ends and tabs are.
#[must_use]
pub fn is_deceptive(c: char) -> bool {
    // fast path for most text
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    matches!(
        c,
        '\u{80}'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{202d}'
            | '\u{202e}'
            | '\u{206a}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e001f}'
            | '\u{e0080}'..='\u{e00ff}'
            | '\u{e01f0}'..='\u{e0fff}'
    )
}

/// Returns whether Unicode classes the character as control, format or separator, joiners included.
/// Number signs are visible.
fn is_hidden(c: char) -> bool {
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator};
    let hidden = [Control, Format, LineSeparator, ParagraphSeparator];
    let is_sign = matches!(
        c,
        '\u{600}'
            ..='\u{605}'
                | '\u{6dd}'
                | '\u{70f}'
                | '\u{890}'
                | '\u{891}'
                | '\u{8e2}'
                | '\u{110bd}'
                | '\u{110cd}'
    );
    !c.is_ascii_graphic() && hidden.contains(&c.general_category()) && !is_sign
}

/// Returns whether a line has no deceptive characters and no open isolate.
#[must_use]
pub fn is_plain(line: &str) -> bool {
    let judged = judge(line);
    judged.deceptive.is_empty() && judged.open.is_empty()
}

/// Returns whether a text can be a name that people type and compare: plain, and without invisible
/// characters except joiners after a letter or picture, and flags.
pub fn is_name(text: &str) -> bool {
    let mut before = ' ';
    let is_fine = |c: char| {
        let joins = matches!(c, '\u{200c}' | '\u{200d}');
        let follows = !before.is_whitespace() && !is_hidden(before);
        before = c;
        !is_hidden(c) || is_tag(c) || (joins && follows)
    };
    is_plain(text) && text.chars().all(is_fine)
}

/// Replaces each deceptive character of a line but tabs by U+FFFD, and closes isolates.
#[must_use]
pub fn clean(line: &str) -> String {
    let mut cleaned = String::with_capacity(line.len());
    rewrite(line, &mut cleaned, Open::Close, |c, out| match c {
        '\t' => out.push(c),
        _ => out.push(char::REPLACEMENT_CHARACTER),
    });
    cleaned
}

/// Removes deceptive characters but line ends and tabs from a text; closes isolates in each line.
#[must_use]
pub fn strip(text: &str) -> String {
    let mut stripped = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |l| (l, "\n"));
        rewrite(line, &mut stripped, Open::Close, |c, out| {
            if c == '\t' {
                out.push(c);
            }
        });
        stripped += end;
    }
    stripped
}

/// Returns the [stripped](strip) beginning of a text in `most` bytes: whole letters, with marks.
pub fn shorten(text: &str, most: usize) -> String {
    let stripped = strip(text);
    let mut end = stripped.len().min(most);
    loop {
        while !is_between_letters(&stripped, end) {
            end -= 1;
        }
        // the first letter has more marks than fit
        let end_shown = match end {
            0 => stripped.floor_char_boundary(most),
            end => end,
        };
        let short = strip(&stripped[..end_shown]);
        // closing isolates adds bytes after the cut
        if short.len() <= most {
            return short;
        }
        if end == 0 {
            return String::new();
        }
        end -= 1;
    }
}

/// Returns whether no letter, with its marks and joined characters, extends over this place.
fn is_between_letters(text: &str, at: usize) -> bool {
    use GeneralCategory::{EnclosingMark, NonspacingMark, SpacingMark};
    let Some((before, after)) = text.split_at_checked(at) else {
        return false;
    };
    let goes_on = |c: char| {
        let marks = [EnclosingMark, NonspacingMark, SpacingMark];
        let is_mark = marks.contains(&c.general_category());
        is_mark || is_tag(c) || matches!(c, '\u{200c}' | '\u{200d}' | '\u{1f3fb}'..='\u{1f3ff}')
    };
    at == 0 || !(before.ends_with('\u{200d}') && !after.is_empty() || after.starts_with(goes_on))
}

/// Escapes whole output, lines of text or JSON: each deceptive character but line ends and tabs
/// becomes `\u` and a number. JSON stays the same data.
#[must_use]
pub fn escape(output: &str) -> String {
    let mut escaped = String::with_capacity(output.len());
    let as_number = |c: char, out: &mut String| {
        if c == '\t' {
            return out.push(c);
        }
        let mut units = [0; 2];
        for unit in c.encode_utf16(&mut units) {
            *out += &format!("\\u{unit:04x}");
        }
    };
    for line in output.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |l| (l, "\n"));
        // JSON has such characters only in strings; an isolate must not cross its fields
        let open = match line.trim_start().starts_with(['{', '[', '"']) {
            true => Open::ReplaceAll,
            false => Open::Replace,
        };
        rewrite(line, &mut escaped, open, as_number);
        escaped += end;
    }
    escaped
}

/// Quotes text as one word of a shell's command (POSIX.1, 2.2.2), after [`clean`].
pub fn quoted(text: &str) -> String {
    format!("'{}'", clean(text).replace('\'', r"'\''"))
}

/// The deceptive characters of a line.
struct Judged {
    /// Their offsets, in order.
    deceptive: Vec<usize>,
    /// Offsets of isolates without an end, in order.
    open: Vec<usize>,
}

/// A character that changes the direction of text until its end.
#[derive(Clone, Copy, PartialEq)]
enum Turn {
    Isolate,
    Embedding,
    Override,
}

fn judge(line: &str) -> Judged {
    let mut deceptive = Vec::new();
    let mut turns: Vec<(usize, Turn)> = Vec::new();
    let (mut isolates, mut flag_end) = (0, 0);
    for (at, c) in line.char_indices() {
        match c {
            '\u{2066}'..='\u{2068}' => {
                turns.push((at, Turn::Isolate));
                isolates += 1;
            }
            END_OF_ISOLATE if isolates == 0 => deceptive.push(at),
            END_OF_ISOLATE => {
                isolates -= 1;
                // it also ends embeddings inside, which thus had no end of their own
                while let Some((begin, turn)) = turns.pop()
                    && turn != Turn::Isolate
                {
                    deceptive.push(begin);
                }
            }
            '\u{202a}' | '\u{202b}' => turns.push((at, Turn::Embedding)),
            '\u{202d}' | '\u{202e}' => turns.push((at, Turn::Override)),
            '\u{202c}' => match turns.pop_if(|(_, turn)| *turn != Turn::Isolate) {
                Some((_, Turn::Embedding)) => {}
                Some((begin, _)) => deceptive.extend([begin, at]),
                None => deceptive.push(at),
            },
            BLACK_FLAG => flag_end = at + flag(&line[at..]),
            c if is_tag(c) && at >= flag_end => deceptive.push(at),
            c if is_deceptive(c) => deceptive.push(at),
            _ => {}
        }
    }
    let mut open = Vec::new();
    for (begin, turn) in turns {
        match turn {
            Turn::Isolate => open.push(begin),
            Turn::Embedding | Turn::Override => deceptive.push(begin),
        }
    }
    deceptive.sort_unstable();
    Judged { deceptive, open }
}

fn is_tag(c: char) -> bool {
    matches!(c, '\u{e0020}'..='\u{e007f}')
}

/// Returns the bytes of a region's flag at the beginning of a text; 0 without one.
fn flag(text: &str) -> usize {
    let tags = text.strip_prefix(BLACK_FLAG).unwrap_or_default();
    let is_region = |c: &char| matches!(c, '\u{e0030}'..='\u{e0039}' | '\u{e0061}'..='\u{e007a}');
    let n = tags.chars().take_while(is_region).count();
    match TAGS_OF_FLAG.contains(&n) && tags.chars().nth(n) == Some('\u{e007f}') {
        true => BLACK_FLAG.len_utf8() * (n + 2),
        false => 0,
    }
}

/// The treatment of an isolate without an end.
#[derive(Clone, Copy, PartialEq)]
enum Open {
    Close,
    Replace,
    /// Treat all changes of direction as deceptive, with an end or without.
    ReplaceAll,
}

fn rewrite(line: &str, out: &mut String, open: Open, replace: impl Fn(char, &mut String)) {
    let Judged {
        mut deceptive,
        open: isolates,
    } = judge(line);
    if open != Open::Close {
        deceptive.extend(&isolates);
    }
    if open == Open::ReplaceAll {
        let turns =
            line.match_indices(|c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'));
        deceptive.extend(turns.map(|(at, _)| at));
    }
    deceptive.sort_unstable();
    deceptive.dedup();
    let mut from = 0;
    for at in deceptive {
        *out += &line[from..at];
        let mut rest = line[at..].chars();
        rest.by_ref().take(1).for_each(|c| replace(c, out));
        from = line.len() - rest.as_str().len();
    }
    *out += &line[from..];
    if open == Open::Close {
        out.extend(isolates.iter().map(|_| END_OF_ISOLATE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text that people write.
    const WRITTEN: [&str; 19] = [
        "tab-free b\u{fc}ro \u{65e5}\u{672c} \u{5e9}\u{5dc}\u{5d5}\u{5dd}",
        // Persian, Malayalam, Sinhala, Bengali, Mongolian, an abbreviation in Persian
        "\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645}",
        "\u{d2e}\u{d4b}\u{d39}\u{d28}\u{d4d}\u{200d}",
        "\u{dc1}\u{dca}\u{200d}\u{dbb}\u{dd3}",
        "\u{9b0}\u{200d}\u{9cd}\u{9af}\u{9be}\u{9ac}",
        "\u{1828}\u{1820}\u{180e}\u{1820}\u{180b}",
        "\u{6f1}\u{6f4}\u{6f0}\u{6f3} \u{647}\u{200d}.\u{634}",
        // a family, a heart as picture, a rainbow flag, Scotland
        "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
        "\u{2764}\u{fe0f}\u{200d}\u{1f525} \u{2603}\u{fe0e}",
        "\u{1f3f3}\u{fe0f}\u{200d}\u{1f308}",
        "\u{1f3f4}\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}",
        // where a word breaks; marks of direction; a sign before a number
        "Donau\u{ad}dampf\u{200b}schiff\u{2060}fahrt",
        "C++\u{200e} \u{5d0}!\u{200f} \u{61c}1",
        "\u{6dd}\u{661}",
        // Hebrew in Latin letters, and the other way around
        "\u{2067}\u{5d0} (1)\u{2069}",
        "a \u{2068}\u{5d0} \u{2066}b\u{2069} \u{5d1}\u{2069} c",
        "a \u{202b}\u{5d0}!\u{202c} c",
        "\u{2067}\u{202a}a\u{202c}\u{2069}",
        // hieroglyphs, one above the other
        "\u{13000}\u{13430}\u{13001}",
    ];

    #[test]
    fn text_that_people_write_stays_as_it_is() {
        for text in WRITTEN {
            assert!(is_plain(text), "{text:?}");
            assert_eq!(clean(text), text);
            assert_eq!(strip(text), text);
            assert_eq!(escape(text), text);
        }
        assert_eq!(
            strip("a\tb\n\n\u{2067}c\u{2069}\n"),
            "a\tb\n\n\u{2067}c\u{2069}\n"
        );
    }

    #[test]
    fn a_terminal_shows_characters_that_it_would_execute_hide_or_reorder() {
        for deceptive in [
            '\u{1b}',
            '\n',
            '\r',
            '\u{b}',
            '\u{c}',
            '\u{7f}',
            '\u{85}',
            '\u{9b}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202b}',
            '\u{202c}',
            '\u{202d}',
            '\u{202e}',
            '\u{2069}',
            '\u{206a}',
            '\u{feff}',
            '\u{fffb}',
            '\u{e0001}',
            '\u{e0041}',
            '\u{e007f}',
            '\u{e0fff}',
        ] {
            let line = format!("a{deceptive}b");
            assert_eq!(clean(&line), "a\u{fffd}b");
            assert!(!is_plain(&line) && !is_name(&line), "{line:?}");
            if deceptive != '\n' {
                assert_eq!(strip(&line), "ab");
                assert!(is_plain(&escape(&line)), "{deceptive:?}");
            }
        }
        assert_eq!(clean("a\tb"), "a\tb");
    }

    #[test]
    fn nothing_turns_the_text_around_that_stands_beside_it() {
        // open isolates end with their line
        assert_eq!(clean("\u{2067}a"), "\u{2067}a\u{2069}");
        assert_eq!(
            clean("\u{2066}\u{2068}a\u{2069}"),
            "\u{2066}\u{2068}a\u{2069}\u{2069}"
        );
        assert_eq!(strip("\u{2067}a\nb"), "\u{2067}a\u{2069}\nb");
        assert!(!is_plain("\u{2067}a"));
        // an end counts for characters before it in the same isolate
        assert_eq!(
            clean("\u{2069}\u{2067}a\u{2069}"),
            "\u{fffd}\u{2067}a\u{2069}"
        );
        assert_eq!(
            clean("\u{2067}\u{202a}a\u{2069}\u{202c}"),
            "\u{2067}\u{fffd}a\u{2069}\u{fffd}"
        );
        assert_eq!(
            clean("\u{202a}a\u{202e}b\u{202c}c\u{202c}"),
            "\u{202a}a\u{fffd}b\u{fffd}c\u{202c}",
            "an override ends with its own end"
        );
        // a letter beside a flag, a flag of no region, one without an end
        for flag in [
            "\u{1f3f4}\u{e0041}\u{e0042}\u{e0043}\u{e007f}",
            "\u{1f3f4}\u{e0067}\u{e0062}\u{e007f}",
            "\u{1f3f4}\u{e0067}\u{e0062}\u{e0073}",
            "\u{1f3f4}a\u{e0067}\u{e0062}\u{e0073}\u{e007f}",
        ] {
            assert!(!clean(flag).contains(is_tag), "{flag:?}");
        }
    }

    #[test]
    fn output_is_the_same_data_and_harmless_on_a_terminal() {
        let json = "{\"data\":\"a\u{202e}b\u{9b}2J\u{7f}\u{e0041}\u{e9}\\n\"}";
        let escaped = "{\"data\":\"a\\u202eb\\u009b2J\\u007f\\udb40\\udc41\u{e9}\\n\"}";
        assert_eq!(escape(json), escaped);
        assert_eq!(
            escape("one\n\ttwo\r\u{1b}c\n"),
            "one\n\ttwo\\u000d\\u001bc\n"
        );
        // an isolate of one JSON field must not end in another
        assert_eq!(
            escape("{\"a\":\"\u{2067}\",\"b\":\"\u{2069}\"}\n"),
            "{\"a\":\"\\u2067\",\"b\":\"\\u2069\"}\n"
        );
        assert_eq!(escape("a \u{2067}b\nc\u{2069}"), "a \\u2067b\nc\\u2069");
    }

    #[test]
    fn a_name_holds_nothing_that_nobody_sees() {
        for name in &WRITTEN[..11] {
            let is_mongolian = name.contains('\u{180e}');
            assert_eq!(is_name(name), !is_mongolian, "{name:?}");
        }
        for name in ["", "Z\u{fc}rich 2", "two words", "A\u{200c}nn"] {
            assert!(is_name(name), "{name:?}");
        }
        for hidden in [
            "a\nb",
            "a\tb",
            "a\u{ad}b",
            "a\u{61c}b",
            "a\u{200b}b",
            "a\u{200e}b",
            "a\u{2060}b",
            "\u{2066}a\u{2069}",
            "\u{202a}a\u{202c}",
            "\u{200d}a",
            "a \u{200c}b",
            "a\u{200d}\u{200d}b",
            "a\u{feff}",
        ] {
            assert!(!is_name(hidden), "{hidden:?}");
        }
    }

    #[test]
    fn a_text_is_cut_between_letters_and_its_isolates_are_closed() {
        assert_eq!(shorten("ab\u{1b}c", 9), "abc");
        assert_eq!(shorten("b\u{fc}ro", 2), "b");
        // an accent, a family, a joiner of Persian
        assert_eq!(shorten("abe\u{301}", 4), "ab");
        assert_eq!(shorten("a\u{1f468}\u{200d}\u{1f469}", 9), "a");
        assert_eq!(shorten("a\u{645}\u{6cc}\u{200c}\u{62e}", 6), "a\u{645}");
        assert_eq!(shorten("\u{2067}abcdefg", 9), "\u{2067}abc\u{2069}");
        assert_eq!(
            shorten(&"\u{2067}".repeat(100), 255),
            "\u{2067}".repeat(42) + &"\u{2069}".repeat(42)
        );
    }

    #[test]
    fn a_word_is_one_word_for_a_shell() {
        assert_eq!(quoted("lc:plans"), "'lc:plans'");
        let hostile = "plans'; touch /tmp/x; echo '";
        assert_eq!(quoted(hostile), r"'plans'\''; touch /tmp/x; echo '\'''");
        assert_eq!(quoted("$(a)\n`b`\\"), "'$(a)\u{fffd}`b`\\'");
    }

    /// Executes the quoted text with sh.
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
