//! What every benchmark needs: a rendezvous server in a thread, and whether this is a measurement at all.

use std::thread::{self, JoinHandle};

use holepunch::server::{Handle, Options, RendezvousServer};

/// `cargo bench` says `--bench`; without it (`cargo test --benches`) the programs only show that they work.
pub(crate) fn is_measurement() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// A rendezvous server that runs until it is dropped.
pub(crate) struct Rendezvous {
    /// As an endpoint is told it: `host:port`.
    pub(crate) address: String,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Rendezvous {
    /// Starts a server on any free port of `host`. Its sockets are those of the calling thread's network namespace.
    pub(crate) fn start(host: &str) -> Self {
        let mut options = Options::default();
        options.host = Some(host.to_owned());
        options.port = 0;
        // One network asks faster here than any would.
        options.config.introduction_rate = 0;
        let server = RendezvousServer::bind(options).expect("a rendezvous server");
        let address = server.local_addresses()[0].to_string();
        let handle = server.handle();
        let thread = thread::spawn(move || server.run().expect("the server runs"));
        Self { address, handle, thread: Some(thread) }
    }
}

impl Drop for Rendezvous {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the server was reported when it happened.
            let _ = thread.join();
        }
    }
}
