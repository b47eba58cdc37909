//! A daemon's metrics for Prometheus etc.: OpenMetrics text, read from its counters on request.
//!
//! Each program has one table of [`Description`]s: for the exposition, the reference and the tests.

mod process;
mod served;
mod server;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use thiserror::Error;

pub use process::PROCESS;
pub use served::Served;
pub use server::{Server, Unavailable};

/// The content type of the page.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `[metrics]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Serve metrics here: `ADDRESS:PORT`, or the absolute path of a unix socket. Off by default.
    pub listen: Option<Listen>,
}

/// The address that serves metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A unix socket, mode 0660.
    Unix(PathBuf),
    /// TCP.
    Tcp(SocketAddr),
}

/// The text is neither of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("write it as ADDRESS:PORT or as the absolute path of a socket")]
pub struct ListenError;

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        text.parse().map(Self::Tcp).map_err(|_| ListenError)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let error = |e| serde::de::Error::custom(format!("`{text}`: {e}"));
        text.parse().map_err(error)
    }
}

/// Whether a value only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It grows from the start of the daemon on; its name ends in `_total`.
    Counter,
    /// It rises and falls.
    Gauge,
}

impl Kind {
    /// Returns its name in the exposition.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// One metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Description {
    /// Its name in queries: with `_total` if it is a counter.
    pub name: &'static str,
    /// The behaviour of its values.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Its meaning, with its unit.
    pub help: &'static str,
}

/// Declares a table of metrics: a static for each, and `TABLE` with all of them.
#[macro_export]
macro_rules! metrics_table {
    ($($id:ident = $kind:ident($name:literal, $labels:expr, $help:literal);)*) => {
        $(static $id: $crate::metrics::Description =
            $crate::metrics::Description::$kind($name, $labels, $help);)*

        /// All metrics of this program, except those of every process.
        pub const TABLE: &[$crate::metrics::Description] =
            &[$($crate::metrics::Description::$kind($name, $labels, $help),)*];
    };
}

/// Declares an enum of the reasons in a counter's label: `name()`, and `TABLE` with all names and
/// meanings, ordered by name.
#[macro_export]
macro_rules! reasons {
    ($(#[$doc:meta])* $type:ident { $($id:ident = $name:literal, $meaning:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $type {
            $(#[doc = $meaning] $id,)*
        }

        impl $type {
            /// Names, as users and tests read them, and meanings.
            pub const TABLE: &[(&str, &str)] = &[$(($name, $meaning),)*];

            /// Returns the value of the label.
            pub const fn name(self) -> &'static str {
                Self::TABLE[self as usize].0
            }
        }
    };
}

impl Description {
    /// A counter.
    pub const fn counter(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self {
            name,
            kind: Kind::Counter,
            labels,
            help,
        }
    }

    /// A gauge.
    pub const fn gauge(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self {
            name,
            kind: Kind::Gauge,
            labels,
            help,
        }
    }
}

/// The metrics of one moment.
#[derive(Debug, Default)]
pub struct Page {
    families: Vec<Family>,
}

/// All values of one metric.
#[derive(Debug)]
struct Family {
    description: &'static Description,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    labels: Vec<(&'static str, String)>,
    value: Value,
}

/// Counters are integers, exact far beyond the range of a float.
#[derive(Debug, Clone, Copy)]
enum Value {
    Whole(u64),
    Float(f64),
}

impl Page {
    /// Makes a page with only the metrics of every process.
    pub fn of_this_process() -> Self {
        let mut page = Self::default();
        process::describe(&mut page);
        page
    }

    /// Adds an integer, of a metric without labels.
    pub fn put(&mut self, description: &'static Description, value: u64) {
        self.put_with(description, &[], value);
    }

    /// Adds an integer; values of labels in the order of the description.
    pub fn put_with(&mut self, description: &'static Description, labels: &[&str], value: u64) {
        self.add(description, labels, Value::Whole(value));
    }

    /// Adds a fraction.
    pub fn put_float(&mut self, description: &'static Description, labels: &[&str], value: f64) {
        self.add(description, labels, Value::Float(value));
    }

    fn add(&mut self, description: &'static Description, labels: &[&str], value: Value) {
        debug_assert_eq!(labels.len(), description.labels.len(), "{description:?}");
        let named = description.labels.iter().copied();
        let sample = Sample {
            labels: named.zip(labels.iter().map(|l| (*l).to_owned())).collect(),
            value,
        };
        // the samples of one metric stand together
        match self
            .families
            .iter_mut()
            .find(|f| f.description == description)
        {
            Some(family) => family.samples.push(sample),
            None => self.families.push(Family {
                description,
                samples: vec![sample],
            }),
        }
    }

    /// Returns the text, up to and with `# EOF`.
    pub fn render(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(out)
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for Family {
            description: d,
            samples,
        } in &self.families
        {
            let (name, kind) = match d.kind {
                // the encoder adds it again
                Kind::Counter => (
                    d.name.strip_suffix("_total").unwrap_or(d.name),
                    MetricType::Counter,
                ),
                Kind::Gauge => (d.name, MetricType::Gauge),
            };
            let mut family = encoder.encode_descriptor(name, d.help, None, kind)?;
            for sample in samples {
                let value = sample.value;
                if sample.labels.is_empty() {
                    // there is only one
                    value.encode(d.kind, family)?;
                    break;
                }
                value.encode(d.kind, family.encode_family(&sample.labels)?)?;
            }
        }
        Ok(())
    }
}

impl Value {
    fn encode(self, kind: Kind, metric: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        match (kind, self) {
            (Kind::Counter, Self::Whole(n)) => ConstCounter::new(n).encode(metric),
            (Kind::Counter, Self::Float(f)) => ConstCounter::new(f).encode(metric),
            (Kind::Gauge, Self::Whole(n)) => ConstGauge::new(n).encode(metric),
            (Kind::Gauge, Self::Float(f)) => ConstGauge::new(f).encode(metric),
        }
    }
}

/// Checks a table against Prometheus' naming rules; the error is the first violation.
///
/// For the tests of our programs.
pub fn check(program: &str, table: &[Description]) -> Result<(), String> {
    let plain = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            && !text.contains("__")
            && !text.ends_with('_')
    };
    let no_base_units = ["_ms", "_us", "_milliseconds", "_kib", "_bits", "_percent"];
    for (n, d) in table.iter().enumerate() {
        let fail = |why: &str| Err(format!("{}: {why}", d.name));
        if !plain(d.name) || !d.labels.iter().all(|l| plain(l)) {
            return fail("not lower_case_with_underscores");
        }
        if !d.name.starts_with(program) && !d.name.starts_with("process_") {
            return fail("does not begin with the program's name");
        }
        if (d.kind == Kind::Counter) != d.name.ends_with("_total") {
            return fail("counters, and only these, end in _total");
        }
        if d.labels
            .iter()
            .any(|l| d.name.contains(&format!("_by_{l}")))
        {
            return fail("names a label");
        }
        let stem = d.name.trim_end_matches("_total");
        if no_base_units.iter().any(|unit| stem.ends_with(unit)) {
            return fail("not in a base unit");
        }
        if d.help.is_empty() || d.help.ends_with('.') || d.help.contains('\n') {
            return fail("the help is one line without a full stop");
        }
        if table[..n].iter().any(|other| other.name == d.name) {
            return fail("twice");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Description] = &[
        Description::counter("lctest_drops_total", &["reason"], "Packets dropped"),
        Description::gauge("lctest_peer_rtt_seconds", &["name"], "Round trip"),
        Description::gauge("lctest_up", &[], "Whether it is up"),
    ];

    #[test]
    fn the_text_is_what_openmetrics_says() {
        let mut page = Page::default();
        page.put_with(&TABLE[0], &["no_listener"], u64::MAX);
        page.put_float(&TABLE[1], &["al\"pha\\\n"], 0.012_5);
        page.put(&TABLE[2], 1);
        page.put_with(&TABLE[0], &["duplicate"], 0);
        let expected = "\
# HELP lctest_drops Packets dropped
# TYPE lctest_drops counter
lctest_drops_total{reason=\"no_listener\"} 18446744073709551615
lctest_drops_total{reason=\"duplicate\"} 0
# HELP lctest_peer_rtt_seconds Round trip
# TYPE lctest_peer_rtt_seconds gauge
lctest_peer_rtt_seconds{name=\"al\\\"pha\\\\\\n\"} 0.0125
# HELP lctest_up Whether it is up
# TYPE lctest_up gauge
lctest_up 1
# EOF
";
        assert_eq!(page.render().unwrap(), expected);
    }

    #[test]
    fn names_that_break_the_rules_are_found() {
        assert_eq!(check("lctest", TABLE), Ok(()));
        assert_eq!(check("lctest", PROCESS), Ok(()));
        for (bad, why) in [
            (Description::counter("lctest_drops", &[], "x"), "_total"),
            (Description::gauge("lctest_drops_total", &[], "x"), "_total"),
            (Description::gauge("lctest_rtt_ms", &[], "x"), "base unit"),
            (Description::gauge("lctest_Rtt", &[], "x"), "lower_case"),
            (
                Description::gauge("lctest_rtt", &["Peer"], "x"),
                "lower_case",
            ),
            (Description::gauge("rtt", &[], "x"), "program"),
            (Description::gauge("lctest_rtt", &[], "x."), "full stop"),
            (Description::gauge("lctest_n_by_x", &["x"], "x"), "label"),
        ] {
            let verdict = check("lctest", &[bad]).unwrap_err();
            assert!(verdict.contains(why), "{verdict}");
        }
        let twice = [
            Description::gauge("lctest_up", &[], "x"),
            Description::gauge("lctest_up", &[], "x"),
        ];
        assert!(check("lctest", &twice).unwrap_err().contains("twice"));
    }

    #[test]
    fn where_to_listen_is_a_path_or_an_address() {
        let listen = |text: &str| text.parse::<Listen>();
        assert_eq!(listen("/run/x"), Ok(Listen::Unix("/run/x".into())));
        assert_eq!(listen("[::1]:9117").unwrap().to_string(), "[::1]:9117");
        for bad in ["", "x", "run/x", "localhost:9117", "::1", "127.0.0.1"] {
            assert!(listen(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_process_tells_of_itself() {
        let text = Page::of_this_process().render().unwrap();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|l| l.starts_with(&format!("{name} ")));
            let value = line.and_then(|l| l.rsplit_once(' ')).unwrap().1;
            value.parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0, "{text}");
        assert!(value("process_open_fds") >= 3.0, "{text}");
        assert!(value("process_cpu_seconds_total") >= 0.0, "{text}");
        let now = librecast::time::UnixTime::now().since_1970();
        let age = now.as_secs_f64() - value("process_start_time_seconds");
        assert!((-2.0..3_600.0).contains(&age), "{age}");
    }
}
