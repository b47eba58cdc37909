//! The figures as a table, and lcroute's divided by those of other systems.

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::systems::Through;

/// A row of the table: its label, its place in the JSON, and its number of decimals.
type Row = (&'static str, &'static str, usize);

const ROWS: [Row; 17] = [
    ("packets/s", "/rate/packets_per_s", 0),
    ("Mbit/s", "/rate/mbit_per_s", 0),
    ("lost %", "/rate/loss_percent", 2),
    ("us p50", "/rate/latency_us/p50", 0),
    ("us p99", "/rate/latency_us/p99", 0),
    ("CPU s/GB sender", "/rate/cpu_s_per_gb/sender", 2),
    ("CPU s/GB listener", "/rate/cpu_s_per_gb/receiver", 2),
    (
        "wire bytes of an idle host",
        "/rate/idle_node_bytes_per_byte",
        2,
    ),
    (
        "at 5,000/s CPU s/GB sender",
        "/at_5000/cpu_s_per_gb/sender",
        2,
    ),
    (
        "at 5,000/s CPU s/GB listener",
        "/at_5000/cpu_s_per_gb/receiver",
        2,
    ),
    ("at 1,000/s us p50", "/at_1000/latency_us/p50", 0),
    ("at 1,000/s us p99", "/at_1000/latency_us/p99", 0),
    ("at 1,000/s us max", "/at_1000/latency_us/max", 0),
    (
        "speech wire bytes per byte",
        "/speech/sender_wire_bytes_per_byte",
        2,
    ),
    (
        "speech packets back",
        "/speech/returned_packets_per_packet",
        2,
    ),
    ("speech bytes back", "/speech/returned_bytes_per_packet", 0),
    (
        "ms JOIN to first packet",
        "/join_to_first_packet_ms/median",
        1,
    ),
];

/// Rows without a ratio: they are 0 as a rule.
const NO_RATIO: [&str; 2] = ["/rate/loss_percent", "/rate/idle_node_bytes_per_byte"];

const LABEL: usize = 30;
const COLUMN: usize = 15;

/// Returns lcroute's figures divided by those of each other system, if both have them.
pub fn ratios(systems: &Map<String, Value>) -> Value {
    let Some(own) = systems.get(&Through::Lcroute.name()) else {
        return json!({});
    };
    let others = systems
        .iter()
        .filter(|(name, _)| **name != Through::Lcroute.name());
    let compared = others.map(|(name, other)| {
        let ratio = |(_, pointer, _): &Row| {
            (!NO_RATIO.contains(pointer)).then_some(())?;
            let (own, other) = (number(own, pointer)?, number(other, pointer)?);
            (other > 0.0).then(|| ((*pointer).to_owned(), json!(own / other)))
        };
        (
            name.clone(),
            Value::Object(ROWS.iter().filter_map(ratio).collect()),
        )
    });
    Value::Object(compared.collect())
}

/// Returns the figures as text.
pub fn table(figures: &Value) -> String {
    let mut text = headline(figures);
    text += &section(
        "",
        figures["systems"].as_object(),
        |system, (_, pointer, digits)| number(system, pointer).map(|value| decimal(value, *digits)),
    );
    text += &section(
        "lcroute divided by",
        figures["ratios"].as_object(),
        |ratios, (_, pointer, _)| ratios[pointer].as_f64().map(|ratio| format!("{ratio:.2}")),
    );
    for program in ["lcsync", "uftp"] {
        if let Some(rate) = number(figures, &format!("/file_over_veth/{program}/mbit_per_s")) {
            text += &format!("\n{program}, 100 MiB over a veth pair: {rate:.0} Mbit/s");
        }
    }
    text
}

fn headline(figures: &Value) -> String {
    let mut text = format!(
        "{} bytes of payload, {} listening; trials of {} s",
        figures["payload_bytes"], figures["listeners"], figures["seconds"]
    );
    for (key, words) in [("gso", ", sent in trains"), ("gro", ", received in trains")] {
        text += if figures[key] == true { words } else { "" };
    }
    if figures["link_loss_percent"] != 0 {
        text += &format!(", {} % lost by the links", figures["link_loss_percent"]);
    }
    text + "\n"
}

/// Returns a column for each entry, and a row for each figure that an entry has.
fn section(
    title: &str,
    entries: Option<&Map<String, Value>>,
    cell: impl Fn(&Value, &Row) -> Option<String>,
) -> String {
    let Some(entries) = entries.filter(|entries| !entries.is_empty()) else {
        return String::new();
    };
    let mut text = format!("\n{title:<LABEL$}");
    let names = Through::value_variants()
        .iter()
        .map(|through| through.name());
    let entries: Vec<(String, &Value)> = names
        .filter_map(|name| entries.get(&name).map(|entry| (name, entry)))
        .collect();
    for (name, _) in &entries {
        text += &format!("{name:>COLUMN$}");
    }
    text.push('\n');
    for row in &ROWS {
        let cells: Vec<_> = entries.iter().map(|(_, entry)| cell(entry, row)).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        text += &format!("{:<LABEL$}", row.0);
        for cell in cells {
            text += &format!("{:>COLUMN$}", cell.as_deref().unwrap_or("-"));
        }
        text.push('\n');
    }
    text
}

fn number(value: &Value, pointer: &str) -> Option<f64> {
    value.pointer(pointer)?.as_f64()
}

/// Returns the number, with grouped thousands if it has no decimals.
fn decimal(value: f64, digits: usize) -> String {
    if digits == 0 {
        lcroute_demo::demo::grouped(value.round() as u64)
    } else {
        format!("{value:.digits$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_lcroutes_figures_by_the_others() {
        let figures = |rate: u64| json!({"rate": {"packets_per_s": rate, "loss_percent": 0.0}});
        let mut systems = Map::new();
        systems.insert("fastd".to_owned(), figures(50_000));
        assert_eq!(ratios(&systems), json!({}));
        systems.insert("lcroute".to_owned(), figures(200_000));
        let ratios = ratios(&systems);
        assert_eq!(ratios["fastd"]["/rate/packets_per_s"], 4.0);
        assert_eq!(ratios["fastd"].get("/rate/loss_percent"), None);
        assert_eq!(ratios["fastd"].get("/rate/latency_us/p50"), None);
        let all = json!({"systems": systems, "ratios": ratios, "seconds": 1.0, "payload_bytes": 1200, "listeners": 1, "link_loss_percent": 0});
        let table = table(&all);
        assert!(
            table.contains("200,000") && table.contains("4.00"),
            "{table}"
        );
        assert!(!table.contains("JOIN"), "{table}");
    }
}
