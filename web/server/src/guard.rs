//! Access control: foreign sites, and names that resolve to this host, must not get data.

use std::net::IpAddr;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN};

/// Bytes of a key, before base58.
const KEY_LEN: usize = 16;

/// The requirements of a request.
#[derive(Debug)]
pub struct Guard {
    key: String,
    /// Names of this host beside `localhost`; addresses need none.
    names: Vec<String>,
    is_tls: bool,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It names another host: a foreign name may resolve to this one.
    Host,
    /// It comes from a page of another site.
    Origin,
    /// It has no key, or a wrong one.
    Key,
}

impl Guard {
    /// Creates a guard with a new key.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new(names: &[String], is_tls: bool) -> Result<Self, getrandom::Error> {
        let mut bytes = [0; KEY_LEN];
        getrandom::fill(&mut bytes)?;
        Ok(Self {
            key: bs58::encode(bytes).into_string(),
            names: names.to_vec(),
            is_tls,
        })
    }

    /// The part of the page's address after `#`.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether a request may be answered at all.
    ///
    /// # Errors
    /// It names another host, or comes from another site's page.
    pub fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = one(headers, HOST.as_str()).ok_or(Refusal::Host)?;
        if !self.is_ours(host) {
            return Err(Refusal::Host);
        }
        let scheme = if self.is_tls { "https://" } else { "http://" };
        let is_other = |origin: &HeaderValue| {
            let origin = origin.to_str().ok();
            origin.and_then(|o| o.strip_prefix(scheme)) != Some(host)
        };
        if headers.get_all(ORIGIN).iter().any(is_other) {
            return Err(Refusal::Origin);
        }
        // browsers report the requesting site; a link from another page is admitted, without a key
        let site = one(headers, "sec-fetch-site").unwrap_or("none");
        let mode = one(headers, "sec-fetch-mode").unwrap_or("navigate");
        if !matches!(site, "none" | "same-origin") && mode != "navigate" {
            return Err(Refusal::Origin);
        }
        Ok(())
    }

    /// Whether a request may have data.
    ///
    /// # Errors
    /// It has no key, or a wrong one.
    pub fn unlock(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let given = one(headers, AUTHORIZATION.as_str()).and_then(|v| v.strip_prefix("Bearer "));
        let given = given.unwrap_or_default().as_bytes();
        let key = self.key.as_bytes();
        // constant time for keys of this length
        let differs = given.iter().zip(key).fold(0, |all, (a, b)| all | (a ^ b));
        if given.len() == key.len() && differs == 0 {
            Ok(())
        } else {
            Err(Refusal::Key)
        }
    }

    fn is_ours(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next(),
            None => host.split(':').next(),
        };
        let name = name.unwrap_or_default().to_ascii_lowercase();
        name.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || self
                .names
                .iter()
                .any(|known| known.eq_ignore_ascii_case(&name))
    }
}

fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    let value = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let value = |(name, value): &(&'static str, &str)| (*name, value.parse().unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in list.iter().map(value) {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn only_names_of_this_host_and_addresses_lead_here() {
        let guard = Guard::new(&["Node.example".into()], false).unwrap();
        for host in [
            "[::1]:7180",
            "127.0.0.1:7180",
            "localhost",
            "LOCALHOST:1",
            "node.example:7180",
            "192.168.1.7",
        ] {
            assert_eq!(guard.admit(&headers(&[("host", host)])), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:7180",
            "",
            "[evil]",
            "127.0.0.1.evil.example",
        ] {
            assert_eq!(
                guard.admit(&headers(&[("host", host)])),
                Err(Refusal::Host),
                "{host}"
            );
        }
        assert_eq!(guard.admit(&headers(&[])), Err(Refusal::Host));
        let twice = headers(&[("host", "localhost"), ("host", "localhost")]);
        assert_eq!(guard.admit(&twice), Err(Refusal::Host));
    }

    #[test]
    fn pages_of_other_sites_get_nothing() {
        let guard = Guard::new(&[], false).unwrap();
        let host = ("host", "localhost:7180");
        for (more, admitted) in [
            (vec![("origin", "http://localhost:7180")], Ok(())),
            (
                vec![("origin", "https://localhost:7180")],
                Err(Refusal::Origin),
            ),
            (
                vec![("origin", "http://localhost:80")],
                Err(Refusal::Origin),
            ),
            (vec![("origin", "null")], Err(Refusal::Origin)),
            (
                vec![("origin", "http://evil.example")],
                Err(Refusal::Origin),
            ),
            (
                vec![
                    ("sec-fetch-site", "same-origin"),
                    ("sec-fetch-mode", "cors"),
                ],
                Ok(()),
            ),
            (
                vec![
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "no-cors"),
                ],
                Err(Refusal::Origin),
            ),
            (
                vec![
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                ],
                Ok(()),
            ),
        ] {
            let all = [&[host], &more[..]].concat();
            assert_eq!(guard.admit(&headers(&all)), admitted, "{more:?}");
        }
    }

    #[test]
    fn data_is_for_those_who_have_the_key() {
        let guard = Guard::new(&[], false).unwrap();
        let right = format!("Bearer {}", guard.key());
        assert_eq!(guard.unlock(&headers(&[("authorization", &right)])), Ok(()));
        let other = format!("Bearer {}", Guard::new(&[], false).unwrap().key());
        for wrong in [
            "",
            "Bearer ",
            guard.key(),
            &other,
            &right[..right.len() - 1],
            &format!("{right}x"),
        ] {
            let headers = headers(&[("authorization", wrong)]);
            assert_eq!(guard.unlock(&headers), Err(Refusal::Key), "{wrong}");
        }
        assert_eq!(guard.unlock(&HeaderMap::new()), Err(Refusal::Key));
    }
}
