//! Metrics as a scraper reads them: OpenMetrics text, parsed strictly.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::Host;

/// The metrics of a daemon.
#[derive(Debug, Default)]
pub struct Exposition {
    /// Kinds of metrics, by name without `_total`.
    pub kinds: BTreeMap<String, String>,
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Exposition {
    /// Reads the metrics from a unix socket.
    pub fn at_socket(path: &Path) -> Result<Self> {
        let mut stream = UnixStream::connect(path).with_context(|| path.display().to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Self::of_response(&answer)
    }

    /// Reads the metrics from an address, on a host.
    pub fn at_address(host: &Host, address: &str) -> Result<Self> {
        let ask = format!(
            "printf 'GET /metrics HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' | socat -t 5 - TCP:{address}"
        );
        Self::of_response(&host.ask("sh", &["-c", &ask])?.success()?.stdout)
    }

    fn of_response(answer: &str) -> Result<Self> {
        let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let kind = "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8";
        ensure!(head.lines().any(|l| l == kind), "{head}");
        Self::parse(body)
    }

    /// Parses the text strictly, by OpenMetrics 1.0.
    ///
    /// # Errors
    /// The first invalid line.
    pub fn parse(text: &str) -> Result<Self> {
        let body = text
            .strip_suffix("# EOF\n")
            .context("no # EOF at the end")?;
        let mut all = Self::default();
        let mut current = String::new();
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# ") {
                let mut words = rest.splitn(3, ' ');
                let (what, name) = (words.next(), words.next().context(line.to_owned())?);
                let value = words.next().context(line.to_owned())?;
                match what {
                    Some("HELP") => {}
                    Some("TYPE") => {
                        ensure!(matches!(value, "counter" | "gauge"), "{line}");
                        let before = all.kinds.insert(name.to_owned(), value.to_owned());
                        ensure!(before.is_none(), "twice: {line}");
                        name.clone_into(&mut current);
                    }
                    _ => bail!("{line}"),
                }
                continue;
            }
            let sample = sample(line).with_context(|| line.to_owned())?;
            let stem = match all.kinds.get(&current).map(String::as_str) {
                Some("counter") => sample.0.strip_suffix("_total"),
                _ => Some(sample.0.as_str()),
            };
            ensure!(stem == Some(&current), "out of place: {line}");
            let same =
                |(name, labels, _): &&(String, _, f64)| *name == sample.0 && *labels == sample.1;
            ensure!(!all.samples.iter().any(|s| same(&s)), "twice: {line}");
            all.samples.push(sample);
        }
        ensure!(!all.samples.is_empty(), "nothing");
        Ok(all)
    }

    /// Returns the value of a metric with these labels among its own.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let fits = |own: &BTreeMap<String, String>| {
            labels
                .iter()
                .all(|(k, v)| own.get(*k).is_some_and(|o| o == v))
        };
        let mut found = self
            .samples
            .iter()
            .filter(|(n, own, _)| n == name && fits(own));
        let (_, _, value) = found
            .next()
            .with_context(|| format!("no {name} {labels:?}"))?;
        ensure!(found.next().is_none(), "several {name} {labels:?}");
        Ok(*value)
    }

    /// Returns whether there are values of this name, with any labels.
    pub fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|(n, _, _)| n == name)
    }
}

fn is_name(text: &str) -> bool {
    let rest = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(rest)
}

fn sample(line: &str) -> Result<(String, BTreeMap<String, String>, f64)> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, mut rest) = line.split_at(end);
    ensure!(is_name(name), "name");
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").context("label")?;
            ensure!(is_name(label), "label");
            let (value, after) = quoted(after)?;
            ensure!(
                labels.insert(label.to_owned(), value).is_none(),
                "label twice"
            );
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => {
                    rest = after.strip_prefix('}').context("no }")?;
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').context("no space")?;
    ensure!(!value.contains(' '), "a timestamp");
    Ok((name.to_owned(), labels, value.parse()?))
}

/// Returns the text before the closing quote, and the text behind it.
fn quoted(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('"' | '\\'))) => value.push(c),
                _ => bail!("escape"),
            },
            c => value.push(c),
        }
    }
    bail!("no closing quote")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_openmetrics_is_refused() {
        let good =
            "# HELP a x\n# TYPE a counter\na_total{l=\"v\\\"\"} 1\n# TYPE b gauge\nb 1.5\n# EOF\n";
        let read = Exposition::parse(good).unwrap();
        assert_eq!(read.value("a_total", &[("l", "v\"")]).unwrap(), 1.0);
        for (from, to) in [
            ("# EOF\n", ""),
            ("a_total", "a"),
            ("b 1.5", "b 1.5\nb 1.5"),
            ("b 1.5", "b 1.5 17"),
            ("b 1.5", "b x"),
            ("# TYPE b gauge\n", ""),
            ("gauge", "what"),
            ("# TYPE b", "# TYPE a"),
            ("\\\"\"", "\\\""),
            ("{l=", "{9=}"),
        ] {
            assert!(
                Exposition::parse(&good.replace(from, to)).is_err(),
                "{from} -> {to}"
            );
        }
    }
}
