//! Requests of programs that send sound to an Icecast server: SOURCE or PUT with sound, GET with a
//! title. Without I/O.

use data_encoding::BASE64;
use lcradio_core::showable;

/// Most bytes of a head. Chosen: real ones have some 500.
pub const MAX_HEAD: usize = 8 << 10;

/// A request with the right password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Sound follows.
    Source(SourceHead),
    /// The title of the sound.
    Title(String),
}

/// The head of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceHead {
    /// What it calls itself.
    pub name: Option<String>,
    /// Waits for the word to go on (RFC 9110, 10.1.1).
    pub expects_continue: bool,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is no request, or too long.
    Malformed,
    /// It has no password, or a wrong one.
    Password,
    /// It asks for something else.
    Unknown,
    /// Its sound comes in chunks.
    Chunked,
}

impl Refusal {
    /// Returns the answer.
    pub fn answer(self) -> &'static str {
        match self {
            Self::Malformed => "HTTP/1.0 400 Bad Request\r\n\r\n",
            Self::Password => {
                "HTTP/1.0 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"lcradio\"\r\n\r\n"
            }
            Self::Unknown => "HTTP/1.0 404 Not Found\r\n\r\n",
            Self::Chunked => "HTTP/1.0 501 Not Implemented\r\n\r\n",
        }
    }
}

/// Reads a request whose head is whole: returns it, and the length of its head; none before.
///
/// # Errors
///
/// The request is refused.
pub fn read(bytes: &[u8], password: &[u8]) -> Result<Option<(Request, usize)>, Refusal> {
    let Some(length) = head_length(bytes) else {
        return match bytes.len() > MAX_HEAD {
            true => Err(Refusal::Malformed),
            false => Ok(None),
        };
    };
    let head = bytes.get(..length).filter(|head| head.len() <= MAX_HEAD);
    let head = String::from_utf8_lossy(head.ok_or(Refusal::Malformed)?);
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(_version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::Malformed);
    };
    let headers: Vec<(&str, &str)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect();
    let header = |wanted: &str| {
        let mut found = headers.iter();
        let found = found.find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| *value)
    };
    if !is_authorized(header("authorization"), password) {
        return Err(Refusal::Password);
    }
    let request = match method {
        "SOURCE" | "PUT" if header("transfer-encoding").is_some() => return Err(Refusal::Chunked),
        "SOURCE" | "PUT" => Request::Source(SourceHead {
            name: header("ice-name")
                .map(showable)
                .filter(|name| !name.is_empty()),
            expects_continue: header("expect")
                .is_some_and(|expects| expects.eq_ignore_ascii_case("100-continue")),
        }),
        "GET" => Request::Title(title(target).ok_or(Refusal::Unknown)?),
        _ => return Err(Refusal::Unknown),
    };
    Ok(Some((request, length)))
}

/// Returns the length of a whole head, with the empty line.
fn head_length(bytes: &[u8]) -> Option<usize> {
    let end = |end: &[u8]| {
        let at = bytes.windows(end.len()).position(|w| w == end);
        at.map(|at| at + end.len())
    };
    // some programs end lines as they please
    [end(b"\r\n\r\n"), end(b"\n\n")].into_iter().flatten().min()
}

/// Compares in a time that tells nothing but the length. Sources may give any name.
fn is_authorized(header: Option<&str>, password: &[u8]) -> bool {
    let given = header.and_then(|value| value.split_once(' '));
    let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
    let given = given.and_then(|(_, value)| BASE64.decode(value.trim().as_bytes()).ok());
    let given = given.unwrap_or_default();
    let colon = given.iter().position(|byte| *byte == b':');
    let given = colon.and_then(|at| given.get(at + 1..)).unwrap_or_default();
    let differs = given
        .iter()
        .zip(password)
        .fold(0, |all, (a, b)| all | (a ^ b));
    !password.is_empty() && given.len() == password.len() && differs == 0
}

/// Returns the title in a request for a change of the metadata.
fn title(target: &str) -> Option<String> {
    let (path, query) = target.split_once('?')?;
    if path != "/admin/metadata" {
        return None;
    }
    let value = |wanted: &str| {
        let mut fields = query.split('&').filter_map(|field| field.split_once('='));
        let field = fields.find(|(name, _)| *name == wanted);
        field.map(|(_, value)| decoded(value))
    };
    if value("mode")? != "updinfo" {
        return None;
    }
    let text = match (value("artist"), value("title")) {
        (Some(artist), Some(title)) if !artist.is_empty() => format!("{artist}: {title}"),
        (_, Some(title)) => title,
        _ => value("song")?,
    };
    Some(showable(&text))
}

/// Decodes `+` and `%XX`; other text stays.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let hex = hex.filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = after;
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PASSWORD: &[u8] = b"hackme";

    fn request(first: &str, more: &str) -> Vec<u8> {
        let proof = BASE64.encode(b"source:hackme");
        format!("{first}\r\nAuthorization: Basic {proof}\r\n{more}\r\n").into_bytes()
    }

    fn whole(bytes: &[u8]) -> Result<Request, Refusal> {
        read(bytes, PASSWORD).map(|request| request.unwrap().0)
    }

    fn source(name: Option<&str>, expects_continue: bool) -> Request {
        Request::Source(SourceHead {
            name: name.map(str::to_owned),
            expects_continue,
        })
    }

    #[test]
    fn sources_begin_as_butt_mixxx_and_ffmpeg_begin() {
        let ffmpeg = request(
            "PUT /live HTTP/1.1",
            "Expect: 100-continue\r\nIce-Name: Home\r\n",
        );
        assert_eq!(whole(&ffmpeg), Ok(source(Some("Home"), true)));
        for first in ["SOURCE /live HTTP/1.0", "SOURCE /live ICE/1.0"] {
            let request = request(first, "content-type: application/ogg\r\n");
            assert_eq!(whole(&request), Ok(source(None, false)), "{first}");
            // sound behind the head is none of it
            let sound = [&request[..], b"OggS"].concat();
            let (_, length) = read(&sound, PASSWORD).unwrap().unwrap();
            assert_eq!(length, request.len());
            for cut in 0..request.len() {
                assert_eq!(read(&request[..cut], PASSWORD), Ok(None), "{cut}");
            }
        }
        let old = String::from_utf8(request("SOURCE /live HTTP/1.0", "")).unwrap();
        assert_eq!(
            whole(old.replace('\r', "").as_bytes()),
            Ok(source(None, false))
        );
    }

    #[test]
    fn without_the_password_nothing_is_done() {
        for proof in [
            "source:wrong1",
            "source:hackm",
            "source:hackmee",
            "hackme",
            "",
            ":",
        ] {
            let head = format!("Authorization: Basic {}", BASE64.encode(proof.as_bytes()));
            for first in [
                "PUT /live HTTP/1.1",
                "GET /admin/metadata?mode=updinfo&song=x HTTP/1.0",
            ] {
                let bytes = format!("{first}\r\n{head}\r\n\r\n");
                assert_eq!(whole(bytes.as_bytes()), Err(Refusal::Password), "{proof}");
            }
        }
        assert_eq!(whole(b"PUT /live HTTP/1.1\r\n\r\n"), Err(Refusal::Password));
        let empty = format!(
            "PUT / HTTP/1.1\r\nAuthorization: Basic {}\r\n\r\n",
            BASE64.encode(b"source:")
        );
        assert_eq!(read(empty.as_bytes(), b""), Err(Refusal::Password));
    }

    #[test]
    fn titles_come_by_a_request_of_their_own() {
        for (query, expected) in [
            (
                "mode=updinfo&mount=%2Flive&song=Ann+-+Tea%20%C3%BC",
                Ok("Ann - Tea ü"),
            ),
            ("artist=Ann&title=Tea&mode=updinfo", Ok("Ann: Tea")),
            ("mode=updinfo&song=a%0Ab%zz%", Ok("a b%zz%")),
            ("mode=listclients", Err(Refusal::Unknown)),
        ] {
            let request = request(&format!("GET /admin/metadata?{query} HTTP/1.0"), "");
            let expected = expected.map(|title| Request::Title(title.to_owned()));
            assert_eq!(whole(&request), expected, "{query}");
        }
        let other = request("GET /live HTTP/1.0", "");
        assert_eq!(whole(&other), Err(Refusal::Unknown));
    }

    #[test]
    fn heads_without_an_end_and_other_words_are_refused() {
        let endless = vec![b'x'; MAX_HEAD + 1];
        assert_eq!(read(&endless, PASSWORD), Err(Refusal::Malformed));
        assert_eq!(whole(b"hello\r\n\r\n"), Err(Refusal::Malformed));
        let chunked = request("PUT /live HTTP/1.1", "Transfer-Encoding: chunked\r\n");
        assert_eq!(whole(&chunked), Err(Refusal::Chunked));
        assert_eq!(
            whole(&request("DELETE / HTTP/1.1", "")),
            Err(Refusal::Unknown)
        );
    }
}
