//! The example listener and connector of every language with those of every other, through two port-preserving NATs.
//!
//! The nine pairs also run where namespaces are not allowed, then on the loopback interface, and say so. A language whose
//! library is not built here is skipped aloud.

use natlab::{Artefacts, Example, Families, Lab, LabError, Language, Place, Rendezvous, Router, Stream, skip};
use std::{
    net::{IpAddr, Ipv4Addr},
    process::Command,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Where the server, the listener and the connector run, and the addresses that the two are seen at.
struct Setting {
    places: [Place; 3],
    seen: [IpAddr; 2],
    _lab: Option<Lab>,
}

fn setting(test: &str) -> Setting {
    let mut lab = match Lab::new() {
        Ok(lab) => lab,
        Err(error @ LabError::NotAllowed(_)) => {
            eprintln!("NOTICE: {test} runs on the loopback interface: {error}");
            let places = [Place::Loopback, Place::Loopback, Place::Loopback];
            return Setting { places, seen: [Ipv4Addr::LOCALHOST.into(); 2], _lab: None };
        }
        Err(error) => panic!("{error}"),
    };
    let server = lab.host("server").unwrap();
    let [(bob, bob_seen), (alice, alice_seen)] = ["bob", "alice"].map(|name| {
        let mut site = lab.site(&format!("{name}-router"), Router::Masquerade, Families::V4).unwrap();
        (lab.client(&mut site, name).unwrap(), site.public[0])
    });
    Setting { places: [&server, &bob, &alice].map(Place::from), seen: [bob_seen, alice_seen], _lab: Some(lab) }
}

fn pair(test: &str, listener: Language, connector: Language) {
    let artefacts = Artefacts::get();
    let example = |language, example| -> Option<Command> {
        artefacts.example(language, example).map_err(|why| skip(test, &why)).ok()
    };
    let Some(mut listen) = example(listener, Example::Listener) else { return };
    let Some(mut connect) = example(connector, Example::Connector) else { return };
    let setting = setting(test);
    let [at, bob, alice] = &setting.places;
    let [bob_seen, alice_seen] = setting.seen;
    let server = Rendezvous::start(at, &[]).unwrap();
    let address = server.address.to_string();
    listen.env("HOLEPUNCH_SERVER", &address).arg("bob");
    connect.env("HOLEPUNCH_SERVER", &address).args(["bob", "one", "two words", "three"]);

    let mut listener = bob.spawn("listener", listen).unwrap();
    let mut connector = alice.spawn("connector", connect).unwrap();
    let ended = connector.wait(PATIENCE).and_then(|status| Ok((status, listener.wait(PATIENCE)?)));
    let said = format!("{}{}", connector.transcript(), listener.transcript());
    let (connector_status, listener_status) = ended.unwrap_or_else(|error| panic!("{error}\n{said}"));
    assert!(connector_status.success() && listener_status.success(), "{connector_status} {listener_status}\n{said}");
    assert_eq!(connector.lines(Stream::Out), ["one", "two words", "three"], "{said}");
    for (program, peer) in [(&connector, bob_seen), (&listener, alice_seen)] {
        let path = format!("connected to {peer}:");
        assert!(program.lines(Stream::Err).iter().any(|line| line.starts_with(&path)), "{path} is missing:\n{said}");
    }
}

macro_rules! pairs {
    ($($test:ident: $listener:ident, $connector:ident;)*) => {$(
        #[test]
        fn $test() {
            pair(stringify!($test), Language::$listener, Language::$connector);
        }
    )*};
}

pairs! {
    rust_listener_x_rust_connector: Rust, Rust;
    rust_listener_x_c_connector: Rust, C;
    rust_listener_x_python_connector: Rust, Python;
    c_listener_x_rust_connector: C, Rust;
    c_listener_x_c_connector: C, C;
    c_listener_x_python_connector: C, Python;
    python_listener_x_rust_connector: Python, Rust;
    python_listener_x_c_connector: Python, C;
    python_listener_x_python_connector: Python, Python;
}
