//! Metrics of `lcroute signal --metrics`.

use lcroute_signalling::server::Usage;
use librecast_program::metrics::Page;
use librecast_program::metrics_table;

metrics_table! {
    CLIENTS = gauge("lcroute_signal_clients", &[], "Registered connections of this signalling server");
    ROOMS = gauge("lcroute_signal_rooms", &[], "Rooms with somebody in them");
    ENTERED = gauge("lcroute_signal_entered_rooms", &[], "Rooms that connections have entered beside their own, once for each");
    TURNED_AWAY = counter("lcroute_signal_turned_away_total", &[], "Connections and rooms that were refused, beyond a bound");
    MESSAGES = counter("lcroute_signal_messages_total", &[], "Sealed messages between clients");
    BYTES = counter("lcroute_signal_message_bytes_total", &[], "Bytes of these messages");
    ALLOCATIONS = gauge("lcroute_signal_relay_allocations", &[], "Addresses of the relay in use");
    RELAYED = counter("lcroute_signal_relayed_bytes_total", &[], "Bytes that the relay has carried");
}

/// Returns the metrics of these counters.
#[must_use]
pub fn page(usage: &Usage) -> Page {
    let mut page = Page::of_this_process();
    for (description, value) in [
        (&CLIENTS, usage.clients),
        (&ROOMS, usage.rooms),
        (&ENTERED, usage.entered),
        (&TURNED_AWAY, usage.turned_away),
        (&MESSAGES, usage.messages),
        (&BYTES, usage.bytes),
        (&ALLOCATIONS, usage.allocations),
        (&RELAYED, usage.relayed),
    ] {
        page.put(description, value);
    }
    page
}
