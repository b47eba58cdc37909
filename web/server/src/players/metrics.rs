//! Metrics of `[players] metrics`, read from existing counters on request.

use std::collections::BTreeMap;

use librecast::drops::Reason as _;
use librecast_program::metrics::Page;
use librecast_program::metrics_table;

pub use super::reasons::CloseReason;

metrics_table! {
    CLIENTS = gauge("lcroute_players_clients", &[], "Players that are connected and were admitted");
    CLOSED = counter("lcroute_players_closed_total", &["reason"], "Players that were closed or refused, by reason");
}

/// Returns the present values, with the number of clients and of closed ones by reason.
pub(super) fn page(clients: usize, closed: &BTreeMap<&'static str, u64>) -> Page {
    let mut page = Page::of_this_process();
    page.put(&CLIENTS, clients as u64);
    for reason in CloseReason::ALL {
        let count = closed.get(reason.name()).copied().unwrap_or_default();
        page.put_with(&CLOSED, &[reason.name()], count);
    }
    page
}

#[cfg(test)]
mod tests {
    use librecast_program::metrics::check;

    use super::*;

    #[test]
    fn the_table_keeps_to_the_rules() {
        assert_eq!(check("lcroute", TABLE), Ok(()));
    }
}
