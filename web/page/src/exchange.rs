//! Bytes in, bytes out: the interface of a page and a module.

use zeroize::Zeroizing;

use crate::command::Command;

/// A module's memory for input, its last answer, and its state machine.
#[derive(Debug)]
pub struct Exchange<T> {
    /// Wiped when it is taken: it may hold a key.
    input: Zeroizing<Vec<u8>>,
    output: Vec<u8>,
    /// None before the page has started it.
    pub machine: Option<T>,
}

impl<T> Default for Exchange<T> {
    fn default() -> Self {
        Self {
            input: Zeroizing::default(),
            output: Vec::new(),
            machine: None,
        }
    }
}

impl<T> Exchange<T> {
    /// Returns memory for the input of the next call.
    pub fn room(&mut self, bytes: usize) -> *mut u8 {
        self.input = Zeroizing::new(vec![0; bytes]);
        self.input.as_mut_ptr()
    }

    /// Takes the input.
    pub fn take_input(&mut self) -> Zeroizing<Vec<u8>> {
        std::mem::take(&mut self.input)
    }

    /// The address of the last answer.
    #[must_use]
    pub fn output(&self) -> *const u8 {
        self.output.as_ptr()
    }

    /// Stores an answer until the next one; returns its length.
    pub fn answer(&mut self, bytes: Vec<u8>) -> usize {
        self.output = bytes;
        self.output.len()
    }

    /// Stores an error as the answer; returns its length, 0 if there is none.
    pub fn outcome(&mut self, result: Result<(), String>) -> usize {
        self.answer(result.err().unwrap_or_default().into_bytes())
    }

    /// Calls `f` with the machine and the input, if there is a machine.
    pub fn with<R: Default>(&mut self, f: impl FnOnce(&mut T, &[u8]) -> R) -> R {
        let input = self.take_input();
        let machine = self.machine.as_mut();
        machine
            .map(|machine| f(machine, &input))
            .unwrap_or_default()
    }

    /// Calls [`with`](Self::with), and stores an error as the answer; returns its length.
    pub fn attempt(&mut self, f: impl FnOnce(&mut T, &[u8]) -> Result<(), String>) -> usize {
        let error = self.with(|machine, input| f(machine, input).err());
        self.answer(error.unwrap_or_default().into_bytes())
    }

    /// Stores the machine's next command as the answer; returns its length, 0 if there is none.
    pub fn answer_command(&mut self, next: impl FnOnce(&mut T) -> Option<Command>) -> usize {
        let command = self.machine.as_mut().and_then(next);
        self.answer(command.map_or_else(Vec::new, |command| command.to_bytes()))
    }

    /// Calls [`with`](Self::with), and stores the answer.
    pub fn answer_with(&mut self, f: impl FnOnce(&mut T, &[u8]) -> Vec<u8>) -> usize {
        let bytes = self.with(f);
        self.answer(bytes)
    }
}
