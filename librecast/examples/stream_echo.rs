//! Sends a line to a program on another node and prints its answer: arguments NODE PROTOCOL LINE.

use std::io::{Write, copy, stdout};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [node, protocol, line] = args.as_slice() else {
        return Err("stream_echo NODE PROTOCOL LINE".into());
    };
    let mut stream = librecast::stream::connect(node, &[protocol.parse()?])?;
    eprintln!("{} speaks {}", stream.peer().name, stream.peer().protocol);
    writeln!(stream, "{line}")?;
    stream.finish()?;
    copy(&mut stream, &mut stdout())?;
    Ok(())
}
