//! A command for one group of nodes after the other.

use clap::Args;

use super::known::Entry;

/// Which of the nodes that are known, and how many at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub struct Rolling {
    /// At most N of the known nodes that are selected: the first by name
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub limit: Option<usize>,
    /// N known nodes at a time; continues only when all of them have succeeded
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub batch: Option<usize>,
    /// One known node first; continues with the others only when it has succeeded
    #[arg(long)]
    pub canary: bool,
}

fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a number from 1 expected".into()),
        Ok(n) => Ok(n),
    }
}

impl Rolling {
    /// Returns whether it names nodes; else the command is for all selected ones, known or not.
    #[must_use]
    pub fn picks(&self) -> bool {
        *self != Self::default()
    }

    /// Returns the nodes of each step, ordered by name, hence always the same.
    #[must_use]
    pub fn steps(&self, mut nodes: Vec<Entry>) -> Vec<Vec<Entry>> {
        nodes.sort_by(|a, b| (&a.name, a.key).cmp(&(&b.name, b.key)));
        nodes.truncate(self.limit.unwrap_or(usize::MAX));
        let first = usize::from(self.canary).min(nodes.len());
        let rest = nodes.split_off(first);
        let size = self.batch.unwrap_or(rest.len()).max(1);
        let mut steps = vec![nodes];
        steps.extend(rest.chunks(size).map(<[Entry]>::to_vec));
        steps.retain(|step| !step.is_empty());
        steps
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use librecast::id::SecretKey;

    use super::*;

    fn steps(rolling: Rolling, names: &[&str]) -> Vec<Vec<String>> {
        let entry = |(n, name): (usize, &&str)| Entry {
            channel: "c".into(),
            name: (*name).into(),
            key: SecretKey::from_seed(&[n as u8; 32]).peer_id(),
            labels: BTreeMap::new(),
            accepted: false,
        };
        let nodes = names.iter().enumerate().map(entry).collect();
        let names = |step: Vec<Entry>| step.into_iter().map(|e| e.name).collect();
        rolling.steps(nodes).into_iter().map(names).collect()
    }

    #[test]
    fn nodes_are_taken_by_name_as_many_as_are_wanted() {
        let names = ["d", "b", "a", "e", "c"];
        let all = Rolling::default();
        assert!(!all.picks());
        assert_eq!(steps(all, &names), [["a", "b", "c", "d", "e"]]);
        let limit = Rolling {
            limit: Some(2),
            ..all
        };
        assert!(limit.picks());
        assert_eq!(steps(limit, &names), [["a", "b"]]);
        let batch = Rolling {
            batch: Some(2),
            ..all
        };
        assert_eq!(
            steps(batch, &names),
            [vec!["a", "b"], vec!["c", "d"], vec!["e"]]
        );
        let canary = Rolling {
            canary: true,
            ..all
        };
        assert_eq!(steps(canary, &names), [vec!["a"], vec!["b", "c", "d", "e"]]);
        let everything = Rolling {
            limit: Some(4),
            batch: Some(2),
            canary: true,
        };
        assert_eq!(
            steps(everything, &names),
            [vec!["a"], vec!["b", "c"], vec!["d"]]
        );
        assert!(steps(everything, &[]).is_empty());
    }
}
