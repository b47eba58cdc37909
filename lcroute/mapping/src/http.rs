//! One HTTP exchange with a router, bounded in time and memory for any answer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Timeout of an exchange.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Most bytes of an answer; descriptions of routers have some 10,000.
const MAX_ANSWER: u64 = 256 * 1024;
/// Most headers of an answer. Chosen.
const MAX_HEADERS: usize = 64;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code, such as 200.
    pub status: u16,
    /// The body; invalid UTF-8 is replaced.
    pub body: String,
}

/// Sends a request; `post` has headers, each with its line end, and the body.
pub(crate) async fn ask(
    server: SocketAddr,
    path: &str,
    post: Option<(&str, &str)>,
) -> anyhow::Result<Answer> {
    let (method, more, body) = match post {
        Some((more, body)) => ("POST", more, body),
        None => ("GET", "", ""),
    };
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n{more}Content-Length: {length}\r\n\r\n{body}"
    );
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(request.as_bytes()).await?;
        read(&mut stream).await
    };
    tokio::time::timeout(TIMEOUT, exchange).await?
}

/// Reads until the end that the answer names, or until the end of the stream.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<Answer> {
    let mut bounded = stream.take(MAX_ANSWER);
    let mut bytes = Vec::new();
    loop {
        if let Some(answer) = parse(&bytes, false)? {
            return Ok(answer);
        }
        if bounded.read_buf(&mut bytes).await? == 0 {
            let answer = parse(&bytes, bounded.limit() > 0)?;
            return answer.ok_or_else(|| anyhow::anyhow!("an answer is cut off or too long"));
        }
    }
}

/// Parses a whole answer; `None` if more bytes are needed. `ended`: there are no more.
///
/// # Errors
/// The bytes are not the beginning of an answer.
pub fn parse(bytes: &[u8], ended: bool) -> anyhow::Result<Option<Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = response.parse(bytes)? else {
        return Ok(None);
    };
    let header = |name: &str| {
        let mut all = response.headers.iter();
        let found = all.find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok()
    };
    let rest = &bytes[start..];
    let chunked = header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
    let length = header("content-length").and_then(|v| v.trim().parse::<usize>().ok());
    let body = match length {
        _ if chunked => dechunked(rest)?,
        Some(length) => rest.get(..length).map(<[u8]>::to_vec),
        None => ended.then(|| rest.to_vec()),
    };
    Ok(body.map(|body| Answer {
        status: response.code.unwrap_or_default(),
        body: String::from_utf8_lossy(&body).into_owned(),
    }))
}

/// Joins the chunks of a body (RFC 9112 §7.1); `None`: more bytes are needed.
fn dechunked(mut rest: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let size = httparse::parse_chunk_size(rest);
        let size = size.map_err(|_| anyhow::anyhow!("a chunk has no size"))?;
        let httparse::Status::Complete((start, size)) = size else {
            return Ok(None);
        };
        if size == 0 {
            return Ok(Some(body));
        }
        let end = usize::try_from(size)
            .ok()
            .and_then(|n| n.checked_add(start));
        let Some(chunk) = end.and_then(|end| rest.get(start..end)) else {
            return Ok(None);
        };
        body.extend_from_slice(chunk);
        rest = rest.get(start + chunk.len() + 2..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(bytes: &[u8], ended: bool) -> Option<String> {
        parse(bytes, ended).unwrap().map(|answer| answer.body)
    }

    #[test]
    fn an_answer_ends_where_it_says() {
        let counted = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 5\r\n\r\nhello, and more";
        assert_eq!(whole(counted, false).as_deref(), Some("hello"));
        assert_eq!(whole(&counted[..40], false), None);
        let open = b"HTTP/1.0 500 No\r\n\r\nhello";
        assert_eq!(whole(open, false), None);
        assert_eq!(whole(open, true).as_deref(), Some("hello"));
        assert_eq!(parse(open, true).unwrap().unwrap().status, 500);
        let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n";
        assert_eq!(whole(chunks, false).as_deref(), Some("hello"));
        for cut in 20..chunks.len() - 6 {
            assert_eq!(whole(&chunks[..cut], true), None, "{cut}");
        }
    }

    #[tokio::test]
    async fn an_endless_answer_is_left() {
        let head: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
        let mut endless = head.chain(tokio::io::repeat(b'x'));
        assert!(read(&mut endless).await.is_err());
        let mut headers = tokio::io::repeat(b'x');
        assert!(read(&mut headers).await.is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_answers_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), ended: bool) {
            let _ = parse(&bytes, ended);
            let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let _ = parse(&[chunked, bytes.as_slice()].concat(), ended);
            let _ = dechunked(&bytes);
        }

        #[test]
        fn arbitrary_chunks_do_not_panic(text in "([0-9a-f]{0,16}\r\n.{0,9}\r\n){0,4}") {
            let _ = dechunked(text.as_bytes());
        }
    }
}
