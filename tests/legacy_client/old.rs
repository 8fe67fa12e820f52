//! The old side: servers and peers of 2015 as raw sockets.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn at(text: &str, port: u16) -> SocketAddr {
    SocketAddr::new(text.parse().unwrap(), port)
}

/// A port that nobody has on any address, for datagrams or streams.
pub(crate) fn free_port() -> u16 {
    loop {
        let datagrams = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = datagrams.local_addr().unwrap().port();
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// A listener and a datagram socket on one port.
pub(crate) fn both_on_one_port() -> (TcpListener, UdpSocket) {
    loop {
        let stream = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(datagram) = UdpSocket::bind(stream.local_addr().unwrap()) {
            datagram.set_read_timeout(Some(PATIENCE)).unwrap();
            return (stream, datagram);
        }
    }
}

fn bound(kind: Type, source: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, kind, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&source.into()).unwrap();
    socket
}

/// A peer that binds the port, and sends its one datagram when it is greeted, so that it does not come too early.
pub(crate) fn datagram_peer(source: SocketAddr) -> JoinHandle<UdpSocket> {
    let socket = bound_datagram(source);
    std::thread::spawn(move || {
        let mut buffer = [0; 10];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"*");
        socket.send_to(b"*", from).unwrap();
        socket
    })
}

pub(crate) fn bound_datagram(source: SocketAddr) -> UdpSocket {
    let socket = bound(Type::DGRAM, source);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

/// A peer that binds the port and connects in a loop.
pub(crate) fn stream_peer(source: SocketAddr, dest: SocketAddr) -> JoinHandle<TcpStream> {
    std::thread::spawn(move || {
        let start = Instant::now();
        loop {
            let socket = bound(Type::STREAM, source);
            if socket.connect_timeout(&dest.into(), PATIENCE).is_ok() {
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                return socket.into();
            }
            assert!(start.elapsed() < PATIENCE, "no stream from {source} to {dest}");
        }
    })
}

/// What an old server saw of a client: each piece that it read, up to the end of the stream. A reset, which kills it, is
/// an error.
pub(crate) type Seen = io::Result<Vec<Vec<u8>>>;

/// A server of 2015 with one client, which it answers with these pieces, each in a segment of its own; then it ends the
/// stream if told so, and reads on.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    thread: JoinHandle<Seen>,
}

impl Server {
    pub(crate) fn start(pieces: &[&[u8]], end: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let thread = std::thread::spawn(move || {
            let (mut client, _) = listener.accept()?;
            client.set_nodelay(true)?;
            client.set_read_timeout(Some(PATIENCE))?;
            let mut seen = vec![read(&mut client)?];
            for piece in pieces {
                client.write_all(&piece)?;
            }
            if end {
                client.shutdown(Shutdown::Write)?;
            }
            while seen.last().is_some_and(|piece| !piece.is_empty()) {
                seen.push(read(&mut client)?);
            }
            // Only one connection is ever made: a second one would be a client that never says what it wants.
            listener.set_nonblocking(true)?;
            assert!(listener.accept().is_err(), "a second connection");
            Ok(seen)
        });
        Self { address, thread }
    }

    pub(crate) fn name(&self) -> String {
        self.address.to_string()
    }

    /// What it saw: exactly this message, and an orderly end.
    pub(crate) fn saw(self, message: &[u8]) {
        let seen = self.thread.join().unwrap().expect("no reset");
        assert_eq!(seen, [message.to_vec(), Vec::new()]);
    }
}

/// A client of 2015 that has asked a server, from its address and any port.
pub(crate) struct Asking(TcpStream);

impl Asking {
    pub(crate) fn start(server: SocketAddr, source: SocketAddr, request: &[u8]) -> Self {
        let socket = bound(Type::STREAM, SocketAddr::new(source.ip(), 0));
        socket.connect(&server.into()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.write_all(request).unwrap();
        Self(stream)
    }

    /// What it is answered.
    pub(crate) fn answer(mut self) -> String {
        String::from_utf8(read(&mut self.0).unwrap()).unwrap()
    }
}

fn read(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 1024];
    let length = client.read(&mut buffer)?;
    Ok(buffer[..length].to_vec())
}
