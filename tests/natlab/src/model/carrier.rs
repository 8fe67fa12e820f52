//! The thread that lets the network model run in real time.
//!
//! It sleeps until a device has packets or the model has something to do, then moves the model's clock to the real one,
//! reads what the hosts have sent, and writes what has arrived. The model moves from event to event with its own times,
//! so a late wake-up delays what is delivered then, and nothing after it: delays do not add up errors. The thread asks
//! the system for exact timers; on an idle machine a packet is some 0.1 ms late.
//!
//! Queues are bounded: the system's before a device (`txqueuelen`), and here by [`MOST_IN_FLIGHT`].
#![allow(unsafe_code)]

use super::packet;
use netsim::{Carried, HostId, Network, Time};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsRawFd as _, FromRawFd as _},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Packets on the model's links; what is sent beyond them is lost. Two seconds of a fast host.
const MOST_IN_FLIGHT: usize = 100_000;
/// Packets read from one device before the others have their turn.
const BATCH: usize = 64;
/// Longer than any packet of a device.
const LONGEST_PACKET: usize = 65_536;

/// A network and its devices; dropping it ends both.
pub(crate) struct Carrier {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    begin: Instant,
    wake: File,
    ends: AtomicBool,
}

struct State {
    network: Network,
    devices: Vec<(HostId, Arc<File>)>,
    hold: Option<Box<Hold>>,
    /// What is held, by the time at which it is let go.
    held: BTreeMap<(Time, u64), (HostId, Carried)>,
    next_held: u64,
}

/// How long a packet is held where it was sent, before the network sees it.
pub(crate) type Hold = dyn FnMut(&Carried) -> Duration + Send;

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        Time::ZERO + self.begin.elapsed()
    }

    fn wake(&self) {
        // Fails only when it is awake already.
        let _ = (&self.wake).write(&1_u64.to_ne_bytes());
    }
}

impl Carrier {
    /// Starts the clock of `network`, and the thread, which is called `name`.
    pub(crate) fn start(name: &str, network: Network) -> io::Result<Self> {
        // SAFETY: no memory is involved.
        let wake = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if wake < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made, and nobody else has it.
        let wake = unsafe { File::from_raw_fd(wake) };
        let state = State { network, devices: Vec::new(), hold: None, held: BTreeMap::new(), next_held: 0 };
        let state = Mutex::new(state);
        let shared = Arc::new(Shared { state, begin: Instant::now(), wake, ends: AtomicBool::new(false) });
        let thread = thread::Builder::new().name(name.into()).spawn({
            let shared = Arc::clone(&shared);
            move || carry(&shared)
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Looks at or changes the network, now.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Network) -> T) -> T {
        let mut state = self.shared.lock();
        let result = work(&mut state.network);
        drop(state);
        self.shared.wake();
        result
    }

    /// The model's time, now.
    pub(crate) fn now(&self) -> Time {
        self.shared.now()
    }

    /// Holds some packets from now on.
    pub(crate) fn hold(&self, hold: Box<Hold>) {
        self.shared.lock().hold = Some(hold);
    }

    /// Carries the packets of a host by its device.
    pub(crate) fn attach(&self, host: HostId, device: File) {
        let mut state = self.shared.lock();
        state.network.set_outside(host);
        state.devices.push((host, Arc::new(device)));
        drop(state);
        self.shared.wake();
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn carry(shared: &Shared) {
    // SAFETY: no memory is involved; it concerns the calling thread only.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1);
    }
    let mut buffer = vec![0; LONGEST_PACKET];
    let mut polled = Vec::new();
    while !shared.ends.load(Ordering::Acquire) {
        let (devices, timeout) = {
            let mut state = shared.lock();
            let next = state.step(shared.now(), &mut buffer, &polled);
            let timeout = next.map(|next| next.since(shared.now()));
            (state.devices.iter().map(|(_, device)| Arc::clone(device)).collect::<Vec<_>>(), timeout)
        };
        polled.clear();
        polled.extend(devices.iter().map(|device| &**device).chain([&shared.wake]).map(|file| libc::pollfd {
            fd: file.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        }));
        wait(&mut polled, timeout);
        if polled.last().is_some_and(|wake| wake.revents != 0) {
            // Empties it; nothing else reads.
            let _ = (&shared.wake).read(&mut [0; 8]);
        }
    }
}

/// Sleeps until a descriptor is readable or the time has passed.
fn wait(polled: &mut [libc::pollfd], timeout: Option<Duration>) {
    let time = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the slice and the time live through the call; there is no signal mask.
    let ready = unsafe { libc::ppoll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, time, std::ptr::null()) };
    if ready <= 0 {
        // Interrupted or timed out: nothing is readable.
        polled.iter_mut().for_each(|file| file.revents = 0);
    }
}

impl State {
    /// Does everything that is due; when to do so again.
    fn step(&mut self, now: Time, buffer: &mut [u8], polled: &[libc::pollfd]) -> Option<Time> {
        while let Some(entry) = self.held.first_entry().filter(|entry| entry.key().0 <= now) {
            let (at, _) = *entry.key();
            let (host, carried) = entry.remove();
            self.network.advance_to(at);
            self.network.carry_in(host, carried);
        }
        self.network.advance_to(now);
        for (index, (host, device)) in self.devices.iter().enumerate() {
            if polled.get(index).is_none_or(|file| file.revents == 0 || file.fd != device.as_raw_fd()) {
                continue;
            }
            for _ in 0..BATCH {
                // An error is that there is nothing more, or that the device has just gone with its namespace.
                let Ok(length) = (&**device).read(buffer) else { break };
                let Some(carried) = packet::read(&buffer[..length]) else { continue };
                if self.network.in_flight() + self.held.len() >= MOST_IN_FLIGHT {
                    continue;
                }
                let time = self.hold.as_mut().map(|hold| hold(&carried)).unwrap_or_default();
                if time.is_zero() {
                    self.network.carry_in(*host, carried);
                } else {
                    self.held.insert((now + time, self.next_held), (*host, carried));
                    self.next_held += 1;
                }
            }
        }
        while let Some((host, carried)) = self.network.poll_carried() {
            let device = self.devices.iter().find(|(id, _)| *id == host);
            if let (Some((_, device)), Some(bytes)) = (device, packet::write(&carried)) {
                // What the host's interface does not take is lost, as on a wire; `write_all` is for interruptions, a
                // device takes all or nothing.
                let _ = (&**device).write_all(&bytes);
            }
        }
        let released = self.held.first_key_value().map(|((at, _), _)| *at);
        self.network.next_event().into_iter().chain(released).min()
    }
}
