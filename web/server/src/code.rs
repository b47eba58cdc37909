//! QR codes, as pages draw them.

/// Rows of 1 (dark) and 0.
pub fn rows(text: &str) -> anyhow::Result<Vec<String>> {
    let row = |row: Vec<bool>| row.into_iter().map(|dark| if dark { '1' } else { '0' });
    let code = lcroute_control::text::best(text)?;
    Ok(code.into_iter().map(|r| row(r).collect()).collect())
}
