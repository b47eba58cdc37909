//! A shared file on a block device: what is there already stays, the rest is written in place, and
//! all that was written is read back.
//!
//! ```text
//! sample -> compare -> blocks, in any order -> sync -> read back, past the page cache
//! ```
//!
//! The comparison is also how an interrupted run continues.

use std::collections::{HashMap, HashSet};
use std::io;

use anyhow::{Context, ensure};

use super::parts::Part;
use crate::block::{BlockHash, BlockRef, MAX_BLOCK};
use crate::cut::zeroes;
use crate::device::{Device, Reader};

/// Blocks that are compared at first; without an equal one, the device has something else. Chosen:
/// 16 MiB, a second on a slow disk.
const SAMPLE: usize = 64;

/// The file, and the state of its parts on the device.
#[derive(Debug)]
pub struct Image<'a> {
    device: &'a Device,
    parts: Vec<Part>,
    state: Vec<State>,
    wanted: HashMap<BlockHash, Vec<usize>>,
}

/// State of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The device has other bytes, as far as is known.
    Missing,
    /// The device had these bytes before.
    Found,
    /// Written, with this hash of the part.
    Written(BlockHash),
}

impl<'a> Image<'a> {
    /// Takes the parts of a file that the device has room for. None are known to be there.
    pub fn new(device: &'a Device, parts: Vec<Part>) -> Self {
        let mut image = Self {
            device,
            state: vec![State::Missing; parts.len()],
            parts,
            wanted: HashMap::new(),
        };
        image.want();
        image
    }

    /// Compares a sample; returns whether some of the file is there.
    pub fn sample(&mut self) -> io::Result<bool> {
        let step = self.parts.len().div_ceil(SAMPLE).max(1);
        let numbers = (0..self.parts.len()).step_by(step);
        self.compare_these(numbers)?;
        Ok(self.state.contains(&State::Found))
    }

    /// Compares all parts.
    pub fn compare(&mut self) -> io::Result<()> {
        self.compare_these(0..self.parts.len())
    }

    fn compare_these(&mut self, numbers: impl Iterator<Item = usize>) -> io::Result<()> {
        let mut reader = self.device.reader()?;
        for n in numbers {
            let part = self.parts[n];
            if part.is_whole() && hash_of(part, &mut reader)? == part.block.hash {
                self.state[n] = State::Found;
            }
        }
        self.want();
        Ok(())
    }

    fn want(&mut self) {
        self.wanted.clear();
        for (n, part) in self.parts.iter().enumerate() {
            if self.state[n] == State::Missing {
                self.wanted.entry(part.block.hash).or_default().push(n);
            }
        }
    }

    /// Returns the blocks to fetch, in order. Nobody needs to send zeroes.
    pub fn wanted(&self) -> Vec<BlockRef> {
        let mut seen = HashSet::from([zeroes().hash]);
        let missing = self.parts.iter().zip(&self.state);
        missing
            .filter(|(_, state)| **state == State::Missing)
            .map(|(part, _)| part.block)
            .filter(|block| seen.insert(block.hash))
            .collect()
    }

    /// Writes whole blocks of zeroes.
    pub fn put_zeroes(&mut self) -> io::Result<()> {
        self.put(zeroes(), &vec![0; MAX_BLOCK])
    }

    /// Writes a block to all its places.
    pub fn put(&mut self, block: BlockRef, bytes: &[u8]) -> io::Result<()> {
        for n in self.wanted.remove(&block.hash).unwrap_or_default() {
            let part = self.parts[n];
            self.device.write(part.of(bytes), part.at)?;
            self.state[n] = State::Written(BlockHash::of(part.of(bytes)));
        }
        Ok(())
    }

    /// Bytes written.
    pub fn written(&self) -> u64 {
        let parts = self.parts.iter().zip(&self.state);
        let written = parts.filter(|(_, state)| matches!(state, State::Written(_)));
        written.map(|(part, _)| part.length as u64).sum()
    }

    /// Reads back all that was written, and its neighbours, which share sectors with it.
    ///
    /// # Errors
    /// A part is missing, or has other bytes.
    pub fn verify(&mut self) -> anyhow::Result<()> {
        let path = self.device.path().display();
        self.device.sync().with_context(|| path.to_string())?;
        let mut reader = self.device.reader()?;
        let is_written = |n: usize| matches!(self.state.get(n), Some(State::Written(_)));
        for (n, part) in self.parts.iter().enumerate() {
            let near = [n.wrapping_sub(1), n, n + 1].into_iter().any(is_written);
            let expected = match self.state[n] {
                State::Missing => anyhow::bail!("{path}: not all of it has come"),
                State::Found => part.block.hash,
                State::Written(hash) => hash,
            };
            if near {
                let found = hash_of(*part, &mut reader).with_context(|| path.to_string())?;
                let at = part.at;
                ensure!(
                    found == expected,
                    "{path}: byte {at} and those after it were read back other than written: the device is faulty, or something else wrote to it"
                );
            }
        }
        Ok(())
    }
}

/// Returns the hash of a part as it is on the device.
fn hash_of(part: Part, reader: &mut Reader) -> io::Result<BlockHash> {
    reader.read(part.at, part.length).map(BlockHash::of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cut::tests::{cut, noise};
    use crate::device::tests::device;

    /// A file with zeroes, a repetition and a rest that fills no sector.
    fn content() -> Vec<u8> {
        let large = noise(1, 5 * MAX_BLOCK);
        let rest = noise(2, 1_234);
        [&large[..], &vec![0; 4 * MAX_BLOCK], &large, &rest].concat()
    }

    fn parts_of(content: &[u8]) -> Vec<Part> {
        let mut at = 0;
        let part = |block: BlockRef| {
            let here = at;
            at += u64::from(block.length);
            Part {
                block,
                from: 0,
                length: block.length as usize,
                at: here,
            }
        };
        cut(content).into_iter().map(part).collect()
    }

    fn bytes_of(content: &[u8], block: BlockRef) -> &[u8] {
        let parts = parts_of(content);
        let part = parts.iter().find(|part| part.block == block).unwrap();
        &content[part.at as usize..][..part.length]
    }

    /// Writes at most `most` blocks, in the reverse order; returns the number of wanted ones.
    fn fetch(device: &Device, content: &[u8], most: usize) -> usize {
        let mut image = Image::new(device, parts_of(content));
        if image.sample().unwrap() {
            image.compare().unwrap();
        }
        let wanted = image.wanted();
        image.put_zeroes().unwrap();
        for block in wanted.iter().rev().take(most) {
            image.put(*block, bytes_of(content, *block)).unwrap();
        }
        assert_eq!(image.verify().is_ok(), most >= wanted.len());
        wanted.len()
    }

    #[test]
    fn a_file_lands_in_place_and_then_nothing_is_wanted_or_written() {
        let content = content();
        let (_dir, device) = device(content.len() as u64 + 9_999);
        device.write(&noise(9, content.len() + 9_999), 0).unwrap();
        assert!(fetch(&device, &content, usize::MAX) > 5);
        assert!(std::fs::read(device.path()).unwrap()[..content.len()] == content);
        let rest = std::fs::read(device.path())
            .unwrap()
            .split_off(content.len());
        assert!(rest == noise(9, content.len() + 9_999)[content.len()..]);
        let mut image = Image::new(&device, parts_of(&content));
        assert!(image.sample().unwrap());
        image.compare().unwrap();
        image.put_zeroes().unwrap();
        image.verify().unwrap();
        assert_eq!((image.wanted().len(), image.written()), (0, 0));
    }

    #[test]
    fn an_interrupted_run_continues_and_a_whole_one_is_needed() {
        let content = content();
        let all = parts_of(&content).len();
        for most in [1, all / 4, all / 2] {
            let (_dir, device) = device(content.len() as u64);
            device.write(&noise(9, content.len()), 0).unwrap();
            let wanted = fetch(&device, &content, most);
            assert_eq!(fetch(&device, &content, usize::MAX), wanted - most);
            assert!(std::fs::read(device.path()).unwrap() == content);
        }
    }

    #[test]
    fn bytes_that_the_device_returns_changed_are_found() {
        let content = content();
        let (_dir, device) = device(content.len() as u64);
        for at in [0, content.len() - 1, 3 * MAX_BLOCK] {
            let mut image = Image::new(&device, parts_of(&content));
            image.put_zeroes().unwrap();
            for block in image.wanted() {
                image.put(block, bytes_of(&content, block)).unwrap();
            }
            device.write(&[content[at] ^ 1], at as u64).unwrap();
            let error = image.verify().unwrap_err().to_string();
            assert!(error.contains("other than written"), "{error}");
        }
    }
}
