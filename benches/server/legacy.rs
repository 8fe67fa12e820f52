//! Introductions of the 2015 protocol, over TCP: a listener connects and says so, a connector connects and asks for its
//! address, both are answered and leave. Beside them wait 10,000 listeners that nobody asks for.

use std::{
    cell::Cell,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use holepunch::server::raise_descriptor_limit;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    Failure, compare, is_measurement,
    process::{self, Process},
};

pub(crate) fn measure(plain: Option<&Path>, rounds: usize) -> Result<(), Failure> {
    let idle = if is_measurement() { "10000" } else { "100" };
    let start = |name: &str| match plain {
        Some(plain) if name == "plain C" => Process::server(name, Command::new(plain).arg("tcp")),
        _ => Process::own(),
    };
    let names: &[&str] = if plain.is_some() { &["holepunch", "plain C"] } else { &["holepunch"] };
    let (mut servers, mut idlers) = (Vec::new(), Vec::new());
    for name in names {
        servers.push(start(name)?);
    }
    for name in names {
        let mut server = start(name)?;
        server.name = format!("{name}, {idle} idle");
        // What it prints is the count.
        idlers.push(Process::server("idle clients", &mut Process::worker(&["idle", &server.port.to_string(), idle])?)?);
        servers.push(server);
    }
    // Beside plain C without and with the idle ones, and with beside without.
    let pairs: &[(usize, usize)] = if plain.is_some() { &[(0, 1), (2, 3), (2, 0), (3, 1)] } else { &[(1, 0)] };
    let next = Cell::new(0);
    for window in [1, 16] {
        let ask = |server: &Process, count: u64| {
            for _ in 0..count / window {
                introduce(server.port, next.get(), window).map_err(|error| format!("{}: {error}", server.name))?;
                next.set(next.get() + window);
            }
            Ok(())
        };
        let title = match window {
            1 => "introduction of 2015 over TCP, one at a time".to_owned(),
            _ => format!("introduction of 2015 over TCP, {window} at a time"),
        };
        compare(&title, &servers, pairs, rounds, window, &ask)?;
    }
    drop(idlers);
    println!();
    Ok(())
}

/// The worker `idle`: so many clients that listen, and say nothing more.
pub(crate) fn stay(port: &str, count: &str) -> Result<(), Failure> {
    raise_descriptor_limit()?;
    let (port, count): (u16, u16) = (port.parse()?, count.parse()?);
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = TcpStream::connect(("127.0.0.1", port))?;
        client.write_all(b"<")?;
        clients.push(client);
    }
    process::say(&count.to_string())?;
    // Until it is killed: none of them is ever answered.
    let _ = clients[0].read(&mut [0])?;
    Ok(())
}

/// The address of the client of this number. The last part has three digits, so that a server needs not wait for more.
fn address(number: u64) -> Ipv4Addr {
    let [.., second, third] = (number / 100).to_be_bytes();
    Ipv4Addr::new(127, second % 200 + 10, third, 100 + (number % 100) as u8)
}

fn client(number: u64, port: u16) -> Result<TcpStream, Failure> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::from((address(number), 0)).into())?;
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket.into())
}

/// Introduces so many pairs at a time.
fn introduce(port: u16, first: u64, window: u64) -> Result<(), Failure> {
    let mut clients = Vec::new();
    for number in first..first + window {
        let mut listener = client(2 * number, port)?;
        listener.write_all(b"<")?;
        clients.push((listener, address(2 * number + 1)));
    }
    for number in first..first + window {
        let mut connector = client(2 * number + 1, port)?;
        connector.write_all(format!(">{}", address(2 * number)).as_bytes())?;
        clients.push((connector, address(2 * number)));
    }
    let mut buffer = [0; 64];
    for (client, peer) in &mut clients {
        let length = client.read(&mut buffer)?;
        if buffer[..length] != *format!("*('{peer}', 20001)").as_bytes() {
            return Err(format!("the answer {:?}", String::from_utf8_lossy(&buffer[..length])).into());
        }
    }
    Ok(())
}
