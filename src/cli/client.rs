//! `holepunch client`: opens a connection as the package of 2015 did, says so, and closes it.

use std::{net::SocketAddr, sync::Arc};

use super::{
    Context,
    arguments::{ClientArguments, Protocol},
};
use crate::{Cancel, Result, Wait, legacy::Client, machine::Level, peer::Transport};

/// Opens and closes. stdin is not read.
pub(super) fn client(arguments: &ClientArguments, context: &Context<'_>) -> Result<()> {
    let cancel = Cancel::new()?;
    let on_signal = cancel.clone();
    context.signals.on_signal(move || on_signal.cancel());
    let report = Arc::clone(&context.report);
    let client = Client::new(arguments.server.as_deref(), arguments.bind.as_ref().map(SocketAddr::ip))?
        .on_log(move |level, text| report.record(level, text));
    let transport = match arguments.protocol {
        Protocol::Udp => Transport::Udp,
        Protocol::Tcp => Transport::Tcp,
    };
    let wait = arguments.timeout.map_or_else(Wait::forever, Wait::at_most).or_cancelled(&cancel);
    let progress = context.report.progress("waiting for a peer");
    let opened = client.open(arguments.destination.as_deref(), transport, &wait)?;
    drop(progress);
    drop(opened);
    context.report.record(Level::Info, "Close client socket");
    Ok(())
}
