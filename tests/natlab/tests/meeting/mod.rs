//! The meeting of two commands in a model: it succeeds, or fails with its typed error.

use natlab::{Artefacts, Connected, Host, Model, Pair, Place, Rendezvous, Stream, field};
use std::{process::Command, time::Duration};

/// More than any step takes on a busy machine; every wait ends at once when the step is done.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server of the model, running.
pub(crate) fn serve(model: &mut Model) -> Result<Rendezvous, String> {
    let host = model.server().map_err(|error| error.to_string())?;
    Rendezvous::start(&Place::from(&host), &[])
}

/// The two commands, told to meet.
pub(crate) fn start(
    server: &Rendezvous,
    listener: (&Host, Command),
    connector: (&Host, Command),
    options: &[&str],
) -> Result<Pair, String> {
    let (bob, alice) = (Place::from(listener.0), Place::from(connector.0));
    Pair::start(server.address, (&bob, listener.1), (&alice, connector.1), options)
}

/// The command, twice, connects, does `then`, sends both ways, and ends: the listener's report and the connector's.
pub(crate) fn connects(
    server: &Rendezvous,
    listener: &Host,
    connector: &Host,
    options: &[&str],
    then: impl FnOnce(),
) -> Result<(Connected, Connected), String> {
    let command = || Artefacts::get().holepunch();
    let mut pair = start(server, (listener, command()), (connector, command()), options)?;
    let reports = pair.connected()?;
    then();
    pair.exchange("from the listener", "from the connector")?;
    pair.end()?;
    let transport = if options.contains(&"--tcp") { "tcp" } else { "udp" };
    for report in [&reports.0, &reports.1] {
        if field(&report.line, "transport") != Some(transport) {
            return Err(format!("connected over another transport: {}", report.line));
        }
    }
    Ok(reports)
}

/// The connector gives up with this kind of error and status, and says nothing on its output; the listener stays until
/// it is told to go.
pub(crate) fn fails(
    server: &Rendezvous,
    listener: &Host,
    connector: &Host,
    options: &[&str],
    (kind, status): (&str, i32),
) -> Result<(), String> {
    let command = || Artefacts::get().holepunch();
    let options = [options, &["--timeout", "3"]].concat();
    let mut pair = start(server, (listener, command()), (connector, command()), &options)?;
    let ended = pair.connector.wait(PATIENCE)?;
    let last = pair.connector.lines(Stream::Err).pop().unwrap_or_default();
    let said = [field(&last, "event"), field(&last, "kind")];
    if ended.code() != Some(status) || said != [Some("error"), Some(kind)] {
        return Err(format!("ended with {ended}, not {kind} and {status}:\n{}", pair.connector.transcript()));
    }
    if !pair.connector.lines(Stream::Out).is_empty() {
        return Err(format!("said something:\n{}", pair.connector.transcript()));
    }
    pair.listener.signal("INT").map_err(|error| error.to_string())?;
    match pair.listener.wait(PATIENCE)?.code() {
        Some(130) => Ok(()),
        code => Err(format!("the listener ended with {code:?}:\n{}", pair.listener.transcript())),
    }
}
