//! The topology: an internet that routes, hosts on it, and sites behind routers.
//!
//! Addresses are those that documentation may use (RFC 5737, RFC 3849). Attachment number k of the internet is a link of its own:
//!
//! ```text
//!     link k       203.0.113.(4k)/30   2001:db8:0:k::/64     the internet has .1 and ::1, the attached .2 and ::2
//!     inside k     192.168.k.0/24 behind a NAT, 198.51.100.(16k)/28 behind a firewall, 2001:db8:1:k::/64
//! ```

use crate::{
    namespace::{Namespace, run},
    program::Program,
    reaper::{PREFIX, Reaper, remove_leftovers},
    router::Router,
};
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::{self, Command},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

/// Why there is no lab.
#[derive(Debug)]
#[non_exhaustive]
pub enum LabError {
    /// This system or user may not make namespaces or load rules, or lacks the tools.
    NotAllowed(String),
    /// Something that is allowed went wrong.
    Failed(io::Error),
}

impl fmt::Display for LabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllowed(why) => write!(f, "network namespaces are not allowed here: {why}"),
            Self::Failed(error) => write!(f, "the lab could not be built: {error}"),
        }
    }
}

impl std::error::Error for LabError {}

impl From<io::Error> for LabError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Which families a site speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both; IPv6 is never translated.
    Both,
}

impl Families {
    pub(crate) fn v4(self) -> bool {
        self != Self::V6
    }

    pub(crate) fn v6(self) -> bool {
        self != Self::V4
    }
}

/// A namespace with an address, in which programs run.
#[derive(Clone, Debug)]
pub struct Host {
    pub(crate) namespace: Namespace,
    /// What it is called in the lab.
    pub name: String,
    /// Its addresses besides the loopback and link-local ones; IPv4 first.
    pub addresses: Vec<IpAddr>,
}

impl Host {
    /// The full name of its namespace, for `ip netns exec`.
    pub fn namespace(&self) -> &str {
        &self.namespace.name
    }

    /// Its IPv4 address; the first address where it has none.
    pub fn address(&self) -> IpAddr {
        self.addresses[0]
    }

    /// Its IPv6 address.
    pub fn ipv6(&self) -> Option<IpAddr> {
        self.addresses.iter().copied().find(IpAddr::is_ipv6)
    }

    /// Runs `work` on a thread inside; sockets made there stay there.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.namespace.within(work)
    }

    /// Lets no program send UDP any more: it is told so.
    pub fn refuse_udp(&self) -> io::Result<()> {
        let hook = "type filter hook output priority filter;";
        self.namespace.nft(&format!("table inet local {{\nchain output {{\n{hook}\nmeta l4proto udp drop\n}}\n}}\n"))
    }

    /// Lets no more than so much out, as tc(8) writes it (`8mbit`); what waits stays in its sender's buffer.
    ///
    /// # Errors
    ///
    /// Also where the system has no such queue.
    pub fn slow_down(&self, rate: &str) -> io::Result<()> {
        let queue = ["qdisc", "replace", "dev", "eth0", "root", "tbf", "burst", "3000", "limit", "64mb", "rate", rate];
        run(Command::new("tc").args(["-n", self.namespace()]).args(queue), "")
    }

    /// Starts a program inside; it is killed when the guard is dropped.
    pub fn spawn(&self, mut command: Command) -> io::Result<Program> {
        self.namespace.confine(&mut command);
        Program::spawn(&self.name, command)
    }
}

/// A router and the LAN behind it.
#[derive(Debug)]
pub struct Site {
    router: Namespace,
    number: u8,
    kind: Router,
    families: Families,
    subnet: u8,
    hosts: u8,
    /// The router's addresses on the internet's side; IPv4 first. What a NAT shows of its inside.
    pub public: Vec<IpAddr>,
}

impl Site {
    /// The full name of its router's namespace.
    pub fn router(&self) -> &str {
        &self.router.name
    }

    /// Numbers the LAN 192.168.`third`.0/24, also if another site does so; to be called before there are hosts.
    #[must_use]
    pub fn with_subnet(mut self, third: u8) -> Self {
        self.subnet = third;
        self
    }

    /// Forwards a UDP port of the router's public IPv4 address to a host inside.
    pub fn forward_udp(&self, port: u16, to: &Host) -> io::Result<()> {
        let to = to.address();
        self.router.nft(&format!("add rule ip nat prerouting iifname \"wan\" udp dport {port} dnat to {to}\n"))
    }

    /// Gives a host inside another IPv4 address. For a moment it has none, and no way out.
    pub fn readdress(&self, host: &mut Host, number: u8) -> io::Result<()> {
        let (own, bits) = self.inside_v4(number);
        let (gateway, _) = self.inside_v4(1);
        let old = host.address();
        host.namespace.ip(&format!(
            "address del {old}/{bits} dev eth0\naddress add {own}/{bits} dev eth0\nroute add default via {gateway}\n"
        ))?;
        host.addresses[0] = own.into();
        Ok(())
    }

    /// Lets no UDP through any more, in either direction.
    pub fn block_udp(&self) -> io::Result<()> {
        self.router.nft("insert rule inet filter forward meta l4proto udp drop\n")
    }

    fn inside_v4(&self, host: u8) -> (Ipv4Addr, u8) {
        if self.kind.translates() {
            (Ipv4Addr::new(192, 168, self.subnet, host), 24)
        } else {
            (Ipv4Addr::new(198, 51, 100, 16 * self.number + host), 28)
        }
    }

    fn inside_v6(&self, host: u8) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 1, u16::from(self.number), 0, 0, 0, u16::from(host))
    }
}

/// A small internet in namespaces; dropping it removes everything.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    internet: Namespace,
    links: u8,
    _reaper: Reaper,
}

impl Lab {
    /// Makes an internet with nothing attached.
    ///
    /// # Errors
    ///
    /// [`LabError::NotAllowed`] where namespaces cannot be made, with the reason.
    pub fn new() -> Result<Self, LabError> {
        static ALLOWED: OnceLock<Result<(), String>> = OnceLock::new();

        let prefix = new_prefix()?;
        ALLOWED.get_or_init(probe).clone().map_err(LabError::NotAllowed)?;
        let reaper = Reaper::watch(&prefix)?;
        let internet = Namespace::create(format!("{prefix}internet"))?;
        make_router(&internet)?;
        // Private addresses mean nothing on the internet, and nobody answers for them.
        internet.ip(
            "route add blackhole 10.0.0.0/8\nroute add blackhole 172.16.0.0/12\nroute add blackhole 192.168.0.0/16\n",
        )?;
        Ok(Self { prefix, internet, links: 0, _reaper: reaper })
    }

    /// Makes a lab, or says on standard error that `test` is skipped and why.
    ///
    /// # Panics
    ///
    /// When labs are allowed but this one could not be made.
    pub fn or_skip(test: &str) -> Option<Self> {
        match Self::new() {
            Ok(lab) => Some(lab),
            Err(error @ LabError::NotAllowed(_)) => {
                crate::skip(test, &error.to_string());
                None
            }
            Err(error @ LabError::Failed(_)) => panic!("{error}"),
        }
    }

    /// Attaches a host directly to the internet, with an address of each family.
    pub fn host(&mut self, name: &str) -> Result<Host, LabError> {
        let namespace = Namespace::create(format!("{}{name}", self.prefix))?;
        let (_, addresses) = self.attach(&namespace, "eth0", Families::Both)?;
        Ok(Host { namespace, name: name.to_owned(), addresses })
    }

    /// Attaches a router with an empty LAN behind it.
    pub fn site(&mut self, name: &str, kind: Router, families: Families) -> Result<Site, LabError> {
        let router = Namespace::create(format!("{}{name}", self.prefix))?;
        make_router(&router)?;
        router.nft(&kind.rules())?;
        let (number, public) = self.attach(&router, "wan", families)?;
        router.ip("link add lan type bridge\nlink set lan up\n")?;
        let site = Site { router, number, kind, families, subnet: number, hosts: 1, public };
        if !kind.translates() && families.v4() {
            let via = public_v4(number, 2);
            self.internet.ip(&format!("route add 198.51.100.{}/28 via {via}\n", 16 * number))?;
        }
        if families.v6() {
            let via = public_v6(number, 2);
            self.internet.ip(&format!("route add {}/64 via {via}\n", site.inside_v6(0)))?;
        }
        Ok(site)
    }

    /// Puts a host on a site's LAN.
    pub fn client(&self, site: &mut Site, name: &str) -> Result<Host, LabError> {
        let namespace = Namespace::create(format!("{}{name}", self.prefix))?;
        let first = site.hosts == 1;
        site.hosts += 1;
        let number = site.hosts;
        let mut addresses = Vec::new();
        let (mut inside, mut outside) = (String::new(), String::new());
        if site.families.v4() {
            let ((gateway, bits), (own, _)) = (site.inside_v4(1), site.inside_v4(number));
            inside += &format!("address add {own}/{bits} dev eth0\nroute add default via {gateway}\n");
            outside += &format!("address add {gateway}/{bits} dev lan\n");
            addresses.push(own.into());
        }
        if site.families.v6() {
            let (gateway, own) = (site.inside_v6(1), site.inside_v6(number));
            inside += &format!("address add {own}/64 dev eth0 nodad\nroute add ::/0 via {gateway}\n");
            outside += &format!("address add {gateway}/64 dev lan nodad\n");
            addresses.push(own.into());
        }
        let router = &site.router;
        router.ip(&format!(
            "link add port{number} type veth peer name eth0 netns {}\nlink set port{number} master lan up\n",
            namespace.name
        ))?;
        if first {
            router.ip(&outside)?;
        }
        namespace.ip(&format!("link set eth0 up\n{inside}"))?;
        Ok(Host { namespace, name: name.to_owned(), addresses })
    }

    /// Draws the next link of the internet to `namespace`, whose end is called `device`.
    fn attach(&mut self, namespace: &Namespace, device: &str, families: Families) -> io::Result<(u8, Vec<IpAddr>)> {
        self.links += 1;
        let number = self.links;
        assert!(number < 16, "a lab has at most 15 links");
        let mut addresses: Vec<IpAddr> = Vec::new();
        let (mut near, mut far) = (String::new(), String::new());
        if families.v4() {
            let (gateway, own) = (public_v4(number, 1), public_v4(number, 2));
            near += &format!("address add {gateway}/30 dev link{number}\n");
            far += &format!("address add {own}/30 dev {device}\nroute add default via {gateway}\n");
            addresses.push(own.into());
        }
        if families.v6() {
            let (gateway, own) = (public_v6(number, 1), public_v6(number, 2));
            near += &format!("address add {gateway}/64 dev link{number} nodad\n");
            far += &format!("address add {own}/64 dev {device} nodad\nroute add ::/0 via {gateway}\n");
            addresses.push(own.into());
        }
        self.internet.ip(&format!(
            "link add link{number} type veth peer name {device} netns {}\nlink set link{number} up\n{near}",
            namespace.name
        ))?;
        namespace.ip(&format!("link set {device} up\n{far}"))?;
        Ok((number, addresses))
    }
}

fn public_v4(link: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, 4 * link + host)
}

fn public_v6(link: u8, host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, u16::from(link), 0, 0, 0, u16::from(host))
}

pub(crate) fn make_router(namespace: &Namespace) -> io::Result<()> {
    namespace.sysctl("net/ipv4/ip_forward", "1")?;
    namespace.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    // Exists only where bridges are filtered, which would let a router's rules judge what its LAN says to itself.
    let _ = namespace.sysctl("net/bridge/bridge-nf-call-iptables", "0");
    Ok(())
}

/// What the names of a new lab's namespaces begin with. The first lab of a process removes what dead ones left.
pub(crate) fn new_prefix() -> Result<String, LabError> {
    static LABS: AtomicU32 = AtomicU32::new(0);
    static LEFTOVERS: OnceLock<Result<(), String>> = OnceLock::new();

    let removed = LEFTOVERS.get_or_init(|| remove_leftovers().map_err(|error| format!("ip: {error}")));
    removed.clone().map_err(LabError::NotAllowed)?;
    Ok(format!("{PREFIX}{}-{}-", process::id(), LABS.fetch_add(1, Ordering::Relaxed)))
}

/// Tries everything a lab needs on a namespace of its own, once in a process.
fn probe() -> Result<(), String> {
    let name = format!("{PREFIX}{}-probe-router", process::id());
    let explain = |error: io::Error| error.to_string();
    let _reaper = Reaper::watch(&name).map_err(explain)?;
    let router = Namespace::create(name).map_err(explain)?;
    router.ip("link add wan type veth peer name far\nlink add lan type bridge\n").map_err(explain)?;
    make_router(&router).map_err(explain)?;
    router.nft(&Router::MasqueradeRandom.rules()).map_err(explain)
}
