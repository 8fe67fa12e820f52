//! Connects to a name, sends each message, and prints the answer to each.
//!
//! `cargo run --example connector NAME [MESSAGE...]`; the server is the one in `HOLEPUNCH_SERVER`.

use std::{process::ExitCode, time::Duration};

use holepunch::{ConnectOptions, Connection, Endpoint, Result, Wait, config::MAX_DATAGRAM};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, messages @ ..] = arguments.as_slice() else {
        eprintln!("usage: connector NAME [MESSAGE...]");
        return ExitCode::from(2);
    };
    match connect(name, messages) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn connect(name: &str, messages: &[String]) -> Result<()> {
    let endpoint = Endpoint::builder().build()?;
    let connection = endpoint.connect_datagram(name, &ConnectOptions::default())?;
    print_path(&connection);
    let mut buffer = [0; MAX_DATAGRAM];
    for message in messages {
        connection.send(message.as_bytes())?;
        let length = connection.recv(&mut buffer, Duration::from_secs(5).into())?;
        println!("{}", String::from_utf8_lossy(&buffer[..length]));
    }
    connection.end(Wait::forever())
}

fn print_path(connection: &Connection) {
    let path = connection.path();
    let rtt = path.rtt.as_secs_f64() * 1000.0;
    eprintln!("connected to {} over {}, rtt {rtt:.1} ms", path.remote, path.kind.name());
}
