//! A session as files of other formats: WebVTT, Markdown, one page of HTML.

use std::fmt::Write;

use crate::captions::CaptionLine;
use crate::markdown::html_below;
use crate::track::Language;
use crate::view::View;

/// Longest time of a caption without a following one, in milliseconds.
const LONGEST_CUE_MS: u64 = 7_000;
/// Shortest time of a caption, in milliseconds.
const SHORTEST_CUE_MS: u64 = 1_000;

impl View {
    /// Returns the time of the first turn or caption, in milliseconds since 1970.
    pub fn began_ms(&self) -> Option<u64> {
        let lines = self
            .transcripts()
            .values()
            .filter_map(|t| Some(t.lines().first()?.time_ms));
        let turn = self.turn_log().first().map(|(time, _)| *time);
        lines.chain(turn).min()
    }

    /// Returns the shown slides: time in milliseconds since 1970, number from 1, and text.
    pub fn course(&self) -> Vec<(u64, usize, &str)> {
        let mut course: Vec<(u64, usize, &str)> = Vec::new();
        for (time, turn) in self.turn_log_now() {
            if let Some((number, text)) = self.deck().shown(turn)
                && course.last().is_none_or(|(_, last, _)| *last != number)
            {
                course.push((time, number, text));
            }
        }
        course
    }
}

fn clock(ms: u64) -> String {
    let (s, ms) = (ms / 1_000, ms % 1_000);
    format!("{:02}:{:02}:{:02}.{ms:03}", s / 3_600, s / 60 % 60, s % 60)
}

/// Escapes text for HTML and WebVTT.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// Returns captions as WebVTT, from the session's beginning on.
#[must_use]
pub fn webvtt(view: &View, language: &Language) -> String {
    let mut out = "WEBVTT\n".to_owned();
    let began = view.began_ms().unwrap_or(0);
    let lines = view.transcripts().get(language).map(|t| t.lines());
    let lines = lines.unwrap_or_default();
    for (at, line) in lines.iter().enumerate() {
        let begins = line.time_ms.saturating_sub(began);
        let next = lines
            .get(at + 1)
            .map_or(u64::MAX, |l| l.time_ms.saturating_sub(began));
        let ends = next.clamp(begins + SHORTEST_CUE_MS, begins + LONGEST_CUE_MS);
        let voice = match line.speaker.is_empty() {
            true => String::new(),
            false => format!("<v {}>", escaped(&line.speaker)),
        };
        // an arrow in a text would end a cue's times; escaped, it does not
        let _ = write!(
            out,
            "\n{} --> {}\n{voice}{}\n",
            clock(begins),
            clock(ends),
            escaped(&line.text)
        );
    }
    out
}

/// Returns slides in the order of their turns, each with the captions during it.
#[must_use]
pub fn transcript_markdown(view: &View, language: Option<&Language>) -> String {
    let mut out = format!("# {}\n", title(view));
    for part in parts(view, language) {
        if let Some((_, number, text)) = part.slide {
            let text = without_title(text, &title(view));
            let _ = write!(out, "\n---\n\n<!-- slide {number} -->\n\n{text}\n");
        }
        for line in part.lines {
            let _ = match line.speaker.is_empty() {
                true => write!(out, "\n{}\n", line.text),
                false => write!(out, "\n**{}:** {}\n", line.speaker, line.text),
            };
        }
    }
    out
}

fn title(view: &View) -> String {
    match view.index().title.is_empty() {
        true => "A session".to_owned(),
        false => view.index().title.clone(),
    }
}

/// Returns a slide without a heading that repeats the session's title.
fn without_title<'a>(slide: &'a str, title: &str) -> &'a str {
    let (first, rest) = slide.split_once('\n').unwrap_or((slide, ""));
    let heading = first
        .strip_prefix("# ")
        .map(|text| text.trim().trim_end_matches('#').trim());
    match heading == Some(title) {
        true => rest.trim_start_matches('\n'),
        false => slide,
    }
}

/// A slide with the time of its turn, and the captions during it.
struct Part<'a> {
    slide: Option<(u64, usize, &'a str)>,
    lines: Vec<&'a CaptionLine>,
}

fn parts<'a>(view: &'a View, language: Option<&Language>) -> Vec<Part<'a>> {
    let lines = language.and_then(|l| view.transcripts().get(l));
    let mut lines = lines
        .map(|t| t.lines())
        .unwrap_or_default()
        .into_iter()
        .peekable();
    let course = view.course();
    let mut parts = Vec::new();
    let mut take = |slide, until: u64| {
        let mut said = Vec::new();
        while let Some(line) = lines.next_if(|line| line.time_ms < until) {
            said.push(line);
        }
        parts.push(Part { slide, lines: said });
    };
    take(None, course.first().map_or(u64::MAX, |(time, ..)| *time));
    for (at, slide) in course.iter().enumerate() {
        let until = course.get(at + 1).map_or(u64::MAX, |(time, ..)| *time);
        take(Some(*slide), until);
    }
    parts
}

/// Style without script; colours and text size are the reader's.
const STYLE: &str = "\
:root { color-scheme: light dark; font: 112.5%/1.6 system-ui, sans-serif;
  --line: color-mix(in srgb, currentColor 25%, transparent); --soft: color-mix(in srgb, currentColor 5%, transparent); }
body { max-width: 46rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; overflow-wrap: break-word; }
h1 { margin: 0; font-size: 2.25rem; line-height: 1.2; text-wrap: balance; }
h2, h3, h4, h5, h6 { line-height: 1.25; text-wrap: balance; }
.by { margin: .5rem 0 0; font-size: 1.25rem; }
section { margin-top: 2.5rem; }
.number { display: flex; justify-content: space-between; margin: 0 .25rem .4rem; font-size: .9rem; font-variant-numeric: tabular-nums; }
.slide { padding: 1.25rem 1.75rem; border: 1px solid var(--line); border-radius: .75rem; background: var(--soft); }
.slide > :first-child { margin-top: 0; }
.slide > :last-child { margin-bottom: 0; }
img { display: block; max-width: 100%; height: auto; margin: 1rem auto; border-radius: .4rem; }
pre, table { overflow-x: auto; display: block; }
pre { padding: .75rem 1rem; border: 1px solid var(--line); border-radius: .4rem; line-height: 1.45; }
table { border-collapse: collapse; }
td, th { padding: .3rem .75rem; border: 1px solid var(--line); text-align: start; }
blockquote { margin-inline: 0; padding-inline-start: 1rem; border-inline-start: .25rem solid var(--line); }
.said, .asked { margin: .75rem 0; padding-inline-start: 1rem; border-inline-start: .25rem solid var(--line); }
@media print { section { break-inside: avoid; } }
";

/// Returns a time from the beginning on: minutes and seconds, with hours if any.
fn elapsed(ms: u64) -> String {
    let s = ms / 1_000;
    match s / 3_600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        hours => format!("{hours}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}

/// Returns the session as one page of HTML, which loads nothing and runs nothing. `picture` returns
/// a picture beside the slides as a `data:` URL.
#[must_use]
pub fn page(
    view: &View,
    language: Option<&Language>,
    mut picture: impl FnMut(&str) -> Option<String>,
) -> String {
    let (plain_title, began) = (title(view), view.began_ms().unwrap_or(0));
    let title = escaped(&plain_title);
    let presenter = escaped(&view.index().presenter);
    let tag = language.map_or("", Language::tag);
    let lang = if tag.is_empty() {
        String::new()
    } else {
        format!(" lang=\"{tag}\"")
    };
    let (author, by) = match presenter.is_empty() {
        true => (String::new(), String::new()),
        false => (
            format!("<meta name=\"author\" content=\"{presenter}\">\n"),
            format!("<p class=\"by\">{presenter}</p>\n"),
        ),
    };
    let mut out = format!(
        "<!doctype html>\n<html{lang}>\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n\
         {author}<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header>\n<h1>{title}</h1>\n{by}</header>\n"
    );
    for part in parts(view, language) {
        match part.slide {
            Some((time, number, text)) => {
                let text = without_title(text, &plain_title);
                let time = elapsed(time.saturating_sub(began));
                let _ = writeln!(
                    out,
                    "<section aria-label=\"Slide {number}\">\n<p class=\"number\"><span>{number}</span> <span>{time}</span></p>"
                );
                if !text.trim().is_empty() {
                    let _ = writeln!(
                        out,
                        "<div class=\"slide\">\n{}</div>",
                        html_below(text, &mut picture)
                    );
                }
            }
            None if part.lines.is_empty() => continue,
            None => out.push_str("<section>\n"),
        }
        for line in part.lines {
            let _ = match line.speaker.is_empty() {
                true => writeln!(out, "<p class=\"said\">{}</p>", escaped(&line.text)),
                false => writeln!(
                    out,
                    "<p class=\"said\"><b>{}:</b> {}</p>",
                    escaped(&line.speaker),
                    escaped(&line.text)
                ),
            };
        }
        out.push_str("</section>\n");
    }
    if !view.questions().is_empty() {
        out.push_str("<section>\n<h2>Questions</h2>\n");
        for question in view.questions() {
            let name = match question.name.is_empty() {
                true => String::new(),
                false => format!("<b>{}:</b> ", escaped(&question.name)),
            };
            let _ = writeln!(
                out,
                "<p class=\"asked\">{name}{}</p>",
                escaped(&question.text)
            );
        }
        out.push_str("</section>\n");
    }
    out.push_str("</main>\n</body>\n</html>\n");
    out
}
