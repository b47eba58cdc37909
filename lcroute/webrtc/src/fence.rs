//! Fence around the WebRTC stack: a panic ends its connection or call, not the process
//! (adr/links.md).
//!
//! All calls that hand untrusted bytes to `rtc` go through [`fenced`], those of a peer connection
//! through [`Fenced`]. The latter is empty after a panic, so that no inconsistent state stays.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use librecast::plain::clean;

#[cfg(panic = "abort")]
compile_error!("a panic must unwind, or a peer that finds one in the WebRTC stack ends the daemon");

/// Bound of the kept text of a panic, in characters: it may quote a peer.
const MAX_WORDS: usize = 200;

thread_local! {
    /// Whether this thread is inside a fenced call.
    static BEHIND: Cell<bool> = const { Cell::new(false) };
    /// Message of its last panic there.
    static WORDS: Cell<String> = const { Cell::new(String::new()) };
}

/// Message and location of a panic inside the fence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Panic(String);

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Panic {}

/// Calls a function that may panic. State that it has left behind must not be used after a panic.
pub(crate) fn fenced<R>(call: impl FnOnce() -> R) -> Result<R, Panic> {
    keep_quiet();
    let before = BEHIND.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    BEHIND.set(before);
    result.map_err(|_| Panic(WORDS.take()))
}

/// A value with fenced calls only; it is dropped after the first panic.
#[derive(Debug)]
pub(crate) struct Fenced<T> {
    value: Result<T, Panic>,
}

impl<T> Fenced<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Ok(value) }
    }

    /// Calls with the value; returns the panic of this or an earlier call.
    pub(crate) fn call<R>(&mut self, call: impl FnOnce(&mut T) -> R) -> Result<R, Panic> {
        let value = self.value.as_mut().map_err(|panic| panic.clone())?;
        fenced(|| call(value)).inspect_err(|panic| self.drop_value(panic.clone()))
    }

    pub(crate) fn panic(&self) -> Option<&Panic> {
        self.value.as_ref().err()
    }

    fn drop_value(&mut self, panic: Panic) {
        let value = std::mem::replace(&mut self.value, Err(panic));
        // it has ended already: a panic in its drop adds nothing
        let _ = fenced(|| drop(value));
    }
}

impl<T> Drop for Fenced<T> {
    fn drop(&mut self) {
        self.drop_value(Panic::default());
    }
}

/// Hides panics inside the fence from the process's hook, which would log each with a backtrace:
/// the caller decides how often to log.
fn keep_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |info| {
            if BEHIND.get() {
                WORDS.set(words(info));
            } else {
                others(info);
            }
        }));
    });
}

/// Returns the panic as one short line: it may quote anything.
fn words(info: &PanicHookInfo<'_>) -> String {
    let what = info.payload_as_str().unwrap_or("a panic without words");
    let line = match info.location() {
        Some(place) => format!("{what}, at {place}"),
        None => what.to_owned(),
    };
    clean(&line.chars().take(MAX_WORDS).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_in_one_short_line() {
        let panic = fenced(|| panic!("evil \x1b[2J\n{}", "x".repeat(1_000))).unwrap_err();
        let words = panic.to_string();
        assert!(words.starts_with("evil \u{fffd}[2J\u{fffd}xxx"), "{words}");
        assert_eq!(words.chars().count(), MAX_WORDS);
        let panic = fenced(|| std::hint::black_box([1, 2])[std::hint::black_box(7)]).unwrap_err();
        let words = panic.to_string();
        assert!(
            words.contains("out of bounds") && words.contains("fence.rs"),
            "{words}"
        );
    }

    #[test]
    fn nothing_is_done_with_what_has_panicked() {
        let mut fenced = Fenced::new(vec![1]);
        assert_eq!(fenced.call(|list| list.len()), Ok(1));
        assert!(fenced.panic().is_none());
        let lost = fenced.call(|list| -> usize {
            list.clear();
            panic!("half-way");
        });
        let panic = lost.unwrap_err();
        assert!(panic.to_string().starts_with("half-way"));
        assert_eq!(fenced.call(|list| list.len()), Err(panic.clone()));
        assert_eq!(fenced.panic(), Some(&panic));
    }

    #[test]
    fn its_end_may_panic_as_well() {
        struct Bad;
        impl Drop for Bad {
            fn drop(&mut self) {
                panic!("at the end");
            }
        }
        drop(Fenced::new(Bad));
        let mut fenced = Fenced::new(Bad);
        let panic = fenced.call(|_| -> u8 { panic!("first") }).unwrap_err();
        assert!(panic.to_string().starts_with("first"));
    }

    #[test]
    fn a_panic_beside_the_fence_is_nobody_elses() {
        assert_eq!(fenced(|| 1), Ok(1));
        assert!(!BEHIND.get());
        let inner = fenced(|| fenced(|| panic!("inner")).map_err(|_| BEHIND.get()));
        assert_eq!(inner, Ok(Err(true)), "the outer fence still stands");
        assert!(!BEHIND.get());
    }
}
