//! Markdown table of measurements.

use std::fmt::Write as _;

use crate::measure::{Cost, Figures, Outage};

type Show = Box<dyn Fn(&Figures) -> String>;

/// Returns the table, with a column for each network.
pub fn table(all: &[Figures]) -> String {
    let mut text = String::new();
    let row = |text: &mut String, name: &str, show: &dyn Fn(&Figures) -> String| {
        // writing into a string cannot fail
        let _ = write!(text, "| {name} |");
        for figures in all {
            let _ = write!(text, " {} |", show(figures));
        }
        text.push('\n');
    };
    row(&mut text, "", &|f| format!("{} {}", f.policy, f.nodes));
    row(&mut text, "---", &|_| "---:".into());
    for (name, show) in rows() {
        row(&mut text, name, &show);
    }
    text.trim_end().to_owned()
}

/// Makes rows, with a line for each.
macro_rules! rows {
    ($($name:literal => $show:expr;)*) => {
        vec![$(($name, $show)),*]
    };
}

fn rows() -> Vec<(&'static str, Show)> {
    fn show(f: impl Fn(&Figures) -> String + 'static) -> Show {
        Box::new(f)
    }
    let death = |share: f64| {
        show(move |f| {
            let found = f.deaths.iter().find(|(s, _)| *s == share);
            found.map_or("-".into(), |(_, outage)| interrupted(outage))
        })
    };
    let death_time = |share: f64| {
        show(move |f| {
            let found = f.deaths.iter().find(|(s, _)| *s == share);
            found.map_or("-".into(), |(_, outage)| times(outage))
        })
    };
    rows! {
        "links per node, mean (most)" => show(|f| format!("{:.1} ({})", f.links_mean, f.links_max));
        "stretch, shared tree" => show(|f| format!("{:.2}", f.stretch_shared));
        "stretch, announced prefix" => show(|f| format!("{:.2}", f.stretch_announced));
        "stretch, source-specific group" => show(|f| format!("{:.2}", f.stretch_source));
        "JOIN to first packet, path round trips" => show(|f| format!("{:.2}", f.join_round_trips));
        "beyond one round trip, mean (most), ms" => show(|f| format!("{:.1} ({:.1})", f.join_extra_ms, f.join_extra_max_ms));
        "messages per first join" => show(|f| cost(&f.first_join));
        "messages per further join" => show(|f| cost(&f.further_join));
        "messages per new flow" => show(|f| cost(&f.new_flow));
        "bytes per join and hop, 32 at once" => show(|f| format!("{:.0}", f.burst_bytes));
        "messages per node, discovery" => show(|f| format!("{:.1}", f.discovery_messages));
        "entries per router, mean (most)" => show(|f| format!("{:.1} ({})", f.entries_mean, f.entries_max));
        "control bytes per node and second, third minute" => show(|f| format!("{:.0}", f.young_bytes));
        "control bytes per node and second, at rest" => show(|f| format!("{:.0}", f.rest_bytes));
        "control bytes per node and second, churn" => show(|f| format!("{:.0}", f.churn_bytes));
        "hottest link, share of all packets (times the mean)" => show(|f| format!("{:.2} % ({:.1})", f.hottest_share * 100.0, f.hottest));
        "a router dies: heard again, median / p99, ms" => show(|f| times(&f.node_death));
        "a link dies: heard again, median / p99, ms" => show(|f| times(&f.link_death));
        "later gaps per listener, when trees change back" => show(|f| format!("{:.2}", (f.node_death.later + f.link_death.later) / 2.0));
        "1 % die: listeners interrupted (cut off)" => death(0.01);
        "1 % die: heard again, median / p99, ms" => death_time(0.01);
        "5 % die: listeners interrupted (cut off)" => death(0.05);
        "5 % die: heard again, median / p99, ms" => death_time(0.05);
        "20 % die: listeners interrupted (cut off)" => death(0.20);
        "20 % die: heard again, median / p99, ms" => death_time(0.20);
    }
}

fn cost(cost: &Cost) -> String {
    format!("{:.1} of {:.0} bytes", cost.messages, cost.bytes_each)
}

fn interrupted(outage: &Outage) -> String {
    let Outage {
        interrupted,
        cut_off,
        ..
    } = outage;
    format!("{:.1} % ({:.1} %)", interrupted * 100.0, cut_off * 100.0)
}

fn times(outage: &Outage) -> String {
    if outage.count == 0 {
        return "none interrupted".into();
    }
    format!("{:.0} / {:.0}", outage.median_ms, outage.p99_ms)
}
