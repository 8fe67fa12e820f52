//! A rendezvous server in a thread, and the endpoints that use it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant as SystemInstant},
};

use holepunch::{
    Connection, Endpoint, EndpointBuilder, Wait,
    config::ServerConfig,
    machine::{Input, Instant, Output, SocketId},
    rendezvous::server::{Server, ServerSocket},
};

/// Long enough for anything that works, on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// The sans-IO server over one socket, until dropped.
pub(crate) struct Rendezvous {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Rendezvous {
    pub(crate) fn start() -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into())
    }

    /// At this address of the host's.
    pub(crate) fn at(ip: IpAddr) -> Self {
        // One port for both: where the other protocol's is taken, another one is tried.
        let (listener, socket) = loop {
            let listener = TcpListener::bind((ip, 0)).unwrap();
            if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()) {
                break (listener, socket);
            }
        };
        let mut rendezvous = Self::over(socket);
        rendezvous.threads.push(crate::greeter::serve(listener, rendezvous.stop.clone()));
        rendezvous
    }

    /// One that refuses TCP.
    pub(crate) fn over(socket: UdpSocket) -> Self {
        let address = socket.local_addr().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let threads = vec![thread::spawn(move || serve(&socket, &stopped))];
        Self { address, stop, threads }
    }

    pub(crate) fn endpoint(&self) -> EndpointBuilder {
        Endpoint::builder().server(self.address.to_string()).bind("127.0.0.1:0".parse().unwrap())
    }
}

impl Drop for Rendezvous {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // The greeter sees it with the next connection.
        drop(TcpStream::connect(self.address));
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

fn serve(socket: &UdpSocket, stopped: &AtomicBool) {
    let local = socket.local_addr().unwrap();
    let id = SocketId(0);
    let start = SystemInstant::now();
    let now = || Instant::from_nanos(u64::try_from(start.elapsed().as_nanos()).unwrap());
    let mut server =
        Server::new(ServerConfig::default(), [9; 32], vec![ServerSocket { socket: id, local, alternate: None }]);
    let mut buffer = [0; 2048];
    while !stopped.load(Ordering::SeqCst) {
        match socket.recv_from(&mut buffer) {
            Ok((length, remote)) => {
                server.handle_input(now(), Input::Datagram { socket: id, local, remote, payload: &buffer[..length] });
            }
            Err(_) => server.handle_input(now(), Input::Timeout),
        }
        loop {
            match server.poll_output() {
                Output::Transmit(transmit) => {
                    let _ = socket.send_to(&transmit.payload, transmit.destination);
                }
                Output::Timeout(..) => break,
                _ => {}
            }
        }
    }
}

/// Receives one datagram.
pub(crate) fn receive(connection: &Connection) -> holepunch::Result<Vec<u8>> {
    let mut buffer = [0; 1200];
    let length = connection.recv(&mut buffer, Wait::at_most(LONG))?;
    Ok(buffer[..length].to_vec())
}
