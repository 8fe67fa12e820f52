//! ICE with signalling of your own: here you are the signalling, and copy and paste what each side prints into the other.
//!
//! `cargo run --example agent controlling|controlled MESSAGE [STUN-SERVER...]`; the peer is this program on another machine,
//! or any agent of ICE. It ends when both have said their message.

use std::{
    io::{self, BufRead as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use holepunch::{AgentOptions, Endpoint, Error, ErrorKind, Result, Wait, config::MAX_DATAGRAM, punch::Role};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (role, message, servers) = match arguments.as_slice() {
        [role, message, servers @ ..] if role == "controlling" => (Role::Controlling, message, servers),
        [role, message, servers @ ..] if role == "controlled" => (Role::Controlled, message, servers),
        _ => {
            eprintln!("usage: agent controlling|controlled MESSAGE [STUN-SERVER...]");
            return ExitCode::from(2);
        }
    };
    match meet(role, message, servers) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn meet(role: Role, message: &str, servers: &[String]) -> Result<()> {
    let endpoint = Endpoint::builder().build()?;
    let options = servers.iter().fold(AgentOptions::default(), AgentOptions::stun_server);
    let agent = endpoint.agent(role, &options)?;
    print!("{}", agent.local_description(Wait::forever())?);
    io::stdout().flush().map_err(failed)?;
    // The peer's lines, up to the last; its candidates may come one by one.
    let mut said = String::new();
    for line in io::stdin().lock().lines() {
        let line = line.map_err(failed)?;
        if line.trim().trim_start_matches("a=") == "end-of-candidates" {
            break;
        }
        said = said + &line + "\n";
        if line.contains("candidate:") || line.contains("ice-pwd:") {
            agent.set_remote_description(&said)?;
        }
    }
    let connection = agent.connect(Wait::forever())?;
    let path = connection.path();
    eprintln!("connected to {} over {}, rtt {:.1} ms", path.remote, path.kind.name(), path.rtt.as_secs_f64() * 1000.0);
    // A datagram may be lost, so it is said until the peer was heard, and once more.
    let mut buffer = [0; MAX_DATAGRAM];
    let heard = loop {
        connection.send(message.as_bytes())?;
        match connection.recv(&mut buffer, Duration::from_millis(500).into()) {
            Err(error) if error.kind() == ErrorKind::Timeout => {}
            heard => break heard?,
        }
    };
    connection.send(message.as_bytes())?;
    println!("{}", String::from_utf8_lossy(&buffer[..heard]));
    Ok(())
}

fn failed(error: io::Error) -> Error {
    Error::new(ErrorKind::Io, error.to_string())
}
