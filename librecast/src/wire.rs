//! Bounded cursors, by which all our binary formats are read and written.
//!
//! All integers are big-endian. A reader never panics and never allocates more than its input.

use std::net::Ipv6Addr;

use thiserror::Error;

/// The reason why foreign bytes were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// The message ends before the field does.
    #[error("truncated")]
    Truncated,
    /// Bytes follow the last field.
    #[error("trailing bytes")]
    Trailing,
    /// An unsupported version.
    #[error("unsupported version {0}")]
    Version(u8),
    /// A field has a value that the format forbids; names the field.
    #[error("bad {0}")]
    Bad(&'static str),
}

/// A reader of fields from the front of a slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

// inline: other crates read packets with these
impl<'a> Reader<'a> {
    /// Makes a reader at the start of `bytes`.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Reads `n` bytes.
    #[inline]
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// Reads `N` bytes as an array.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// Reads one byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[b]| b)
    }

    /// Reads two bytes, big-endian.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Reads four bytes, big-endian.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Reads eight bytes, big-endian.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Reads an IPv6 address.
    #[inline]
    pub fn ipv6(&mut self) -> Result<Ipv6Addr, WireError> {
        self.array::<16>().map(Ipv6Addr::from)
    }

    /// Reads the byte of a version, of which one is known.
    ///
    /// # Errors
    /// [`WireError::Version`] of another one.
    #[inline]
    pub fn version(&mut self, known: u8) -> Result<(), WireError> {
        match self.u8()? {
            version if version == known => Ok(()),
            other => Err(WireError::Version(other)),
        }
    }

    /// Reads UTF-8 text after a length byte.
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::Bad`] if it is not UTF-8.
    pub fn text8(&mut self) -> Result<&'a str, WireError> {
        let n = self.u8()?;
        std::str::from_utf8(self.take(n.into())?).map_err(|_| WireError::Bad("utf-8"))
    }

    /// Reads bytes after a two-byte length.
    pub fn bytes16(&mut self) -> Result<&'a [u8], WireError> {
        let n = self.u16()?;
        self.take(n.into())
    }

    /// Returns the unread rest.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Returns whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Returns an error unless everything has been read.
    pub fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Trailing)
        }
    }
}

/// A writer that appends fields to a buffer.
#[derive(Debug, Default, Clone)]
pub struct Writer {
    buf: Vec<u8>,
}

/// Appends to an existing buffer.
impl From<Vec<u8>> for Writer {
    fn from(buf: Vec<u8>) -> Self {
        Self { buf }
    }
}

impl Writer {
    /// Makes an empty writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one byte.
    pub fn u8(&mut self, v: u8) -> &mut Self {
        self.buf.push(v);
        self
    }

    /// Appends two bytes, big-endian.
    pub fn u16(&mut self, v: u16) -> &mut Self {
        self.put(&v.to_be_bytes())
    }

    /// Appends four bytes, big-endian.
    pub fn u32(&mut self, v: u32) -> &mut Self {
        self.put(&v.to_be_bytes())
    }

    /// Appends eight bytes, big-endian.
    pub fn u64(&mut self, v: u64) -> &mut Self {
        self.put(&v.to_be_bytes())
    }

    /// Appends bytes as they are.
    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.buf.extend_from_slice(bytes);
        self
    }

    /// Appends an IPv6 address.
    pub fn ipv6(&mut self, a: Ipv6Addr) -> &mut Self {
        self.put(&a.octets())
    }

    /// Appends text after a length byte; more than 255 bytes are an error of the caller.
    pub fn text8(&mut self, s: &str) -> Result<&mut Self, WireError> {
        let n = u8::try_from(s.len()).map_err(|_| WireError::Bad("text length"))?;
        Ok(self.u8(n).put(s.as_bytes()))
    }

    /// Appends bytes after a two-byte length; more than 65,535 are an error of the caller.
    pub fn bytes16(&mut self, b: &[u8]) -> Result<&mut Self, WireError> {
        let n = u16::try_from(b.len()).map_err(|_| WireError::Bad("length"))?;
        Ok(self.u16(n).put(b))
    }

    /// Returns the number of written bytes.
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// Returns whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// Returns the bytes written so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.buf
    }

    /// Returns all written bytes.
    pub fn into_vec(self) -> Vec<u8> {
        self.buf
    }
}
