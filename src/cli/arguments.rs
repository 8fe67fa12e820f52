//! The words of the command line. What they mean together is decided where they are used.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::{
    peer::{Target, parse_name},
    server::Advertise,
};

/// Direct connections between two programs behind NATs or firewalls.
#[derive(Debug, Parser)]
#[command(name = "holepunch", version, about, disable_help_subcommand = true, after_help = STATUSES)]
pub(super) struct Arguments {
    /// Writes events to stderr as JSON Lines, and nothing else.
    #[arg(long, global = true, overrides_with = "json")]
    pub(super) json: bool,
    /// Says nothing but the reason of a failure.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(super) quiet: u8,
    /// Says what happens in detail.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(super) verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

const STATUSES: &str =
    "Exit status: 0 ended cleanly, 1 other error, 2 usage or configuration, 3 server unreachable or silent,
4 no such listener, 5 refused, 6 no direct path, 7 out of time, 8 connected and then lost, 130 SIGINT, 143 SIGTERM.";

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Introduces peers to each other, on a host that both can reach.
    Server(ServerArguments),
    /// Waits for one peer, then joins it to stdin and stdout.
    #[command(after_help = DATAGRAMS)]
    Listen(ListenArguments),
    /// Connects to a listener, and joins it to stdin and stdout.
    #[command(after_help = DATAGRAMS)]
    Connect(ConnectArguments),
    /// Tells what this network does and what will work (not in this version yet).
    Netcheck(NetcheckArguments),
    /// Opens a connection as the package of 2015 did, and closes it.
    Client(ClientArguments),
}

const DATAGRAMS: &str =
    "With --udp one line of stdin is one datagram, newline included, at most 1,200 bytes; what is received is written
whole. Data is not retransmitted: what the network loses is lost. The end of stdin is announced to the peer, and the
program ends when both sides have ended.";

/// `holepunch server`.
#[derive(Debug, Default, Args)]
pub(super) struct ServerArguments {
    /// The address to listen on, that alone [default: all, IPv4 and IPv6]
    #[arg(long, value_name = "A")]
    pub(super) host: Option<String>,
    /// The port to listen on; port + 2 is used for RFC 5780 [default: 20000]
    #[arg(long, value_name = "P")]
    pub(super) port: Option<u16>,
    /// The port that peers of 2015 are told to punch from [default: 20001, or HOLEPUNCH_PORT]
    #[arg(long, value_name = "P")]
    pub(super) punch_port: Option<u16>,
    /// What clients are told instead of the server's own address
    #[arg(long, value_name = "A[:P]", value_parser = advertise)]
    pub(super) advertise: Option<Advertise>,
    /// STUN answers a second to one IPv4 /24 or IPv6 /56; 0 for no limit [default: 200]
    #[arg(long, value_name = "N")]
    pub(super) stun_rate: Option<u32>,
    /// A TOML file with the same settings (host, port, punch_port, advertise, stun_rate) and more: legacy (false turns the protocol of 2015 off), introduction_rate, max_registrations, max_registrations_per_network, max_connections, max_connections_per_network, first_word, idle_connection (both in seconds)
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// `holepunch listen`.
#[derive(Debug, Args)]
pub(super) struct ListenArguments {
    /// The name to be found by; without one, by this network's public address, as in 2015
    #[arg(value_parser = listener_name)]
    pub(super) name: Option<String>,
    #[command(flatten)]
    pub(super) meeting: MeetingArguments,
    /// Gives up without a peer after so many seconds; 0 for never
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "0")]
    pub(super) wait: Duration,
}

/// `holepunch connect`.
#[derive(Debug, Args)]
pub(super) struct ConnectArguments {
    /// The listener's name, or its public IP address
    #[arg(value_parser = target)]
    pub(super) target: String,
    #[command(flatten)]
    pub(super) meeting: MeetingArguments,
    /// Keeps asking for the listener so many seconds; 0 asks once
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "10")]
    pub(super) wait: Duration,
}

/// What `listen` and `connect` have in common.
#[derive(Debug, Args)]
pub(super) struct MeetingArguments {
    /// A rendezvous server; repeatable [default: HOLEPUNCH_SERVER, or 127.0.0.1:20000]
    #[arg(long, value_name = "H[:P]")]
    pub(super) server: Vec<String>,
    /// A local address to use; one of each family [default: HOLEPUNCH_BIND, or all]
    #[arg(long, value_name = "A[:P]", value_parser = bind_address)]
    pub(super) bind: Vec<SocketAddr>,
    /// A stream of bytes (the default)
    #[arg(long, conflicts_with = "udp")]
    pub(super) tcp: bool,
    /// Datagrams: one for each line of stdin; they may get lost
    #[arg(long)]
    pub(super) udp: bool,
    /// IPv4 only
    #[arg(short = '4', conflicts_with = "ipv6")]
    pub(super) ipv4: bool,
    /// IPv6 only
    #[arg(short = '6')]
    pub(super) ipv6: bool,
    /// Gives up so many seconds after the introduction
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "30")]
    pub(super) timeout: Duration,
    /// A file with a secret of at least 16 bytes that both peers know; or set HOLEPUNCH_SECRET
    #[arg(long, value_name = "F")]
    pub(super) secret_file: Option<PathBuf>,
}

/// `holepunch netcheck`.
#[derive(Debug, Args)]
pub(super) struct NetcheckArguments {
    /// A rendezvous server; repeatable
    #[arg(long, value_name = "H[:P]")]
    pub(super) server: Vec<String>,
    /// Also measures how long a NAT binding lives, which takes minutes
    #[arg(long)]
    pub(super) lifetime: bool,
}

/// `holepunch client`.
#[derive(Debug, Args)]
pub(super) struct ClientArguments {
    /// The transport
    #[arg(value_enum)]
    pub(super) protocol: Protocol,
    /// The listener's public IP address; without one it listens
    pub(super) destination: Option<String>,
    /// The rendezvous server [default: HOLEPUNCH_SERVER, or port 20000 of this machine]
    #[arg(long, value_name = "H[:P]")]
    pub(super) server: Option<String>,
    /// The local address to use [default: HOLEPUNCH_BIND, or any]
    #[arg(long, value_name = "A", value_parser = bind_address)]
    pub(super) bind: Option<SocketAddr>,
    /// Gives up after so many seconds, everything together [default: never]
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(super) timeout: Option<Duration>,
}

/// The transports of `client`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Protocol {
    /// Datagrams.
    Udp,
    /// A stream.
    Tcp,
}

fn advertise(text: &str) -> Result<Advertise, String> {
    text.parse().map_err(|error: crate::Error| error.message().to_owned())
}

/// A listener's name. What reads as an address would never be found by that name.
fn listener_name(text: &str) -> Result<String, String> {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Err("an IP address cannot be a name, since connecting to it means the address; choose another".into());
    }
    parse_name(text).map(|_| text.to_owned()).map_err(|error| error.message().to_owned())
}

fn target(text: &str) -> Result<String, String> {
    text.parse::<Target>().map(|_| text.to_owned()).map_err(|error| error.message().to_owned())
}

/// `A`, `A:P`, `[A6]` or `[A6]:P`; without a port the system chooses one.
fn bind_address(text: &str) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse() {
        return Ok(SocketAddr::new(ip, 0));
    }
    text.parse()
        .map_err(|_| "give a local IP address, with or without a port: 192.0.2.1, 192.0.2.1:4000, [::1]:4000".into())
}

/// The longest time that can be asked for, in seconds: some 30 years, so that no sum of times overflows.
const MAX_SECONDS: f64 = 1e9;

/// Seconds, with or without a fraction.
fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || "give seconds, such as 10 or 0.5".to_owned();
    let number: f64 = text.parse().map_err(|_| wrong())?;
    let limited = Some(number).filter(|number| *number <= MAX_SECONDS).ok_or_else(wrong)?;
    Duration::try_from_secs_f64(limited).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(std::iter::once("holepunch").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for line in ["--json -v listen bob --udp", "listen bob --udp --json -v", "--json listen --json -v bob --udp"] {
            let arguments = parse(line).unwrap();
            assert_eq!((arguments.json, arguments.verbose, arguments.quiet), (true, 1, 0), "{line}");
        }
    }

    #[test]
    fn defaults_are_those_documented() {
        let Command::Connect(connect) = parse("connect bob").unwrap().command else { panic!() };
        assert_eq!((connect.wait, connect.meeting.timeout), (Duration::from_secs(10), Duration::from_secs(30)));
        assert!(!connect.meeting.udp && connect.meeting.server.is_empty() && connect.meeting.bind.is_empty());
        let Command::Listen(listen) = parse("listen").unwrap().command else { panic!() };
        assert_eq!((listen.name, listen.wait), (None, Duration::ZERO));
    }

    #[test]
    fn every_option_is_taken() {
        let Command::Connect(connect) = parse(
            "connect 192.0.2.1 --server a --server [::1]:5 --bind 127.0.0.1 --bind [::1]:7 --udp -6 --wait 0.5 \
             --timeout 3 --secret-file f",
        )
        .unwrap()
        .command
        else {
            panic!()
        };
        assert_eq!(connect.meeting.server, ["a", "[::1]:5"]);
        let bind = ["127.0.0.1:0", "[::1]:7"].map(|text| text.parse::<SocketAddr>().unwrap());
        assert_eq!(connect.meeting.bind, bind);
        assert_eq!((connect.wait, connect.meeting.timeout), (Duration::from_millis(500), Duration::from_secs(3)));
        assert!(connect.meeting.udp && connect.meeting.ipv6 && !connect.meeting.ipv4);
        let Command::Server(server) =
            parse("server --host ::1 --port 0 --punch-port 9 --advertise 192.0.2.1:7 --stun-rate 0 --config f")
                .unwrap()
                .command
        else {
            panic!()
        };
        assert_eq!((server.host.as_deref(), server.port, server.punch_port), (Some("::1"), Some(0), Some(9)));
        assert_eq!((server.advertise, server.stun_rate), (Some("192.0.2.1:7".parse().unwrap()), Some(0)));
        assert!(parse("netcheck --server h --lifetime").is_ok());
        assert!(parse("client udp 192.0.2.1").is_ok() && parse("client tcp").is_ok());
        assert!(parse("client tcp 192.0.2.1 --server h:5 --bind 127.0.0.2 --timeout 1.5").is_ok());
    }

    #[test]
    fn what_cannot_be_right_is_refused() {
        for line in [
            "",
            "nonsense",
            "connect",
            "connect bob@example.org",
            "connect a:b",
            "listen 192.0.2.1",
            "listen UPPER",
            "listen a b",
            "connect bob --tcp --udp",
            "connect bob -4 -6",
            "connect bob --wait=-1",
            "connect bob --wait nan",
            "connect bob --wait 1e10",
            "connect bob --timeout soon",
            "connect bob --bind localhost",
            "connect bob --secret hunter2",
            "server --port 65536",
            "server --advertise 0.0.0.0",
            "client sctp",
        ] {
            let error = parse(line).map(|_| ()).expect_err(line);
            assert!(error.use_stderr(), "{line}");
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn help_and_version_are_no_errors() {
        for line in ["-h", "--help", "--version", "connect -h", "server --help"] {
            let error = parse(line).expect_err(line);
            assert!(!error.use_stderr() && error.exit_code() == 0, "{line}");
        }
    }
}
