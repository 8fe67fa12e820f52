//! `Endpoint`: where listeners and connections come from.

use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{Mutex, PoisonError},
};

use holepunch::{ConnectOptions, Error, ErrorKind, Secret};
use pyo3::{prelude::*, types::PyString};

use crate::{
    agent::{self, Agent},
    arguments::{self, Bytes},
    connection::Connection,
    failure::{Result, closed},
    listener::{Kind, Listener},
    log,
    starting::{Connecting, Started, Wakeup},
    stream::Stream,
    wait::{self, Cancel, Timeout},
};

/// Where listeners and connections come from: sockets, servers and, unless told otherwise, a thread that keeps them alive.
///
/// `servers` is one server `host[:port]` or several (default: HOLEPUNCH_SERVER, else 127.0.0.1:20000); `bind` one local
/// address or several, at most one of each family (default: HOLEPUNCH_BIND, else any); `family` 4 or 6 to use only that;
/// `secret` at least 16 bytes that both peers know and the server does not. With `thread=False` the program calls
/// `process()` itself. For the classes of 2015: with `legacy=True` peers that speak their text protocol only may be
/// introduced, and calls fail with `LegacyPeerError`, whose `peer` says where it is; `prefer_port` is used where
/// `bind` leaves the port open and it is free. Methods may be called from any thread, several at once.
#[pyclass(module = "holepunch", frozen)]
pub(crate) struct Endpoint {
    inner: Mutex<Option<holepunch::Endpoint>>,
    wakeup: Option<Wakeup>,
}

impl Endpoint {
    /// Registers a listener, whose iteration gives connections of a kind.
    fn register(
        &self,
        py: Python<'_>,
        name: Option<String>,
        timeout: Option<f64>,
        cancel: Option<&Cancel>,
        kind: Kind,
    ) -> Result<Listener> {
        let endpoint = self.get()?;
        let listener =
            wait::once(py, timeout.try_into()?, cancel, move |_, wait| endpoint.listen(name.as_deref(), wait))?;
        Ok(Listener::new(listener, kind))
    }

    /// Runs one of the calls that connect.
    fn reach<T: Send + 'static>(
        &self,
        py: Python<'_>,
        limits: [Option<f64>; 2],
        cancel: Option<&Cancel>,
        call: impl FnOnce(&holepunch::Endpoint, &ConnectOptions) -> holepunch::Result<T> + Send + 'static,
    ) -> Result<T> {
        let endpoint = self.get()?;
        let options = options(limits)?;
        // The options carry both limits: the call needs no deadline of its own.
        wait::once(py, Timeout(None), cancel, move |cancel, _| match cancel {
            Some(cancel) => call(&endpoint, &options.cancel(cancel)),
            None => call(&endpoint, &options),
        })
    }

    fn get(&self) -> Result<holepunch::Endpoint> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(|| closed("endpoint"))
    }

    fn take(&self) -> Option<holepunch::Endpoint> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[pymethods]
impl Endpoint {
    #[new]
    #[pyo3(signature = (
        servers=None, *, bind=None, family=None, secret=None, thread=true, legacy=false, prefer_port=None,
        _wakeup=false
    ))]
    #[expect(clippy::too_many_arguments, reason = "the settings of an endpoint, each by its name")]
    fn new(
        py: Python<'_>,
        servers: Option<&Bound<'_, PyAny>>,
        bind: Option<&Bound<'_, PyAny>>,
        family: Option<u8>,
        secret: Option<&Bound<'_, PyAny>>,
        thread: bool,
        legacy: bool,
        prefer_port: Option<u16>,
        _wakeup: bool,
    ) -> Result<Self> {
        let builder = holepunch::Endpoint::builder().thread(thread).legacy(legacy);
        let mut builder = builder.prefer_port(prefer_port.unwrap_or(0)).on_log(log::callback(py)?);
        let wakeup = _wakeup.then(Wakeup::new).transpose()?;
        if let Some(wakeup) = wakeup.clone() {
            builder = builder.on_change(move || wakeup.tell());
        }
        if let Some(servers) = servers {
            builder = arguments::servers(servers)?.into_iter().fold(builder, |builder, server| builder.server(server));
        }
        if let Some(bind) = bind {
            builder = arguments::addresses(bind)?.into_iter().fold(builder, |builder, address| builder.bind(address));
        }
        builder = match family {
            None => builder,
            Some(4) => builder.ipv4_only(),
            Some(6) => builder.ipv6_only(),
            Some(other) => {
                let message = format!("{other} is no address family");
                return Err(Error::new(ErrorKind::InvalidArgument, message).with_hint("the family is 4 or 6").into());
            }
        };
        if let Some(secret) = secret {
            let secret = match secret.cast::<PyString>() {
                Ok(text) => Secret::new(text.to_cow()?.into_owned())?,
                Err(_) => Secret::new(Bytes::new(secret)?.as_slice())?,
            };
            builder = builder.secret(secret);
        }
        let endpoint = py.detach(|| builder.build())?;
        Ok(Self { inner: Mutex::new(Some(endpoint)), wakeup })
    }

    /// Registers a listener and returns when a server has it. Iterating it gives streams.
    ///
    /// Without a name it is found by its public address. `timeout` is in seconds; None waits for ever.
    #[pyo3(
        signature = (name=None, *, timeout=Some(30.0), cancel=None),
        text_signature = "($self, name=None, *, timeout=30.0, cancel=None)"
    )]
    fn listen(
        &self,
        py: Python<'_>,
        name: Option<String>,
        timeout: Option<f64>,
        cancel: Option<&Cancel>,
    ) -> Result<Listener> {
        self.register(py, name, timeout, cancel, Kind::Streams)
    }

    /// As `listen`, but iterating the listener gives connections for datagrams.
    #[pyo3(
        signature = (name=None, *, timeout=Some(30.0), cancel=None),
        text_signature = "($self, name=None, *, timeout=30.0, cancel=None)"
    )]
    fn listen_datagram(
        &self,
        py: Python<'_>,
        name: Option<String>,
        timeout: Option<f64>,
        cancel: Option<&Cancel>,
    ) -> Result<Listener> {
        self.register(py, name, timeout, cancel, Kind::Datagrams)
    }

    /// Connects to a listener, for a stream of bytes. An IP address is an address, anything else a name.
    ///
    /// Asks for the listener for `wait` seconds (0 asks once), then gives the two peers `timeout` seconds to meet.
    #[pyo3(
        signature = (target, *, wait=Some(10.0), timeout=Some(30.0), cancel=None),
        text_signature = "($self, target, *, wait=10.0, timeout=30.0, cancel=None)"
    )]
    fn connect(
        &self,
        py: Python<'_>,
        target: String,
        wait: Option<f64>,
        timeout: Option<f64>,
        cancel: Option<&Cancel>,
    ) -> Result<Stream> {
        let call = move |endpoint: &holepunch::Endpoint, options: &ConnectOptions| endpoint.connect(&target, options);
        Ok(Stream::new(self.reach(py, [wait, timeout], cancel, call)?))
    }

    /// As `connect`, but for datagrams.
    #[pyo3(
        signature = (target, *, wait=Some(10.0), timeout=Some(30.0), cancel=None),
        text_signature = "($self, target, *, wait=10.0, timeout=30.0, cancel=None)"
    )]
    fn connect_datagram(
        &self,
        py: Python<'_>,
        target: String,
        wait: Option<f64>,
        timeout: Option<f64>,
        cancel: Option<&Cancel>,
    ) -> Result<Connection> {
        let call =
            move |endpoint: &holepunch::Endpoint, options: &ConnectOptions| endpoint.connect_datagram(&target, options);
        Ok(Connection::new(self.reach(py, [wait, timeout], cancel, call)?))
    }

    /// Begins a negotiation of ICE with signalling of the program's own.
    ///
    /// `role` is "controlling" or "controlled", the opposite of the peer's; `stun_servers` one server `host[:port]` or
    /// several (port 3478 unless told), asked for our mapped addresses; the two have `timeout` seconds from the moment
    /// on that the peer's credentials are known. Waits only to look up names, at most 10 seconds.
    #[pyo3(
        signature = (role, *, stun_servers=None, timeout=Some(30.0), cancel=None),
        text_signature = "($self, role, *, stun_servers=None, timeout=30.0, cancel=None)"
    )]
    fn agent(
        &self,
        py: Python<'_>,
        role: &str,
        stun_servers: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
        cancel: Option<&Cancel>,
    ) -> Result<Agent> {
        let endpoint = self.get()?;
        let role = agent::role(role)?;
        let servers = stun_servers.map(arguments::servers).transpose()?.unwrap_or_default();
        let options = agent::options(servers, timeout)?;
        let agent = wait::once(py, Timeout(None), cancel, move |cancel, _| match cancel {
            Some(cancel) => endpoint.agent(role, &options.cancel(cancel)),
            None => endpoint.agent(role, &options),
        })?;
        Ok(Agent::new(agent))
    }

    /// Starts to connect. Waits only to look up names, and then `cancel` ends the wait.
    #[pyo3(signature = (target, datagrams, wait, timeout, cancel=None))]
    fn _start_connect(
        &self,
        py: Python<'_>,
        target: &str,
        datagrams: bool,
        wait: Option<f64>,
        timeout: Option<f64>,
        cancel: Option<&Cancel>,
    ) -> Result<Connecting> {
        let endpoint = self.get()?;
        let mut options = options([wait, timeout])?;
        if let Some(cancel) = cancel {
            options = options.cancel(&cancel.0);
        }
        let started = py.detach(move || match datagrams {
            true => endpoint.start_connect_datagram(target, &options).map(Started::Datagrams),
            false => endpoint.start_connect(target, &options).map(Started::Stream),
        })?;
        Ok(Connecting::new(started))
    }

    /// Starts to register a listener. Waits only to look up names, and then `cancel` ends the wait.
    #[pyo3(signature = (name, datagrams, timeout, cancel=None))]
    fn _start_listen(
        &self,
        py: Python<'_>,
        name: Option<&str>,
        datagrams: bool,
        timeout: Option<f64>,
        cancel: Option<&Cancel>,
    ) -> Result<Listener> {
        let endpoint = self.get()?;
        let wait = wait::wait(Timeout::try_from(timeout)?.0, cancel.map(|cancel| &cancel.0));
        let listener = py.detach(move || endpoint.start_listen(name, wait))?;
        Ok(Listener::new(listener, if datagrams { Kind::Datagrams } else { Kind::Streams }))
    }

    /// Closes all that came from it, and does not wait for the peers to know; `close` does.
    fn _end(&self, py: Python<'_>) {
        if let Ok(endpoint) = self.get() {
            py.detach(move || endpoint.close());
        }
    }

    /// Whether starting something may wait for the system's resolver.
    fn _looks_up_names(&self) -> Result<bool> {
        Ok(self.get()?.looks_up_names())
    }

    /// A descriptor that is readable when what was started is worth a look; -1 where none was asked for.
    fn _wakeup_fileno(&self) -> i32 {
        self.wakeup.as_ref().map_or(-1, Wakeup::fileno)
    }

    /// Makes that descriptor unreadable again. Look at what was started after this.
    fn _clear_wakeup(&self) {
        self.wakeup.iter().for_each(Wakeup::clear);
    }

    /// Does everything that is due, without blocking. Needed only with `thread=False`: when the descriptor is readable, and after `next_timeout()`.
    fn process(&self, py: Python<'_>) -> Result<()> {
        let endpoint = self.get()?;
        Ok(py.detach(move || endpoint.process())?)
    }

    /// Seconds until `process()` is due although the descriptor is not readable; None: never.
    fn next_timeout(&self) -> Result<Option<f64>> {
        Ok(self.get()?.next_timeout().map(|time| time.as_secs_f64()))
    }

    /// A descriptor that is readable when `process()` is due; -1 once closed.
    fn fileno(&self) -> i32 {
        self.get().map_or(-1, |endpoint| endpoint.as_fd().as_raw_fd())
    }

    /// Closes the endpoint with all that came from it. Blocked calls fail with `ClosedError`. Any thread, any time, any number of times.
    fn close(&self, py: Python<'_>) -> Result<()> {
        let Some(endpoint) = self.take() else { return Ok(()) };
        py.detach(|| endpoint.close());
        wait::dispose(py, endpoint)
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) -> Result<()> {
        self.close(py)
    }

    fn __repr__(&self) -> &'static str {
        if self.get().is_ok() { "<holepunch.Endpoint>" } else { "<holepunch.Endpoint closed>" }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        without_lock(self.take());
    }
}

/// What a connect may take: to ask for the listener, and to meet it.
fn options([wait, timeout]: [Option<f64>; 2]) -> Result<ConnectOptions> {
    Ok(ConnectOptions::default()
        .wait(Timeout::try_from(wait)?.or_century())
        .timeout(Timeout::try_from(timeout)?.or_century()))
}

/// Drops what may join a thread or use the network, without the interpreter's lock where there still is an interpreter.
pub(crate) fn without_lock<T: Send>(value: Option<T>) {
    let mut value = value;
    if value.is_some() {
        let taken = &mut value;
        let _ = Python::try_attach(|py| py.detach(move || *taken = None));
    }
}
