//! Bytes in, bytes out: how a page and a module talk.

use zeroize::Zeroizing;

/// What a module has: room for what the page hands in, its last answer, and its state machine.
#[derive(Debug)]
pub struct Exchange<T> {
    /// Wiped when it is taken: a key may have been in it.
    input: Zeroizing<Vec<u8>>,
    output: Vec<u8>,
    /// None before the page has begun.
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
    /// Room for the bytes of the next call.
    pub fn room(&mut self, bytes: usize) -> *mut u8 {
        self.input = Zeroizing::new(vec![0; bytes]);
        self.input.as_mut_ptr()
    }

    /// What the page has handed in.
    pub fn take_input(&mut self) -> Zeroizing<Vec<u8>> {
        std::mem::take(&mut self.input)
    }

    /// Where the last answer lies.
    #[must_use]
    pub fn output(&self) -> *const u8 {
        self.output.as_ptr()
    }

    /// Keeps an answer until the next one; its length.
    pub fn answer(&mut self, bytes: Vec<u8>) -> usize {
        self.output = bytes;
        self.output.len()
    }

    /// The length of an error; 0 if there is none.
    pub fn outcome(&mut self, result: Result<(), String>) -> usize {
        self.answer(result.err().unwrap_or_default().into_bytes())
    }

    /// Does something to the machine with the input, if there is one.
    pub fn with<R: Default>(&mut self, f: impl FnOnce(&mut T, &[u8]) -> R) -> R {
        let input = self.take_input();
        let machine = self.machine.as_mut();
        machine
            .map(|machine| f(machine, &input))
            .unwrap_or_default()
    }

    /// The same, for an answer.
    pub fn answer_with(&mut self, f: impl FnOnce(&mut T, &[u8]) -> Vec<u8>) -> usize {
        let bytes = self.with(f);
        self.answer(bytes)
    }
}
