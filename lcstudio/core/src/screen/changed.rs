//! Changed areas of a screen.

use super::part::Area;

/// Unchanged rows that part two areas. Chosen: two lines of text; an area costs 150 bytes.
const GAP: u16 = 32;

/// Most areas of a look; above it the last one takes in the rest.
pub const MAX_AREAS: usize = 8;

/// Returns the areas in which two pictures of equal size differ, from top to bottom. Pixels have
/// four bytes, rows lie one after the other.
#[must_use]
pub fn changed(before: &[u8], after: &[u8], width: u16) -> Vec<Area> {
    let row = usize::from(width) * 4;
    let mut areas: Vec<Area> = Vec::new();
    if row == 0 {
        return areas;
    }
    let rows = before.chunks_exact(row).zip(after.chunks_exact(row));
    for (y, (before, after)) in (0_u16..).zip(rows) {
        let Some((left, right)) = changed_columns(before, after) else {
            continue;
        };
        let is_full = areas.len() == MAX_AREAS;
        match areas.last_mut() {
            Some(area) if is_full || y - (area.y + area.height) < GAP => {
                let end = right.max(area.x + area.width - 1);
                area.x = area.x.min(left);
                area.width = end - area.x + 1;
                area.height = y - area.y + 1;
            }
            _ => areas.push(Area {
                x: left,
                y,
                width: right - left + 1,
                height: 1,
            }),
        }
    }
    areas
}

/// Returns the first and the last changed pixel of a row.
fn changed_columns(before: &[u8], after: &[u8]) -> Option<(u16, u16)> {
    if before == after {
        return None;
    }
    let mut differ = before.chunks_exact(4).zip(after.chunks_exact(4));
    let left = differ.position(|(a, b)| a != b)?;
    let mut differ = before.chunks_exact(4).zip(after.chunks_exact(4));
    let right = differ.rposition(|(a, b)| a != b)?;
    Some((left as u16, right as u16))
}
