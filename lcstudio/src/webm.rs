//! WebM of one track of VP8, as a stream of clusters: what is written can be played after a crash.
//!
//! ```text
//! EBML header | Segment, of unknown length: Info | Tracks | Cluster, Cluster ...
//! Cluster: Timecode | SimpleBlock of each frame      begins with a key frame
//! ```
//!
//! Specifications: RFC 8794 (EBML), RFC 9559 (Matroska), the WebM container guidelines.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

/// Length of an element that reaches to the end.
const UNKNOWN: [u8; 8] = [1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
/// Milliseconds of a cluster; blocks have 15 bits for theirs. Chosen: two key frames.
const MAX_CLUSTER_MS: u64 = 5_000;
/// Bytes of a cluster above which the next one begins. Chosen: twice the fastest camera's.
const MAX_CLUSTER: usize = 1 << 20;
/// Milliseconds from 1970 to 2001, where dates of Matroska begin.
const YEAR_2001_MS: u64 = 978_307_200_000;

/// Returns an element.
fn element(id: &[u8], body: &[u8]) -> Vec<u8> {
    let mut length = (body.len() as u64).to_be_bytes();
    length[0] = 1;
    [id, &length, body].concat()
}

/// Returns an element with a number.
fn number(id: &[u8], value: u64) -> Vec<u8> {
    element(id, &value.to_be_bytes())
}

/// A file that is written.
#[derive(Debug)]
pub struct WebM {
    file: File,
    /// Place of the duration in the file.
    duration_at: u64,
    /// Time of the cluster, in milliseconds.
    cluster_ms: u64,
    /// Blocks of the cluster.
    blocks: Vec<u8>,
    last_ms: u64,
    bytes: u64,
    /// Whether a cluster was written.
    has_frames: bool,
}

impl WebM {
    /// Creates a file. `date_ms`: of its first frame, since 1970.
    pub fn create(path: &Path, (width, height): (u16, u16), date_ms: u64) -> io::Result<Self> {
        let mut file = File::options().write(true).create_new(true).open(path)?;
        let header = [
            number(&[0x42, 0x86], 1),
            number(&[0x42, 0xf7], 1),
            number(&[0x42, 0xf2], 4),
            number(&[0x42, 0xf3], 8),
            element(&[0x42, 0x82], b"webm"),
            number(&[0x42, 0x87], 2),
            number(&[0x42, 0x85], 2),
        ];
        let date = date_ms
            .saturating_sub(YEAR_2001_MS)
            .saturating_mul(1_000_000);
        let info = [
            // milliseconds
            number(&[0x2a, 0xd7, 0xb1], 1_000_000),
            number(&[0x44, 0x61], date),
            element(&[0x4d, 0x80], b"lcstudio"),
            element(&[0x57, 0x41], b"lcstudio"),
            element(&[0x44, 0x89], &0_f64.to_be_bytes()),
        ];
        let video = [
            number(&[0xb0], width.into()),
            number(&[0xba], height.into()),
        ];
        let track = [
            number(&[0xd7], 1),
            number(&[0x73, 0xc5], 1),
            number(&[0x83], 1),
            number(&[0x9c], 0),
            element(&[0x86], b"V_VP8"),
            element(&[0xe0], &video.concat()),
        ];
        let mut begin = element(&[0x1a, 0x45, 0xdf, 0xa3], &header.concat());
        begin.extend([0x18, 0x53, 0x80, 0x67]);
        begin.extend(UNKNOWN);
        begin.extend(element(&[0x15, 0x49, 0xa9, 0x66], &info.concat()));
        // the duration is the last element of it
        let duration_at = begin.len() as u64 - 8;
        let tracks = element(&[0xae], &track.concat());
        begin.extend(element(&[0x16, 0x54, 0xae, 0x6b], &tracks));
        if let Err(e) = file.write_all(&begin) {
            let _ = fs::remove_file(path);
            return Err(e);
        }
        Ok(Self {
            file,
            duration_at,
            cluster_ms: 0,
            blocks: Vec::new(),
            last_ms: 0,
            bytes: begin.len() as u64,
            has_frames: false,
        })
    }

    /// Bytes of it, written or not.
    pub fn bytes(&self) -> u64 {
        self.bytes + self.blocks.len() as u64
    }

    /// Whether a frame was written.
    pub fn has_frames(&self) -> bool {
        self.has_frames
    }

    /// Adds a frame; times in milliseconds do not decrease.
    pub fn add(&mut self, ms: u64, is_key: bool, frame: &[u8]) -> io::Result<()> {
        let ms = ms.max(self.last_ms);
        let since = ms - self.cluster_ms;
        let is_full = since >= MAX_CLUSTER_MS || self.blocks.len() >= MAX_CLUSTER;
        if is_key || is_full {
            self.flush()?;
        }
        if self.blocks.is_empty() {
            self.cluster_ms = ms;
        }
        self.last_ms = ms;
        let since = ((ms - self.cluster_ms) as u16).to_be_bytes();
        let flags = if is_key { 0x80 } else { 0 };
        let head = [0x81, since[0], since[1], flags];
        let block = element(&[0xa3], &[&head, frame].concat());
        self.blocks.extend(block);
        Ok(())
    }

    /// Writes the cluster. What cannot be written whole is not in the file.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.blocks.is_empty() {
            return Ok(());
        }
        let time = number(&[0xe7], self.cluster_ms);
        let cluster = element(
            &[0x1f, 0x43, 0xb6, 0x75],
            &[time, self.blocks.clone()].concat(),
        );
        self.blocks.clear();
        if let Err(e) = self.write(&cluster) {
            let _ = self.file.set_len(self.bytes);
            return Err(e);
        }
        self.bytes += cluster.len() as u64;
        self.has_frames = true;
        Ok(())
    }

    fn write(&mut self, cluster: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.bytes))?;
        self.file.write_all(cluster)?;
        self.file.seek(SeekFrom::Start(self.duration_at))?;
        self.file.write_all(&(self.last_ms as f64).to_be_bytes())
    }
}

impl Drop for WebM {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads elements: identifiers, and bodies.
    fn elements(mut bytes: &[u8]) -> Vec<(u32, &[u8])> {
        let mut found = Vec::new();
        while let Some(first) = bytes.first() {
            let width = first.leading_zeros() as usize + 1;
            let id = bytes[..width]
                .iter()
                .fold(0, |id, byte| id << 8 | u32::from(*byte));
            let length: [u8; 8] = bytes[width..width + 8].try_into().unwrap();
            let rest = &bytes[width + 8..];
            let length = match length == UNKNOWN {
                true => rest.len(),
                false => (u64::from_be_bytes(length) & ((1 << 56) - 1)) as usize,
            };
            found.push((id, &rest[..length]));
            bytes = &rest[length..];
        }
        found
    }

    fn u64_of(bytes: &[u8]) -> u64 {
        u64::from_be_bytes(bytes.try_into().unwrap())
    }

    #[test]
    fn each_frame_comes_back_with_its_time_also_of_a_file_that_was_not_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("camera.webm");
        let mut webm = WebM::create(&path, (320, 180), 1_790_000_000_000).unwrap();
        assert!(
            WebM::create(&path, (320, 180), 0).is_err(),
            "nothing is overwritten"
        );
        let frames = 0..100_u64;
        let frames = frames.map(|n| (n * 333, n % 30 == 0, vec![n as u8; 5 + n as usize]));
        let frames: Vec<_> = frames.collect();
        for (ms, is_key, frame) in &frames {
            webm.add(*ms, *is_key, frame).unwrap();
        }
        let before = std::fs::read(&path).unwrap();
        drop(webm);
        let after = std::fs::read(&path).unwrap();
        for (bytes, count) in [(before, 90), (after, 100)] {
            let all = elements(&bytes);
            assert_eq!(all[0].0, 0x1a45_dfa3);
            let segment = elements(all[1].1);
            let info = elements(segment[0].1);
            let (_, duration) = info.last().unwrap();
            let duration = f64::from_be_bytes((*duration).try_into().unwrap());
            assert_eq!(duration, (count - 1) as f64 * 333.0);
            let mut found = Vec::new();
            for (id, cluster) in &segment[2..] {
                assert_eq!(*id, 0x1f43_b675);
                let blocks = elements(cluster);
                assert_eq!(blocks[0].0, 0xe7);
                for (id, block) in &blocks[1..] {
                    assert_eq!((*id, block[0]), (0xa3, 0x81));
                    let since = u16::from_be_bytes([block[1], block[2]]);
                    assert!(since < 0x8000);
                    let ms = u64_of(blocks[0].1) + u64::from(since);
                    found.push((ms, block[3] == 0x80, block[4..].to_vec()));
                }
            }
            assert_eq!(found, frames[..count]);
        }
    }
}
