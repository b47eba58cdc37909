//! The C functions that a page calls.
//!
//! [`playground_input`] returns the address for a function's text; the next call takes it.
//! [`playground_output`] returns the address of an answer, and the function its length. The number
//! of a world or a comparison is never used twice.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::comparison::PolicyComparison;
use crate::world::World;

#[derive(Debug, Default)]
struct Page {
    input: Vec<u8>,
    output: String,
    worlds: BTreeMap<u32, World>,
    comparisons: BTreeMap<u32, PolicyComparison>,
    last: u32,
}

thread_local! {
    static PAGE: RefCell<Page> = RefCell::default();
}

impl Page {
    fn input(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.input)).into_owned()
    }

    fn open(&mut self) -> Result<u32, String> {
        let scenario = self.input();
        self.last += 1;
        self.worlds.insert(self.last, World::new(&scenario)?);
        Ok(self.last)
    }

    fn compare(&mut self, nodes: u32, seed: u32) -> Result<u32, String> {
        let comparison = PolicyComparison::new(&self.input(), nodes, seed)?;
        self.last += 1;
        self.comparisons.insert(self.last, comparison);
        Ok(self.last)
    }

    fn with<T>(
        &mut self,
        world: u32,
        f: impl FnOnce(&mut World, &str) -> Result<T, String>,
    ) -> Result<T, String> {
        let input = self.input();
        let world = self.worlds.get_mut(&world);
        f(world.ok_or("there is no such world")?, &input)
    }
}

/// Stores an answer in text; returns its length.
fn answer(f: impl FnOnce(&mut Page) -> String) -> usize {
    PAGE.with_borrow_mut(|page| {
        page.output = f(page);
        page.output.len()
    })
}

/// Returns the length of an error; 0 if there is none.
fn outcome(f: impl FnOnce(&mut Page) -> Result<(), String>) -> usize {
    answer(|page| f(page).err().unwrap_or_default())
}

/// Returns memory for the text of the next call, `bytes` long.
#[unsafe(no_mangle)]
pub extern "C" fn playground_input(bytes: usize) -> *mut u8 {
    PAGE.with_borrow_mut(|page| {
        page.input = vec![0; bytes];
        page.input.as_mut_ptr()
    })
}

/// Returns the address of the last answer.
#[unsafe(no_mangle)]
pub extern "C" fn playground_output() -> *const u8 {
    PAGE.with_borrow(|page| page.output.as_ptr())
}

/// Creates a world from a scenario; returns its number. 0: an error of [`playground_answer`] bytes.
#[unsafe(no_mangle)]
pub extern "C" fn playground_open() -> u32 {
    number(Page::open)
}

/// Creates a comparison of `nodes` nodes under the input's policy. 0: as in [`playground_open`].
#[unsafe(no_mangle)]
pub extern "C" fn playground_compare(nodes: u32, seed: u32) -> u32 {
    number(|page| page.compare(nodes, seed))
}

/// Runs the next step; returns the length of its JSON: the following step and all figures.
#[unsafe(no_mangle)]
pub extern "C" fn playground_compare_step(comparison: u32) -> usize {
    answer(|page| {
        let comparison = page.comparisons.get_mut(&comparison);
        comparison.map(PolicyComparison::step).unwrap_or_default()
    })
}

/// Returns the length of the JSON of a comparison's nodes and links.
#[unsafe(no_mangle)]
pub extern "C" fn playground_compare_picture(comparison: u32) -> usize {
    answer(|page| {
        let comparison = page.comparisons.get(&comparison);
        comparison
            .map(PolicyComparison::picture)
            .unwrap_or_default()
    })
}

/// Returns the number of a new object; 0, with an answer, on failure.
fn number(f: impl FnOnce(&mut Page) -> Result<u32, String>) -> u32 {
    let mut made = 0;
    answer(|page| match f(page) {
        Ok(number) => {
            made = number;
            String::new()
        }
        Err(text) => text,
    });
    made
}

/// Returns the length of the last answer.
#[unsafe(no_mangle)]
pub extern "C" fn playground_answer() -> usize {
    PAGE.with_borrow(|page| page.output.len())
}

/// Deletes a world or a comparison.
#[unsafe(no_mangle)]
pub extern "C" fn playground_close(number: u32) {
    PAGE.with_borrow_mut(|page| {
        page.worlds.remove(&number);
        page.comparisons.remove(&number);
    });
}

/// Executes a line of a script. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn playground_act(world: u32) -> usize {
    outcome(|page| page.with(world, |world, line| world.act(line)))
}

/// Sends to a group from a node every `period` ms; 0 stops it. Returns the length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn playground_stream(world: u32, node: u32, period: f64) -> usize {
    outcome(|page| page.with(world, |world, group| world.stream(node, group, period)))
}

/// Runs the world until this number of ms since the start; returns the reached time.
#[unsafe(no_mangle)]
pub extern "C" fn playground_run(world: u32, until: f64) -> f64 {
    PAGE.with_borrow_mut(|page| {
        let world = page.worlds.get_mut(&world);
        world.map_or(f64::NAN, |world| world.run_until(until))
    })
}

/// Returns the length of the JSON of all events since the last call.
#[unsafe(no_mangle)]
pub extern "C" fn playground_events(world: u32) -> usize {
    text(world, |world, _| Ok(world.events()))
}

/// Returns the length of the JSON of nodes and links.
#[unsafe(no_mangle)]
pub extern "C" fn playground_network(world: u32) -> usize {
    text(world, |world, _| Ok(world.network()))
}

/// Returns the length of the JSON of a group and its tree.
#[unsafe(no_mangle)]
pub extern "C" fn playground_group(world: u32) -> usize {
    text(world, |world, group| world.group(group))
}

/// Returns the length of a file for `lcroute sim --replay` with all actions.
#[unsafe(no_mangle)]
pub extern "C" fn playground_trace(world: u32) -> usize {
    text(world, |world, _| Ok(world.trace()))
}

/// Returns the length of a hash of all events, in digits.
#[unsafe(no_mangle)]
pub extern "C" fn playground_log(world: u32) -> usize {
    text(world, |world, _| Ok(world.log()))
}

/// Stores a text as the answer; an empty one on failure.
fn text(world: u32, f: impl FnOnce(&mut World, &str) -> Result<String, String>) -> usize {
    answer(|page| page.with(world, f).unwrap_or_default())
}
