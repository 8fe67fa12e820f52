//! What the codec must stand: any datagram is parsed, asked for everything, and built again.

use holepunch::wire::{
    demux::{Datagram, is_stun_with_fingerprint},
    stun::{AttributeType, Builder, ClassicRequest, Fingerprint, MAX_MESSAGE, Message},
};

/// Parses a datagram, asks for everything, verifies it with a key taken from the input, and builds it again.
pub(crate) fn stun_message(bytes: &[u8]) {
    let class = Datagram::classify(bytes);
    if let Ok(request) = ClassicRequest::parse(bytes) {
        assert_eq!(class, Datagram::ClassicStun);
        let _ = (request.change_request(), request.attribute(AttributeType::USERNAME));
        assert_eq!(request.answer(([192, 0, 2, 1], 1).into()).len(), 32);
    }
    let Ok(message) = Message::parse(bytes) else {
        return;
    };
    assert_eq!(class == Datagram::Stun, bytes[0] <= 3);
    assert_eq!(message.as_bytes(), bytes);
    ask_for_everything(&message);

    let key = bytes.get(..bytes.len().min(32)).unwrap_or_default();
    let _ = (message.verify_integrity(key), message.verify_integrity_sha256(key));
    assert_eq!(message.verify_fingerprint() == Fingerprint::Valid && bytes[0] <= 3, fingerprint_is_seen(&message));

    build_again(&message);
}

/// The data path sees a fingerprint by the last eight bytes alone, which may be part of another attribute's value.
fn fingerprint_is_seen(message: &Message<'_>) -> bool {
    let last = message.attributes().last();
    is_stun_with_fingerprint(message.as_bytes())
        && last.is_some_and(|(attribute_type, value)| {
            attribute_type == AttributeType::FINGERPRINT
                && value.as_ptr_range().end == message.as_bytes().as_ptr_range().end
        })
}

fn ask_for_everything(message: &Message<'_>) {
    let _ = format!("{message:?}");
    let _ = (message.xor_mapped_address(), message.mapped_address(), message.xor_peer_address());
    let _ = (message.alternate_server(), message.response_origin(), message.other_address());
    let _ = (message.username(), message.realm(), message.software(), message.nonce(), message.error_code());
    let _ = (message.lifetime(), message.priority(), message.use_candidate(), message.change_request());
    let _ = (message.ice_controlled(), message.ice_controlling(), message.response_port());
    let _ = (message.version(), message.registration_id(), message.registration_key(), message.name());
    let _ = (message.session_id(), message.public_key(), message.sequence(), message.route());
    let _ = (message.transports(), message.target_address(), message.keepalive(), message.flags());
    assert!(message.candidates().count() <= 16);
    assert!(message.unknown_attributes().count() <= message.as_bytes().len() / 2);
    assert!(
        message
            .unknown_comprehension_required(&[AttributeType::USERNAME])
            .all(AttributeType::is_comprehension_required)
    );
}

/// A message made of the same attributes is read as the same attributes, unless it is too long for the builder.
fn build_again(message: &Message<'_>) {
    let protections =
        [AttributeType::MESSAGE_INTEGRITY, AttributeType::MESSAGE_INTEGRITY_SHA256, AttributeType::FINGERPRINT];
    let plain = || message.attributes().filter(|(attribute_type, _)| !protections.contains(attribute_type));
    let builder = Builder::new(message.class(), message.method(), message.transaction_id());
    let builder = plain().fold(builder, |builder, (attribute_type, value)| builder.attribute(attribute_type, value));
    let complete = builder.is_complete();
    let built = builder.integrity(b"key").integrity_sha256(b"key").fingerprint().finish();
    assert!(built.len() <= MAX_MESSAGE);
    let read = Message::parse(&built).expect("what is built can be parsed");
    if complete {
        assert!(read.attributes().filter(|(attribute_type, _)| !protections.contains(attribute_type)).eq(plain()));
    }
}
