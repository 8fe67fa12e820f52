//! What takes its time as users have it, with nothing shortened: a machine gets another address in the middle, as a laptop does
//! when it moves to another network, and its keepalives must come; a program only sends, and outlives consent.

use natlab::{Artefacts, Example, Families, Host, Lab, Language, Pair, Place, Rendezvous, Router, Site, Stream, field};
use std::time::{Duration, Instant};

/// Every wait ends at once when the step is done; the longest is that for a program that sends for a minute.
const PATIENCE: Duration = Duration::from_secs(120);
/// The last number of the new address.
const NEW: u8 = 77;

fn serve(lab: &mut Lab) -> Rendezvous {
    let server = lab.host("server").unwrap();
    Rendezvous::start(&Place::from(&server), &[]).unwrap()
}

fn client(lab: &mut Lab, name: &str) -> (Site, Host) {
    let mut site = lab.site(&format!("{name}-router"), Router::Masquerade, Families::V4).unwrap();
    let host = lab.client(&mut site, name).unwrap();
    (site, host)
}

fn is(event: &str) -> impl Fn(&str) -> bool {
    move |line| field(line, "event") == Some(event)
}

/// A listener, and a connector who waits for one.
fn start(server: &Rendezvous, listener: &Host, connector: &Host, options: &[&str]) -> Pair {
    let command = || Artefacts::get().holepunch();
    Pair::start(server.address, (&listener.into(), command()), (&connector.into(), command()), options).unwrap()
}

#[test]
fn a_connection_takes_the_new_address_and_the_peer_follows() {
    for listener_moves in [true, false] {
        let Some(mut lab) = Lab::or_skip("a_connection_takes_the_new_address_and_the_peer_follows") else { return };
        let server = serve(&mut lab);
        let open = lab.host("open").unwrap();
        let (site, mut moving) = client(&mut lab, "moving");
        let sides = if listener_moves { (&moving, &open) } else { (&open, &moving) };
        let mut pair = start(&server, sides.0, sides.1, &["--udp"]);
        pair.connected().unwrap();
        pair.exchange("from the listener", "from the connector").unwrap();
        site.readdress(&mut moving, NEW).unwrap();
        let began = Instant::now();
        let stays = if listener_moves { &pair.connector } else { &pair.listener };
        stays.wait_for(Stream::Err, "that the peer has moved", PATIENCE, is("moved")).unwrap();
        println!("followed after {:.1} s", began.elapsed().as_secs_f64());
        pair.exchange("still here", "so am I").unwrap();
        pair.end().unwrap();
    }
}

#[test]
fn a_listener_is_found_at_its_new_address() {
    let Some(mut lab) = Lab::or_skip("a_listener_is_found_at_its_new_address") else { return };
    let server = serve(&mut lab);
    let (site, mut bob) = client(&mut lab, "bob");
    let (_, alice) = client(&mut lab, "alice");
    let command = |words: &[&str]| {
        let mut command = Artefacts::get().holepunch();
        command.args(words).args(["bob", "--json", "--udp", "--server", &server.address.to_string()]);
        command
    };
    let listener = bob.spawn(command(&["listen"])).unwrap();
    listener.wait_for(Stream::Err, "that it is registered", PATIENCE, is("registered")).unwrap();
    site.readdress(&mut bob, NEW).unwrap();
    let began = Instant::now();
    // It is introduced where the listener was, and tries until that has been heard at its new address.
    let connector = alice.spawn(command(&["connect", "--timeout", "60"])).unwrap();
    listener.wait_for(Stream::Err, "that it is connected", PATIENCE, is("connected")).unwrap();
    let mut pair = Pair { listener, connector };
    println!("found after {:.1} s", began.elapsed().as_secs_f64());
    pair.exchange("from the listener", "from the connector").unwrap();
    pair.end().unwrap();
}

/// A program that never receives is connected through two NATs for a minute, in which consent (RFC 7675) would have
/// ended twice, while nobody reads what its peer sends back.
fn only_sends(test: &str, language: Language) {
    let Some(mut lab) = Lab::or_skip(test) else { return };
    let artefacts = Artefacts::get();
    let mut listen = artefacts.example(Language::Rust, Example::Listener).unwrap();
    let mut send = match artefacts.test_program(language, "sends_only") {
        Ok(program) => program,
        Err(why) => return natlab::skip(test, &why),
    };
    let server = serve(&mut lab);
    let ((_, bob), (_, alice)) = (client(&mut lab, "bob"), client(&mut lab, "alice"));
    listen.arg("bob").env("HOLEPUNCH_SERVER", server.address.to_string());
    send.args(["bob", "62"]).env("HOLEPUNCH_SERVER", server.address.to_string());
    let mut listener = bob.spawn(listen).unwrap();
    let mut sender = alice.spawn(send).unwrap();
    let sent = sender.wait(PATIENCE).unwrap();
    assert!(sent.success() && sender.lines(Stream::Out) == ["all sent"], "{}", sender.transcript());
    let heard = listener.wait(PATIENCE).unwrap();
    assert!(heard.success(), "{}", listener.transcript());
}

#[test]
fn a_program_in_rust_that_only_sends_stays_connected() {
    only_sends("a_program_in_rust_that_only_sends_stays_connected", Language::Rust);
}

#[test]
fn a_program_in_c_that_only_sends_stays_connected() {
    only_sends("a_program_in_c_that_only_sends_stays_connected", Language::C);
}

#[test]
fn a_program_in_python_that_only_sends_stays_connected() {
    only_sends("a_program_in_python_that_only_sends_stays_connected", Language::Python);
}
