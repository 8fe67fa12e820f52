//! What two ICE agents tell each other, as the text of SDP (RFC 8839): candidate lines, and whole descriptions.
//!
//! Read with tolerance, since programs carry these lines in many wrappings: with or without `a=` and `candidate:`, with
//! unknown extensions at the end, among lines of SDP that mean nothing to ICE. Written plainly. A candidate that is
//! well-formed but of no use here (of TCP, or with a name instead of an address, as browsers hide theirs by mDNS) is
//! told from one that is not a candidate at all. The work is bounded by the length of the text.

use alloc::{borrow::ToOwned as _, string::String, vec::Vec};
use core::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// The longest candidate line that is read, in bytes: several times what the longest address and all known extensions need.
pub const MAX_LINE: usize = 1024;

/// The longest description that is read, in bytes.
pub const MAX_DESCRIPTION: usize = 65_536;

/// How a candidate was learned, as its type is written (RFC 8839 section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CandidateType {
    /// `host`
    Host,
    /// `srflx`
    ServerReflexive,
    /// `prflx`
    PeerReflexive,
    /// `relay`
    Relayed,
}

impl CandidateType {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::ServerReflexive => "srflx",
            Self::PeerReflexive => "prflx",
            Self::Relayed => "relay",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Host, Self::ServerReflexive, Self::PeerReflexive, Self::Relayed]
            .into_iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(text))
    }
}

/// A candidate for UDP (RFC 8839 section 5.1). `Display` writes it without `a=`, as signalling of its own carries it.
///
/// ```
/// use holepunch::wire::sdp::Candidate;
///
/// let line = "candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host";
/// let candidate: Candidate = line.parse()?;
/// assert_eq!(candidate.address, "192.0.2.1:5000".parse()?);
/// assert_eq!(candidate.to_string(), line);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// 1 to 32 characters of `A-Z a-z 0-9 + /`; candidates of one kind, base and server share it.
    pub foundation: String,
    /// 1 to 256; with one component, or with RTP and RTCP on one port, 1.
    pub component: u16,
    /// RFC 8445 section 5.1.2.
    pub priority: u32,
    /// The address and port.
    pub address: SocketAddr,
    /// How it was learned.
    pub kind: CandidateType,
    /// The base, or for a relayed candidate the mapped address; for diagnosis alone.
    pub related: Option<SocketAddr>,
}

/// Why a line is no candidate to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CandidateError {
    /// It is no candidate line; the text says what is wrong.
    Malformed(&'static str),
    /// It is one, of a kind that is of no use here and may be ignored; the text says why.
    Unusable(&'static str),
}

impl fmt::Display for CandidateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) | Self::Unusable(what) => f.write_str(what),
        }
    }
}

impl core::error::Error for CandidateError {}

impl FromStr for Candidate {
    type Err = CandidateError;

    /// Parses a line, with or without `a=` and `candidate:`.
    fn from_str(line: &str) -> Result<Self, CandidateError> {
        use CandidateError::{Malformed, Unusable};
        if line.len() > MAX_LINE {
            return Err(Malformed("the line is too long"));
        }
        let line = line.trim();
        let line = strip_prefix(line, "a=").unwrap_or(line);
        let line = strip_prefix(line, "candidate:").unwrap_or(line);
        let mut words = line.split_ascii_whitespace();
        let mut next = || words.next().ok_or(Malformed("the line ends too early"));
        let foundation = next()?;
        if foundation.len() > 32 || !is_ice_chars(foundation) {
            return Err(Malformed("the foundation is not 1 to 32 characters of A-Z, a-z, 0-9, + and /"));
        }
        let component = number(next()?, 3).and_then(|component| u16::try_from(component).ok());
        let component = component.filter(|component| (1..=256).contains(component));
        let component = component.ok_or(Malformed("the component is no number from 1 to 256"))?;
        let transport = next()?;
        let priority = number(next()?, 10).filter(|priority| *priority != 0);
        let priority = priority.ok_or(Malformed("the priority is no number from 1 on"))?;
        let host = next()?;
        let port = number(next()?, 5).and_then(|port| u16::try_from(port).ok());
        let port = port.ok_or(Malformed("the port is no number up to 65535"))?;
        if !next()?.eq_ignore_ascii_case("typ") {
            return Err(Malformed("\"typ\" does not follow the port"));
        }
        let kind = next()?;
        if !transport.eq_ignore_ascii_case("udp") {
            return Err(Unusable("its transport is not UDP"));
        }
        let Ok(ip) = host.parse::<IpAddr>() else {
            return Err(Unusable("it has a name, and names are not looked up"));
        };
        let kind = CandidateType::parse(kind).ok_or(Unusable("its type is unknown"))?;
        if port == 0 {
            return Err(Unusable("its port is 0"));
        }
        // What follows are names with values, of which these two are known.
        let (mut related_ip, mut related_port) = (None, None);
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            if name.eq_ignore_ascii_case("raddr") {
                related_ip = value.parse::<IpAddr>().ok();
            } else if name.eq_ignore_ascii_case("rport") {
                related_port = number(value, 5).and_then(|port| u16::try_from(port).ok());
            }
        }
        let related = related_ip.zip(related_port).map(|(ip, port)| SocketAddr::new(ip, port));
        let address = SocketAddr::new(ip, port);
        Ok(Self { foundation: foundation.to_owned(), component, priority, address, kind, related })
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { foundation, component, priority, address, kind, related } = self;
        let (ip, port, kind) = (address.ip(), address.port(), kind.name());
        write!(f, "candidate:{foundation} {component} udp {priority} {ip} {port} typ {kind}")?;
        match related {
            Some(related) => write!(f, " raddr {} rport {}", related.ip(), related.port()),
            None => Ok(()),
        }
    }
}

/// What one agent tells the other: credentials, candidates, and whether those are all.
///
/// `Display` writes it as lines of SDP, each ended by a line feed.
#[derive(Clone, PartialEq, Eq)]
pub struct Description<'a> {
    /// The username fragment.
    pub ufrag: &'a str,
    /// The password.
    pub password: &'a str,
    /// Candidate lines, not parsed yet.
    pub candidates: Vec<&'a str>,
    /// No further candidate follows (RFC 8840).
    pub is_complete: bool,
    /// The agent answers checks and makes none (RFC 8445 section 2.5): the other one must be controlling.
    pub is_lite: bool,
}

impl<'a> Description<'a> {
    /// Finds these in a text: lines of SDP, each with `a=` or without, of which all others are skipped. Of several media
    /// sections the first counts, and what is said in it comes before what was said for all (RFC 8839 section 5.4).
    ///
    /// # Errors
    /// A text that says what is missing or wrong.
    pub fn parse(text: &'a str) -> Result<Self, &'static str> {
        if text.len() > MAX_DESCRIPTION {
            return Err("the description is too long");
        }
        let (mut ufrag, mut password) = (None, None);
        let mut for_all = None;
        let mut candidates = Vec::new();
        let (mut is_complete, mut is_lite) = (false, false);
        for line in text.lines().map(str::trim) {
            if strip_prefix(line, "m=").is_some() {
                if for_all.is_some() {
                    break;
                }
                for_all = Some((ufrag.take(), password.take()));
            }
            let line = strip_prefix(line, "a=").unwrap_or(line);
            if let Some(value) = strip_prefix(line, "ice-ufrag:") {
                ufrag = ufrag.or(Some(value));
            } else if let Some(value) = strip_prefix(line, "ice-pwd:") {
                password = password.or(Some(value));
            } else if strip_prefix(line, "candidate:").is_some() {
                candidates.push(line);
            } else if line.eq_ignore_ascii_case("end-of-candidates") {
                is_complete = true;
            } else if line.eq_ignore_ascii_case("ice-lite") {
                is_lite = true;
            }
        }
        let for_all = for_all.unwrap_or_default();
        let (ufrag, password) = (ufrag.or(for_all.0), password.or(for_all.1));
        let ufrag = ufrag.ok_or("the description has no ice-ufrag")?;
        let password = password.ok_or("the description has no ice-pwd")?;
        check_credentials(ufrag, password)?;
        Ok(Self { ufrag, password, candidates, is_complete, is_lite })
    }
}

impl fmt::Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_lite {
            writeln!(f, "a=ice-lite")?;
        }
        writeln!(f, "a=ice-ufrag:{}\na=ice-pwd:{}\na=ice-options:trickle", self.ufrag, self.password)?;
        for candidate in &self.candidates {
            writeln!(f, "a={candidate}")?;
        }
        if self.is_complete { writeln!(f, "a=end-of-candidates") } else { Ok(()) }
    }
}

impl fmt::Debug for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Description")
            .field("ufrag", &self.ufrag)
            .field("candidates", &self.candidates)
            .field("is_complete", &self.is_complete)
            .field("is_lite", &self.is_lite)
            .finish_non_exhaustive()
    }
}

/// Whether an agent may have such credentials (RFC 8839 section 5.4).
///
/// # Errors
/// A text that says what is wrong.
pub fn check_credentials(ufrag: &str, password: &str) -> Result<(), &'static str> {
    if !(4..=256).contains(&ufrag.len()) || !is_ice_chars(ufrag) {
        return Err("the username fragment is not 4 to 256 characters of A-Z, a-z, 0-9, + and /");
    }
    if !(22..=256).contains(&password.len()) || !is_ice_chars(password) {
        return Err("the password is not 22 to 256 characters of A-Z, a-z, 0-9, + and /");
    }
    Ok(())
}

/// RFC 8839 section 5.1's `1*ice-char`.
fn is_ice_chars(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

/// A number of so many digits at most, without a sign.
fn number(text: &str, most: usize) -> Option<u32> {
    let is_number = text.len() <= most && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

/// [`str::strip_prefix`], in whatever case.
fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, string::ToString as _, vec};
    use proptest::{prelude::*, test_runner::RngSeed};

    fn parse(line: &str) -> Result<Candidate, CandidateError> {
        line.parse()
    }

    #[test]
    fn lines_of_other_agents_are_read() {
        let libnice = parse("a=candidate:2 1 UDP 2015363327 192.0.2.1 40000 typ host").unwrap();
        assert_eq!((libnice.priority, libnice.kind), (2_015_363_327, CandidateType::Host));
        let aioice = parse("6815297761 1 udp 659136 2001:db8::7 31102 typ host generation 0").unwrap();
        assert_eq!(aioice.address, "[2001:db8::7]:31102".parse().unwrap());
        let chrome = "candidate:842163049 1 udp 1677729535 198.51.100.5 55708 typ srflx raddr 0.0.0.0 rport 0 generation 0 \
                      ufrag EsAw network-cost 999";
        let chrome = parse(chrome).unwrap();
        assert_eq!(chrome.related, Some("0.0.0.0:0".parse().unwrap()));
        assert_eq!(parse("candidate:1 2 udp 1 192.0.2.1 9 typ relay x").unwrap().component, 2);
    }

    #[test]
    fn what_is_of_no_use_is_told_from_what_is_wrong() {
        for unusable in [
            "candidate:1 1 tcp 1 192.0.2.1 9 typ host tcptype active",
            "candidate:1 1 udp 1 4bd30dd2-6e3d-4a4f-a1dc-5a3d8a4e3a5c.local 54321 typ host",
            "candidate:1 1 udp 1 192.0.2.1 0 typ host",
            "candidate:1 1 udp 1 192.0.2.1 9 typ odd",
        ] {
            assert!(matches!(parse(unusable), Err(CandidateError::Unusable(_))), "{unusable}");
        }
        let long = format!("candidate:1 1 udp 1 192.0.2.1 9 typ host{}", " x".repeat(MAX_LINE));
        for malformed in [
            "",
            "candidate:",
            "candidate:1 1 udp 1 192.0.2.1 9",
            "candidate:1 1 udp 1 192.0.2.1 9 host typ",
            "candidate:1 0 udp 1 192.0.2.1 9 typ host",
            "candidate:1 257 udp 1 192.0.2.1 9 typ host",
            "candidate:1 1 udp 0 192.0.2.1 9 typ host",
            "candidate:1 1 udp 4294967296 192.0.2.1 9 typ host",
            "candidate:1 1 udp +1 192.0.2.1 9 typ host",
            "candidate:1 1 udp 1 192.0.2.1 65536 typ host",
            "candidate:- 1 udp 1 192.0.2.1 9 typ host",
            "candidate:123456789012345678901234567890123 1 udp 1 192.0.2.1 9 typ host",
            &long,
        ] {
            assert!(matches!(parse(malformed), Err(CandidateError::Malformed(_))), "{malformed}");
        }
    }

    #[test]
    fn a_description_is_found_among_other_lines() {
        let text = "v=0\r\nm=- 40000 ICE/SDP\r\nc=IN IP4 192.0.2.1\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n\
                    a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\nice-ufrag:other\r\na=end-of-candidates\r\n";
        let found = Description::parse(text).unwrap();
        assert_eq!((found.ufrag, found.password), ("abcd", "0123456789012345678901"));
        assert_eq!(found.candidates, ["candidate:1 1 udp 1 192.0.2.1 9 typ host"]);
        assert!(found.is_complete);
        let again = found.to_string();
        assert_eq!(Description::parse(&again), Ok(found.clone()));
        assert!(!format!("{found:?}").contains("0123456789"), "passwords are not printed");
        let lite = format!("a=ice-lite\n{again}");
        let lite = Description::parse(&lite).unwrap();
        assert!(lite.is_lite && !found.is_lite && lite.to_string().starts_with("a=ice-lite\na=ice-ufrag:"));
        for wrong in
            ["", "a=ice-ufrag:abcd", "ice-ufrag:abc\nice-pwd:0123456789012345678901", "ice-ufrag:abcd\nice-pwd:1"]
        {
            assert!(Description::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Description::parse(&"\n".repeat(MAX_DESCRIPTION + 1)).is_err());
    }

    #[test]
    fn of_several_media_sections_the_first_counts() {
        let section =
            |ufrag: &str| format!("m=audio 9 X 0\na=ice-ufrag:{ufrag}\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\n");
        let text =
            format!("a=ice-ufrag:forall\na=ice-pwd:0123456789012345678901\n{}{}", section("first"), section("second"));
        let found = Description::parse(&text).unwrap();
        assert_eq!((found.ufrag, found.password, found.candidates.len()), ("first", "0123456789012345678901", 1));
        let only_for_all = text.replace("a=ice-ufrag:first\n", "");
        assert_eq!(Description::parse(&only_for_all).unwrap().ufrag, "forall");
    }

    fn any_candidate() -> impl Strategy<Value = Candidate> {
        let kinds = vec![
            CandidateType::Host,
            CandidateType::ServerReflexive,
            CandidateType::PeerReflexive,
            CandidateType::Relayed,
        ];
        let related = proptest::option::of((any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from));
        let parts = (
            "[A-Za-z0-9+/]{1,32}",
            1_u16..=256,
            1..=u32::MAX,
            any::<IpAddr>(),
            1..=u16::MAX,
            proptest::sample::select(kinds),
            related,
        );
        parts.prop_map(|(foundation, component, priority, ip, port, kind, related)| Candidate {
            foundation,
            component,
            priority,
            address: SocketAddr::new(ip, port),
            kind,
            related,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(8839), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read(candidate in any_candidate(), prefix in "(a=)?", extension in "( [a-z]{1,9} [!-~]{1,9}){0,3}") {
            prop_assume!(!extension.contains(" raddr ") && !extension.contains(" rport "));
            let line = format!("{prefix}{candidate}{extension}");
            prop_assert_eq!(parse(&line), Ok(candidate));
        }

        #[test]
        fn nothing_panics(text in any::<String>(), words in proptest::collection::vec("(candidate:)?[0-9a-z.:é]{0,12}", 0..20)) {
            let _ = parse(&text);
            let _ = parse(&words.join(" "));
            let _ = Description::parse(&text);
        }
    }
}
