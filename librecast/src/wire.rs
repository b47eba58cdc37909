//! Bounded cursors: the one way in which our binary formats are read and written.
//!
//! All integers are big-endian. A reader never panics and never allocates more than it was given.

use std::net::Ipv6Addr;

use thiserror::Error;

/// Why bytes from outside were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// The message ends before the field does.
    #[error("truncated")]
    Truncated,
    /// Bytes follow the last field.
    #[error("trailing bytes")]
    Trailing,
    /// A version this program does not speak.
    #[error("unsupported version {0}")]
    Version(u8),
    /// A field holds a value that the format forbids; the name says which.
    #[error("bad {0}")]
    Bad(&'static str),
}

/// Reads fields from the front of a slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

// inline: packets are read with these in other crates
impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    #[must_use]
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    ///
    /// [`WireError::Truncated`].
    #[inline]
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    ///
    /// [`WireError::Truncated`].
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[b]| b)
    }

    /// Two bytes, big-endian.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes, big-endian.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes, big-endian.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    /// An IPv6 address.
    #[inline]
    pub fn ipv6(&mut self) -> Result<Ipv6Addr, WireError> {
        self.array::<16>().map(Ipv6Addr::from)
    }

    /// UTF-8 text behind a length byte.
    ///
    /// # Errors
    ///
    /// [`WireError::Truncated`], [`WireError::Bad`] if it is not UTF-8.
    pub fn text8(&mut self) -> Result<&'a str, WireError> {
        let n = self.u8()?;
        std::str::from_utf8(self.take(n.into())?).map_err(|_| WireError::Bad("utf-8"))
    }

    /// Bytes behind a two-byte length.
    ///
    /// # Errors
    ///
    /// [`WireError::Truncated`].
    pub fn bytes16(&mut self) -> Result<&'a [u8], WireError> {
        let n = self.u16()?;
        self.take(n.into())
    }

    /// What has not been read.
    #[must_use]
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// An error unless everything has been read.
    ///
    /// # Errors
    ///
    /// [`WireError::Trailing`].
    pub fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Trailing)
        }
    }
}

/// Appends fields to a buffer.
#[derive(Debug, Default, Clone)]
pub struct Writer {
    buf: Vec<u8>,
}

/// Writes on behind what is there.
impl From<Vec<u8>> for Writer {
    fn from(buf: Vec<u8>) -> Self {
        Self { buf }
    }
}

impl Writer {
    /// An empty writer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One byte.
    pub fn u8(&mut self, v: u8) -> &mut Self {
        self.buf.push(v);
        self
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self, v: u16) -> &mut Self {
        self.put(&v.to_be_bytes())
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self, v: u32) -> &mut Self {
        self.put(&v.to_be_bytes())
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self, v: u64) -> &mut Self {
        self.put(&v.to_be_bytes())
    }

    /// Bytes as they are.
    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.buf.extend_from_slice(bytes);
        self
    }

    /// An IPv6 address.
    pub fn ipv6(&mut self, a: Ipv6Addr) -> &mut Self {
        self.put(&a.octets())
    }

    /// Text behind a length byte; at most 255 bytes, more is an error of the caller.
    pub fn text8(&mut self, s: &str) -> Result<&mut Self, WireError> {
        let n = u8::try_from(s.len()).map_err(|_| WireError::Bad("text length"))?;
        Ok(self.u8(n).put(s.as_bytes()))
    }

    /// Bytes behind a two-byte length; at most 65,535, more is an error of the caller.
    pub fn bytes16(&mut self, b: &[u8]) -> Result<&mut Self, WireError> {
        let n = u16::try_from(b.len()).map_err(|_| WireError::Bad("length"))?;
        Ok(self.u16(n).put(b))
    }

    /// How much has been written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// Whether nothing has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// What has been written so far.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.buf
    }

    /// Everything that was written.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.buf
    }
}
