//! Registers a name, accepts one peer, and sends every datagram back until the peer ends.
//!
//! `cargo run --example listener NAME`; the server is the one in `HOLEPUNCH_SERVER`.

use std::process::ExitCode;

use holepunch::{Connection, Endpoint, ErrorKind, Result, Wait, config::MAX_DATAGRAM};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name] = arguments.as_slice() else {
        eprintln!("usage: listener NAME");
        return ExitCode::from(2);
    };
    match listen(name) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn listen(name: &str) -> Result<()> {
    let endpoint = Endpoint::builder().build()?;
    let listener = endpoint.listen(Some(name), Wait::forever())?;
    let connection = listener.accept_datagram(Wait::forever())?;
    print_path(&connection);
    let mut buffer = [0; MAX_DATAGRAM];
    loop {
        match connection.recv(&mut buffer, Wait::forever()) {
            Ok(length) => connection.send(&buffer[..length])?,
            Err(error) if error.kind() == ErrorKind::Closed => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn print_path(connection: &Connection) {
    let path = connection.path();
    let rtt = path.rtt.as_secs_f64() * 1000.0;
    eprintln!("connected to {} over {}, rtt {rtt:.1} ms", path.remote, path.kind.name());
}
