//! QR codes of texts: for a terminal, and as an image.

use png::{BitDepth, ColorType, Encoder};
use qrcode::{Color, EcLevel, QrCode};
use thiserror::Error;

/// Light modules around a code, on each side (ISO/IEC 18004 §9.1).
const QUIET_ZONE: usize = 4;
/// Width and height of a module in pixels: one byte of a black and white image.
const PIXELS: u32 = 8;
/// Escape sequences for black on white, independent of the terminal's colours; and back.
const COLOURS: [&str; 2] = ["\x1b[30;47m", "\x1b[0m"];

/// Why a code cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum QrError {
    /// The terminal is too small.
    #[error(
        "the QR code needs a terminal of {columns} columns and {rows} rows: enlarge it, or make the letters smaller, or take the picture"
    )]
    TooSmall {
        /// Columns that the code needs.
        columns: usize,
        /// Rows that it needs.
        rows: usize,
    },
    /// The text exceeds the capacity of a code.
    #[error("{0} characters are more than a QR code holds")]
    TooLong(usize),
}

/// Returns the code of `text` for this number of columns and rows, two modules a character.
///
/// Without `colours`, as for a file, it is correct for dark text on light ground.
pub fn qr(text: &str, columns: usize, rows: usize, colours: bool) -> Result<String, QrError> {
    let fits = |side: usize| side <= columns && side.div_ceil(2) <= rows;
    let generous = modules(text, EcLevel::M).ok();
    let modules = match generous.filter(|modules| fits(modules.len())) {
        Some(modules) => modules,
        None => self::modules(text, EcLevel::L)?,
    };
    let side = modules.len();
    if !fits(side) {
        return Err(QrError::TooSmall {
            columns: side,
            rows: side.div_ceil(2),
        });
    }
    let [start, end] = if colours { COLOURS } else { [""; 2] };
    let mut text = String::new();
    for pair in modules.chunks(2) {
        let is_dark = |row: usize, column: usize| pair.get(row).is_some_and(|row| row[column]);
        let halves = (0..side).map(|column| match (is_dark(0, column), is_dark(1, column)) {
            (true, true) => '█',
            (true, false) => '▀',
            (false, true) => '▄',
            (false, false) => ' ',
        });
        text += &format!("{start}{}{end}\n", halves.collect::<String>());
    }
    Ok(text)
}

/// Returns the code of `text` as a PNG in black and white.
pub fn qr_png(text: &str) -> Result<Vec<u8>, QrError> {
    Ok(picture(&best(text)?))
}

/// Returns the code of `text` as an SVG.
pub fn qr_svg(text: &str) -> Result<String, QrError> {
    let modules = best(text)?;
    let side = modules.len();
    let mut dark = String::new();
    for (y, row) in modules.iter().enumerate() {
        for x in (0..side).filter(|x| row[*x]) {
            dark += &format!("M{x} {y}h1v1h-1z");
        }
    }
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\">\
         <path fill=\"#fff\" d=\"M0 0h{side}v{side}H0z\"/><path d=\"{dark}\"/></svg>\n"
    ))
}

/// Returns the rows of a code with its quiet zone; true is a dark module.
pub fn best(text: &str) -> Result<Vec<Vec<bool>>, QrError> {
    modules(text, EcLevel::M).or_else(|_| modules(text, EcLevel::L))
}

fn picture(modules: &[Vec<bool>]) -> Vec<u8> {
    let side = modules.len() as u32 * PIXELS;
    let mut pixels = Vec::new();
    for row in modules {
        let row: Vec<u8> = row
            .iter()
            .map(|dark| if *dark { 0 } else { 0xff })
            .collect();
        pixels.extend(row.repeat(PIXELS as usize));
    }
    let mut picture = Vec::new();
    let mut encoder = Encoder::new(&mut picture, side, side);
    encoder.set_color(ColorType::Grayscale);
    encoder.set_depth(BitDepth::One);
    let written = encoder.write_header();
    let written = written.and_then(|mut writer| writer.write_image_data(&pixels));
    written.expect("memory takes it, and the sizes agree");
    picture
}

/// Returns the rows of modules with their quiet zone; true is dark.
fn modules(text: &str, level: EcLevel) -> Result<Vec<Vec<bool>>, QrError> {
    let code = QrCode::with_error_correction_level(text, level);
    let code = code.map_err(|_| QrError::TooLong(text.len()))?;
    let side = code.width() + 2 * QUIET_ZONE;
    let mut modules = vec![vec![false; side]; side];
    for (n, color) in code.to_colors().into_iter().enumerate() {
        let (row, column) = (n / code.width(), n % code.width());
        modules[QUIET_ZONE + row][QUIET_ZONE + column] = color == Color::Dark;
    }
    Ok(modules)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::text::{MAX_RECORD, TextError, line, read};

    fn record(length: usize) -> Vec<u8> {
        (0..length).map(|n| (n * n + 3 * n) as u8).collect()
    }

    /// Reads the record in an image with another program.
    fn scan(picture: &[u8]) -> Result<Vec<Vec<u8>>, TextError> {
        read(&see(picture))
    }

    fn see(picture: &[u8]) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("qr.png");
        std::fs::write(&file, picture).unwrap();
        let out = Command::new("zbarimg").arg("--raw").arg(&file).output();
        let out = out.expect("zbarimg is installed: `netns-tests/setup test` does it");
        out.stdout
    }

    /// Returns the modules of the code that a page draws.
    fn drawn_by_a_page(text: &str) -> Vec<Vec<bool>> {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../web/pages/common/qr-code.js"
        );
        let script = std::fs::read_to_string(script).unwrap();
        // its name does not say to node that it is a module
        let ask = "const { SCRIPT, TEXT } = process.env;
            const url = `data:text/javascript,${encodeURIComponent(SCRIPT)}`;
            const { encode } = await import(url);
            console.log(encode(TEXT).join('\\n'));";
        let mut node = Command::new("node");
        node.args(["--input-type=module", "--eval", ask]);
        let out = node.env("SCRIPT", script).env("TEXT", text).output();
        let out = out.expect("node is installed: `netns-tests/setup test` does it");
        assert!(out.status.success(), "{out:?}");
        let rows = String::from_utf8(out.stdout).unwrap();
        let side = rows.lines().count() + 2 * QUIET_ZONE;
        let mut modules = vec![vec![false; side]; side];
        for (y, row) in rows.lines().enumerate() {
            for (x, module) in row.chars().enumerate() {
                modules[QUIET_ZONE + y][QUIET_ZONE + x] = module == '1';
            }
        }
        modules
    }

    #[test]
    fn another_program_reads_the_codes_of_pages() {
        // one block and several, with and without the bits of a version
        for length in [10, 100, 180, 300, 700, 1_200] {
            let letters = ('a'..='z').chain('A'..='Z').chain('0'..='9');
            let text: String = letters.cycle().take(length).collect();
            let seen = see(&picture(&drawn_by_a_page(&text)));
            assert_eq!(String::from_utf8_lossy(&seen).trim_end(), text);
        }
    }

    /// Returns the modules that characters show.
    fn look_at(shown: &str) -> Vec<Vec<bool>> {
        let halves = |dark: [char; 2]| {
            move |row: &str| row.chars().map(|half| dark.contains(&half)).collect()
        };
        let mut modules: Vec<Vec<bool>> = shown
            .lines()
            .flat_map(|row| [halves(['█', '▀'])(row), halves(['█', '▄'])(row)])
            .collect();
        // a code has an odd number of rows
        assert!(modules.pop().is_some_and(|row| !row.contains(&true)));
        modules
    }

    #[test]
    fn a_terminal_shows_a_code() {
        for length in [0, 1, 150, 250, 300, 376] {
            let shown = qr(&line(&record(length)), 80, 40, false).unwrap();
            let found = scan(&picture(&look_at(&shown)));
            assert_eq!(found, Ok(vec![record(length)]), "{shown}");
            let coloured = qr(&line(&record(length)), 80, 40, true).unwrap();
            for (coloured, plain) in coloured.lines().zip(shown.lines()) {
                assert_eq!(coloured, format!("\x1b[30;47m{plain}\x1b[0m"));
            }
        }
    }

    #[test]
    fn a_code_that_does_not_fit_says_what_it_needs() {
        let text = line(&record(512));
        let needed = QrError::TooSmall {
            columns: 89,
            rows: 45,
        };
        for (columns, rows) in [(80, 40), (89, 44), (88, 45)] {
            assert_eq!(qr(&text, columns, rows, true), Err(needed));
        }
        let rows = |columns, rows| qr(&text, columns, rows, false).unwrap().lines().count();
        assert_eq!(rows(89, 45), 45);
        assert_eq!(rows(200, 100), 51, "room for more correction is used");
    }

    #[test]
    fn a_picture_is_a_code() {
        for length in [0, 150, 250, 512, MAX_RECORD] {
            let found = scan(&qr_png(&line(&record(length))).unwrap());
            assert_eq!(found, Ok(vec![record(length)]));
        }
    }

    #[test]
    fn a_link_is_a_code_as_long_as_it_fits() {
        let link = format!("https://node.example/node/#lct1{}", "aB3".repeat(700));
        let seen = see(&qr_png(&link).unwrap());
        assert_eq!(String::from_utf8(seen).unwrap().trim(), link);
        let svg = qr_svg(&link).unwrap();
        let dark = best(&link).unwrap().concat().into_iter().filter(|d| *d);
        assert_eq!(svg.matches("h1v1h-1z").count(), dark.count());
        let long = "a".repeat(3_000);
        assert_eq!(qr_png(&long), Err(QrError::TooLong(3_000)));
        assert_eq!(qr(&long, 500, 500, false), Err(QrError::TooLong(3_000)));
    }
}
