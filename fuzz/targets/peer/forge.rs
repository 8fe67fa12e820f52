//! What a hostile server, or somebody on the way who knows no password, could send to a peer.

use super::{Fields, Node, World};
use crate::targets::{
    records::address,
    server::{CLIENTS, candidates},
};
use holepunch::wire::stun::{AttributeType, Builder, Class, Method, SessionId, TransactionId, Transports};

const ERRORS: [u16; 11] = [401, 403, 404, 409, 410, 415, 420, 426, 438, 508, 300];

impl World {
    pub(super) fn forge_answer(&mut self, node: usize, mut fields: Fields<'_>) {
        let Node { requests, registration, .. } = &self.nodes[node];
        let Some(request) = requests.get(usize::from(fields.u8()) % requests.len().max(1)).copied() else { return };
        let (how, key) = (fields.u8(), [fields.u8(); 32]);
        let signature = registration.map_or([0; 32], |(_, key)| key);
        let class = if how < 128 { Class::Success } else { Class::Error };
        let builder = Builder::new(class, request.method, request.transaction);
        let builder = builder.xor_address(AttributeType::XOR_MAPPED_ADDRESS, address(CLIENTS[usize::from(how) % 4]));
        let payload = match class {
            Class::Error => {
                let builder = builder.error_code(ERRORS[usize::from(how) % ERRORS.len()], "");
                if key[0] & 1 == 0 { builder } else { builder.attribute(AttributeType::NONCE, &key[..20]) }
            }
            _ if request.method == Method::REGISTER => builder.keepalive(u32::from(how)).integrity_sha256(&signature),
            _ => builder
                .public_key(&key)
                .transports(Transports { udp: true, tcp: false })
                .attribute(AttributeType::ROUTE, &key)
                .candidates(&candidates(fields)),
        };
        let payload = payload.fingerprint().finish();
        self.arrive(node, request.server, Some(request.local), &payload);
    }

    pub(super) fn forge_introduction(&mut self, node: usize, mut fields: Fields<'_>) {
        let (session, key, number) = ([fields.u8(); 16], [fields.u8(); 32], fields.u8());
        let (Some((id, signature)), Some(request)) = (self.nodes[node].registration, self.nodes[node].requests.back())
        else {
            return;
        };
        let (source, destination) = (request.server, request.local);
        let payload = Builder::new(Class::Indication, Method::INTRODUCE, TransactionId([3; 12]))
            .registration_id(id)
            .session_id(SessionId(session))
            .sequence(u64::from(number))
            .public_key(&key)
            .transports(Transports { udp: true, tcp: false })
            .attribute(AttributeType::ROUTE, &key)
            .candidates(&candidates(fields))
            .integrity_sha256(&signature)
            .fingerprint()
            .finish();
        self.arrive(node, source, Some(destination), &payload);
    }

    pub(super) fn forge_check(&mut self, node: usize, mut fields: Fields<'_>) {
        let (source, kind) = (address(fields.pick(&CLIENTS)), fields.u8());
        let request = |username: &str| {
            Builder::new(Class::Request, Method::BINDING, TransactionId([kind; 12]))
                .string(AttributeType::USERNAME, username)
                .u32(AttributeType::PRIORITY, u32::from(kind))
                .u64(AttributeType::ICE_CONTROLLING, u64::from(kind))
                .flag(AttributeType::USE_CANDIDATE)
        };
        // A stranger who saw the other peer's check, or one of this peer and turns its username round.
        let theirs = self.nodes[1 - node].last_check.as_ref().map(|(.., username)| username.clone());
        let ours = self.nodes[node].last_check.clone();
        let (builder, source, destination) = match (kind % 4, theirs, ours) {
            (0, Some(username), _) => (request(&username), source, None),
            (1, _, Some((.., username))) => {
                let (remote, local) = username.split_once(':').unwrap_or_default();
                (request(&format!("{local}:{remote}")), source, None)
            }
            (2, _, Some((from, to, id, _))) => {
                let error = Builder::new(Class::Error, Method::BINDING, id);
                (error.error_code(if kind < 128 { 401 } else { 487 }, ""), to, Some(from))
            }
            (3, _, Some((from, to, id, _))) => {
                let success = Builder::new(Class::Success, Method::BINDING, id);
                (success.xor_address(AttributeType::XOR_MAPPED_ADDRESS, from), to, Some(from))
            }
            _ => return,
        };
        let builder = if kind & 16 == 0 { builder.integrity(b"not the password") } else { builder };
        self.arrive(node, source, destination, &builder.fingerprint().finish());
    }
}
