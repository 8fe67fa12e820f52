//! Nothing is left when everything is dropped. Alone in its process, because it counts what the process has.

#[path = "endpoint/greeter.rs"]
mod greeter;
#[path = "endpoint/rendezvous.rs"]
mod rendezvous;

use std::{fs, time::Duration};

use holepunch::{Cancel, ConnectOptions, ErrorKind, Wait};
use rendezvous::{LONG, Rendezvous, receive};

/// The descriptors and threads of this process.
fn held() -> (usize, usize) {
    let count = |path| fs::read_dir(path).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

fn use_everything(server: &Rendezvous) {
    for threaded in [true, false] {
        let endpoint = server.endpoint().thread(threaded).build().unwrap();
        let other = server.endpoint().build().unwrap();
        let cancel = Cancel::new().unwrap();
        let listener = endpoint.listen(Some("bob"), Wait::from(LONG).or_cancelled(&cancel)).unwrap();
        let connects = std::thread::spawn(move || {
            let options = ConnectOptions::default();
            let connections = [(); 3].map(|()| other.connect_datagram("bob", &options).unwrap());
            connections[0].send(b"one").unwrap();
            connections[1].close();
            assert!(other.connect_datagram("nobody", &options.wait(Duration::ZERO)).is_err());
            connections
        });
        let accepted = [(); 3].map(|()| listener.accept_datagram(LONG.into()).unwrap());
        let connections = connects.join().unwrap();
        assert_eq!(receive(&accepted[0]).unwrap(), b"one");
        assert_eq!(receive(&accepted[1]).unwrap_err().kind(), ErrorKind::Closed);
        // The last handle waits for the peer, which without a thread answers only while it is in a call.
        let closes = std::thread::spawn(move || drop(connections));
        for connection in [&accepted[0], &accepted[2]] {
            assert_eq!(receive(connection).unwrap_err().kind(), ErrorKind::Closed);
        }
        closes.join().unwrap();
    }
}

#[test]
fn nothing_is_left() {
    let server = Rendezvous::start();
    use_everything(&server);
    let before = held();
    for _ in 0..5 {
        use_everything(&server);
    }
    assert_eq!(held(), before);
}
