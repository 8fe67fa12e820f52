//! The blocking endpoint over real sockets on loopback, with the sans-IO server in a thread.

mod rendezvous;

use holepunch::{ErrorKind, Wait};
use rendezvous::{LONG, Rendezvous, receive};

#[test]
fn data_goes_both_ways() {
    let server = Rendezvous::start();
    let (listener, near, far) = server.pair("bob");
    assert_eq!(listener.name(), Some("bob"));
    assert_eq!(listener.mapped().len(), 1);
    assert_eq!(near.session(), far.session());
    assert_eq!(near.path().remote, far.local_addr());
    for round in 0..100_u8 {
        near.send(&[round; 1200]).unwrap();
        assert_eq!(receive(&far).unwrap(), [round; 1200]);
        far.send(&[round]).unwrap();
        assert_eq!(receive(&near).unwrap(), [round]);
    }
    near.send(&[]).unwrap();
    assert_eq!(receive(&far).unwrap(), []);
    near.send(b"last").unwrap();
    near.close();
    assert_eq!(receive(&far).unwrap(), b"last");
    assert_eq!(receive(&far).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(near.send(b"more").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(near.recv(&mut [0; 10], Wait::at_most(LONG)).unwrap_err().kind(), ErrorKind::Closed);
}
