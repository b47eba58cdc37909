//! Checks of a text, and waits for a value; each fails with the last value that it found.

use std::fmt::Debug;
use std::panic::Location;

use crate::prelude::*;

/// Checks that a text has these parts.
pub(crate) fn shows_all(text: &str, parts: &[&str]) -> Result<()> {
    let lacks = parts.iter().find(|part| !text.contains(**part));
    holds!(lacks.is_none(), "no {lacks:?} in {text}")
}

/// Waits until this is found.
#[track_caller]
pub(crate) fn becomes<T, E>(expected: E, look: impl FnMut() -> Result<T>) -> Result<()>
where
    T: PartialEq<E> + Debug,
    E: Debug,
{
    let what = format!("== {expected:?}");
    finds(&what, look, move |found| *found == expected)
}

/// Waits until more than this is found.
#[track_caller]
pub(crate) fn exceeds<T>(bound: T, look: impl FnMut() -> Result<T>) -> Result<()>
where
    T: PartialOrd + Debug,
{
    let what = format!("> {bound:?}");
    finds(&what, look, move |found| *found > bound)
}

/// Waits until this or more is found.
#[track_caller]
pub(crate) fn at_least<T>(bound: T, look: impl FnMut() -> Result<T>) -> Result<()>
where
    T: PartialOrd + Debug,
{
    let what = format!(">= {bound:?}");
    finds(&what, look, move |found| *found >= bound)
}

/// Waits until a text with this part is found.
#[track_caller]
pub(crate) fn tells(part: &str, look: impl FnMut() -> Result<String>) -> Result<()> {
    finds(&format!("with `{part}`"), look, |found| {
        found.contains(part)
    })
}

#[track_caller]
fn finds<T: Debug>(
    what: &str,
    mut look: impl FnMut() -> Result<T>,
    is_right: impl Fn(&T) -> bool,
) -> Result<()> {
    let at = Location::caller();
    eventually(&format!("it is {what} ({at})"), || {
        let found = look()?;
        holds!(is_right(&found), "{found:?}")
    })
}
