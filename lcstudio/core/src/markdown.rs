//! Slides in Markdown (CommonMark, and tables): split, checked, as text, as HTML.
//!
//! A line `---` between blank lines begins the next slide. Definitions of references serve all
//! slides: each has a copy of those that it needs. Front matter at the beginning, as in
//! Marp, is no slide ([`front_matter`](crate::front_matter)). Comments, `<!-- -->`, are notes for
//! the presenter, and in no slide. HTML is shown as text, and pictures are files beside the slides:
//! a slide of another member starts no request and runs nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use pulldown_cmark::html::push_html;
use pulldown_cmark::{
    BrokenLink, CodeBlockKind, CowStr, Event, HeadingLevel, Options, Parser, RefDefs, Tag, TagEnd,
};

use crate::deck::MAX_SLIDE;
use crate::front_matter::{self, FrontMatter};
use crate::plain::{MAX_LINE, clean, clean_line};

/// A slide, and its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slide {
    /// Markdown of the slide.
    pub text: String,
    /// First line of the slide in the file, from 1.
    pub line: usize,
    /// Lines with problems, for the author.
    pub problems: Vec<(usize, Problem)>,
    /// Text of its comments, for the presenter alone, as in Marp. It is never sent.
    pub notes: String,
}

/// A fault that a reader would notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// A picture without alt text.
    NoAltText(String),
    /// A picture elsewhere, which is not fetched.
    RemotePicture(String),
    /// HTML is shown as text.
    Html,
    /// Invisible characters were removed.
    Hidden,
    /// The first line whose bytes are not UTF-8.
    NotUtf8(String),
    /// A path with a blank makes no picture.
    BlankInPath(String),
    /// Dashes below text make it a heading, and begin no slide.
    Underlined(String),
    /// Dashes that belong to a table, to HTML or to a quotation separate no slides.
    NoBreak,
    /// Two dashes separate no slides.
    TwoDashes,
    /// A block of code without an end contains dashes.
    OpenCode,
    /// A comment without an end.
    OpenComment,
    /// A comment within another one, in this line.
    CommentInComment(String),
    /// A comment that ends where it begins, in this line.
    ShortComment(String),
    /// A comment in code that no fences show as such, in this line.
    CommentInCode(String),
    /// Front matter has no end.
    OpenFrontMatter,
    /// Marp's front matter for slides that begin at headings.
    HeadingDivider,
    /// A slide exceeds [`MAX_SLIDE`].
    TooLong(usize),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAltText(url) => write!(
                f,
                "picture {url} has no alt text for attenders that do not see it. Write ![what it shows]({url})"
            ),
            Self::RemotePicture(url) => write!(
                f,
                "picture {url} lies on another server and is not fetched: put it beside the slides"
            ),
            Self::Html => f.write_str("HTML is shown as text: write Markdown"),
            Self::Hidden => f.write_str("characters that nobody sees are left out"),
            Self::NotUtf8(line) => write!(
                f,
                "this file is not UTF-8, so all see other letters from here on: save it as UTF-8. The line is: {line}"
            ),
            Self::BlankInPath(path) => write!(
                f,
                "picture {path} is shown as text, as its path has a blank: write {}",
                path.replace(' ', "%20")
            ),
            Self::Underlined(text) => write!(
                f,
                "--- directly below text makes a heading of it, and no new slide: put a blank line above ---, or write ## {text}"
            ),
            Self::NoBreak => {
                f.write_str("--- belongs to what is above it, and begins no new slide: put a blank line above")
            }
            Self::TwoDashes => f.write_str("-- begins no new slide: write ---, with blank lines around it"),
            Self::OpenCode => f.write_str(
                "this block of code has no end, so all that follows belongs to it: put a line ``` below the code",
            ),
            Self::OpenComment => f.write_str(
                "this comment has no end, so the rest of the slide is a note that nobody else sees: put --> behind the note",
            ),
            Self::CommentInComment(line) => write!(
                f,
                "another comment begins within this one, and all before its --> is a note that nobody else sees: put --> behind the first note. The line is: {line}"
            ),
            Self::ShortComment(line) => write!(
                f,
                "this comment ends at once, so all see what follows: write <!-- and then the note. The line is: {line}"
            ),
            Self::CommentInCode(line) => write!(
                f,
                "this comment is code, so all see it: for a note, take away blanks in front of it or the ` around it. The line is: {line}"
            ),
            Self::OpenFrontMatter => {
                f.write_str("this front matter has no end, and is shown: put a line --- below it")
            }
            Self::HeadingDivider => {
                f.write_str("headingDivider has no effect here: put a line --- between slides")
            }
            Self::TooLong(bytes) => {
                write!(f, "{bytes} bytes, at most {MAX_SLIDE} fit into a slide")
            }
        }
    }
}

const OPTIONS: Options = Options::ENABLE_TABLES.union(Options::ENABLE_STRIKETHROUGH);

fn parser(text: &str) -> Parser<'_> {
    Parser::new_ext(text, OPTIONS)
}

/// Returns the file with line feeds only, and without a byte order mark.
fn plain_lines(file: &str) -> String {
    let file = file.strip_prefix('\u{feff}').unwrap_or(file);
    file.replace("\r\n", "\n").replace('\r', "\n")
}

/// Returns the front matter of a file of slides.
#[must_use]
pub fn front_matter(file: &str) -> FrontMatter {
    front_matter::read(&plain_lines(file))
}

/// Splits a file into slides, without empty slides and front matter.
#[must_use]
pub fn split(file: &str) -> Vec<Slide> {
    let file = plain_lines(file);
    let foreign = line_not_utf8(&file);
    let about = front_matter::read(&file);
    // its lines stay as empty lines, so that line numbers stay right
    let blank: String = file[..about.length]
        .chars()
        .filter(|c| *c == '\n')
        .collect();
    let lines = blank.len();
    let file = blank + &file[about.length..];
    let (file, comments) = without_comments(&file);
    let mut slides = parts(&file, &comments);
    if let Some((line, text)) = foreign {
        let at = slides.partition_point(|slide| slide.line <= line);
        if let Some(slide) = slides.get_mut(at.saturating_sub(1)) {
            add_problem(slide, line, Problem::NotUtf8(text));
        }
    }
    if let Some(first) = slides.first_mut() {
        if about.is_open {
            first.problems.insert(0, (1, Problem::OpenFrontMatter));
        }
        if let Some(line) = about.heading_divider.filter(|line| *line <= lines) {
            first.problems.insert(0, (line, Problem::HeadingDivider));
        }
    }
    slides
}

/// Returns the first line, from 1, of a file that was read as UTF-8 and is not: U+FFFD stands for
/// the bytes of Latin-1 and for the mark of UTF-16, which has zeros between its letters.
fn line_not_utf8(file: &str) -> Option<(usize, String)> {
    let mut lines = (1..).zip(file.lines());
    let (line, text) = lines.find(|(_, text)| text.contains(['\u{fffd}', '\0']))?;
    Some((line, clean_line(text)))
}

/// A comment: its place in the file without comments, first line, text. In code it has no text.
struct Comment {
    at: usize,
    line: usize,
    text: String,
    problem: Option<Problem>,
}

const COMMENT: &str = "<!--";
const END_OF_COMMENT: &str = "-->";

/// Returns the file without comments, but with the same lines. Comments in code stay.
fn without_comments(file: &str) -> (String, Vec<Comment>) {
    let (mut out, mut comments) = (String::with_capacity(file.len()), Vec::new());
    if !file.contains(COMMENT) {
        return (file.to_owned(), comments);
    }
    // code, and whether fences show it as such
    let code: Vec<(Range<usize>, bool)> = parser(file)
        .into_offset_iter()
        .filter_map(|(event, range)| match event {
            Event::Start(Tag::CodeBlock(kind)) => {
                Some((range, matches!(kind, CodeBlockKind::Fenced(_))))
            }
            Event::Code(_) => Some((range, false)),
            _ => None,
        })
        .collect();
    let (mut from, mut line) = (0, 1);
    for (at, _) in file.match_indices(COMMENT) {
        if at < from || file[..at].ends_with('\\') {
            continue;
        }
        let in_code = code.partition_point(|(range, _)| range.end <= at);
        let in_code = code.get(in_code).filter(|(range, _)| range.start <= at);
        if let Some((_, is_fenced)) = in_code {
            if !is_fenced {
                comments.push(Comment {
                    at: out.len() + at - from,
                    line: line + lines_in(&file[from..at]),
                    text: String::new(),
                    problem: Some(Problem::CommentInCode(line_at(file, at))),
                });
            }
            continue;
        }
        let begin = at + COMMENT.len();
        // its dashes may be those of its end: <!--> is a comment
        let closed = file[at + 2..].find(END_OF_COMMENT).map(|end| at + 2 + end);
        // without an end, it ends at the next slide
        let next = || {
            let next = file[begin..].find("\n\n---\n");
            next.map_or(file.len(), |next| begin + next)
        };
        let end = closed.unwrap_or_else(next);
        let text = file[begin..end.max(begin)].trim();
        let problem = match closed {
            None => Some(Problem::OpenComment),
            Some(end) if end < begin => Some(Problem::ShortComment(line_at(file, at))),
            Some(_) if text.contains(COMMENT) => Some(Problem::CommentInComment(line_at(file, at))),
            Some(_) => None,
        };
        out.push_str(&file[from..at]);
        line += lines_in(&file[from..at]);
        comments.push(Comment {
            at: out.len(),
            line,
            text: text.to_owned(),
            problem,
        });
        from = end + closed.map_or(0, |_| END_OF_COMMENT.len());
        let lines = lines_in(&file[at..from]);
        line += lines;
        out.extend(std::iter::repeat_n('\n', lines));
    }
    out.push_str(&file[from..]);
    (out, comments)
}

/// Returns the line of this place, for a message.
fn line_at(file: &str, at: usize) -> String {
    let begins = file[..at].rfind('\n').map_or(0, |end| end + 1);
    clean_line(file[begins..].lines().next().unwrap_or_default())
}

fn lines_in(text: &str) -> usize {
    text.bytes().filter(|b| *b == b'\n').count()
}

/// Returns whether a comment is for Marp itself: then it is not a note.
fn is_directive(comment: &str) -> bool {
    const NAMES: [&str; 17] = [
        "backgroundColor",
        "backgroundImage",
        "backgroundPosition",
        "backgroundRepeat",
        "backgroundSize",
        "class",
        "color",
        "footer",
        "header",
        "headingDivider",
        "lang",
        "marp",
        "math",
        "paginate",
        "size",
        "style",
        "theme",
    ];
    comment.lines().all(|line| {
        let (name, _) = line.split_once(':').unwrap_or_default();
        NAMES.contains(&name.trim().trim_start_matches(['_', '$']))
    })
}

fn parts(file: &str, comments: &[Comment]) -> Vec<Slide> {
    let mut from = 0;
    let mut slides: Vec<Slide> = Vec::new();
    let mut depth = 0_usize;
    // comments of an empty part belong to the next slide
    let mut comments = comments.iter().peekable();
    let all = parser(file);
    let definitions = all.reference_definitions();
    let mut take = |range: Range<usize>| {
        let Some(mut slide) = slide(file, range.clone(), definitions) else {
            return;
        };
        while let Some(comment) = comments.next_if(|comment| comment.at <= range.end) {
            add_note(&mut slide, comment);
        }
        slides.push(slide);
    };
    for (event, range) in parser(file).into_offset_iter() {
        match event {
            Event::Start(_) => depth += 1,
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::Rule
                if depth == 0 && file[range.clone()].trim_end().chars().all(|c| c == '-') =>
            {
                take(from..range.start);
                from = range.end;
            }
            _ => {}
        }
    }
    take(from..file.len());
    if let Some(last) = slides.last_mut() {
        comments.for_each(|comment| add_note(last, comment));
    }
    slides
}

fn add_problem(slide: &mut Slide, line: usize, problem: Problem) {
    let at = slide.problems.partition_point(|(known, _)| *known <= line);
    slide.problems.insert(at, (line, problem));
}

fn add_note(slide: &mut Slide, comment: &Comment) {
    if let Some(problem) = &comment.problem {
        add_problem(slide, comment.line, problem.clone());
    }
    if comment.text.is_empty() || is_directive(&comment.text) {
        return;
    }
    if !slide.notes.is_empty() {
        slide.notes.push_str("\n\n");
    }
    slide.notes.push_str(&clean(&comment.text));
}

/// Returns the definitions, by their places in the file, of references that a text does not define.
fn lacks(text: &str, definitions: &RefDefs<'_>) -> BTreeSet<(usize, usize)> {
    let mut lacks = BTreeSet::new();
    let find = |link: BrokenLink<'_>| {
        let found = definitions.get(&link.reference);
        lacks.extend(found.map(|found| (found.span.start, found.span.end)));
        None::<(CowStr<'_>, CowStr<'_>)>
    };
    Parser::new_with_broken_link_callback(text, OPTIONS, Some(find)).for_each(drop);
    lacks
}

/// Returns a slide with the definitions of its references that stand elsewhere in the file.
fn with_definitions(text: &str, file: &str, definitions: &RefDefs<'_>) -> String {
    let mut whole = text.to_owned();
    for (at, (begin, end)) in lacks(text, definitions).into_iter().enumerate() {
        whole.push_str(if at == 0 { "\n\n" } else { "\n" });
        whole.push_str(file[begin..end].trim());
    }
    // code without an end would show them
    match lacks(&whole, definitions).is_empty() {
        true => whole,
        false => text.to_owned(),
    }
}

fn slide(file: &str, range: Range<usize>, definitions: &RefDefs<'_>) -> Option<Slide> {
    let part = &file[range.clone()];
    // definitions alone are not a slide, either
    if part.trim().is_empty() || parser(part).next().is_none() {
        return None;
    }
    let leading = part.len() - part.trim_start_matches(['\n', ' ', '\t']).len();
    // blanks before the first line count only within that line
    let begins = part[..leading].rfind('\n').map_or(0, |at| at + 1);
    let line = lines_in(&file[..range.start + begins]) + 1;
    let text = with_definitions(part[begins..].trim_end(), file, definitions);
    let problems = problems(&text, line);
    Some(Slide {
        text: clean(&text),
        line,
        problems,
        notes: String::new(),
    })
}

fn problems(text: &str, line: usize) -> Vec<(usize, Problem)> {
    let line_of = |at: usize| line + text[..at].bytes().filter(|b| *b == b'\n').count();
    let mut found = Vec::new();
    // an open picture: its place, URL and alt text
    let mut picture: Option<(usize, String, String)> = None;
    // blocks of code, whether one lacks an end, headings, places of pictures
    let (mut code, mut is_open, mut headings, mut pictures) =
        (Vec::new(), false, Vec::new(), Vec::new());
    for (event, range) in parser(text).into_offset_iter() {
        match event {
            Event::Start(Tag::Image { dest_url, .. }) => {
                let url = clean(&dest_url).replace(['\n', '\t'], " ");
                if local_name(&url).is_none() {
                    found.push((line_of(range.start), Problem::RemotePicture(url.clone())));
                }
                pictures.push(range.start);
                picture = Some((range.start, url, String::new()));
            }
            Event::End(TagEnd::Image) => {
                if let Some((at, url, alt)) = picture.take()
                    && alt.trim().is_empty()
                {
                    found.push((line_of(at), Problem::NoAltText(url)));
                }
            }
            Event::Text(alt) if picture.is_some() => {
                if let Some((_, _, all)) = &mut picture {
                    all.push_str(&alt);
                }
            }
            Event::Code(alt) => {
                if let Some((_, _, all)) = &mut picture {
                    all.push_str(&alt);
                }
                code.push(range);
            }
            Event::Start(Tag::CodeBlock(kind)) => {
                is_open |=
                    matches!(kind, CodeBlockKind::Fenced(_)) && is_unclosed(&text[range.clone()]);
                code.push(range);
            }
            Event::Start(Tag::Heading { .. }) => headings.push(range),
            Event::Html(_) | Event::InlineHtml(_) => {
                let at = line_of(range.start);
                if found.last() != Some(&(at, Problem::Html)) {
                    found.push((at, Problem::Html));
                }
            }
            _ => {}
        }
    }
    let in_code = |at: usize| code.iter().find(|range| range.contains(&at));
    let mut at = 0;
    for (number, part) in text.split_inclusive('\n').enumerate() {
        let (begins, number) = (at, line + number);
        at += part.len();
        let dashes = part.trim_end();
        let in_code = in_code(begins);
        match (dashes, in_code) {
            ("---", Some(range)) if is_open && range.end >= text.trim_end().len() => {
                let problem = (line_of(range.start), Problem::OpenCode);
                if !found.contains(&problem) {
                    found.push(problem);
                }
            }
            (_, Some(_)) => {}
            ("---", None) => {
                let heading = headings.iter().find(|range| range.contains(&begins));
                let heading = heading.map(|range| text[range.start..begins].trim());
                found.push((
                    number,
                    match heading {
                        Some(heading) => Problem::Underlined(clean_line(heading)),
                        None => Problem::NoBreak,
                    },
                ));
            }
            ("--", None) => found.push((number, Problem::TwoDashes)),
            _ => found.extend(
                paths_with_blanks(part)
                    .filter(|(place, _)| {
                        !pictures.contains(&(begins + place))
                            && !code.iter().any(|r| r.contains(&(begins + place)))
                    })
                    .map(|(_, path)| (number, Problem::BlankInPath(clean_line(path)))),
            ),
        }
    }
    let is_hidden = |(_, text): &(usize, &str)| clean(text) != *text;
    if let Some((at, _)) = (line..).zip(text.lines()).find(is_hidden) {
        found.push((at, Problem::Hidden));
    }
    if text.len() > MAX_SLIDE {
        found.push((line, Problem::TooLong(text.len())));
    }
    found.sort_by_key(|(line, _)| *line);
    found
}

/// Returns whether the last line of a fenced block of code is not a fence.
fn is_unclosed(block: &str) -> bool {
    let mut lines = block.lines();
    let fence = |line: &str| {
        let line = line.trim_start_matches(['>', ' ']).trim();
        let is_fence = line.starts_with("```") || line.starts_with("~~~");
        let mark = line.chars().next();
        is_fence && line.chars().all(|c| Some(c) == mark)
    };
    lines.next();
    !lines.last().is_some_and(fence)
}

/// Returns picture paths with a blank, which CommonMark refuses, with their places in the line.
fn paths_with_blanks(line: &str) -> impl Iterator<Item = (usize, &str)> {
    line.match_indices("![").filter_map(|(at, _)| {
        let (_, rest) = line[at..].split_once("](")?;
        let (path, _) = rest.split_once(')')?;
        let path = path.trim();
        // a title may follow the path
        let path = path.split_once(" \"").map_or(path, |(path, _)| path);
        (path.contains(' ') && !path.starts_with('<')).then_some((at, path))
    })
}

/// Returns the pictures beside the slides that this Markdown names: decoded paths, once, in order.
#[must_use]
pub fn pictures(markdown: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for event in parser(markdown) {
        if let Event::Start(Tag::Image { dest_url, .. }) = event
            && let Some(name) = local_name(&dest_url)
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    names
}

/// Returns the path of a picture beside the slides, from its URL.
fn local_name(url: &str) -> Option<String> {
    // checked before decoding: an encoded colon is part of a name, a plain one ends a scheme
    is_local(url)
        .then(|| decoded(url))
        .filter(|name| is_local(name))
}

/// Decodes valid escapes of a URL's path (RFC 3986, 2.1), if the result is UTF-8.
fn decoded(url: &str) -> String {
    let mut bytes = Vec::with_capacity(url.len());
    let mut rest = url.as_bytes();
    while let [first, more @ ..] = rest {
        let escape = more.first_chunk::<2>().filter(|_| *first == b'%');
        let escape = escape.and_then(|pair| std::str::from_utf8(pair).ok());
        let escape = escape.filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()));
        match escape.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[2..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| url.to_owned())
}

/// Returns whether a picture is beside the slides: a path without a scheme, below their folder.
pub(crate) fn is_local(name: &str) -> bool {
    let is_below =
        !name.starts_with(['/', '\\']) && name.split(['/', '\\']).all(|part| part != "..");
    is_below && !name.is_empty() && !name.contains([':', '?', '#', '\0'])
}

/// Returns whether a link may be followed: it runs nothing in a page.
fn is_link(url: &str) -> bool {
    let lower = url.to_ascii_lowercase();
    ["https://", "http://", "mailto:"]
        .iter()
        .any(|scheme| lower.starts_with(scheme))
}

/// Longest text of a slide, in bytes; the rest is cut. Chosen: four times the longest slide, enough
/// for the indentation of any readable slide.
const MAX_TEXT: usize = 4 * MAX_SLIDE;
/// Text in which a title is searched, in bytes. Chosen: some lines, as lists have many titles.
const MAX_TITLE: usize = 4 * MAX_LINE;
/// Nested quotations and lists that begin a line. Chosen: far above readable depth.
const MAX_INDENT: usize = 16;

/// Returns a slide as text for a terminal, a Braille line or a voice: headings, lists and tables as
/// in Markdown, pictures as alt text, links with their URL. The length is bounded for any slide.
#[must_use]
pub fn to_text(markdown: &str) -> String {
    text_of(markdown, MAX_TEXT)
}

/// Returns the beginning of the text, about `most` bytes.
fn text_of(markdown: &str, most: usize) -> String {
    let mut out = Text {
        most,
        ..Text::default()
    };
    for event in parser(markdown) {
        if out.is_full() {
            break;
        }
        out.event(event);
    }
    let mut text = clean(out.text.trim_end());
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
    text
}

/// Returns the title of a slide for a list: its first line.
#[must_use]
pub fn title(markdown: &str) -> String {
    let text = text_of(markdown, MAX_TITLE);
    let first = text.lines().map(|line| line.trim_start_matches('#').trim());
    let mut first = first.filter(|line| !line.is_empty());
    clean_line(first.next().unwrap_or_default())
}

/// Text that [`to_text`] has written.
#[derive(Debug, Default)]
struct Text {
    text: String,
    /// Bytes after which writing stops.
    most: usize,
    /// Beginning of each line: of quotations and lists, from the outside in.
    indent: Vec<String>,
    /// Next numbers of lists; `None`: a list of points.
    lists: Vec<Option<u64>>,
    /// URLs of links, from the outside in.
    links: Vec<String>,
    /// Whether the line has text.
    in_line: bool,
    in_picture: usize,
    /// Cells of the current row so far.
    cells: usize,
}

impl Text {
    fn is_full(&self) -> bool {
        self.text.len() > self.most
    }

    fn put(&mut self, text: &str) {
        for (at, line) in text.split('\n').enumerate() {
            if self.is_full() {
                return;
            }
            if at > 0 {
                self.end_line();
            }
            if line.is_empty() {
                continue;
            }
            if !self.in_line {
                let indent = self.indent.iter().take(MAX_INDENT);
                self.text.extend(indent.map(String::as_str));
                self.in_line = true;
            }
            self.text.push_str(line);
        }
    }

    fn end_line(&mut self) {
        self.text.push('\n');
        self.in_line = false;
    }

    fn end_block(&mut self) {
        if self.in_line {
            self.end_line();
        }
    }

    /// Begins a block with a blank line, unless it is the first or within a list.
    fn begin_block(&mut self) {
        self.end_block();
        if self.lists.is_empty() && !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) | Event::Code(text) | Event::Html(text) | Event::InlineHtml(text) => {
                self.put(&text);
            }
            Event::SoftBreak => self.put(" "),
            Event::HardBreak => self.end_line(),
            Event::Rule => {
                self.begin_block();
                self.put("* * *");
                self.end_block();
            }
            _ => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph if self.in_line => {}
            Tag::Paragraph | Tag::CodeBlock(_) | Tag::HtmlBlock => {
                self.begin_block();
                if matches!(tag, Tag::CodeBlock(_)) {
                    self.indent.push("    ".to_owned());
                }
            }
            Tag::Heading { level, .. } => {
                self.begin_block();
                self.put(&format!("{} ", "#".repeat(level as usize)));
            }
            Tag::BlockQuote(_) => {
                self.begin_block();
                self.indent.push("> ".to_owned());
            }
            Tag::List(first) => {
                if self.lists.is_empty() {
                    self.begin_block();
                }
                self.lists.push(first);
            }
            Tag::Item => {
                self.end_block();
                let mark = match self.lists.last_mut() {
                    Some(Some(number)) => {
                        let mark = format!("{number}. ");
                        *number += 1;
                        mark
                    }
                    _ => "- ".to_owned(),
                };
                self.put(&mark);
                self.indent.push(" ".repeat(mark.len()));
            }
            Tag::Image { .. } => {
                self.in_picture += 1;
                self.put("[picture: ");
            }
            Tag::Link { dest_url, .. } => self.links.push(dest_url.into_string()),
            Tag::Table(_) => self.begin_block(),
            Tag::TableHead | Tag::TableRow => {
                self.end_block();
                self.cells = 0;
            }
            Tag::TableCell => {
                if self.cells > 0 {
                    self.put(" | ");
                }
                self.cells += 1;
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Item => {
                self.end_block();
                self.indent.pop();
            }
            TagEnd::BlockQuote(_) | TagEnd::CodeBlock => {
                self.end_block();
                self.indent.pop();
            }
            TagEnd::List(_) => {
                self.lists.pop();
            }
            TagEnd::Image => {
                self.in_picture = self.in_picture.saturating_sub(1);
                if self.text.ends_with("[picture: ") {
                    self.put("without a description");
                }
                self.put("]");
            }
            TagEnd::Link => {
                if let Some(url) = self.links.pop()
                    && self.in_picture == 0
                    && !self.text.ends_with(url.trim_start_matches("mailto:"))
                {
                    self.put(&format!(" ({url})"));
                }
            }
            TagEnd::Paragraph | TagEnd::Heading(_) | TagEnd::TableHead | TagEnd::TableRow => {
                self.end_block();
            }
            _ => {}
        }
    }
}

/// Returns a slide as HTML that runs nothing and fetches only the URLs that `picture` returns for
/// pictures beside the slides. A picture without a URL is its alt text.
#[must_use]
pub fn to_html(markdown: &str, picture: impl FnMut(&str) -> Option<String>) -> String {
    html(markdown, picture, |level| level)
}

/// Returns the same for use below a heading: its headings are one level lower.
pub(crate) fn html_below(markdown: &str, picture: impl FnMut(&str) -> Option<String>) -> String {
    use HeadingLevel::{H1, H2, H3, H4, H5, H6};
    html(markdown, picture, |level| match level {
        H1 => H2,
        H2 => H3,
        H3 => H4,
        H4 => H5,
        H5 | H6 => H6,
    })
}

fn html(
    markdown: &str,
    mut picture: impl FnMut(&str) -> Option<String>,
    level: impl Fn(HeadingLevel) -> HeadingLevel,
) -> String {
    let mut events = Vec::new();
    // whether each open picture or link is shown as such
    let (mut pictures, mut links) = (Vec::new(), Vec::new());
    for event in parser(markdown) {
        match event {
            Event::Html(text) | Event::InlineHtml(text) => events.push(Event::Text(text)),
            Event::Start(Tag::Image {
                link_type,
                dest_url,
                title,
                id,
            }) => {
                let url = local_name(&dest_url).and_then(|name| picture(&name));
                pictures.push(url.is_some());
                match url {
                    Some(url) => events.push(Event::Start(Tag::Image {
                        link_type,
                        dest_url: url.into(),
                        title,
                        id,
                    })),
                    None => events.push(Event::Text("[picture: ".into())),
                }
            }
            Event::End(TagEnd::Image) => events.push(match pictures.pop() {
                Some(true) => Event::End(TagEnd::Image),
                _ => Event::Text("]".into()),
            }),
            Event::Start(Tag::Link { ref dest_url, .. }) => {
                links.push(is_link(dest_url));
                if is_link(dest_url) {
                    events.push(event);
                }
            }
            Event::End(TagEnd::Link) => {
                if links.pop() == Some(true) {
                    events.push(event);
                }
            }
            Event::Text(text) => events.push(Event::Text(CowStr::from(clean(&text)))),
            Event::Start(Tag::Heading {
                level: found,
                id,
                classes,
                attrs,
            }) => events.push(Event::Start(Tag::Heading {
                level: level(found),
                id,
                classes,
                attrs,
            })),
            Event::End(TagEnd::Heading(found)) => {
                events.push(Event::End(TagEnd::Heading(level(found))));
            }
            other => events.push(other),
        }
    }
    let mut out = String::new();
    push_html(&mut out, events.into_iter());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slides_stand_between_rules() {
        let file = "\n# One\n\ntext\n\n---\n\n\n## Two\n\n```\n---\n```\n\nheading\n---\n\n* * *\n\n---\n\n---\nThree";
        let slides = split(file);
        let lines: Vec<_> = slides.iter().map(|s| s.line).collect();
        assert_eq!(lines, [2, 9, 23]);
        assert_eq!(slides[0].text, "# One\n\ntext");
        assert!(slides[1].text.ends_with("heading\n---\n\n* * *"));
        assert_eq!(slides[2].text, "Three");
        assert!(split("\n---\n\n").is_empty());
        assert_eq!(split("a\r\n\r\n---\r\n\r\nb").len(), 2);
    }

    #[test]
    fn dashes_that_separate_no_slides_are_named_with_their_line() {
        let file = "# One\n\nlast words\n---\n\n# Two\n\n<div>\nx\n---\n</div>\n\n--\n\nThree\n\n---\n\n- a list\n---\nFour\n\n```\n---\n```\n";
        let slides = split(file);
        let lines: Vec<_> = slides.iter().map(|s| s.line).collect();
        assert_eq!(lines, [1, 19, 21]);
        let told = slides.into_iter().flat_map(|s| s.problems);
        let told: Vec<_> = told.filter(|(_, p)| *p != Problem::Html).collect();
        let underlined = Problem::Underlined("last words".to_owned());
        assert_eq!(
            told,
            [
                (4, underlined),
                (10, Problem::NoBreak),
                (13, Problem::TwoDashes)
            ]
        );
        let open = split("# One\n\n```\nlet x;\n\n---\n\n# Two\n\n---\n\n# Three");
        assert_eq!(open.len(), 1);
        assert_eq!(open[0].problems, [(3, Problem::OpenCode)]);
    }

    #[test]
    fn comments_are_notes_of_who_presents_and_in_no_slide() {
        let file = "<!-- _class: lead\npaginate: true -->\n# One\n\nto all <!-- first --> of you\n\n<!--\nsay hello\n\n---\n\n`wave` -->\n\n---\n\n\
                    `<!-- shown -->` \\<!-- shown, too -->\n\n```\n<!-- code -->\n```\n\n---\n\n<!-- of the next -->\n\n---\n\n![](x.png)\n<!-- of the last";
        let slides = split(file);
        let notes: Vec<_> = slides.iter().map(|slide| slide.notes.as_str()).collect();
        let first = "first\n\nsay hello\n\n---\n\n`wave`";
        assert_eq!(notes, [first, "", "of the next\n\nof the last"]);
        assert_eq!(slides[0].text, "# One\n\nto all  of you");
        assert!(slides[1].text.contains("shown -->` \\<!-- shown, too -->"));
        assert!(slides[1].text.contains("<!-- code -->"));
        assert_eq!(slides[2].text, "![](x.png)");
        assert!(slides[0].problems.is_empty());
        let problems = [
            (28, Problem::NoAltText("x.png".into())),
            (29, Problem::OpenComment),
        ];
        assert_eq!(slides[2].problems, problems);
        // without an end: further slides follow
        let open = split("# One\n<!-- a note\n\n---\n\n# Two");
        let texts: Vec<_> = open.iter().map(|slide| slide.text.as_str()).collect();
        assert_eq!(texts, ["# One", "# Two"]);
        assert_eq!(open[0].notes, "a note");
    }

    #[test]
    fn a_note_that_all_would_see_and_a_text_that_nobody_would_see_are_named() {
        let problems = |file: &str| {
            let slides = split(file);
            let all = slides.into_iter().flat_map(|slide| slide.problems);
            all.filter(|(_, problem)| *problem != Problem::Html)
                .collect::<Vec<_>>()
        };
        let line = |text: &str| text.to_owned();
        let deep = "# One\n\n---\n\n1. first\n\n       <!-- deep -->\n\n   <!-- note -->\n";
        let expected = (7, Problem::CommentInCode(line("<!-- deep -->")));
        assert_eq!(problems(deep), [expected]);
        let quoted = "the ` key <!-- of the\nkeyboard --> and ` again";
        let expected = (1, Problem::CommentInCode(line("the ` key <!-- of the")));
        assert_eq!(problems(quoted), [expected]);
        assert!(problems("```\n<!-- code -->\n```\n").is_empty());
        for short in ["<!-->", "<!--->"] {
            let file = format!("# One\n\n{short} a\n\n---\n\n# Two <!-- note -->");
            let slides = split(&file);
            assert_eq!(slides[0].text, "# One\n\n a");
            assert_eq!(
                (slides[1].text.as_str(), slides[1].notes.as_str()),
                ("# Two", "note")
            );
            let expected = (3, Problem::ShortComment(format!("{short} a")));
            assert_eq!(problems(&file), [expected]);
        }
        let open = "# One\n<!-- a\n\n---\n\n# Two\n\n<!-- b -->";
        let expected = (2, Problem::CommentInComment(line("<!-- a")));
        assert_eq!(problems(open), [expected]);
    }

    #[test]
    fn definitions_of_references_serve_all_slides_and_are_none() {
        let file = "# One\n\n[the map][M], ![a bee][bee] and [none]\n\n[m]: https://h.example/map?a=1&copy=2 \"a map\"\n\n---\n\n\
                    [The Map][m] ![][Bee]\n\n---\n\n[bee]: <images/a bee.png>\n[other]: x.png\n<!-- last -->\n";
        let slides = split(file);
        let map = "[m]: https://h.example/map?a=1&copy=2 \"a map\"";
        let bee = "[bee]: <images/a bee.png>";
        let texts: Vec<_> = slides.iter().map(|slide| slide.text.as_str()).collect();
        let first = format!("# One\n\n[the map][M], ![a bee][bee] and [none]\n\n{map}\n\n{bee}");
        assert_eq!(
            texts,
            [first, format!("[The Map][m] ![][Bee]\n\n{map}\n{bee}")]
        );
        assert_eq!(slides[1].notes, "last");
        for slide in &slides {
            assert_eq!(pictures(&slide.text), ["images/a bee.png"]);
            let made = to_html(&slide.text, |_| None);
            assert!(made.contains("href=\"https://h.example/map?a=1"), "{made}");
        }
        let expected = (9, Problem::NoAltText("images/a bee.png".into()));
        assert_eq!(slides[1].problems, [expected]);
        assert!(split("[m]: x.png\n").is_empty());
        // a block of code that does not end takes no definitions in
        let open = split("[m]: x.png\n\n---\n\n[m]\n\n```\ncode");
        assert_eq!(open[0].text, "[m]\n\n```\ncode");
    }

    #[test]
    fn a_file_in_another_encoding_is_named_with_its_first_such_line() {
        let latin =
            b"---\ntitle: Bienen\n---\n\n# Eins\n\n---\n\n# Zwei\n\nsch\xf6n <!-- gr\xfcn -->";
        let slides = split(&String::from_utf8_lossy(latin));
        assert!(slides[0].problems.is_empty());
        let line = "sch\u{fffd}n <!-- gr\u{fffd}n -->".to_owned();
        assert_eq!(slides[1].problems, [(11, Problem::NotUtf8(line))]);
        let of_notes = split("# One\n\n<!-- gr\u{fffd}n -->");
        assert!(matches!(
            of_notes[0].problems[..],
            [(3, Problem::NotUtf8(_))]
        ));
        for mark in ["\u{feff}", ""] {
            let text = format!("{mark}# One\n\n---\n\n# Two\n");
            let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let slides = split(&String::from_utf8_lossy(&bytes));
            let mut problems = slides[0].problems.iter();
            assert!(problems.any(|found| matches!(found, (1, Problem::NotUtf8(_)))));
        }
        assert!(split("# Schön\n\n- größer")[0].problems.is_empty());
    }

    #[test]
    fn front_matter_is_no_slide_and_lines_keep_their_numbers() {
        for end in ["---", "..."] {
            let file = format!(
                "\u{feff}---\r\nmarp: true\r\ntitle: Bees\r\n{end}\r\n\r\n# One\r\n\r\n---\r\n\r\n![](x.png)\r\n"
            );
            let slides = split(&file);
            assert_eq!(slides.len(), 2, "{slides:?}");
            assert_eq!((slides[0].text.as_str(), slides[0].line), ("# One", 6));
            assert_eq!(
                slides[1].problems,
                [(10, Problem::NoAltText("x.png".into()))]
            );
            assert_eq!(front_matter(&file).title, "Bees");
        }
        let open = split("---\ntitle: Bees\n\n# One\n");
        assert_eq!(open[0].problems, [(1, Problem::OpenFrontMatter)]);
        let divided = split("---\nheadingDivider: 2\n---\n# One\n## Two\n");
        assert_eq!(divided[0].problems, [(2, Problem::HeadingDivider)]);
        // the file may begin with a slide
        assert_eq!(split("---\n\n# One\n\n---\n\n# Two\n").len(), 2);
        assert_eq!(split("---\n# One\n\ntext: 1\n\n---\n").len(), 1);
    }

    #[test]
    fn names_of_pictures_are_decoded_and_a_plain_blank_is_named() {
        let slide = "![a](images/my%20photo.png) ![b](b%C3%BC.png) ![c](<c d.png>) ![e](100%.png) ![f](%2e%2e/f.png) ![g](x%00.png)";
        assert_eq!(
            pictures(slide),
            ["images/my photo.png", "bü.png", "c d.png", "100%.png"]
        );
        let mut asked = Vec::new();
        let made = to_html(slide, |name| {
            asked.push(name.to_owned());
            None
        });
        assert_eq!(asked, pictures(slide));
        assert!(!made.contains("<img"), "{made}");
        let file = "# A\n\n![a](images/my photo.png)\n![b](b c.png \"title\") ![d](d.png \"a title\")\n`![e](e f.png)`\n\n    ![g](g h.png)";
        let slides = split(file);
        let told: Vec<_> = slides[0]
            .problems
            .iter()
            .map(|(line, p)| format!("{line}: {p}"))
            .collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].starts_with("3: picture images/my photo.png is shown as text")
                && told[0].ends_with("write images/my%20photo.png"),
            "{told:?}"
        );
        assert!(told[1].starts_with("4: picture b c.png "), "{told:?}");
    }

    #[test]
    fn an_author_hears_what_others_would_not_see() {
        let file = "# A\n\n![](one.png)\n\n---\n\n![x](https://h.example/p.png)\n<b>bold</b>\n\n![a\u{202e}b](../p.png)";
        let slides = split(file);
        let told: Vec<_> = slides.into_iter().flat_map(|s| s.problems).collect();
        let remote = |url: &str| Problem::RemotePicture(url.to_owned());
        assert_eq!(
            told,
            [
                (3, Problem::NoAltText("one.png".to_owned())),
                (7, remote("https://h.example/p.png")),
                (8, Problem::Html),
                (10, remote("../p.png")),
                (10, Problem::Hidden),
            ]
        );
    }

    #[test]
    fn text_says_what_a_page_shows() {
        let slide = "# Bees\n\nThey *dance* `round`:\n\n- one\n- two\n  1. a\n  2. b\n\n> so\n> it is\n\n```\nlet x;\n```\n\n\
                     ![a hive](hive.png) [more](https://bee.example)\n\n| a | b |\n|---|---|\n| 1 | 2 |";
        let expected = "# Bees\n\nThey dance round:\n\n- one\n- two\n  1. a\n  2. b\n\n> so it is\n\n    let x;\n\n\
                        [picture: a hive] more (https://bee.example)\n\na | b\n1 | 2";
        assert_eq!(to_text(slide), expected);
        assert_eq!(to_text("![](x.png)"), "[picture: without a description]");
        assert_eq!(title(slide), "Bees");
        assert_eq!(title("#\n\n> well\n\nthen"), "> well");
        assert_eq!(title(""), "");
    }

    #[test]
    fn what_is_shown_is_bounded_by_the_slide_whatever_it_is() {
        let breaks = |marks: &str| format!("{marks}{}", "a  \n".repeat(8_000));
        let rows = format!(
            "{}\n{}\n{}",
            "|a".repeat(800),
            "|-".repeat(800),
            "|\n".repeat(30_000)
        );
        let link = format!("[a]: <https://h.example/{}>\n\n", "x".repeat(8_000));
        for hostile in [
            breaks(&"> ".repeat(16_500)),
            breaks(&">".repeat(20_000)),
            breaks(&"- ".repeat(16_500)),
            breaks(&"1. > ".repeat(6_500)),
            format!("- - - - ```\n{}", "        x\n".repeat(6_500)),
            rows,
            link + &"[a] ".repeat(14_000),
            "#\n".repeat(32_000),
            "![".repeat(32_000),
        ] {
            assert!(hostile.len() <= MAX_SLIDE, "{}", hostile.len());
            let begin = &hostile[..8];
            let text = to_text(&hostile);
            assert!(
                text.len() <= MAX_TEXT + "…".len(),
                "{begin:?}: {}",
                text.len()
            );
            let deepest = text
                .lines()
                .map(|line| line.matches(['>', '-']).count())
                .max();
            assert!(
                deepest <= Some(MAX_INDENT + 1) || begin.starts_with(['|', '[', '!']),
                "{begin:?}: {deepest:?}"
            );
            assert!(title(&hostile).len() <= MAX_LINE, "{begin:?}");
            let made = to_html(&hostile, |_| None);
            assert!(made.len() <= 48 * MAX_SLIDE, "{begin:?}: {}", made.len());
        }
        let long = to_text(&breaks(&"> ".repeat(16_500)));
        assert!(long.ends_with('…') && long.starts_with("> > > > "));
    }

    #[test]
    fn html_runs_nothing() {
        let slide = "<script>alert(1)</script>\n\n[x](javascript:alert(1)) [y](https://h.example) \
                     ![p](https://h.example/p.png) ![q](data:image/png;base64,AAAA) ![r](r.png)\n\n<img src=x onerror=y>";
        let made = to_html(slide, |url| {
            (url == "r.png").then(|| "data:image/png;base64,BBBB".to_owned())
        });
        assert!(
            made.contains("&lt;script&gt;alert(1)&lt;/script&gt;"),
            "{made}"
        );
        assert!(
            made.contains("<a href=\"https://h.example\">y</a>"),
            "{made}"
        );
        assert!(
            made.contains("[picture: p]") && made.contains("[picture: q]"),
            "{made}"
        );
        assert!(
            made.contains("<img src=\"data:image/png;base64,BBBB\" alt=\"r\""),
            "{made}"
        );
        for bad in [
            "<script",
            "javascript:",
            "h.example/p.png",
            "AAAA",
            "<img src=x",
        ] {
            assert!(!made.contains(bad), "{bad}: {made}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_shown_without_what_a_terminal_would_do(text in "(?s)[-*#>\\[\\]!()`|\\n\\r\\t a-c\u{1b}\u{202e}<&]{0,200}") {
            for slide in split(&text) {
                prop_assert_eq!(clean(&slide.text), slide.text.as_str());
                prop_assert_eq!(clean(&slide.notes), slide.notes.as_str());
                let text = to_text(&slide.text);
                prop_assert_eq!(clean(&text), text);
                let made = to_html(&slide.text, |_| None);
                prop_assert!(!made.contains("<img"));
            }
        }
    }
}
