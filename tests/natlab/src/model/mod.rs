//! The simulator's network between real programs, in real time.
//!
//! Each host is a namespace whose only interface is a TUN device, and one thread of this process (`carrier`) carries
//! packets from device to device through a [`Network`]: its links with delay, jitter and loss, its NATs of every kind,
//! its firewalls. So one NAT is tested twice, in virtual time with state machines and in real time with whole programs.
//! Linux's own routers attach to the same network ([`Model::linux_site`]), so each pair of NATs can be made of both.
//!
//! ```text
//!     bob ── TUN ── [ home ── NAT ── link ── backbone ── link ── NAT ── home ] ── TUN ── alice
//!                   the model                  │
//!                                             TUN
//!                                            server
//! ```

mod carrier;
pub(crate) mod packet;
pub(crate) mod tun;

use crate::{
    Families, Host, LabError, Router,
    lab::{make_router, new_prefix},
    namespace::Namespace,
    reaper::Reaper,
};
use carrier::Carrier;
use netsim::{Carried, Firewall, HostId, HostSpec, Link, Nat, Network, SiteId, SiteSpec, Time};
use std::{
    fmt::{self, Write as _},
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::OnceLock,
    thread,
    time::Duration,
};

/// What a Linux router is called on its LAN.
const LAN_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);
const LAN_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// A modelled internet with real programs in it; dropping it removes everything. If that happens while a test panics,
/// the last of what the network did is printed, beside the seed.
pub struct Model {
    prefix: String,
    seed: u64,
    carrier: Carrier,
    homes: u8,
    _reaper: Reaper,
}

/// A site with one host, as most homes are.
#[derive(Clone, Debug)]
pub struct Home {
    /// The site in the model; none behind one of Linux's routers.
    pub site: Option<SiteId>,
    /// The host.
    pub host: Host,
    /// What the internet sees: the NAT's address, or the host's own where there is none.
    pub public: IpAddr,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("prefix", &self.prefix).field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl Model {
    /// Makes an internet with nothing attached. The seed decides what links lose and which ports NATs draw; with real
    /// programs it cannot decide when.
    ///
    /// # Errors
    ///
    /// [`LabError::NotAllowed`] where namespaces or TUN devices cannot be made, with the reason.
    pub fn new(seed: u64) -> Result<Self, LabError> {
        static ALLOWED: OnceLock<Result<(), String>> = OnceLock::new();

        let prefix = new_prefix()?;
        let reaper = Reaper::watch(&prefix)?;
        ALLOWED.get_or_init(|| probe(&prefix)).clone().map_err(LabError::NotAllowed)?;
        let carrier = Carrier::start(&format!("natlab-{seed}"), Network::new(seed))?;
        Ok(Self { prefix, seed, carrier, homes: 0, _reaper: reaper })
    }

    /// Makes a model, or says on standard error that `test` is skipped and why.
    ///
    /// # Panics
    ///
    /// When models are allowed but this one could not be made.
    pub fn or_skip(test: &str, seed: u64) -> Option<Self> {
        match Self::new(seed) {
            Ok(model) => Some(model),
            Err(error @ LabError::NotAllowed(_)) => {
                crate::skip(test, &error.to_string());
                None
            }
            Err(error @ LabError::Failed(_)) => panic!("{error}"),
        }
    }

    /// Looks at or changes the network while it runs.
    pub fn with<T>(&self, work: impl FnOnce(&mut Network) -> T) -> T {
        self.carrier.with(work)
    }

    /// The network's time, now: what its records carry.
    pub fn now(&self) -> Time {
        self.carrier.now()
    }

    /// Holds packets where they were sent for as long as `how_long` says of each, before the network sees them; zero
    /// for most.
    pub fn hold(&self, how_long: impl FnMut(&Carried) -> Duration + Send + 'static) {
        self.carrier.hold(Box::new(how_long));
    }

    /// The last of what the network did, a line each: for a test that fails.
    pub fn last_of_trace(&self) -> String {
        const LINES: usize = 200;
        let trace = self.with(|network| network.trace().to_string());
        let lines: Vec<_> = trace.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    /// Attaches a host directly to the internet.
    pub fn host(&mut self, name: &str, addresses: &[IpAddr], link: Link) -> Result<Host, LabError> {
        let host = self.with(|network| network.add_host(HostSpec { addresses: addresses.to_vec(), link }));
        let namespace = self.namespace(name)?;
        self.connect(host, &namespace, "eth0", addresses)?;
        Ok(Host { namespace, name: name.to_owned(), addresses: addresses.to_vec() })
    }

    /// Attaches a server, with an address of each family and a link that takes no time.
    pub fn server(&mut self) -> Result<Host, LabError> {
        let addresses: [IpAddr; 2] =
            [Ipv4Addr::new(192, 0, 2, 1).into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()];
        self.host("server", &addresses, Link::PERFECT)
    }

    /// Adds a site to the network, as a [`Network`] does.
    pub fn site(&mut self, site: SiteSpec) -> SiteId {
        self.with(|network| network.add_site(site))
    }

    /// Puts a host on the LAN of a site.
    pub fn client(&mut self, site: SiteId, name: &str, addresses: &[IpAddr], link: Link) -> Result<Host, LabError> {
        let host = self.with(|network| network.add_host_in(site, addresses.to_vec(), link));
        let namespace = self.namespace(name)?;
        self.connect(host, &namespace, "eth0", addresses)?;
        Ok(Host { namespace, name: name.to_owned(), addresses: addresses.to_vec() })
    }

    /// Adds a home behind a NAT of IPv4; the uplink is `link`.
    pub fn nat_home(&mut self, name: &str, nat: Nat, link: Link) -> Result<Home, LabError> {
        let number = self.next_home();
        let public: IpAddr = Ipv4Addr::new(198, 51, 100, number).into();
        let site = self.site(SiteSpec { public: vec![public], nat: Some(nat), link, ..SiteSpec::default() });
        let inside = Ipv4Addr::new(192, 168, number, 2).into();
        let host = self.client(site, name, &[inside], Link::PERFECT)?;
        Ok(Home { site: Some(site), host, public })
    }

    /// Adds a home behind a stateful firewall and no NAT.
    pub fn firewall_home(
        &mut self,
        name: &str,
        firewall: Firewall,
        families: Families,
        link: Link,
    ) -> Result<Home, LabError> {
        let number = self.next_home();
        let site = self.site(SiteSpec { firewall: Some(firewall), link, ..SiteSpec::default() });
        let addresses = self.own_addresses(number, families);
        let host = self.client(site, name, &addresses, Link::PERFECT)?;
        Ok(Home { site: Some(site), public: host.address(), host })
    }

    /// Adds a host that nothing protects, with a link like a home's.
    pub fn open_home(&mut self, name: &str, families: Families, link: Link) -> Result<Home, LabError> {
        let number = self.next_home();
        let addresses = self.own_addresses(number, families);
        let host = self.host(name, &addresses, link)?;
        Ok(Home { site: None, public: host.address(), host })
    }

    /// Adds a home behind one of Linux's own routers, which is a host of the model; `link` is its uplink.
    pub fn linux_home(&mut self, name: &str, router: Router, families: Families, link: Link) -> Result<Home, LabError> {
        let number = self.next_home();
        let outside: Vec<IpAddr> = self
            .own_addresses(number, Families::Both)
            .into_iter()
            .filter(|address| if address.is_ipv4() { families.v4() } else { families.v6() })
            .collect();
        let inside: Vec<IpAddr> = outside
            .iter()
            .map(|address| match address {
                IpAddr::V4(_) if router.translates() => Ipv4Addr::new(192, 168, number, 2).into(),
                IpAddr::V4(_) => Ipv4Addr::new(203, 0, 113, number).into(),
                IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 1, number.into(), 0, 0, 0, 2).into(),
            })
            .collect();
        // Those inside that are not translated belong to the router, as far as the model knows.
        let known = outside.iter().chain(inside.iter().filter(|address| address.is_ipv6() || !router.translates()));
        let known: Vec<_> = known.copied().collect();
        let id = self.with(|network| network.add_host(HostSpec { addresses: known, link }));
        let (gate, namespace) = (self.namespace(&format!("{name}-router"))?, self.namespace(name)?);
        make_router(&gate)?;
        self.connect(id, &gate, "wan", &outside)?;
        gate.ip(&format!("link add lan type veth peer name eth0 netns {}\nlink set lan up\n", namespace.name))?;
        namespace.ip(&format!("link set eth0 up\n{}", behind_router(&inside)))?;
        // Each address is a route of its own, over links that have no others.
        let routes = inside.iter().fold(String::new(), |mut routes, address| {
            let _ = writeln!(routes, "route add {address} dev lan");
            routes
        });
        gate.ip(&format!("address add {LAN_V4}/32 dev lan\naddress add {LAN_V6}/64 dev lan nodad\n{routes}"))?;
        gate.nft(&router.rules())?;
        let public = if router.translates() { outside[0] } else { inside[0] };
        let host = Host { namespace, name: name.to_owned(), addresses: inside };
        Ok(Home { site: None, host, public })
    }

    fn next_home(&mut self) -> u8 {
        self.homes += 1;
        self.homes
    }

    #[expect(clippy::unused_self, reason = "it numbers this model's addresses")]
    fn own_addresses(&self, number: u8, families: Families) -> Vec<IpAddr> {
        let v4 = families.v4().then(|| Ipv4Addr::new(198, 51, 100, number).into());
        let v6 = families.v6().then(|| Ipv6Addr::new(0x2001, 0xdb8, 0, number.into(), 0, 0, 0, 2).into());
        v4.into_iter().chain(v6).collect()
    }

    fn namespace(&self, name: &str) -> io::Result<Namespace> {
        Namespace::create(format!("{}{name}", self.prefix))
    }

    /// Makes the device of a host, and lets its packets go.
    fn connect(&self, host: HostId, namespace: &Namespace, device: &str, addresses: &[IpAddr]) -> io::Result<()> {
        let file = namespace.within(|| tun::create(device))??;
        // No router solicitations and link-local addresses on a wire that carries only what hosts say to each other; in
        // one request with `up` that would come after it, and too late.
        namespace.ip(&format!(
            "link set {device} addrgenmode none\nlink set {device} mtu 1500 txqueuelen 10000 up\n{}",
            on_link(addresses, device)
        ))?;
        self.carrier.attach(host, file);
        Ok(())
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("seed {}; the last of what the network did:\n{}", self.seed, self.last_of_trace());
        }
    }
}

/// The addresses of an interface behind which everything is.
fn on_link(addresses: &[IpAddr], device: &str) -> String {
    addresses.iter().fold(String::new(), |mut batch, address| {
        let _ = match address {
            IpAddr::V4(_) => write!(batch, "address add {address}/32 dev {device}\nroute add default dev {device}\n"),
            IpAddr::V6(_) => {
                write!(batch, "address add {address}/128 dev {device} nodad\nroute add ::/0 dev {device}\n")
            }
        };
        batch
    })
}

/// The addresses of a host whose only neighbour is a router.
fn behind_router(addresses: &[IpAddr]) -> String {
    addresses.iter().fold(String::new(), |mut batch, address| {
        let _ = match address {
            IpAddr::V4(_) => {
                write!(batch, "address add {address}/32 dev eth0\nroute add default via {LAN_V4} dev eth0 onlink\n")
            }
            IpAddr::V6(_) => {
                write!(batch, "address add {address}/128 dev eth0 nodad\nroute add ::/0 via {LAN_V6} dev eth0\n")
            }
        };
        batch
    })
}

/// Tries everything a model needs, once in a process.
fn probe(prefix: &str) -> Result<(), String> {
    let explain = |error: io::Error| error.to_string();
    let namespace = Namespace::create(format!("{prefix}probe")).map_err(explain)?;
    let device: io::Result<File> = namespace.within(|| tun::create("eth0")).and_then(|device| device);
    device.map(drop).map_err(|error| format!("/dev/net/tun: {error}"))
}
