//! Sends the time each second while somebody listens: `lcroute listen GROUP` shows it.

use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use librecast::group::{Channel, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options {
        watches: true,
        ..Options::default()
    };
    let channel = Channel::open("example.org/time", &options)?;
    eprintln!("{}", channel.group());
    while channel.wait_for_listener(None)? {
        let time = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        channel.send(format!("{time}\n").as_bytes())?;
        println!("{time}");
        sleep(Duration::from_secs(1));
    }
    Ok(())
}
