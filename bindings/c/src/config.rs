//! The configuration of an endpoint: a struct that may grow, with lists and texts, read without trust.

use std::{
    ffi::{c_char, c_void},
    mem::{offset_of, size_of},
    net::{IpAddr, SocketAddr},
    ptr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    thread::{self, ThreadId},
};

use holepunch_core::{Endpoint, EndpointBuilder, Error, ErrorKind, Result, machine::Level, rendezvous::keys::Secret};

use crate::{
    error::{c_string, holepunch_error_t},
    guard,
    sized_struct::{self, SizedStruct},
};

/// Use IPv4 and IPv6.
pub const HOLEPUNCH_FAMILY_ANY: i32 = 0;
/// Use IPv4 only.
pub const HOLEPUNCH_FAMILY_IPV4: i32 = 4;
/// Use IPv6 only.
pub const HOLEPUNCH_FAMILY_IPV6: i32 = 6;

/// Log level: something failed that the user must know.
pub const HOLEPUNCH_LOG_ERROR: i32 = 1;
/// Log level: something is odd, and was dealt with.
pub const HOLEPUNCH_LOG_WARN: i32 = 2;
/// Log level: a step that a user follows.
pub const HOLEPUNCH_LOG_INFO: i32 = 3;
/// Log level: a step that a developer follows.
pub const HOLEPUNCH_LOG_DEBUG: i32 = 4;

const _: () = assert!(
    HOLEPUNCH_LOG_ERROR == Level::Error as i32
        && HOLEPUNCH_LOG_WARN == Level::Warn as i32
        && HOLEPUNCH_LOG_INFO == Level::Info as i32
        && HOLEPUNCH_LOG_DEBUG == Level::Debug as i32
);

/// Lists longer than this are a mistake and are not read.
const LIST_LIMIT: usize = 64;

/// Secrets longer than this are a mistake and are not read, in bytes.
const SECRET_LIMIT: usize = 65_536;

/// Takes a line of the log.
///
/// user is log_user of the configuration, level one of HOLEPUNCH_LOG_*, message one line of UTF-8 that is valid
/// during the call only. Secrets are never in it. It is called from any thread, one call at a time for each endpoint.
/// It must return soon and must not throw; calls within it that may wait for the same endpoint, and would, return
/// HOLEPUNCH_ERROR_INVALID_ARGUMENT.
pub type holepunch_log_t = Option<unsafe extern "C" fn(user: *mut c_void, level: i32, message: *const c_char)>;

/// What an endpoint is made with. Zero is the default of every field but size.
///
/// The endpoint copies what it needs: everything that is pointed to, except log_user, may be freed as soon as
/// holepunch_endpoint_new() has returned. Later versions append fields, so always set the size, with
/// holepunch_config_init() or with "holepunch_config_t config = { .size = sizeof config };".
#[repr(C)]
pub struct holepunch_config_t {
    /// sizeof(holepunch_config_t), as the caller's compiler sees it.
    pub size: usize,
    /// The rendezvous servers, each "host", "host:port" or "[IPv6]:port". Without any: the environment variable
    /// HOLEPUNCH_SERVER, several separated by commas, and without that 127.0.0.1:20000. A listener registers with
    /// all, a connector asks them in this order.
    pub servers: *const *const c_char,
    /// How many servers there are.
    pub servers_len: usize,
    /// The local addresses to bind, at most one of each family, each "address", "address:port" or "[IPv6]:port"; port
    /// 0 or none leaves the choice to the system. Without any: HOLEPUNCH_BIND, and without that 0.0.0.0 and [::].
    pub bind: *const *const c_char,
    /// How many local addresses there are.
    pub bind_len: usize,
    /// What both peers know and the server must not: at least 16 bytes, or NULL for none.
    pub secret: *const u8,
    /// The length of the secret in bytes.
    pub secret_len: usize,
    /// Takes lines of the log; NULL for none. Never called again after holepunch_endpoint_free() has returned.
    pub log: holepunch_log_t,
    /// Given to log as it is, and never touched otherwise.
    pub log_user: *mut c_void,
    /// One of HOLEPUNCH_FAMILY_*.
    pub family: i32,
    /// 0: a thread of the endpoint drives it. 1: there is no thread, and the program itself calls
    /// holepunch_endpoint_process() whenever the endpoint's descriptor is readable or its timeout has passed.
    pub no_thread: u32,
}

// SAFETY: it is repr(C) and starts with its size; NULL is a value of every pointer, also of the function's.
unsafe impl SizedStruct for holepunch_config_t {
    const NAME: &'static str = "config";
    const FIRST_SIZE: usize = offset_of!(Self, no_thread) + size_of::<u32>();
    const DEFAULT: Self = Self {
        size: size_of::<Self>(),
        servers: ptr::null(),
        servers_len: 0,
        bind: ptr::null(),
        bind_len: 0,
        secret: ptr::null(),
        secret_len: 0,
        log: None,
        log_user: ptr::null_mut(),
        family: HOLEPUNCH_FAMILY_ANY,
        no_thread: 0,
    };
}

/// Sets every field to its default and size to the size given.
///
/// size is sizeof(holepunch_config_t) as the caller's compiler sees it. The struct stays the caller's.
///
/// Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, config is NULL or size cannot be right.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn holepunch_config_init(
    config: *mut holepunch_config_t,
    size: usize,
    error: *mut *mut holepunch_error_t,
) -> i32 {
    // SAFETY: `config` is NULL or has `size` writable bytes and `error` is NULL or writable, as the header asks.
    unsafe { guard::call_free_standing(error, || sized_struct::init(config, size)) }
}

/// Reads a configuration of C; NULL is all defaults.
///
/// # Safety
/// `config` is NULL or what the header asks for, with everything that it points to.
pub(crate) unsafe fn read(config: *const holepunch_config_t) -> Result<(EndpointBuilder, Arc<Log>)> {
    let log = Arc::new(Log::default());
    // SAFETY: the caller's promise is the one asked for.
    let config = unsafe { sized_struct::read(config) }?;
    // SAFETY: the same for what it points to.
    let builder = unsafe { apply(&config, Endpoint::builder(), &log) }?;
    Ok((builder, log))
}

unsafe fn apply(config: &holepunch_config_t, mut builder: EndpointBuilder, log: &Arc<Log>) -> Result<EndpointBuilder> {
    // SAFETY: the caller's promise about lists and their texts is the one asked for.
    for server in unsafe { texts(config.servers, config.servers_len, "servers") }? {
        builder = builder.server(server);
    }
    // SAFETY: as above.
    for address in unsafe { texts(config.bind, config.bind_len, "bind") }? {
        builder = builder.bind(bind_address(address)?);
    }
    builder = match config.family {
        HOLEPUNCH_FAMILY_ANY => builder,
        HOLEPUNCH_FAMILY_IPV4 => builder.ipv4_only(),
        HOLEPUNCH_FAMILY_IPV6 => builder.ipv6_only(),
        other => {
            return Err(Error::new(ErrorKind::InvalidArgument, format!("{other} is no family"))
                .with_hint("give one of HOLEPUNCH_FAMILY_*"));
        }
    };
    builder = match config.no_thread {
        0 => builder.thread(true),
        1 => builder.thread(false),
        other => return Err(Error::new(ErrorKind::InvalidArgument, format!("no_thread is {other}, not 0 or 1"))),
    };
    // SAFETY: the caller's promise about the secret is the one asked for.
    if let Some(secret) = unsafe { bytes(config.secret, config.secret_len, SECRET_LIMIT, "secret") }? {
        builder = builder.secret(Secret::new(secret)?);
    }
    if let Some(function) = config.log {
        log.set(Some(Sink { function, user: config.log_user }));
        let log = Arc::clone(log);
        builder = builder.on_log(move |level, message| log.line(level, message));
    }
    Ok(builder)
}

/// Reads a list of strings.
///
/// # Safety
/// `list` is NULL or has `length` entries, each NUL-terminated, that do not change while the result is used.
pub(crate) unsafe fn texts<'a>(list: *const *const c_char, length: usize, name: &str) -> Result<Vec<&'a str>> {
    // SAFETY: the caller's promise about the list is the one asked for.
    let list = unsafe { bytes(list, length, LIST_LIMIT, name) }?.unwrap_or_default();
    // SAFETY: the same for each of its texts.
    list.iter().enumerate().map(|(index, entry)| unsafe { guard::text(*entry, &format!("{name}[{index}]")) }).collect()
}

/// Reads an array; NULL with length 0 is none.
unsafe fn bytes<'a, T>(start: *const T, length: usize, most: usize, name: &str) -> Result<Option<&'a [T]>> {
    match (start.is_null(), length) {
        (true, 0) => Ok(None),
        (true, _) => Err(guard::null(name)),
        (false, _) if length > most => {
            Err(Error::new(ErrorKind::InvalidArgument, format!("{name}_len is {length}, more than {most}")))
        }
        // SAFETY: it is not NULL, so the caller says that there are so many.
        (false, _) => Ok(Some(unsafe { std::slice::from_raw_parts(start, length) })),
    }
}

/// Parses an address with or without port.
fn bind_address(text: &str) -> Result<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    text.parse::<SocketAddr>().or_else(|_| bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0))).map_err(|_| {
        Error::new(ErrorKind::InvalidArgument, format!("{text:?} is no local address"))
            .with_hint("give an IP address, with a port or without: 192.0.2.1, 192.0.2.1:4000, [2001:db8::1]:4000")
    })
}

/// The callback of C, for as long as the endpoint's handle lives.
///
/// The core may hold its end of this longer than C holds the endpoint; [`Log::end`] waits for a call that is under
/// way and lets no more through, so that `log_user` can be freed afterwards. Only one that ends it from within the call
/// does not wait for itself.
#[derive(Default)]
pub(crate) struct Log {
    sink: RwLock<Option<Sink>>,
    /// The thread that is in the callback, and whether that has ended the log. An endpoint's callbacks run one at a time.
    inside: Mutex<(Option<ThreadId>, bool)>,
}

struct Sink {
    function: unsafe extern "C" fn(user: *mut c_void, level: i32, message: *const c_char),
    user: *mut c_void,
}

// SAFETY: the header says that the function is called from any thread; `user` is only passed on.
unsafe impl Send for Sink {}
// SAFETY: as above.
unsafe impl Sync for Sink {}

impl Log {
    pub(crate) fn end(&self) {
        {
            let mut inside = self.inside();
            inside.1 = true;
            if inside.0 == Some(thread::current().id()) {
                return;
            }
        }
        self.set(None);
    }

    fn inside(&self) -> MutexGuard<'_, (Option<ThreadId>, bool)> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, sink: Option<Sink>) {
        *self.sink.write().unwrap_or_else(PoisonError::into_inner) = sink;
    }

    fn line(&self, level: Level, message: &str) {
        if let Some(sink) = &*self.sink.read().unwrap_or_else(PoisonError::into_inner) {
            let message = c_string(message);
            {
                let mut inside = self.inside();
                if inside.1 {
                    return;
                }
                inside.0 = Some(thread::current().id());
            }
            // SAFETY: the caller of C said so: a function that takes these.
            unsafe { (sink.function)(sink.user, level as i32, message.as_ptr()) }
            self.inside().0 = None;
        }
    }
}
