use data_encoding::BASE64;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

type Mangling = (&'static str, fn(&str) -> String);
type Encoding = (&'static str, fn(&str) -> Vec<u8>);

/// Changes that mails and chats make to a text.
const MANGLINGS: &[Mangling] = &[
    ("quoted", |t| each_line(t, |l| format!("> {l}\n"))),
    ("bars", |t| each_line(t, |l| format!("  | {l}\n"))),
    ("crlf", |t| {
        each_line(t, |l| format!("{}\r\n", l.trim_end_matches('\r')))
    }),
    ("trailing spaces", |t| {
        each_line(t, |l| format!("{l}  \t\n"))
    }),
    ("no blank lines", |t| t.replace("\n\n", "\n")),
    ("narrow", |t| chunks(t, 17).join("\n")),
    ("narrow and quoted", |t| chunks(t, 61).join("\n> > ")),
    ("joined by spaces", |t| {
        t.lines().collect::<Vec<_>>().join(" ")
    }),
    ("joined", |t| t.lines().collect()),
    ("soft hyphens", |t| chunks(t, 10).join("\u{ad}")),
    ("zero-width spaces", |t| chunks(t, 7).join("\u{200b}")),
    ("byte order marks", |t| chunks(t, 23).join("\u{feff}")),
    ("non-breaking spaces", |t| {
        chunks(&t.replace(' ', "\u{a0}"), 31).join("\u{a0}")
    }),
    ("em dashes", |t| {
        t.replace("-----", "\u{2014}\u{2013}-")
            .replace("--", "\u{2014}")
    }),
    ("between words", |t| {
        format!("Hello,\nhere: *{t}* good?\n-- \nFrom: me, 10:02\n")
    }),
    ("quoted-printable", quoted_printable),
    ("html", |t| html(t, "<br>\n", "<wbr>")),
    ("html of an editor", |t| {
        html(
            t,
            "</p><p class=\"MsoNormal\">",
            "<span\nstyle='x'>&shy;</span>",
        )
    }),
    ("html in numbers", |t| {
        let entities = |c: char| match c {
            '\n' => "<br>".to_owned(),
            c if c.is_ascii_alphanumeric() => c.to_string(),
            c => format!("&#{};", u32::from(c)),
        };
        t.chars().map(entities).collect()
    }),
    ("mail in quoted-printable", |t| {
        format!(
            "From: a@example.org\nContent-Transfer-Encoding: quoted-printable\n\n{}",
            quoted_printable(t)
        )
    }),
    ("mail in base64", |t| {
        let body = BASE64.encode(t.as_bytes());
        format!(
            "Subject: =?utf-8?q?x?=\nContent-Transfer-Encoding: base64\n\n{}\n--x--\n",
            chunks(&body, 76).join("\n")
        )
    }),
];

/// Encodings in which programs store a text.
const ENCODINGS: &[Encoding] = &[
    ("UTF-8", |t| t.as_bytes().to_vec()),
    ("UTF-8 with BOM", |t| ["\u{feff}", t].concat().into_bytes()),
    ("UTF-16LE", |t| {
        ["\u{feff}", t]
            .concat()
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect()
    }),
    ("UTF-16BE", |t| {
        ["\u{feff}", t]
            .concat()
            .encode_utf16()
            .flat_map(u16::to_be_bytes)
            .collect()
    }),
    ("Latin-1", |t| {
        t.chars()
            .map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?'))
            .collect()
    }),
];

fn each_line(text: &str, line: impl Fn(&str) -> String) -> String {
    text.lines().map(line).collect()
}

fn chunks(text: &str, width: usize) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    characters
        .chunks(width)
        .map(|chunk| chunk.iter().collect())
        .collect()
}

/// As in RFC 2045: no line longer than 76, no escape split.
fn quoted_printable(text: &str) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for byte in text.bytes() {
        let piece = match byte {
            b'\n' => "\r\n".to_owned(),
            b' '..=b'~' if byte != b'=' => char::from(byte).to_string(),
            byte => format!("={byte:02X}"),
        };
        column = if byte == b'\n' {
            0
        } else {
            column + piece.len()
        };
        if column > 75 {
            out += "=\r\n";
            column = piece.len();
        }
        out += &piece;
    }
    out
}

fn html(text: &str, line_break: &str, inside: &str) -> String {
    let escape = |chunk: &String| {
        let chunk = chunk
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        chunk.replace(' ', "&nbsp;").replace('\n', line_break)
    };
    let body: Vec<String> = chunks(text, 40).iter().map(escape).collect();
    format!(
        "<html><head><style>p {{ a: b }}</style></head><body>{}</body></html>",
        body.join(inside)
    )
}

fn record(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * n + 3 * n) as u8).collect()
}

fn block(record: &[u8]) -> String {
    write(record, &[("Good-Until", "2026-11-24 10:00 UTC")])
}

#[test]
fn a_text_is_what_it_always_was() {
    let golden = "\
-----BEGIN LCROUTE TEXT-----
Good-Until: 2026-11-24 10:00 UTC

LCR1:AAYAABAKCIOCQNSGLBWIFGVU2DXA4MCUPKRMZ6BGK2ELZ4RKMSQN4HTAUTV
DE7GICZTLQDDCXIKHBTROROD5ANI
-----END LCROUTE TEXT-----
";
    assert_eq!(block(&record(48)), golden);
    assert_eq!(read(golden.as_bytes()), Ok(vec![record(48)]));
}

#[test]
fn every_two_manglings_survive() {
    let record = record(250);
    for text in [block(&record), line(&record)] {
        for (first, mangle) in MANGLINGS {
            let once = mangle(&text);
            for (second, mangle) in MANGLINGS {
                let twice = mangle(&once);
                for (encoding, encode) in ENCODINGS {
                    let found = read(&encode(&twice));
                    let expected = Ok(vec![record.clone()]);
                    assert_eq!(found, expected, "{first}, {second}, {encoding}:\n{twice}");
                }
            }
        }
    }
}

/// Returns `text` with each of its characters missing, changed, or swapped with the next.
fn damages(text: &str) -> impl Iterator<Item = (String, String)> {
    let characters: Vec<char> = text.chars().collect();
    (0..characters.len()).flat_map(move |at| {
        let edit = |kind: &str, edit: &dyn Fn(&mut Vec<char>)| {
            let mut edited = characters.clone();
            edit(&mut edited);
            (
                format!("{} of {at} {kind}", characters[at]),
                edited.into_iter().collect(),
            )
        };
        let next = (at + 1) % characters.len();
        let mut all = vec![edit("deleted", &|t| {
            t.remove(at);
        })];
        all.push(edit("swapped", &|t| t.swap(at, next)));
        all.extend(
            "AQ7180:= <&"
                .chars()
                .map(|c| edit(&format!("now {c:?}"), &|t| t[at] = c)),
        );
        all
    })
}

#[test]
fn no_damage_goes_unnoticed() {
    let record = record(150);
    let (text, body) = (block(&record), line(&record));
    let letters =
        |text: &str| -> String { text.chars().filter(char::is_ascii_alphanumeric).collect() };
    let body = &letters(&body)[4..];
    for text in [text, line(&record)] {
        for (what, damaged) in damages(&text) {
            match read(damaged.as_bytes()) {
                // around the text, or a space: both are ignored
                Ok(records) => {
                    assert_eq!(records, std::slice::from_ref(&record), "{what}");
                    assert!(letters(&damaged).contains(body), "{what}:\n{damaged}");
                }
                Err(TextError::TooLong | TextError::TooMany) => panic!("{what}"),
                Err(_) => {}
            }
        }
    }
}

#[test]
fn errors_tell_what_is_wrong() {
    let text = block(&record(150));
    let missing = TextError::Missing {
        found: 248,
        needed: 250,
    };
    let body = text.find("LCR1:").unwrap();
    let [without_two, changed, newer] = [("2", ""), ("A", "B"), ("LCR1", "LCR2")]
        .map(|(from, to)| text[..body].to_owned() + &text[body..].replacen(from, to, 2));
    let in_html = html(&without_two, "<br>", "<wbr>");
    for (input, error) in [
        ("", TextError::Nothing),
        ("see you at 10:00", TextError::Nothing),
        (&text[..text.len() - 60], TextError::CutOff),
        (&text[..40], TextError::CutOff),
        (&text.replace("LCR1:", ""), TextError::Damaged),
        (&text[text.len() - 40..], TextError::Damaged),
        (&without_two, missing),
        (&in_html, missing),
        (&changed, TextError::Damaged),
        (&newer, TextError::Newer),
    ] {
        assert_eq!(read(input.as_bytes()), Err(error), "{input}");
    }
    assert_eq!(
        missing.to_string(),
        "the lcroute text has 248 of 250 characters: copy it again"
    );
}

#[test]
fn several_texts_are_read_at_once() {
    let texts = |n: usize| (0..n).fold(String::new(), |text, n| text + &block(&record(150 + n)));
    let records = |n| (0..n).map(|n| record(150 + n)).collect::<Vec<_>>();
    assert_eq!(read(texts(16).as_bytes()), Ok(records(16)));
    assert_eq!(read(texts(17).as_bytes()), Err(TextError::TooMany));
    // in both halves of a mail, above the quoted text
    let twice = format!("{}{}", texts(2), html(&texts(2), "<br>", ""));
    assert_eq!(read(twice.as_bytes()), Ok(records(2)));
    let beside = format!("{}{}", &texts(1)[..200], texts(2));
    assert_eq!(read(beside.as_bytes()), Ok(records(2)));
}

#[test]
fn hostile_input_is_read_in_linear_time() {
    let begun = std::time::Instant::now();
    for piece in [
        "LCR1:",
        "<",
        "&",
        "=\n",
        "=3D",
        "&lt;",
        "BEGIN LCROUTE TEXT ",
        "TENSMToK",
        ":",
    ] {
        let text = piece.repeat(MAX_TEXT / piece.len());
        assert!(read(text.as_bytes()).is_err());
    }
    let begins = line(&record(MAX_RECORD));
    let text = begins[..1_000].repeat(MAX_TEXT / 1_000);
    assert!(read(text.as_bytes()).is_err());
    assert_eq!(read(&vec![0; MAX_TEXT + 1]), Err(TextError::TooLong));
    // quadratic time would take an hour
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}

proptest! {
    #[test]
    fn any_record_survives(
        record in vec(any::<u8>(), 0..=MAX_RECORD),
        first in 0..MANGLINGS.len(),
        second in 0..MANGLINGS.len(),
        encoding in 0..ENCODINGS.len(),
    ) {
        let text = MANGLINGS[second].1(&MANGLINGS[first].1(&block(&record)));
        prop_assert_eq!(read(&ENCODINGS[encoding].1(&text)), Ok(vec![record]));
    }

    #[test]
    fn anything_may_be_read(
        bytes in vec(any::<u8>(), 0..600),
        pieces in vec(prop::sample::select(
            &["LCR1:", "ABAAA", "<", ">", "&", "#", ";", "=", "3D", "\n", "END LCROUTE TEXT", "\0"][..]
        ), 0..200),
    ) {
        for input in [&bytes[..], pieces.concat().as_bytes()] {
            prop_assert!(read(input).is_err());
        }
    }
}
