//! `holepunch server`.

use std::sync::Arc;

use super::{Context, arguments::ServerArguments, settings};
use crate::{
    Result,
    machine::Level,
    server::{RendezvousServer, raise_descriptor_limit},
};

/// Runs the server until a signal ends it, which is a success.
pub(super) fn serve(arguments: ServerArguments, context: &Context<'_>) -> Result<()> {
    let mut options = settings::server(arguments, context.environment)?;
    let report = Arc::clone(&context.report);
    options.log = Some(Box::new(move |level, text| report.log(level, text)));
    if let Err(error) = raise_descriptor_limit() {
        context.report.log(Level::Warn, &format!("the limit of descriptors, and so of TCP clients, stays: {error}"));
    }
    let server = RendezvousServer::bind(options)?;
    let tcp = server.tcp_addresses();
    let handle = server.handle();
    context.signals.on_signal(move || handle.stop());
    let (main, alternate) = (server.local_addresses(), server.alternate_addresses());
    let list = |addresses: &[std::net::SocketAddr]| {
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
    };
    context
        .report
        .event("listening", |object| object.strings("tcp", &tcp).strings("udp", main).strings("alternate", alternate));
    context.report.line(&format!("listening on UDP and TCP {}", list(main)));
    if !alternate.is_empty() {
        context.report.line(&format!("answering from another port (RFC 5780) on UDP {}", list(alternate)));
    }
    server.run()
}
