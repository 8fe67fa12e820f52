//! `natlab run`: a server and two clients for a command, behind Linux's routers or in the network model.

use natlab::{Families, Host, Lab, LabError, Model, Router};
use netsim::{Firewall, Link, Nat, UnsolicitedSyn, oracle::NatKind};
use std::{process::Command, time::Duration};

/// What stands before a client.
enum Border {
    Nothing,
    Linux(Router),
    Model(NatKind),
    /// The model's firewall.
    Wall,
}

impl Border {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::Nothing),
            "model-firewall" => Some(Self::Wall),
            _ => Router::parse(name).map(Self::Linux).or_else(|| {
                let kind = NatKind::all().into_iter().find(|kind| kind.name() == name);
                kind.map(Self::Model)
            }),
        }
    }

    fn is_modelled(&self) -> bool {
        matches!(self, Self::Model(_) | Self::Wall)
    }
}

/// What was asked for.
pub(crate) struct Plan<'a> {
    borders: [Border; 2],
    families: Families,
    /// The uplink of each client; none where nothing asks for the model.
    link: Option<Link>,
    unsolicited_syn: UnsolicitedSyn,
    hairpin: bool,
    lifetime: Option<Duration>,
    seed: u64,
    command: &'a [String],
}

impl<'a> Plan<'a> {
    /// Reads the arguments after the program's name; none for wrong usage.
    pub(crate) fn parse(arguments: &'a [String]) -> Option<Self> {
        let [verb, rest @ ..] = arguments else { return None };
        let middle = rest.iter().position(|argument| argument == "--")?;
        let (mut options, command) = (rest[..middle].iter(), &rest[middle + 1..]);
        if verb != "run" || command.is_empty() {
            return None;
        }
        let mut plan = Plan {
            borders: [Border::Linux(Router::Masquerade), Border::Linux(Router::Masquerade)],
            families: Families::V4,
            link: None,
            unsolicited_syn: UnsolicitedSyn::Drop,
            hairpin: false,
            lifetime: None,
            seed: 1,
            command,
        };
        while let Some(option) = options.next() {
            let mut number = |most: f64| -> Option<f64> {
                options.next()?.parse().ok().filter(|number| (0.0..=most).contains(number))
            };
            // An hour.
            const MOST_MS: f64 = 3_600_000.0;
            let millis = |number: f64| Duration::from_secs_f64(number / 1e3);
            match option.as_str() {
                "--left" => plan.borders[0] = Border::parse(options.next()?)?,
                "--right" => plan.borders[1] = Border::parse(options.next()?)?,
                "--ipv6" => plan.families = Families::V6,
                "--delay" => plan.link_mut().delay = millis(number(MOST_MS)?),
                "--jitter" => plan.link_mut().jitter = millis(number(MOST_MS)?),
                "--loss" => plan.link_mut().loss = number(100.0)? / 100.0,
                "--lifetime" => plan.lifetime = Some(millis(number(MOST_MS)? * 1e3)),
                "--seed" => plan.seed = options.next()?.parse().ok()?,
                "--reset" => plan.unsolicited_syn = UnsolicitedSyn::Reset,
                "--hairpin" => plan.hairpin = true,
                _ => return None,
            }
        }
        Some(plan)
    }

    fn link_mut(&mut self) -> &mut Link {
        self.link.get_or_insert_default()
    }

    /// Makes the lab, runs the command, and removes the lab; the command's status.
    pub(crate) fn run(&self) -> Result<u8, LabError> {
        if self.link.is_some() || self.borders.iter().any(Border::is_modelled) {
            let mut model = Model::new(self.seed)?;
            let server = model.server()?;
            let (left, right) = (self.modelled(&mut model, 0)?, self.modelled(&mut model, 1)?);
            return self.show(&server, &left, &right);
        }
        let mut lab = Lab::new()?;
        let server = lab.host("server")?;
        let (left, right) = (self.real(&mut lab, 0)?, self.real(&mut lab, 1)?);
        self.show(&server, &left, &right)
    }

    fn real(&self, lab: &mut Lab, side: usize) -> Result<Host, LabError> {
        let name = ["left", "right"][side];
        match &self.borders[side] {
            Border::Linux(router) => {
                let mut site = lab.site(&format!("{name}-router"), *router, self.families)?;
                lab.client(&mut site, name)
            }
            Border::Nothing | Border::Model(_) | Border::Wall => lab.host(name),
        }
    }

    fn modelled(&self, model: &mut Model, side: usize) -> Result<Host, LabError> {
        let (name, link) = (["left", "right"][side], self.link.unwrap_or_default());
        let home = match &self.borders[side] {
            Border::Nothing => model.open_home(name, self.families, link),
            Border::Linux(router) => model.linux_home(name, *router, self.families, link),
            Border::Wall => {
                let default = Firewall::default();
                let lifetime = self.lifetime.unwrap_or(default.lifetime);
                let firewall = Firewall { unsolicited_syn: self.unsolicited_syn, lifetime, ..default };
                model.firewall_home(name, firewall, self.families, link)
            }
            Border::Model(kind) => {
                let default = kind.nat();
                let lifetime = self.lifetime.unwrap_or(default.lifetime);
                let (unsolicited_syn, hairpin) = (self.unsolicited_syn, self.hairpin);
                model.nat_home(name, Nat { unsolicited_syn, hairpin, lifetime, ..default }, link)
            }
        };
        Ok(home?.host)
    }

    fn show(&self, server: &Host, left: &Host, right: &Host) -> Result<u8, LabError> {
        let address = if self.families == Families::V6 { server.ipv6() } else { Some(server.address()) };
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]);
        for (name, host) in [("NATLAB_SERVER", server), ("NATLAB_LEFT", left), ("NATLAB_RIGHT", right)] {
            command.env(name, host.namespace());
        }
        command.env("NATLAB_ADDRESS", address.map(|address| address.to_string()).unwrap_or_default());
        let status = command.status()?;
        // A command that died of a signal has no code; shells say 128 and more.
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(128))
    }
}
