//! A connection's socket becomes the program's own.
//!
//! The exchange with the peer is the machine's ([`Peer::bare`](crate::peer::Peer::bare)); meanwhile the socket is watched without a pause.
//! Then it still holds what the program has not read. Mostly that is messages and then data, since a peer that takes its own
//! socket sends no message after its first data: the messages are taken from the head, and the data stays.
//!
//! Where messages stand behind data they cannot be taken from the middle of a queue, so all are taken out and the data
//! is put back: the socket is connected to its own address, sends them to itself, and is connected to the peer again. What
//! the peer sends in that moment comes to the socket that shares the port, and is put back the same way. So nothing is lost
//! or left behind, unless a firewall drops what this host sends to itself; but whoever asks for the source of what was
//! put back is told our own address.

use std::{io, mem, net::SocketAddr, os::fd::AsRawFd as _, sync::Arc};

use mio::unix::SourceFd;
use socket2::Socket;

use super::{
    core::{Core, Pending, Watched},
    fault::{is_loss, os_error},
    filter,
    link::{Link, Taken},
    outputs::collect,
    peek,
};
use crate::{
    Error, ErrorKind, Result,
    machine::{Disposition, Input},
    wire::{demux::is_stun_with_fingerprint, stun::SessionId},
};

/// What came while the rest was put back is put back in turn, so many times; each takes a small part of the time of
/// the one before.
const ROUNDS: usize = 16;

/// Datagrams taken from the socket at most: more than its queue holds.
const MAX_TAKEN: usize = 8192;

impl Core {
    /// Begins to make a connection's socket the program's own.
    pub(crate) fn begin_bare(&mut self, link: &Link) -> Result<()> {
        if !cfg!(target_os = "linux") {
            let text = "this system does not tell the sockets of one port apart well enough to give one away";
            return Err(Error::new(ErrorKind::Unsupported, text).with_hint("use the connection's own calls"));
        }
        self.check_open()?;
        if let Some(error) = link.no_more().or_else(|| link.over()) {
            return Err(error);
        }
        let session = link.session;
        link.set_leaving();
        peek::restart(link.socket());
        if let Some(due) = self.links.get(&session).and_then(|watched| watched.look.due) {
            self.looks.remove(&(due, session));
            self.watch(session).map_err(|error| os_error("cannot watch the connection", &error))?;
        }
        self.peer.bare(self.clock.now(), session)?;
        self.drain();
        Ok(())
    }

    /// The socket, once it is the program's own, or why it will not be.
    pub(crate) fn take_bare(&mut self, link: &Link) -> Option<Result<Socket>> {
        match self.bare.remove(&link.session) {
            Some(result) => Some(result),
            None => link.over().map(Err),
        }
    }

    /// The peer is silent: the socket is the program's own.
    pub(super) fn handle_bare(&mut self, session: SessionId) {
        let Some(link) = self.unwatch(session) else { return };
        let result = match link.no_more() {
            Some(error) => Err(error),
            None => self.empty_of_messages(&link).map(|()| link.give_away()).map_err(|error| {
                os_error(format!("cannot give the socket of the connection to {} away", link.remote()), &error)
            }),
        };
        self.bare.insert(session, result);
    }

    /// A connection is the endpoint's no more.
    pub(super) fn unwatch(&mut self, session: SessionId) -> Option<Arc<Link>> {
        let Watched { link, look, token, .. } = self.links.remove(&session)?;
        self.sources.remove(&token);
        if let Some(due) = look.due {
            self.looks.remove(&(due, session));
        } else {
            // Closing would do it too, but the socket may live on.
            let _ = self.registry.deregister(&mut SourceFd(&link.as_raw_fd()));
        }
        Some(link)
    }

    fn empty_of_messages(&mut self, link: &Link) -> io::Result<()> {
        if link.is_filtered() {
            filter::detach(link.socket())?;
        }
        let mut data = link.take_all_queued();
        if data.is_empty() && self.clear_head(link) {
            return peek::stop(link.socket());
        }
        peek::stop(link.socket())?;
        let mut buffer = mem::take(&mut self.buffer);
        for _ in 0..MAX_TAKEN {
            match link.take(&mut buffer, libc::MSG_DONTWAIT) {
                Ok(Taken::Data(length)) if length <= buffer.len() => data.push(buffer[..length].to_vec()),
                Ok(Taken::Other(from, length)) if from == link.remote() => {
                    if self.is_data(link, &buffer[..length]) {
                        data.push(buffer[..length].to_vec());
                    }
                }
                Ok(Taken::Other(remote, length)) => self.hand_on(link, remote, &buffer[..length]),
                Ok(Taken::Data(_) | Taken::Nothing) => {}
                Err(error) if is_loss(&error) => {}
                Ok(Taken::End) | Err(_) => break,
            }
        }
        self.buffer = buffer;
        for _ in 0..ROUNDS {
            if data.is_empty() {
                return Ok(());
            }
            link.send_to_itself(&data)?;
            data = self.take_from_parent(link);
        }
        Ok(())
    }

    /// Takes from the head of the queue what is no data; false where more of that stands behind data.
    fn clear_head(&mut self, link: &Link) -> bool {
        peek::restart(link.socket());
        let mut buffer = mem::take(&mut self.buffer);
        let (mut data, mut clear) = (false, true);
        for _ in 0..MAX_TAKEN {
            let is_data = match link.take(&mut buffer, libc::MSG_PEEK | libc::MSG_DONTWAIT) {
                Ok(Taken::Data(_)) => true,
                Ok(Taken::Other(from, length)) => from == link.remote() && self.is_data(link, &buffer[..length]),
                Ok(Taken::Nothing) => false,
                Err(error) if is_loss(&error) => continue,
                Ok(Taken::End) | Err(_) => break,
            };
            if is_data {
                data = true;
            } else if data {
                clear = false;
                break;
            } else if let Ok(Taken::Other(remote, length)) = link.take(&mut buffer, libc::MSG_DONTWAIT)
                && remote != link.remote()
            {
                self.hand_on(link, remote, &buffer[..length]);
            }
        }
        self.buffer = buffer;
        clear
    }

    /// Somebody else's datagram, which is for the endpoint.
    fn hand_on(&mut self, link: &Link, remote: SocketAddr, payload: &[u8]) {
        let (socket, payload) = (link.path.udp_socket(), payload.to_vec());
        self.pending.push_back(Pending::Datagram { socket, local: link.local(), remote, payload });
    }

    /// Data of a connection that came to the socket that shares its port.
    fn take_from_parent(&mut self, link: &Link) -> Vec<Vec<u8>> {
        let before = self.pending.len();
        let socket = link.path.udp_socket();
        if let Some(parent) = self.sockets.get(&socket) {
            collect(socket, parent, &mut self.buffer, &mut self.pending);
        }
        let mut data = Vec::new();
        for pending in self.pending.split_off(before) {
            if let Pending::Datagram { remote, payload, .. } = &pending
                && *remote == link.remote()
            {
                if self.is_data(link, payload) {
                    data.push(payload.clone());
                }
            } else {
                self.pending.push_back(pending);
            }
        }
        data
    }

    /// Whether a datagram of the peer's is data: what looks like a message may be the application's own.
    fn is_data(&mut self, link: &Link, payload: &[u8]) -> bool {
        let (socket, local, remote) = (link.path.udp_socket(), link.local(), link.remote());
        let input = Input::Datagram { socket, local, remote, payload };
        !is_stun_with_fingerprint(payload)
            || matches!(self.peer.handle_input(self.clock.now(), input), Disposition::Data(_))
    }
}
