//! Measures a topology policy step by step, like `lcroute sim --compare-topologies`.

use lcroute_sim::scenario::Policy;
use lcroute_sim::{Comparing, Comparison, Subject};
use serde::Serialize;

/// Links of a node in a regular graph: as in `lcroute sim --compare-topologies`.
const DEGREE: u8 = 8;
/// Nodes of a comparison. Chosen: a mesh of 200 has 19,900 links, too many for a phone.
const NODES: std::ops::RangeInclusive<u32> = 4..=200;

/// The measurement of one policy.
#[derive(Debug)]
pub struct PolicyComparison(Comparing);

#[derive(Debug, Serialize)]
struct State<'a> {
    /// The name of the next step; none: the measurement is complete.
    part: Option<&'static str>,
    /// Remaining steps.
    left: usize,
    figures: &'a Comparison,
}

#[derive(Debug, Serialize)]
struct Picture<'a> {
    /// In the unit square.
    places: &'a [(f64, f64)],
    links: Vec<[u32; 2]>,
}

impl PolicyComparison {
    /// Creates a network without running nodes.
    pub fn new(policy: &str, nodes: u32, seed: u32) -> Result<Self, String> {
        let policy = match policy {
            "mesh" => Policy::Mesh,
            "regular" => Policy::Regular,
            "tree" => Policy::Tree,
            "fractal" => Policy::Fractal,
            _ => return Err(format!("{policy} is no policy to compare")),
        };
        if !NODES.contains(&nodes) {
            return Err(format!(
                "{nodes} nodes: {} to {}",
                NODES.start(),
                NODES.end()
            ));
        }
        let subject = Subject {
            nodes,
            policy,
            degree: DEGREE,
            seed: seed.into(),
        };
        Ok(Self(Comparing::new(subject, 1)))
    }

    /// Runs the next step; returns the following step and all figures so far as JSON.
    pub fn step(&mut self) -> String {
        self.0.step();
        crate::world::json(&State {
            part: self.0.part().map(lcroute_sim::Part::name),
            left: self.0.left(),
            figures: self.0.figures(),
        })
    }

    /// Nodes and links, as JSON.
    #[must_use]
    pub fn picture(&self) -> String {
        crate::world::json(&Picture {
            places: self.0.places(),
            links: self.0.links(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use serde_json::Value;

    /// The last figures, and the picture of the settled network.
    fn measured(policy: &str) -> (Value, Value) {
        let mut comparison = PolicyComparison::new(policy, 24, 1).unwrap();
        let mut settled = Value::Null;
        loop {
            let state: Value = serde_json::from_str(&comparison.step()).unwrap();
            if settled.is_null() && state["part"] == "stretch" {
                settled = serde_json::from_str(&comparison.picture()).unwrap();
            }
            if state["left"] == 0 {
                assert_eq!(state["part"], Value::Null);
                return (state["figures"].clone(), settled);
            }
        }
    }

    #[test]
    fn a_page_measures_what_the_command_does() {
        for (policy, known) in [("tree", Policy::Tree), ("fractal", Policy::Fractal)] {
            let (figures, picture) = measured(policy);
            let subject = Subject {
                nodes: 24,
                policy: known,
                degree: DEGREE,
                seed: 1,
            };
            let command = lcroute_sim::compare(subject, 1, &mut |_| ());
            let command = serde_json::to_value(command).unwrap();
            for name in [
                "links_mean",
                "links_max",
                "link_ms",
                "stretch_path",
                "stretch_shared",
                "listeners_ms",
                "listeners_sends",
                "of_5_percent",
                "of_20_percent",
                "of_region",
            ] {
                assert_eq!(figures[name], command[name], "{policy}: {name}");
                assert_ne!(figures[name], 0.0, "{policy}: {name}");
            }
            let links = picture["links"].as_array().unwrap().len() as f64;
            // the picture is 15 s later than the count: a near link may be on trial
            let counted = figures["links_mean"].as_f64().unwrap();
            assert!(
                (counted - links * 2.0 / 24.0).abs() < 0.5,
                "{policy}: {links}"
            );
            assert_eq!(picture["places"].as_array().unwrap().len(), 24);
        }
    }

    #[test]
    fn what_a_page_cannot_compare_is_refused() {
        for (policy, nodes) in [("star", 24), ("tree", 3), ("tree", 201), ("", 24)] {
            assert!(PolicyComparison::new(policy, nodes, 1).is_err());
        }
    }
}
