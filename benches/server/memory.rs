//! Memory for each registration over UDP: 100,000 of them, each from an address of its own, and what the server's heap
//! has grown by.

use std::net::Ipv4Addr;

use holepunch::wire::stun::RegistrationId;

use crate::{
    Failure,
    introductions::{register, socket},
    is_measurement,
    process::Process,
};

pub(crate) fn measure() -> Result<(), Failure> {
    let count = if is_measurement() { 100_000 } else { 200 };
    println!("memory of the server for each of {count} registrations over UDP, each with two candidates, in bytes");
    for (title, named) in [("with a name of 12 characters", true), ("found by address", false)] {
        let server = Process::own()?;
        // What the first ones cost is not theirs alone.
        let early = 100;
        enrol(&server, 0..early, named)?;
        let before = server.memory()?;
        enrol(&server, early..early + count, named)?;
        let each = (server.memory()? - before) as f64 / f64::from(count);
        println!("  {title:<40}{each:>8.0}");
    }
    Ok(())
}

fn enrol(server: &Process, numbers: std::ops::Range<u32>, named: bool) -> Result<(), Failure> {
    for number in numbers {
        let [_, second, third, last] = number.to_be_bytes();
        let socket = socket(Ipv4Addr::new(127, 10 + second, third, last).into(), server.port)?;
        let name = format!("listen{number:06}");
        register(&socket, RegistrationId(scattered(number)), named.then_some(&*name))
            .map_err(|error| format!("registration {number}: {error}"))?;
    }
    Ok(())
}

/// An id that looks random, as those of clients do.
fn scattered(number: u32) -> [u8; 16] {
    let mixed = u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    (mixed ^ mixed >> 61).to_be_bytes()
}
