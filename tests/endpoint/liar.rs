//! A server that lies, over real sockets.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// What it says to what it has read; over TCP `None` ends the connection.
pub(crate) type Lie = fn(&[u8]) -> Option<Vec<u8>>;

/// Lies until it is dropped.
pub(crate) struct Liar {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Liar {
    pub(crate) fn start(over_udp: Lie, over_tcp: Lie) -> Self {
        let (listener, socket) = loop {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()) {
                break (listener, socket);
            }
        };
        let address = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = [stop.clone(), stop.clone()];
        let [of_udp, of_tcp] = stopped;
        let threads = vec![
            thread::spawn(move || lie_over_udp(&socket, over_udp, &of_udp)),
            thread::spawn(move || lie_over_tcp(&listener, over_tcp, &of_tcp)),
        ];
        Self { address, stop, threads }
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Each sees it with the next that comes.
        let _ = UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"", self.address);
        drop(TcpStream::connect(self.address));
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

fn lie_over_udp(socket: &UdpSocket, lie: Lie, stopped: &AtomicBool) {
    let mut buffer = [0; 2048];
    while let Ok((length, remote)) = socket.recv_from(&mut buffer) {
        if stopped.load(Ordering::SeqCst) {
            return;
        }
        if let Some(answer) = lie(&buffer[..length]) {
            let _ = socket.send_to(&answer, remote);
        }
    }
}

fn lie_over_tcp(listener: &TcpListener, lie: Lie, stopped: &AtomicBool) {
    let mut all = Vec::new();
    while let Ok((stream, _)) = listener.accept() {
        if stopped.load(Ordering::SeqCst) {
            break;
        }
        all.push(thread::spawn(move || converse(stream, lie)));
    }
    all.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Until one side ends it. A client that is gone is none of ours.
fn converse(mut stream: TcpStream, lie: Lie) {
    // One that the client leaves open for longer is a fault that is counted as a descriptor.
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut buffer = [0; 2048];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        let Some(answer) = lie(&buffer[..length]) else { return };
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}
