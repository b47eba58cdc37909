//! A screen as it is drawn from its changes, for `lcstudio watch`.
//!
//! This decodes pictures of the network: ones that the session's own key signed, in Rust alone, after
//! their size was checked.

use std::io;

use anyhow::bail;
use lcstudio_core::ScreenChange;

use crate::stills::Still;

/// The pixels of a screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canvas {
    size: (u16, u16),
    /// Red, green and blue of each pixel.
    pixels: Vec<u8>,
}

impl Canvas {
    /// Draws a change. One that covers the screen makes a new canvas.
    pub fn draw(canvas: &mut Option<Self>, change: &ScreenChange) -> anyhow::Result<()> {
        let still = Still::decode(change.picture.bytes())?;
        let area = change.area;
        if still.size != (area.width, area.height) {
            bail!("it has not the size of its area");
        }
        let colours = still.pixels.chunks_exact(4).flat_map(|pixel| &pixel[..3]);
        let colours: Vec<u8> = colours.copied().collect();
        if change.is_whole() {
            *canvas = Some(Self {
                size: still.size,
                pixels: colours,
            });
            return Ok(());
        }
        let Some(canvas) = canvas.as_mut().filter(|one| one.size == change.screen) else {
            bail!("the screen has another size");
        };
        let row = usize::from(canvas.size.0) * 3;
        let (left, length) = (usize::from(area.x) * 3, usize::from(area.width) * 3);
        let rows = canvas.pixels.chunks_exact_mut(row).skip(area.y.into());
        for (row, colours) in rows.zip(colours.chunks_exact(length)) {
            row[left..left + length].copy_from_slice(colours);
        }
        Ok(())
    }

    /// Encodes it as PNG, quickly.
    pub fn png(&self) -> io::Result<Vec<u8>> {
        let mut file = Vec::new();
        let (width, height) = self.size;
        let mut encoder = png::Encoder::new(&mut file, width.into(), height.into());
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_compression(png::Compression::Fast);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.pixels)?;
        writer.finish()?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use lcstudio_core::{Area, Picture};

    use super::*;

    fn change(screen: (u16, u16), area: Area, colour: u8) -> ScreenChange {
        let count = usize::from(area.width) * usize::from(area.height);
        let still = Still {
            size: (area.width, area.height),
            pixels: vec![colour; count * 4],
            is_exact: true,
        };
        let whole = Area::whole(still.size);
        ScreenChange {
            run: 1,
            number: 1,
            screen,
            area,
            is_exact: true,
            picture: Picture::new(still.encode(whole).unwrap().unwrap()).unwrap(),
        }
    }

    #[test]
    fn areas_are_drawn_where_they_are() {
        let mut canvas = None;
        let size = (10, 8);
        let area = Area {
            x: 3,
            y: 2,
            width: 4,
            height: 5,
        };
        assert!(Canvas::draw(&mut canvas, &change(size, area, 9)).is_err());
        Canvas::draw(&mut canvas, &change(size, Area::whole(size), 1)).unwrap();
        Canvas::draw(&mut canvas, &change(size, area, 9)).unwrap();
        let drawn = Still::decode(&canvas.clone().unwrap().png().unwrap()).unwrap();
        assert_eq!(drawn.size, size);
        for (at, pixel) in drawn.pixels.chunks_exact(4).enumerate() {
            let (x, y) = (at % 10, at / 10);
            let is_inside = (3..7).contains(&x) && (2..7).contains(&y);
            assert_eq!(pixel[0], if is_inside { 9 } else { 1 }, "{x} {y}");
        }
        // of a screen of another size
        let other = change((12, 8), area, 5);
        assert!(Canvas::draw(&mut canvas, &other).is_err());
    }
}
