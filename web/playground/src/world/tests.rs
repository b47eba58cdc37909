#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use serde_json::Value;

use super::*;

const GROUP: &str = "ff1e::1";

/// Twelve running routers on a circle.
fn world() -> World {
    let place = |n: u32| {
        let angle = f64::from(n) / 12.0 * std::f64::consts::TAU;
        format!(
            "[{:.4}, {:.4}]",
            0.5 + angle.cos() / 2.0,
            0.5 + angle.sin() / 2.0
        )
    };
    let places: Vec<String> = (0..12).map(place).collect();
    let mut world = World::new(&format!(
        r#"
        nodes = 12
        topology = {{ policy = "regular", degree = 4 }}
        limits = {{ small_network = 0, source_trees = 0 }}
        [links.latency]
        kind = "places"
        side = "40ms"
        floor = "1ms"
        places = [{}]
        "#,
        places.join(", ")
    ))
    .unwrap();
    for node in 0..12 {
        world.act(&format!("start {node}")).unwrap();
    }
    assert_eq!(world.run_until(20_000.0), 20_000.0);
    world.events();
    world
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Runs for a second; returns the events.
fn second(world: &mut World) -> Vec<Value> {
    let now = world.run_until(0.0);
    world.run_until(now + 1_000.0);
    parse(&world.events()).as_array().unwrap().clone()
}

fn kinds<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|e| e["kind"] == kind).collect()
}

#[test]
fn a_page_sees_join_packet_and_part() {
    let mut world = world();
    let group = parse(&world.group(GROUP).unwrap());
    let root = group["roots"][0].as_u64().unwrap();
    let [listener, sender] = [(root + 3) % 12, (root + 6) % 12];

    world.act(&format!("join {listener} {GROUP} all")).unwrap();
    let events = second(&mut world);
    let joins = kinds(&events, "join");
    assert_eq!(joins[0]["node"], listener);
    assert_eq!(joins.last().unwrap()["to"], root);
    assert!(
        joins
            .iter()
            .all(|e| e["arrives"].as_f64() > e["at"].as_f64())
    );
    let group = parse(&world.group(GROUP).unwrap());
    assert_eq!(group["edges"].as_array().unwrap().len(), joins.len());
    assert_eq!(group["joined"][listener as usize], true);

    world.act(&format!("send {sender} {GROUP} 200")).unwrap();
    let events = second(&mut world);
    assert!(!kinds(&events, "forward").is_empty());
    let delivered = kinds(&events, "deliver");
    assert_eq!(delivered.len(), 1);
    assert_eq!(delivered[0]["node"], listener);

    world.act(&format!("leave {listener} {GROUP}")).unwrap();
    let parts = kinds(&second(&mut world), "part").len();
    assert!(parts >= joins.len());
    let group = parse(&world.group(GROUP).unwrap());
    assert_eq!(group["edges"].as_array().unwrap().len(), 0);
}

#[test]
fn a_stream_sends_until_it_is_told_to_stop() {
    let mut world = world();
    let sent = |world: &mut World| kinds(&second(world), "send").len();
    world.stream(4, GROUP, 100.0).unwrap();
    // the first packet at once, the last at the end of the second
    assert_eq!(sent(&mut world), 11);
    assert_eq!(parse(&world.group(GROUP).unwrap())["sends"][4], true);
    world.act("crash 4").unwrap();
    assert_eq!(sent(&mut world), 0);
    assert_eq!(parse(&world.network())["runs"][4], false);
    world.act("start 4").unwrap();
    assert!(sent(&mut world) >= 9);
    world.stream(4, GROUP, 0.0).unwrap();
    assert_eq!(sent(&mut world), 0);
}

#[test]
fn what_makes_no_sense_is_refused() {
    assert!(World::new("nodes = 3\nlinks.latency = 5").is_err());
    let mut world = world();
    for line in ["", "dance 3", "start 12", "join 3 here all"] {
        assert!(world.act(line).is_err(), "{line}");
    }
    assert!(world.stream(3, "here", 10.0).is_err() && world.group("here").is_err());
    world.stream(12, GROUP, 10.0).unwrap();
    assert!(kinds(&second(&mut world), "send").is_empty());
}

#[test]
fn steps_of_any_size_come_to_the_same() {
    let run = |step: f64| {
        let (mut world, mut now) = (world(), 20_000.0);
        world.act("join 3 ff1e::1 all").unwrap();
        world.stream(7, GROUP, 70.0).unwrap();
        while now < 22_000.0 {
            now = world.run_until(now + step);
        }
        (world.log(), world.events().len())
    };
    assert_eq!(run(16.0), run(500.0));
}
