//! The agent handle: one negotiation of ICE with signalling of the program's own.

use std::{
    ffi::{CString, c_char},
    mem::{offset_of, size_of},
    ptr,
};

use holepunch_core::{Agent, AgentOptions, Error, ErrorKind, Result, punch::Role};

use crate::{
    cancel::holepunch_cancel_t,
    config,
    connection::holepunch_connection_t,
    deadline,
    endpoint::holepunch_endpoint_t,
    error::{c_string, holepunch_error_t},
    guard::{self, Handle, Out, Poison},
    options::HOLEPUNCH_CONNECT_TIMEOUT_MS,
    sized_struct::{self, SizedStruct},
};

/// This side makes the choice of the path; the peer's agent must be controlled.
pub const HOLEPUNCH_ROLE_CONTROLLING: i32 = 1;
/// This side follows the peer's choice.
pub const HOLEPUNCH_ROLE_CONTROLLED: i32 = 2;

/// The room that a candidate line needs at most, its NUL included, in bytes.
pub const HOLEPUNCH_CANDIDATE_SIZE: usize = 256;
/// The room that a description needs at most, its NUL included, in bytes.
pub const HOLEPUNCH_DESCRIPTION_SIZE: usize = 16384;

/// One negotiation of ICE (RFC 8445) with signalling of the program's own: what the peer is to be told of this side comes
/// out, what the peer said goes in, in whatever order, and a connection comes of it. The peer may be any agent of ICE.
/// No rendezvous server takes part.
pub struct holepunch_agent_t {
    inner: Agent,
    ufrag: CString,
    password: CString,
    poison: Poison,
}

impl Handle for holepunch_agent_t {
    const NAME: &'static str = "agent";

    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// What an agent asks, and how long it may take.
///
/// Set it with holepunch_agent_options_init() and then change what is to differ. Later versions append fields, whose
/// default is zero. The struct is used only until the call returns.
#[repr(C)]
pub struct holepunch_agent_options_t {
    /// sizeof(holepunch_agent_options_t), as the caller's compiler sees it.
    pub size: usize,
    /// STUN servers that are asked for this side's mapped addresses: host, host:port, [IPv6] or [IPv6]:port; the port is
    /// 3478 unless told. At most 8. Default: NULL, none; then peers connect on one LAN.
    pub stun_servers: *const *const c_char,
    /// How many.
    pub stun_servers_len: usize,
    /// How long the two may take from the moment on that the peer's credentials are known. Default:
    /// HOLEPUNCH_CONNECT_TIMEOUT_MS.
    pub timeout_ms: i64,
}

// SAFETY: it is repr(C), starts with its size, and has only integers and pointers.
unsafe impl SizedStruct for holepunch_agent_options_t {
    const NAME: &'static str = "options";
    const FIRST_SIZE: usize = offset_of!(Self, timeout_ms) + size_of::<i64>();
    const DEFAULT: Self = Self {
        size: size_of::<Self>(),
        stun_servers: ptr::null(),
        stun_servers_len: 0,
        timeout_ms: HOLEPUNCH_CONNECT_TIMEOUT_MS,
    };
}

/// Sets every field to its default and size to the size given.
///
/// size is sizeof(holepunch_agent_options_t) as the caller's compiler sees it. The struct stays the caller's.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, options is NULL or size cannot be right.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_agent_options_init(
    options: *mut holepunch_agent_options_t,
    size: usize,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: `options` is NULL or has `size` writable bytes and `error` is NULL or writable, as the header asks.
    unsafe { guard::call_free_standing(error, || sized_struct::init(options, size)) }
}

/// Begins a negotiation whose signalling is the program's own. It binds to the endpoint's addresses, and asks none of its
/// rendezvous servers.
///
/// role is HOLEPUNCH_ROLE_CONTROLLING or HOLEPUNCH_ROLE_CONTROLLED, the opposite of the peer's. options may be NULL:
/// all defaults; cancel may be NULL. Blocks only to look up the names of STUN servers, for at most 10 seconds. On success
/// *agent belongs to the caller, who frees it with holepunch_agent_free(). That no socket can be bound is told by
/// the agent's calls.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, HOLEPUNCH_ERROR_UNRESOLVABLE, HOLEPUNCH_ERROR_CANCELLED,
/// HOLEPUNCH_ERROR_CLOSED, HOLEPUNCH_ERROR_FORKED; HOLEPUNCH_ERROR_UNSUPPORTED, the options have fields that this
/// library does not know.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_endpoint_agent(
    endpoint: *mut holepunch_endpoint_t,
    role: i32,
    options: *const holepunch_agent_options_t,
    cancel: *mut holepunch_cancel_t,
    agent: *mut *mut holepunch_agent_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(endpoint, error, |endpoint| {
            let out = Out::new(agent, "agent")?;
            let role = match role {
                HOLEPUNCH_ROLE_CONTROLLING => Role::Controlling,
                HOLEPUNCH_ROLE_CONTROLLED => Role::Controlled,
                other => {
                    return Err(Error::new(ErrorKind::InvalidArgument, format!("{other} is no role"))
                        .with_hint("give one of HOLEPUNCH_ROLE_*"));
                }
            };
            let given = sized_struct::read(options)?;
            let mut options = AgentOptions::default().timeout(deadline::bounded(given.timeout_ms, "timeout_ms")?);
            for server in config::texts(given.stun_servers, given.stun_servers_len, "stun_servers")? {
                options = options.stun_server(server);
            }
            if !cancel.is_null() {
                options = options.cancel(guard::share(cancel)?.inner());
            }
            let inner = endpoint.inner().agent(role, &options)?;
            let (ufrag, password) = (c_string(inner.ufrag()), c_string(inner.password()));
            out.set(guard::into_raw(holepunch_agent_t { inner, ufrag, password, poison: Poison::default() }));
            Ok(())
        })
    }
}

/// Gives this side's username fragment, to be told to the peer. It stays the agent's and is valid until
/// holepunch_agent_free().
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, agent or ufrag is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_agent_ufrag(
    agent: *mut holepunch_agent_t,
    ufrag: *mut *const c_char,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(agent, error, |agent| {
            Out::new(ufrag, "ufrag")?.set(agent.ufrag.as_ptr());
            Ok(())
        })
    }
}

/// Gives this side's password, to be told to the peer. It stays the agent's and is valid until holepunch_agent_free(). Who
/// knows it can pass for the peer.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, agent or password is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_agent_password(
    agent: *mut holepunch_agent_t,
    password: *mut *const c_char,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(agent, error, |agent| {
            Out::new(password, "password")?.set(agent.password.as_ptr());
            Ok(())
        })
    }
}

/// Waits for the next of this side's candidates and writes its line to the buffer, ended by NUL: "candidate:..." (RFC 8839
/// section 5.1). When there are no more the line is empty.
///
/// Each is given once: addresses of this host at once, mapped ones when the STUN servers have answered, at most 5
/// seconds later. capacity is at least HOLEPUNCH_CANDIDATE_SIZE. line stays the caller's; cancel may be NULL.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, HOLEPUNCH_ERROR_TIMEOUT, HOLEPUNCH_ERROR_CANCELLED,
/// HOLEPUNCH_ERROR_CLOSED, HOLEPUNCH_ERROR_FORKED; why the negotiation failed, as HOLEPUNCH_ERROR_ADDRESS_IN_USE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_agent_next_candidate(
    agent: *mut holepunch_agent_t,
    line: *mut c_char,
    capacity: usize,
    timeout_ms: i64,
    cancel: *mut holepunch_cancel_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(agent, error, |agent| {
            let out = Text::new(line, capacity, HOLEPUNCH_CANDIDATE_SIZE, "line")?;
            let found = agent.inner.next_candidate(deadline::wait(timeout_ms, cancel)?)?;
            out.set(&found.unwrap_or_default())
        })
    }
}

/// Waits until all of this side's candidates are known, and writes them with the credentials to the buffer as lines of
/// SDP, ended by NUL: the same each time, whatever holepunch_agent_next_candidate() gave.
///
/// capacity is at least HOLEPUNCH_DESCRIPTION_SIZE. text stays the caller's; cancel may be NULL.
///
/// Errors: those of holepunch_agent_next_candidate().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_agent_local_description(
    agent: *mut holepunch_agent_t,
    text: *mut c_char,
    capacity: usize,
    timeout_ms: i64,
    cancel: *mut holepunch_cancel_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(agent, error, |agent| {
            let out = Text::new(text, capacity, HOLEPUNCH_DESCRIPTION_SIZE, "text")?;
            out.set(&agent.inner.local_description(deadline::wait(timeout_ms, cancel)?)?)
        })
    }
}

/// Tells the peer's credentials; checks begin. To tell the same again changes nothing. Does not block.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, they cannot be anybody's; HOLEPUNCH_ERROR_UNSUPPORTED, they are others than
/// before (an ICE restart needs a new agent); HOLEPUNCH_ERROR_CLOSED; HOLEPUNCH_ERROR_FORKED; why the negotiation
/// failed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_agent_set_remote(
    agent: *mut holepunch_agent_t,
    ufrag: *const c_char,
    password: *const c_char,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(agent, error, |agent| {
            agent.inner.set_remote(guard::text(ufrag, "ufrag")?, guard::text(password, "password")?)
        })
    }
}

/// Tells a candidate of the peer: a line of SDP, with or without "a=" and "candidate:". Does not block.
///
/// One of TCP, of another component than 1, with a name instead of an address, or after the end of all, is left out. An
/// empty line is the end of all.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, it is no candidate; HOLEPUNCH_ERROR_CLOSED; HOLEPUNCH_ERROR_FORKED; why
/// the negotiation failed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_agent_add_remote_candidate(
    agent: *mut holepunch_agent_t,
    line: *const c_char,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe { guard::call(agent, error, |agent| agent.inner.add_remote_candidate(guard::text(line, "line")?)) }
}

/// Tells that these were all candidates of the peer; later ones are left out. Does not block.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, agent is NULL; HOLEPUNCH_ERROR_CLOSED; HOLEPUNCH_ERROR_FORKED; why the
/// negotiation failed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_agent_end_of_candidates(
    agent: *mut holepunch_agent_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: the handle is NULL or alive and `error` NULL or writable, as the header asks.
    unsafe { guard::call(agent, error, |agent| agent.inner.end_of_candidates()) }
}

/// Tells the peer's credentials and candidates, found among lines of SDP, of which all others are skipped. Candidates that
/// cannot be read are left out. Does not block.
///
/// Errors: those of holepunch_agent_set_remote(); HOLEPUNCH_ERROR_INVALID_ARGUMENT also where the peer is an agent of ICE
/// lite and this one is not controlling.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_agent_set_remote_description(
    agent: *mut holepunch_agent_t,
    text: *const c_char,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe { guard::call(agent, error, |agent| agent.inner.set_remote_description(guard::text(text, "text")?)) }
}

/// Waits for the connection, which is given once. After HOLEPUNCH_ERROR_TIMEOUT of timeout_ms itself it may be waited for
/// again.
///
/// It is like any other, save that the peer is not told of its end: holepunch_connection_end() returns
/// HOLEPUNCH_ERROR_UNSUPPORTED, and the other side notices that it was closed within 30 seconds (RFC 7675). cancel may be
/// NULL. On success *connection belongs to the caller, who frees it with holepunch_connection_free(); it lives on
/// when the agent is closed.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT; HOLEPUNCH_ERROR_TIMEOUT, also when the two have found no path in their
/// time; HOLEPUNCH_ERROR_CANCELLED, HOLEPUNCH_ERROR_ADDRESS_IN_USE, HOLEPUNCH_ERROR_IO, HOLEPUNCH_ERROR_CLOSED,
/// HOLEPUNCH_ERROR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_agent_connect(
    agent: *mut holepunch_agent_t,
    timeout_ms: i64,
    cancel: *mut holepunch_cancel_t,
    connection: *mut *mut holepunch_connection_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: every pointer is NULL or what the header asks for.
    unsafe {
        guard::call(agent, error, |agent| {
            let out = Out::new(connection, "connection")?;
            let connection = agent.inner.connect(deadline::wait(timeout_ms, cancel)?)?;
            out.set(guard::into_raw(holepunch_connection_t::new(connection)));
            Ok(())
        })
    }
}

/// Gives the negotiation up: blocked calls return HOLEPUNCH_ERROR_CLOSED within 100 ms. A connection that it gave lives
/// on. From any thread, at any time; closing again changes nothing.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, agent is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_agent_close(
    agent: *mut holepunch_agent_t,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: the handle is NULL or alive and `error` NULL or writable, as the header asks.
    unsafe {
        guard::call(agent, error, |agent| {
            agent.inner.close();
            Ok(())
        })
    }
}

/// Closes the agent, if it is not, and frees it. Calls on it must have returned. NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_agent_free(agent: *mut holepunch_agent_t) {
    // SAFETY: NULL or alive and not used again, as the header asks.
    unsafe { guard::free(agent, |agent| agent.inner.close()) }
}

/// A buffer of the caller's that a text is written to.
struct Text {
    start: *mut c_char,
    capacity: usize,
}

impl Text {
    /// Takes the buffer, which must have room for every text that may come.
    ///
    /// # Safety
    /// `start` is NULL or has `capacity` bytes that nobody else uses during the call.
    unsafe fn new(start: *mut c_char, capacity: usize, least: usize, name: &str) -> Result<Self> {
        if start.is_null() {
            return Err(guard::null(name));
        }
        if capacity < least {
            let text = format!("{name} has room for {capacity} bytes, and {least} may be needed");
            return Err(Error::new(ErrorKind::InvalidArgument, text).with_hint("give a larger buffer"));
        }
        Ok(Self { start, capacity })
    }

    fn set(self, text: &str) -> Result<()> {
        if text.len() >= self.capacity {
            let text = format!("{} bytes do not fit", text.len());
            return Err(Error::new(ErrorKind::MessageTooLarge, text).with_hint("give a larger buffer"));
        }
        // SAFETY: `new` was promised that there are `capacity` bytes, and that is more than the text's.
        unsafe {
            self.start.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
            self.start.add(text.len()).write(0);
        }
        Ok(())
    }
}
