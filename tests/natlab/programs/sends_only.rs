//! A program that only sends: `sends_only NAME SECONDS` connects, sends ten datagrams a second, and never receives.
//!
//! The server comes from HOLEPUNCH_SERVER.

use std::{
    env,
    error::Error,
    thread,
    time::{Duration, Instant},
};

use holepunch::{ConnectOptions, Endpoint, Wait};

fn main() -> Result<(), Box<dyn Error>> {
    let [name, seconds] = &env::args().skip(1).collect::<Vec<_>>()[..] else { return Err("NAME SECONDS".into()) };
    let endpoint = Endpoint::builder().build()?;
    let connection = endpoint.connect_datagram(name, &ConnectOptions::default().wait(Duration::from_secs(20)))?;
    eprintln!("connected");
    let until = Instant::now() + Duration::from_secs(seconds.parse()?);
    while Instant::now() < until {
        connection.send(b"again")?;
        thread::sleep(Duration::from_millis(100));
    }
    connection.end(Wait::forever())?;
    println!("all sent");
    Ok(())
}
