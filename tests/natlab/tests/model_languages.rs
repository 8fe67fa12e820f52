//! C and Python through the NATs of the model, in real time: the example programs for datagrams, and programs of our
//! own that send a stream of a million bytes there and back.

use natlab::{Artefacts, Example, Families, Home, Language, Model, Place, Program, Rendezvous, Router, Stream, skip};
use netsim::{Link, oracle::NatKind};
use std::{process::Command, time::Duration};

const PATIENCE: Duration = Duration::from_secs(40);

/// The kind of NAT before a program; Linux's own for none.
type Border = Option<&'static str>;

fn home(model: &mut Model, name: &str, border: Border) -> Home {
    let link = Link::delay_ms(20);
    match border {
        None => model.linux_home(name, Router::Masquerade, Families::V4, link).unwrap(),
        Some(kind) => {
            let kind = NatKind::all().into_iter().find(|other| other.name() == kind).expect(kind);
            model.nat_home(name, kind.nat(), link).unwrap()
        }
    }
}

/// Runs both to their ends, and looks for the paths that they report: the connector's output.
fn run(test: &str, borders: [Border; 2], listen: Command, connect: Command, ready: Option<&str>) -> Vec<String> {
    let Some(mut model) = Model::or_skip(test, 1) else { return Vec::new() };
    let server = Rendezvous::start(&Place::from(&model.server().unwrap()), &[]).unwrap();
    let (bob, alice) = (home(&mut model, "bob", borders[0]), home(&mut model, "alice", borders[1]));
    let [listen, connect] = [listen, connect].map(|mut command| {
        command.env("HOLEPUNCH_SERVER", server.address.to_string());
        command
    });
    let mut listener = bob.host.spawn(listen).unwrap();
    if let Some(ready) = ready {
        listener.wait_for(Stream::Err, ready, PATIENCE, |line| line == ready).unwrap();
    }
    let mut connector = alice.host.spawn(connect).unwrap();
    let ended = connector.wait(PATIENCE).and_then(|status| Ok((status, listener.wait(PATIENCE)?)));
    let said = format!("{}{}", connector.transcript(), listener.transcript());
    let (connected, listened) = ended.unwrap_or_else(|error| panic!("{error}\n{said}"));
    assert!(connected.success() && listened.success(), "{connected} {listened}\n{said}");
    let sees = |program: &Program, other: &Home| {
        let path = format!("connected to {}:", other.public);
        assert!(program.lines(Stream::Err).iter().any(|line| line.starts_with(&path)), "{path} is missing:\n{said}");
    };
    sees(&connector, &bob);
    sees(&listener, &alice);
    connector.lines(Stream::Out)
}

fn datagrams(test: &str, languages: [Language; 2], borders: [Border; 2]) {
    let example = |language, example| -> Option<Command> {
        Artefacts::get().example(language, example).map_err(|why| skip(test, &why)).ok()
    };
    let Some(mut listen) = example(languages[0], Example::Listener) else { return };
    let Some(mut connect) = example(languages[1], Example::Connector) else { return };
    listen.arg("bob");
    connect.args(["bob", "one", "two words", "three"]);
    let said = run(test, borders, listen, connect, None);
    assert!(said.is_empty() || said == ["one", "two words", "three"], "{said:?}");
}

fn streams(test: &str, languages: [Language; 2], borders: [Border; 2]) {
    let program = |language, role: &str| {
        let program = Artefacts::get().test_program(language, "streams").map_err(|why| skip(test, &why)).ok();
        program.map(|mut program: Command| {
            program.args([role, "bob"]);
            program
        })
    };
    let Some(listen) = program(languages[0], "listen") else { return };
    let Some(connect) = program(languages[1], "connect") else { return };
    let said = run(test, borders, listen, connect, Some("ready"));
    assert!(said.is_empty() || said == ["the same"], "{said:?}");
}

macro_rules! programs {
    ($($what:ident $test:ident: $listener:ident behind $left:expr, $connector:ident behind $right:expr;)*) => {$(
        #[test]
        fn $test() {
            $what(stringify!($test), [Language::$listener, Language::$connector], [$left, $right]);
        }
    )*};
}

programs! {
    datagrams udp_c_behind_eim_apdf_random_x_python_behind_eim_apdf_sequential:
        C behind Some("eim_apdf_random"), Python behind Some("eim_apdf_sequential");
    datagrams udp_python_behind_apdm_apdf_random_x_c_behind_eim_adf_preserving:
        Python behind Some("apdm_apdf_random"), C behind Some("eim_adf_preserving");
    datagrams udp_c_behind_linux_x_rust_behind_eim_apdf_random:
        C behind None, Rust behind Some("eim_apdf_random");
    datagrams udp_rust_behind_adm_eif_random_x_python_behind_linux:
        Rust behind Some("adm_eif_random"), Python behind None;
    streams tcp_c_behind_eim_apdf_random_x_python_behind_eim_apdf_sequential:
        C behind Some("eim_apdf_random"), Python behind Some("eim_apdf_sequential");
    streams tcp_python_behind_apdm_apdf_random_x_c_behind_eim_adf_preserving:
        Python behind Some("apdm_apdf_random"), C behind Some("eim_adf_preserving");
    streams tcp_c_behind_linux_x_c_behind_eim_apdf_random:
        C behind None, C behind Some("eim_apdf_random");
    streams tcp_python_behind_adm_eif_random_x_python_behind_linux:
        Python behind Some("adm_eif_random"), Python behind None;
}
