//! QR codes of texts: for a terminal, and as a picture.

use png::{BitDepth, ColorType, Encoder};
use qrcode::{Color, EcLevel, QrCode};
use thiserror::Error;

use super::line;

/// Light modules around a code, on each side (ISO/IEC 18004, 9.1).
const QUIET_ZONE: usize = 4;
/// Pixels of a module, across and down: a byte of a picture in black and white.
const PIXELS: u32 = 8;
/// Black on white, whatever the terminal's colours are; and back.
const COLOURS: [&str; 2] = ["\x1b[30;47m", "\x1b[0m"];

/// A terminal is too small for a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the QR code needs a terminal of {columns} columns and {rows} rows: enlarge it, or make the letters smaller, or take the picture"
)]
pub struct TooSmall {
    /// Columns that the code needs.
    pub columns: usize,
    /// Rows that it needs.
    pub rows: usize,
}

/// The code of `record` for so many columns and rows, two modules to a character.
///
/// Without `colours`, as for a file, it is right where text is dark on light.
///
/// # Errors
///
/// [`TooSmall`].
///
/// # Panics
///
/// For a record of more than [`super::MAX_RECORD`] bytes.
pub fn qr(record: &[u8], columns: usize, rows: usize, colours: bool) -> Result<String, TooSmall> {
    let mut modules = modules(record, EcLevel::M);
    let fits = |side: usize| side <= columns && side.div_ceil(2) <= rows;
    if !fits(modules.len()) {
        modules = self::modules(record, EcLevel::L);
    }
    let side = modules.len();
    if !fits(side) {
        return Err(TooSmall {
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

/// The code of `record` as a PNG in black and white.
///
/// # Panics
///
/// For a record of more than [`super::MAX_RECORD`] bytes.
#[must_use]
pub fn qr_png(record: &[u8]) -> Vec<u8> {
    picture(&modules(record, EcLevel::M))
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

/// Rows of modules with their quiet zone; dark ones are true.
fn modules(record: &[u8], level: EcLevel) -> Vec<Vec<bool>> {
    // the largest code holds 3,391 characters at level M, the longest text has 1,653
    let code = QrCode::with_error_correction_level(line(record), level).expect("it fits");
    let side = code.width() + 2 * QUIET_ZONE;
    let mut modules = vec![vec![false; side]; side];
    for (n, color) in code.to_colors().into_iter().enumerate() {
        let (row, column) = (n / code.width(), n % code.width());
        modules[QUIET_ZONE + row][QUIET_ZONE + column] = color == Color::Dark;
    }
    modules
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::text::{MAX_RECORD, TextError, read};

    fn record(length: usize) -> Vec<u8> {
        (0..length).map(|n| (n * n + 3 * n) as u8).collect()
    }

    /// What a program of others sees in a picture.
    fn scan(picture: &[u8]) -> Result<Vec<Vec<u8>>, TextError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("qr.png");
        std::fs::write(&file, picture).unwrap();
        let out = Command::new("zbarimg").arg("--raw").arg(&file).output();
        let out = out.expect("zbarimg is installed: `netns-tests/setup test` does it");
        read(&out.stdout)
    }

    /// The modules that characters show.
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
            let shown = qr(&record(length), 80, 40, false).unwrap();
            let found = scan(&picture(&look_at(&shown)));
            assert_eq!(found, Ok(vec![record(length)]), "{shown}");
            let coloured = qr(&record(length), 80, 40, true).unwrap();
            for (coloured, plain) in coloured.lines().zip(shown.lines()) {
                assert_eq!(coloured, format!("\x1b[30;47m{plain}\x1b[0m"));
            }
        }
    }

    #[test]
    fn a_code_that_does_not_fit_says_what_it_needs() {
        let record = record(512);
        let needed = TooSmall {
            columns: 89,
            rows: 45,
        };
        for (columns, rows) in [(80, 40), (89, 44), (88, 45)] {
            assert_eq!(qr(&record, columns, rows, true), Err(needed));
        }
        let rows = |columns, rows| qr(&record, columns, rows, false).unwrap().lines().count();
        assert_eq!(rows(89, 45), 45);
        assert_eq!(rows(200, 100), 51, "room for more correction is used");
    }

    #[test]
    fn a_picture_is_a_code() {
        for length in [0, 150, 250, 512, MAX_RECORD] {
            let found = scan(&qr_png(&record(length)));
            assert_eq!(found, Ok(vec![record(length)]));
        }
    }
}
