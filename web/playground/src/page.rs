//! The C functions that a page calls.
//!
//! Text for a function is written to where [`playground_input`] says, and is taken by the next call. What a function answers in text
//! lies at [`playground_output`]; it gives the length. A world, or a comparison, is named by a number, which no other ever had.

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

/// The length of an answer in text.
fn answer(f: impl FnOnce(&mut Page) -> String) -> usize {
    PAGE.with_borrow_mut(|page| {
        page.output = f(page);
        page.output.len()
    })
}

/// The length of an error; 0 if there is none.
fn outcome(f: impl FnOnce(&mut Page) -> Result<(), String>) -> usize {
    answer(|page| f(page).err().unwrap_or_default())
}

/// Room for the text of the next call, so many bytes.
#[unsafe(no_mangle)]
pub extern "C" fn playground_input(bytes: usize) -> *mut u8 {
    PAGE.with_borrow_mut(|page| {
        page.input = vec![0; bytes];
        page.input.as_mut_ptr()
    })
}

/// Where the last answer lies.
#[unsafe(no_mangle)]
pub extern "C" fn playground_output() -> *const u8 {
    PAGE.with_borrow(|page| page.output.as_ptr())
}

/// Makes a world of a scenario. 0: it cannot, and the answer says why; its length is [`playground_answer`].
#[unsafe(no_mangle)]
pub extern "C" fn playground_open() -> u32 {
    number(Page::open)
}

/// Makes so many nodes, to be compared under the policy that the text names. 0: as [`playground_open`].
#[unsafe(no_mangle)]
pub extern "C" fn playground_compare(nodes: u32, seed: u32) -> u32 {
    number(|page| page.compare(nodes, seed))
}

/// Measures on: the length of the JSON of what is next and of all figures so far.
#[unsafe(no_mangle)]
pub extern "C" fn playground_compare_step(comparison: u32) -> usize {
    answer(|page| {
        let comparison = page.comparisons.get_mut(&comparison);
        comparison.map(PolicyComparison::step).unwrap_or_default()
    })
}

/// Nodes and links under comparison: the length of their JSON.
#[unsafe(no_mangle)]
pub extern "C" fn playground_compare_picture(comparison: u32) -> usize {
    answer(|page| {
        let comparison = page.comparisons.get(&comparison);
        comparison
            .map(PolicyComparison::picture)
            .unwrap_or_default()
    })
}

/// The number of what was made; 0, with an answer, if it cannot be.
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

/// The length of the last answer.
#[unsafe(no_mangle)]
pub extern "C" fn playground_answer() -> usize {
    PAGE.with_borrow(|page| page.output.len())
}

/// A world, or a comparison, is no longer needed.
#[unsafe(no_mangle)]
pub extern "C" fn playground_close(number: u32) {
    PAGE.with_borrow_mut(|page| {
        page.worlds.remove(&number);
        page.comparisons.remove(&number);
    });
}

/// Does what a line of a script says. The length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn playground_act(world: u32) -> usize {
    outcome(|page| page.with(world, |world, line| world.act(line)))
}

/// A program on a node sends to a group every so many milliseconds; 0: it stops. The length of an error.
#[unsafe(no_mangle)]
pub extern "C" fn playground_stream(world: u32, node: u32, period: f64) -> usize {
    outcome(|page| page.with(world, |world, group| world.stream(node, group, period)))
}

/// Lets time pass until so many milliseconds since the start. The time then.
#[unsafe(no_mangle)]
pub extern "C" fn playground_run(world: u32, until: f64) -> f64 {
    PAGE.with_borrow_mut(|page| {
        let world = page.worlds.get_mut(&world);
        world.map_or(f64::NAN, |world| world.run_until(until))
    })
}

/// What happened since the last time: the length of its JSON.
#[unsafe(no_mangle)]
pub extern "C" fn playground_events(world: u32) -> usize {
    text(world, |world, _| Ok(world.events()))
}

/// Nodes and links: the length of their JSON.
#[unsafe(no_mangle)]
pub extern "C" fn playground_network(world: u32) -> usize {
    text(world, |world, _| Ok(world.network()))
}

/// A group and its tree: the length of their JSON.
#[unsafe(no_mangle)]
pub extern "C" fn playground_group(world: u32) -> usize {
    text(world, |world, group| world.group(group))
}

/// All that was done, as a file for `lcroute sim --replay`: its length.
#[unsafe(no_mangle)]
pub extern "C" fn playground_trace(world: u32) -> usize {
    text(world, |world, _| Ok(world.trace()))
}

/// A hash of all that happened: the length of its digits.
#[unsafe(no_mangle)]
pub extern "C" fn playground_log(world: u32) -> usize {
    text(world, |world, _| Ok(world.log()))
}

/// No text: it cannot be had.
fn text(world: u32, f: impl FnOnce(&mut World, &str) -> Result<String, String>) -> usize {
    answer(|page| page.with(world, f).unwrap_or_default())
}
