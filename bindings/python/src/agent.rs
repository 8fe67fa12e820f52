//! `Agent`: one negotiation of ICE with signalling of the program's own.

use std::sync::{Arc, Mutex, PoisonError};

use holepunch::{AgentOptions, Error, ErrorKind, Wait, punch::Role};
use pyo3::prelude::*;

use crate::{
    connection::Connection,
    endpoint::without_lock,
    failure::{Result, closed},
    wait::{self, Cancel},
};

/// One negotiation of ICE with signalling of the program's own, from `Endpoint.agent`; the peer may be any agent of ICE.
///
/// What the peer is to be told comes out: `ufrag`, `password` and `next_candidate` (or iterate the agent), or
/// `local_description` at once. What the peer said goes in, in whatever order: `set_remote` and `add_remote_candidate`,
/// or `set_remote_description`. Then `connect` waits for the connection, which is like any other, save that the peer is
/// not told of its end: it notices within 30 seconds. Closing the agent leaves the connection open. Methods may be
/// called from any thread, several at once.
#[pyclass(module = "holepunch", frozen)]
pub(crate) struct Agent {
    inner: Mutex<Option<Arc<holepunch::Agent>>>,
    ufrag: String,
    password: String,
    session: String,
}

impl Agent {
    pub(crate) fn new(agent: holepunch::Agent) -> Self {
        let (ufrag, password) = (agent.ufrag().to_owned(), agent.password().to_owned());
        let session = agent.session().0.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { inner: Mutex::new(Some(Arc::new(agent))), ufrag, password, session }
    }

    fn get(&self) -> Result<Arc<holepunch::Agent>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(|| closed("agent"))
    }

    fn take(&self) -> Option<Arc<holepunch::Agent>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Runs a call that waits. The negotiation's own end of time looks like the call's, so it is not cut into slices.
    fn wait<T: Send + 'static>(
        &self,
        py: Python<'_>,
        timeout: Option<f64>,
        cancel: Option<&Cancel>,
        call: impl FnOnce(&holepunch::Agent, Wait) -> holepunch::Result<T> + Send + 'static,
    ) -> Result<T> {
        let agent = self.get()?;
        wait::once(py, timeout.try_into()?, cancel, move |_, wait| call(&agent, wait))
    }

    /// Asks without waiting; `None` while it is not known.
    fn poll<T: Send>(
        &self,
        py: Python<'_>,
        ask: impl FnOnce(&holepunch::Agent) -> Option<holepunch::Result<T>> + Send,
    ) -> Result<Option<T>> {
        let agent = self.get()?;
        Ok(py.detach(move || ask(&agent)).transpose()?)
    }

    /// Runs a call that does not wait.
    fn tell(&self, py: Python<'_>, call: impl FnOnce(&holepunch::Agent) -> holepunch::Result<()> + Send) -> Result<()> {
        let agent = self.get()?;
        Ok(py.detach(move || call(&agent))?)
    }
}

#[pymethods]
impl Agent {
    /// Our username fragment, for the peer.
    #[getter]
    fn ufrag(&self) -> &str {
        &self.ufrag
    }

    /// Our password, for the peer and nobody else.
    #[getter]
    fn password(&self) -> &str {
        &self.password
    }

    /// The number that log records call the session by.
    #[getter]
    fn session(&self) -> &str {
        &self.session
    }

    /// Waits for the next of our candidates, a line `candidate:...`; None when there are no more. Each is given once.
    #[pyo3(signature = (timeout=None, *, cancel=None))]
    fn next_candidate(&self, py: Python<'_>, timeout: Option<f64>, cancel: Option<&Cancel>) -> Result<Option<String>> {
        self.wait(py, timeout, cancel, holepunch::Agent::next_candidate)
    }

    /// Waits until all our candidates are known; returns them with the credentials as lines of SDP, the same each time.
    #[pyo3(signature = (timeout=None, *, cancel=None))]
    fn local_description(&self, py: Python<'_>, timeout: Option<f64>, cancel: Option<&Cancel>) -> Result<String> {
        self.wait(py, timeout, cancel, holepunch::Agent::local_description)
    }

    /// Tells the peer's credentials; checks begin. To tell the same again changes nothing.
    fn set_remote(&self, py: Python<'_>, ufrag: &str, password: &str) -> Result<()> {
        self.tell(py, |agent| agent.set_remote(ufrag, password))
    }

    /// Tells a candidate of the peer, a line of SDP with or without `a=` and `candidate:`; an empty one ends them.
    fn add_remote_candidate(&self, py: Python<'_>, line: &str) -> Result<()> {
        self.tell(py, |agent| agent.add_remote_candidate(line))
    }

    /// Tells that these were all candidates of the peer.
    fn end_of_candidates(&self, py: Python<'_>) -> Result<()> {
        self.tell(py, holepunch::Agent::end_of_candidates)
    }

    /// Tells the peer's credentials and candidates, found among lines of SDP. A peer of ICE lite leaves the choice to us: for
    /// it the agent must be controlling.
    fn set_remote_description(&self, py: Python<'_>, text: &str) -> Result<()> {
        self.tell(py, |agent| agent.set_remote_description(text))
    }

    /// Waits for the connection, which is given once. After a timeout of the call it may be waited for again.
    #[pyo3(signature = (timeout=None, *, cancel=None))]
    fn connect(&self, py: Python<'_>, timeout: Option<f64>, cancel: Option<&Cancel>) -> Result<Connection> {
        Ok(Connection::new(self.wait(py, timeout, cancel, holepunch::Agent::connect)?))
    }

    /// As `next_candidate`, without waiting: None while it is not known, "" when there are no more.
    fn _poll_candidate(&self, py: Python<'_>) -> Result<Option<String>> {
        Ok(self.poll(py, holepunch::Agent::poll_candidate)?.map(Option::unwrap_or_default))
    }

    /// As `local_description`, without waiting: None while it is not known.
    fn _poll_description(&self, py: Python<'_>) -> Result<Option<String>> {
        self.poll(py, holepunch::Agent::poll_description)
    }

    /// As `connect`, without waiting: None while it is not known.
    fn _poll_connect(&self, py: Python<'_>) -> Result<Option<Connection>> {
        Ok(self.poll(py, holepunch::Agent::poll_connect)?.map(Connection::new))
    }

    /// Gives the negotiation up; a connection that it gave lives on. Blocked calls fail with `ClosedError`.
    ///
    /// Any thread, any time, any number of times.
    fn close(&self, py: Python<'_>) -> Result<()> {
        let Some(agent) = self.take() else { return Ok(()) };
        py.detach(|| agent.close());
        wait::dispose(py, agent)
    }

    /// As `close`, in this thread: quick while the endpoint is held otherwise.
    fn _close(&self, py: Python<'_>) {
        if let Some(agent) = self.take() {
            py.detach(move || {
                agent.close();
                drop(agent);
            });
        }
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> Result<Option<String>> {
        self.next_candidate(py, None, None)
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) -> Result<()> {
        self.close(py)
    }

    fn __repr__(&self) -> String {
        format!("<holepunch.Agent {}{}>", self.ufrag, if self.get().is_ok() { "" } else { " closed" })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        without_lock(self.take());
    }
}

/// A role by its name.
pub(crate) fn role(name: &str) -> Result<Role> {
    [Role::Controlling, Role::Controlled].into_iter().find(|role| role.name() == name).ok_or_else(|| {
        Error::new(ErrorKind::InvalidArgument, format!("{name:?} is no role"))
            .with_hint("the role is \"controlling\" or \"controlled\"")
            .into()
    })
}

/// What an agent asks, and how long it may take.
pub(crate) fn options(servers: Vec<String>, timeout: Option<f64>) -> Result<AgentOptions> {
    let options = AgentOptions::default().timeout(wait::Timeout::try_from(timeout)?.or_century());
    Ok(servers.into_iter().fold(options, AgentOptions::stun_server))
}
