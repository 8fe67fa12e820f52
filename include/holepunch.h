/*
 * holepunch: direct connections between two programs behind NATs or firewalls.
 *
 * Made by cbindgen from bindings/c/src; do not edit. License: MIT OR Apache-2.0.
 *
 * What all functions have in common
 *
 * Status. Every function but those that return a text, read an error or free something returns HOLEPUNCH_OK (0) or
 * one of HOLEPUNCH_ERROR_*. The numbers never change and are never reused; new ones may come.
 *
 * Errors. The last argument, "error", may be NULL. Else a call that fails writes a holepunch_error_t there, which the
 * caller frees with holepunch_error_free(); a call that succeeds leaves it alone. Nothing of an error is kept per
 * thread or anywhere else.
 *
 * Out-parameters come last and are written only on success.
 *
 * NULL. A pointer that must not be NULL, and is, gives HOLEPUNCH_ERROR_INVALID_ARGUMENT. The functions that free
 * ignore NULL.
 *
 * Text is UTF-8 that ends with NUL. What a call is given is copied or used only until it returns.
 *
 * Ownership. The caller owns every handle that it was given and frees each once with the function for its type, in
 * any order. Freeing also closes. Freeing the last of an endpoint and what it made blocks until the peers know of the
 * end, for at most 3 seconds. A descriptor that is shown stays the library's.
 *
 * Threads. Any function may be called on any handle from any threads at once. A close function wakes the calls that
 * are blocked on the handle; free it only after they have returned.
 *
 * Time. timeout_ms is in milliseconds: HOLEPUNCH_FOREVER (-1) waits as long as it takes, 0 does not wait. When it has
 * passed the call returns HOLEPUNCH_ERROR_TIMEOUT. A holepunch_cancel_t ends a blocking call from another thread.
 *
 * Fork. In the child of fork() every handle answers HOLEPUNCH_ERROR_FORKED. Descriptors are closed by exec.
 *
 * Unloading. dlclose() is allowed once every handle is freed. The library leaves memory when also the threads that
 * called it have ended; until then it only stays.
 *
 * Bugs. A panic within the library gives HOLEPUNCH_ERROR_POISONED, and so does every later call on that handle but
 * the one that frees it.
 *
 * The library installs no signal handlers, raises no SIGPIPE, changes no global state, and prints nothing, save the
 * message of a panic on stderr.
 */


#ifndef HOLEPUNCH_H
#define HOLEPUNCH_H


#include <stddef.h>
#include <stdint.h>

/* A socket as the system names it. */
#ifdef _WIN32
#include <winsock2.h>
typedef SOCKET holepunch_socket_t;
#else
#include <sys/socket.h>
typedef int holepunch_socket_t;
#endif

/**
 * The major version of this header.
 */
#define HOLEPUNCH_VERSION_MAJOR 0

/**
 * The minor version of this header.
 */
#define HOLEPUNCH_VERSION_MINOR 1

/**
 * The patch version of this header.
 */
#define HOLEPUNCH_VERSION_PATCH 0

/**
 * The call did what was asked.
 */
#define HOLEPUNCH_OK 0

/**
 * An argument cannot be right, whatever the network does.
 */
#define HOLEPUNCH_ERROR_INVALID_ARGUMENT 1

/**
 * The local address or port is in use by another program.
 */
#define HOLEPUNCH_ERROR_ADDRESS_IN_USE 2

/**
 * The operating system refused; the error carries its number.
 */
#define HOLEPUNCH_ERROR_IO 3

/**
 * The server's host name could not be resolved.
 */
#define HOLEPUNCH_ERROR_UNRESOLVABLE 4

/**
 * No route to the server, or the system refused to send to it.
 */
#define HOLEPUNCH_ERROR_SERVER_UNREACHABLE 5

/**
 * The server did not answer for 5 seconds.
 */
#define HOLEPUNCH_ERROR_SERVER_SILENT 6

/**
 * The server answered something that cannot be used, or is at one of its limits.
 */
#define HOLEPUNCH_ERROR_SERVER_REFUSED 7

/**
 * No listener of that name or address is registered.
 */
#define HOLEPUNCH_ERROR_NOT_FOUND 8

/**
 * Several unnamed listeners share the address.
 */
#define HOLEPUNCH_ERROR_AMBIGUOUS 9

/**
 * Another listener holds the name.
 */
#define HOLEPUNCH_ERROR_NAME_TAKEN 10

/**
 * The peer has another secret.
 */
#define HOLEPUNCH_ERROR_WRONG_SECRET 11

/**
 * The listener does not offer the transport asked for.
 */
#define HOLEPUNCH_ERROR_TRANSPORT_MISMATCH 12

/**
 * The other side speaks another version of the protocol.
 */
#define HOLEPUNCH_ERROR_VERSION_MISMATCH 13

/**
 * No direct path can exist between the two networks.
 */
#define HOLEPUNCH_ERROR_NO_PATH 14

/**
 * The deadline has passed.
 */
#define HOLEPUNCH_ERROR_TIMEOUT 15

/**
 * The operation was cancelled through its token.
 */
#define HOLEPUNCH_ERROR_CANCELLED 16

/**
 * The handle was closed, by this program or by an orderly end of the peer.
 */
#define HOLEPUNCH_ERROR_CLOSED 17

/**
 * The connected peer has answered nothing for 30 seconds (RFC 7675).
 */
#define HOLEPUNCH_ERROR_LOST 18

/**
 * The handle is not connected yet. Reserved: today's handles exist only when connected; for handles that are
 * opened before they connect, should there be such an interface.
 */
#define HOLEPUNCH_ERROR_NOT_CONNECTED 19

/**
 * The datagram is larger than the path carries.
 */
#define HOLEPUNCH_ERROR_MESSAGE_TOO_LARGE 20

/**
 * The handle was made before a fork and is used in the child.
 */
#define HOLEPUNCH_ERROR_FORKED 21

/**
 * A call on this handle panicked before; only freeing it is possible.
 */
#define HOLEPUNCH_ERROR_POISONED 22

/**
 * This build, or this version, cannot do it.
 */
#define HOLEPUNCH_ERROR_UNSUPPORTED 23

/**
 * A limit of this library was reached.
 */
#define HOLEPUNCH_ERROR_LIMIT_REACHED 24

/**
 * The peer speaks the text protocol of 2015 only. Reserved: endpoints of this library are not introduced to such
 * peers.
 */
#define HOLEPUNCH_ERROR_LEGACY_PEER 25

/**
 * Use IPv4 and IPv6.
 */
#define HOLEPUNCH_FAMILY_ANY 0

/**
 * Use IPv4 only.
 */
#define HOLEPUNCH_FAMILY_IPV4 4

/**
 * Use IPv6 only.
 */
#define HOLEPUNCH_FAMILY_IPV6 6

/**
 * Log level: something failed that the user must know.
 */
#define HOLEPUNCH_LOG_ERROR 1

/**
 * Log level: something is odd, and was dealt with.
 */
#define HOLEPUNCH_LOG_WARN 2

/**
 * Log level: a step that a user follows.
 */
#define HOLEPUNCH_LOG_INFO 3

/**
 * Log level: a step that a developer follows.
 */
#define HOLEPUNCH_LOG_DEBUG 4

/**
 * The default of wait_ms in holepunch_connect_options_t, in milliseconds.
 */
#define HOLEPUNCH_CONNECT_WAIT_MS 10000

/**
 * The default of timeout_ms in holepunch_connect_options_t, in milliseconds.
 */
#define HOLEPUNCH_CONNECT_TIMEOUT_MS 30000

/**
 * As a time limit: as long as it takes.
 */
#define HOLEPUNCH_FOREVER -1

/**
 * The largest datagram that can be sent, in bytes.
 */
#define HOLEPUNCH_MAX_DATAGRAM 1200

/**
 * This side makes the choice of the path; the peer's agent must be controlled.
 */
#define HOLEPUNCH_ROLE_CONTROLLING 1

/**
 * This side follows the peer's choice.
 */
#define HOLEPUNCH_ROLE_CONTROLLED 2

/**
 * The room that a candidate line needs at most, its NUL included, in bytes.
 */
#define HOLEPUNCH_CANDIDATE_SIZE 256

/**
 * The room that a description needs at most, its NUL included, in bytes.
 */
#define HOLEPUNCH_DESCRIPTION_SIZE 16384

/**
 * One negotiation of ICE (RFC 8445) with signalling of the program's own: what the peer is to be told of this side comes
 * out, what the peer said goes in, in whatever order, and a connection comes of it. The peer may be any agent of ICE.
 * No rendezvous server takes part.
 */
typedef struct holepunch_agent_t holepunch_agent_t;

/**
 * A token that stops blocking calls from another thread.
 *
 * It may be given to any number of calls, one after the other or at once. It is sticky: once cancelled, every call
 * that has it, and every later one, returns HOLEPUNCH_ERROR_CANCELLED. It closes nothing: the handles that were
 * waited on can be used again with another token.
 */
typedef struct holepunch_cancel_t holepunch_cancel_t;

/**
 * A direct path to one peer that carries datagrams: each arrives whole or not at all, in any order.
 */
typedef struct holepunch_connection_t holepunch_connection_t;

/**
 * Makes listeners and connections, and drives them: by a thread of its own, or by the program (see no_thread).
 */
typedef struct holepunch_endpoint_t holepunch_endpoint_t;

/**
 * What failed, to whom, and what to try.
 *
 * A failed call makes one and gives it to the caller, who frees it with holepunch_error_free(). It never changes,
 * so any threads may read it at once.
 */
typedef struct holepunch_error_t holepunch_error_t;

/**
 * A registration that peers find, and the peers that came to it. It accepts any number of peers.
 */
typedef struct holepunch_listener_t holepunch_listener_t;

/**
 * A direct path to one peer that carries a stream of bytes each way, complete and in order.
 */
typedef struct holepunch_stream_t holepunch_stream_t;

/**
 * Takes a line of the log.
 *
 * user is log_user of the configuration, level one of HOLEPUNCH_LOG_*, message one line of UTF-8 that is valid
 * during the call only. Secrets are never in it. It is called from any thread, one call at a time for each endpoint.
 * It must return soon and must not throw; calls within it that may wait for the same endpoint, and would, return
 * HOLEPUNCH_ERROR_INVALID_ARGUMENT.
 */
typedef void (*holepunch_log_t)(void *user, int32_t level, const char *message);

/**
 * What an endpoint is made with. Zero is the default of every field but size.
 *
 * The endpoint copies what it needs: everything that is pointed to, except log_user, may be freed as soon as
 * holepunch_endpoint_new() has returned. Later versions append fields, so always set the size, with
 * holepunch_config_init() or with "holepunch_config_t config = { .size = sizeof config };".
 */
typedef struct holepunch_config_t {
  /**
   * sizeof(holepunch_config_t), as the caller's compiler sees it.
   */
  size_t size;
  /**
   * The rendezvous servers, each "host", "host:port" or "[IPv6]:port". Without any: the environment variable
   * HOLEPUNCH_SERVER, several separated by commas, and without that 127.0.0.1:20000. A listener registers with
   * all, a connector asks them in this order.
   */
  const char *const *servers;
  /**
   * How many servers there are.
   */
  size_t servers_len;
  /**
   * The local addresses to bind, at most one of each family, each "address", "address:port" or "[IPv6]:port"; port
   * 0 or none leaves the choice to the system. Without any: HOLEPUNCH_BIND, and without that 0.0.0.0 and [::].
   */
  const char *const *bind;
  /**
   * How many local addresses there are.
   */
  size_t bind_len;
  /**
   * What both peers know and the server must not: at least 16 bytes, or NULL for none.
   */
  const uint8_t *secret;
  /**
   * The length of the secret in bytes.
   */
  size_t secret_len;
  /**
   * Takes lines of the log; NULL for none. Never called again after holepunch_endpoint_free() has returned.
   */
  holepunch_log_t log;
  /**
   * Given to log as it is, and never touched otherwise.
   */
  void *log_user;
  /**
   * One of HOLEPUNCH_FAMILY_*.
   */
  int32_t family;
  /**
   * 0: a thread of the endpoint drives it. 1: there is no thread, and the program itself calls
   * holepunch_endpoint_process() whenever the endpoint's descriptor is readable or its timeout has passed.
   */
  uint32_t no_thread;
} holepunch_config_t;

/**
 * How holepunch_endpoint_listen() registers.
 *
 * Set it with holepunch_listen_options_init() and then change what is to differ: a time of 0 does not wait here
 * either, so zero is not the default of timeout_ms. Later versions append fields, whose default is zero. The struct
 * is used only until the call returns.
 */
typedef struct holepunch_listen_options_t {
  /**
   * sizeof(holepunch_listen_options_t), as the caller's compiler sees it.
   */
  size_t size;
  /**
   * How long a server may take to have the registration. Default: HOLEPUNCH_FOREVER; a server that is silent for
   * 5 seconds still ends the call.
   */
  int64_t timeout_ms;
} holepunch_listen_options_t;

/**
 * How holepunch_endpoint_connect_datagram() connects.
 *
 * Set it with holepunch_connect_options_init() and then change what is to differ: a time of 0 does not wait here
 * either, so zero is not the default of wait_ms and timeout_ms. Later versions append fields, whose default is zero.
 * The struct is used only until the call returns.
 */
typedef struct holepunch_connect_options_t {
  /**
   * sizeof(holepunch_connect_options_t), as the caller's compiler sees it.
   */
  size_t size;
  /**
   * How long to keep asking for a listener that is not registered yet; 0 asks once. Default:
   * HOLEPUNCH_CONNECT_WAIT_MS.
   */
  int64_t wait_ms;
  /**
   * How long the two peers may take from their introduction on. Default: HOLEPUNCH_CONNECT_TIMEOUT_MS.
   */
  int64_t timeout_ms;
} holepunch_connect_options_t;

/**
 * What is known of a connection's path. Set size before the call; the rest is written.
 */
typedef struct holepunch_path_t {
  /**
   * sizeof(holepunch_path_t), as the caller's compiler sees it; never changed by the library.
   */
  size_t size;
  /**
   * Our address and port. The address is unspecified where it is not known.
   */
  struct sockaddr_storage local;
  /**
   * The peer's address and port.
   */
  struct sockaddr_storage remote;
  /**
   * How the peer's address was learned (RFC 8839): "host", "srflx", "prflx" or "relay".
   */
  char kind[16];
  /**
   * Which way the path was found, such as "udp_simultaneous" or "tcp_simultaneous_open".
   */
  char strategy[32];
  /**
   * The round-trip time of the check or the connect that found the path, in microseconds.
   */
  uint64_t rtt_us;
  /**
   * From the introduction, as this side learned of it, to the connection, in microseconds.
   */
  uint64_t since_introduction_us;
  /**
   * Datagrams that this side sent to the peer until the path was found, or connects that it attempted.
   */
  uint32_t packets_sent;
  /**
   * Sockets that this side used.
   */
  uint32_t sockets;
} holepunch_path_t;

/**
 * What an agent asks, and how long it may take.
 *
 * Set it with holepunch_agent_options_init() and then change what is to differ. Later versions append fields, whose
 * default is zero. The struct is used only until the call returns.
 */
typedef struct holepunch_agent_options_t {
  /**
   * sizeof(holepunch_agent_options_t), as the caller's compiler sees it.
   */
  size_t size;
  /**
   * STUN servers that are asked for this side's mapped addresses: host, host:port, [IPv6] or [IPv6]:port; the port is
   * 3478 unless told. At most 8. Default: NULL, none; then peers connect on one LAN.
   */
  const char *const *stun_servers;
  /**
   * How many.
   */
  size_t stun_servers_len;
  /**
   * How long the two may take from the moment on that the peer's credentials are known. Default:
   * HOLEPUNCH_CONNECT_TIMEOUT_MS.
   */
  int64_t timeout_ms;
} holepunch_agent_options_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Returns the version of the library that runs, such as "0.1.0"; it may be newer than the header.
 *
 * The text is static: never NULL, never freed.
 */
const char *holepunch_version(void);

/**
 * Returns the name of a status in snake case, such as "not_found"; "ok" for HOLEPUNCH_OK and "unknown" for a number
 * that is no status of this library.
 *
 * The names are those of the "kind" field of the command line's events. The text is static: never NULL, never freed.
 */
const char *holepunch_status_name(int32_t status);

/**
 * Returns the status that the failed call returned, one of HOLEPUNCH_ERROR_*. NULL gives HOLEPUNCH_OK.
 */
int32_t holepunch_error_code(const struct holepunch_error_t *error);

/**
 * Returns the operating system's error number (errno) where that was the cause, else 0. NULL gives 0.
 */
int holepunch_error_os_errno(const struct holepunch_error_t *error);

/**
 * Returns what failed, and to whom: one line of UTF-8 without a final full stop, for people.
 *
 * The text belongs to the error and lives as long as it. Never NULL; a NULL error gives "".
 */
const char *holepunch_error_message(const struct holepunch_error_t *error);

/**
 * Returns what to try: one line of UTF-8 without a final full stop, for people.
 *
 * The text belongs to the error and lives as long as it. Never NULL; a NULL error gives "".
 */
const char *holepunch_error_hint(const struct holepunch_error_t *error);

/**
 * Frees an error and its texts. NULL is ignored.
 */
void holepunch_error_free(struct holepunch_error_t *error);

/**
 * Sets every field to its default and size to the size given.
 *
 * size is sizeof(holepunch_config_t) as the caller's compiler sees it. The struct stays the caller's.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, config is NULL or size cannot be right.
 */
int32_t holepunch_config_init(struct holepunch_config_t *config,
                              size_t size,
                              struct holepunch_error_t **error);

/**
 * Sets every field to its default and size to the size given.
 *
 * size is sizeof(holepunch_listen_options_t) as the caller's compiler sees it. The struct stays the caller's.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, options is NULL or size cannot be right.
 */
int32_t holepunch_listen_options_init(struct holepunch_listen_options_t *options,
                                      size_t size,
                                      struct holepunch_error_t **error);

/**
 * Sets every field to its default and size to the size given.
 *
 * size is sizeof(holepunch_connect_options_t) as the caller's compiler sees it. The struct stays the caller's.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, options is NULL or size cannot be right.
 */
int32_t holepunch_connect_options_init(struct holepunch_connect_options_t *options,
                                       size_t size,
                                       struct holepunch_error_t **error);

/**
 * Makes a token that is not cancelled.
 *
 * On success *cancel belongs to the caller, who frees it with holepunch_cancel_free().
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, cancel is NULL; HOLEPUNCH_ERROR_IO, such as no descriptor left.
 */
int32_t holepunch_cancel_new(struct holepunch_cancel_t **cancel,
                             struct holepunch_error_t **error);

/**
 * Cancels every call that has the token, now and later. Does not block; cancelling again changes nothing.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, cancel is NULL.
 */
int32_t holepunch_cancel_cancel(struct holepunch_cancel_t *cancel,
                                struct holepunch_error_t **error);

/**
 * Frees the token; it does not cancel. Calls that have it must have returned. NULL is ignored.
 */
void holepunch_cancel_free(struct holepunch_cancel_t *cancel);

/**
 * Makes an endpoint.
 *
 * config may be NULL: all defaults. On success *endpoint belongs to the caller, who frees it with
 * holepunch_endpoint_free(). Does not block: it binds nothing and asks nobody yet.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, the message says which field; HOLEPUNCH_ERROR_UNSUPPORTED, the config
 * has fields that this library does not know; HOLEPUNCH_ERROR_IO, no descriptors or threads left.
 */
int32_t holepunch_endpoint_new(const struct holepunch_config_t *config,
                               struct holepunch_endpoint_t **endpoint,
                               struct holepunch_error_t **error);

/**
 * Registers a listener and returns when a server has the registration.
 *
 * name is 1 to 64 of the characters a-z, 0-9, '.', '_' and '-'; NULL for a listener that is found by its public
 * address. options may be NULL: all defaults; cancel may be NULL. On success *listener belongs to the caller, who
 * frees it with holepunch_listener_free().
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, HOLEPUNCH_ERROR_ADDRESS_IN_USE, HOLEPUNCH_ERROR_UNRESOLVABLE,
 * HOLEPUNCH_ERROR_SERVER_UNREACHABLE, HOLEPUNCH_ERROR_SERVER_SILENT, HOLEPUNCH_ERROR_SERVER_REFUSED,
 * HOLEPUNCH_ERROR_NAME_TAKEN, HOLEPUNCH_ERROR_TIMEOUT, HOLEPUNCH_ERROR_CANCELLED, HOLEPUNCH_ERROR_CLOSED;
 * HOLEPUNCH_ERROR_UNSUPPORTED, the options have fields that this library does not know.
 */
int32_t holepunch_endpoint_listen(struct holepunch_endpoint_t *endpoint,
                                  const char *name,
                                  const struct holepunch_listen_options_t *options,
                                  struct holepunch_cancel_t *cancel,
                                  struct holepunch_listener_t **listener,
                                  struct holepunch_error_t **error);

/**
 * Connects to a listener for a stream of bytes and returns when a direct path was found.
 *
 * Otherwise as holepunch_endpoint_connect_datagram(). On success *stream belongs to the caller, who frees it with
 * holepunch_stream_free().
 *
 * Errors: those of holepunch_endpoint_connect_datagram().
 */
int32_t holepunch_endpoint_connect(struct holepunch_endpoint_t *endpoint,
                                   const char *target,
                                   const struct holepunch_connect_options_t *options,
                                   struct holepunch_cancel_t *cancel,
                                   struct holepunch_stream_t **stream,
                                   struct holepunch_error_t **error);

/**
 * Connects to a listener for datagrams and returns when a direct path was found.
 *
 * target is the listener's name, or the public address of an unnamed one. options may be NULL: all defaults; cancel
 * may be NULL. On success *connection belongs to the caller, who frees it with holepunch_connection_free().
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, HOLEPUNCH_ERROR_ADDRESS_IN_USE, HOLEPUNCH_ERROR_UNRESOLVABLE,
 * HOLEPUNCH_ERROR_SERVER_UNREACHABLE, HOLEPUNCH_ERROR_SERVER_SILENT, HOLEPUNCH_ERROR_SERVER_REFUSED,
 * HOLEPUNCH_ERROR_NOT_FOUND, HOLEPUNCH_ERROR_AMBIGUOUS, HOLEPUNCH_ERROR_WRONG_SECRET,
 * HOLEPUNCH_ERROR_TRANSPORT_MISMATCH, HOLEPUNCH_ERROR_VERSION_MISMATCH, HOLEPUNCH_ERROR_NO_PATH,
 * HOLEPUNCH_ERROR_TIMEOUT, HOLEPUNCH_ERROR_CANCELLED, HOLEPUNCH_ERROR_CLOSED; HOLEPUNCH_ERROR_UNSUPPORTED, the options
 * have fields that this library does not know.
 */
int32_t holepunch_endpoint_connect_datagram(struct holepunch_endpoint_t *endpoint,
                                            const char *target,
                                            const struct holepunch_connect_options_t *options,
                                            struct holepunch_cancel_t *cancel,
                                            struct holepunch_connection_t **connection,
                                            struct holepunch_error_t **error);

/**
 * Does everything that is due, without blocking. Needed only with no_thread; blocking calls do it themselves while
 * they block, and with a thread it does nothing.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, endpoint is NULL; HOLEPUNCH_ERROR_FORKED; HOLEPUNCH_ERROR_IO.
 */
int32_t holepunch_endpoint_process(struct holepunch_endpoint_t *endpoint,
                                   struct holepunch_error_t **error);

/**
 * Tells how long holepunch_endpoint_process() has nothing to do unless the endpoint's descriptor becomes readable.
 *
 * On success *timeout_ms holds milliseconds, rounded up, or HOLEPUNCH_FOREVER; good as the timeout of poll(). Ask
 * again after every call on the endpoint or on what it made.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, endpoint or timeout_ms is NULL.
 */
int32_t holepunch_endpoint_next_timeout_ms(struct holepunch_endpoint_t *endpoint,
                                           int64_t *timeout_ms,
                                           struct holepunch_error_t **error);

/**
 * Gives the descriptor that becomes readable when holepunch_endpoint_process() has something to do.
 *
 * Needed only with no_thread, and only for poll(), select(), epoll and their like. It stays the endpoint's: never
 * read from it, never close it, and forget it before holepunch_endpoint_free().
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, endpoint or fd is NULL.
 */
int32_t holepunch_endpoint_fd(struct holepunch_endpoint_t *endpoint,
                              holepunch_socket_t *fd,
                              struct holepunch_error_t **error);

/**
 * Closes the endpoint with its listeners and connections: blocked calls on any of them return
 * HOLEPUNCH_ERROR_CLOSED within 100 ms. From any thread, at any time; closing again changes nothing.
 *
 * Does not block: peers and server are told in the background. The handles stay valid until each is freed.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, endpoint is NULL.
 */
int32_t holepunch_endpoint_close(struct holepunch_endpoint_t *endpoint,
                                 struct holepunch_error_t **error);

/**
 * Closes the endpoint, if it is not, and frees it. Calls on it must have returned. NULL is ignored.
 *
 * Its listeners and connections are closed with it, and freed on their own, before or after. The log callback is
 * not called any more once this has returned; so it must not be called from within that callback.
 */
void holepunch_endpoint_free(struct holepunch_endpoint_t *endpoint);

/**
 * Waits for the next peer that a direct path for a stream was found to.
 *
 * Streams and connections for datagrams wait apart. cancel may be NULL. On success *stream belongs to the caller, who
 * frees it with holepunch_stream_free(); it lives on when the listener is closed. A peer that no path is found to
 * never shows here.
 *
 * Errors: those of holepunch_listener_accept_datagram().
 */
int32_t holepunch_listener_accept(struct holepunch_listener_t *listener,
                                  int64_t timeout_ms,
                                  struct holepunch_cancel_t *cancel,
                                  struct holepunch_stream_t **stream,
                                  struct holepunch_error_t **error);

/**
 * Waits for the next peer that a direct path for datagrams was found to.
 *
 * cancel may be NULL. On success *connection belongs to the caller, who frees it with holepunch_connection_free(); it
 * lives on when the listener is closed. A peer that no path is found to never shows here.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, HOLEPUNCH_ERROR_TIMEOUT, HOLEPUNCH_ERROR_CANCELLED,
 * HOLEPUNCH_ERROR_CLOSED, and those of holepunch_endpoint_listen() when the registration was lost for good.
 */
int32_t holepunch_listener_accept_datagram(struct holepunch_listener_t *listener,
                                           int64_t timeout_ms,
                                           struct holepunch_cancel_t *cancel,
                                           struct holepunch_connection_t **connection,
                                           struct holepunch_error_t **error);

/**
 * Ends the registration: its name is free again at once, blocked calls return HOLEPUNCH_ERROR_CLOSED within 100 ms,
 * and connections that were accepted live on. From any thread, at any time; closing again changes nothing.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, listener is NULL.
 */
int32_t holepunch_listener_close(struct holepunch_listener_t *listener,
                                 struct holepunch_error_t **error);

/**
 * Closes the listener, if it is not, and frees it. Calls on it must have returned. NULL is ignored.
 */
void holepunch_listener_free(struct holepunch_listener_t *listener);

/**
 * Sends some of the bytes, as many as the system takes, and writes how many to *sent; 0 only for none.
 *
 * Waits while the system's buffer is full. data stays the caller's; NULL only with length 0. cancel may be NULL.
 * Never raises SIGPIPE. That bytes were sent does not mean that they arrive.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT; HOLEPUNCH_ERROR_TIMEOUT, not one byte could be sent;
 * HOLEPUNCH_ERROR_CANCELLED; HOLEPUNCH_ERROR_CLOSED, also after holepunch_stream_shutdown();
 * HOLEPUNCH_ERROR_LOST; HOLEPUNCH_ERROR_FORKED; HOLEPUNCH_ERROR_IO.
 */
int32_t holepunch_stream_send(struct holepunch_stream_t *stream,
                              const uint8_t *data,
                              size_t length,
                              size_t *sent,
                              int64_t timeout_ms,
                              struct holepunch_cancel_t *cancel,
                              struct holepunch_error_t **error);

/**
 * Sends all of the bytes. Otherwise as holepunch_stream_send(); after a failure it is not known how many were sent.
 *
 * Errors: those of holepunch_stream_send().
 */
int32_t holepunch_stream_send_all(struct holepunch_stream_t *stream,
                                  const uint8_t *data,
                                  size_t length,
                                  int64_t timeout_ms,
                                  struct holepunch_cancel_t *cancel,
                                  struct holepunch_error_t **error);

/**
 * Waits for bytes, writes some to the buffer, and how many to *length; 0 at the end of the peer's data.
 *
 * buffer stays the caller's; NULL only with capacity 0, which gives 0. cancel may be NULL.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT; HOLEPUNCH_ERROR_TIMEOUT; HOLEPUNCH_ERROR_CANCELLED;
 * HOLEPUNCH_ERROR_CLOSED, this side has closed; HOLEPUNCH_ERROR_LOST, the peer has broken the connection off or
 * answers no more; HOLEPUNCH_ERROR_FORKED; HOLEPUNCH_ERROR_IO.
 */
int32_t holepunch_stream_recv(struct holepunch_stream_t *stream,
                              uint8_t *buffer,
                              size_t capacity,
                              size_t *length,
                              int64_t timeout_ms,
                              struct holepunch_cancel_t *cancel,
                              struct holepunch_error_t **error);

/**
 * Ends this side's data: the peer receives what was sent, then the end. Receiving goes on. Does not block.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, stream is NULL; HOLEPUNCH_ERROR_CLOSED; HOLEPUNCH_ERROR_LOST;
 * HOLEPUNCH_ERROR_FORKED; HOLEPUNCH_ERROR_IO.
 */
int32_t holepunch_stream_shutdown(struct holepunch_stream_t *stream,
                                  struct holepunch_error_t **error);

/**
 * Tells what is known of the path. Set path->size first.
 *
 * The struct stays the caller's. The texts within it end with NUL. packets_sent counts the connects that were
 * attempted.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, stream or path is NULL, or path->size cannot be right;
 * HOLEPUNCH_ERROR_CLOSED, the socket was given away.
 */
int32_t holepunch_stream_path(struct holepunch_stream_t *stream,
                              struct holepunch_path_t *path,
                              struct holepunch_error_t **error);

/**
 * Gives the smoothed round-trip time to the peer, in microseconds, as the system measures it.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, stream or rtt_us is NULL; HOLEPUNCH_ERROR_CLOSED, the socket was given
 * away.
 */
int32_t holepunch_stream_rtt(struct holepunch_stream_t *stream,
                             uint64_t *rtt_us,
                             struct holepunch_error_t **error);

/**
 * Gives the stream's socket, to wait until bytes may be received or sent.
 *
 * Only for poll(), select(), epoll and their like. It stays the stream's: never read from it, never close it, and
 * forget it before holepunch_stream_free().
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, stream or fd is NULL; HOLEPUNCH_ERROR_CLOSED, the socket was given away.
 */
int32_t holepunch_stream_fd(struct holepunch_stream_t *stream,
                            holepunch_socket_t *fd,
                            struct holepunch_error_t **error);

/**
 * Gives the stream's socket away: a plain TCP socket of the system's, connected and blocking, with nothing of this
 * library on it. It is the caller's, who closes it; it outlives the endpoint.
 *
 * Calls on the stream must have returned. Every later one but holepunch_stream_free(), which must follow, returns
 * HOLEPUNCH_ERROR_CLOSED.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, stream or socket is NULL, or a call has not returned;
 * HOLEPUNCH_ERROR_CLOSED; HOLEPUNCH_ERROR_FORKED; HOLEPUNCH_ERROR_IO.
 */
int32_t holepunch_stream_into_socket(struct holepunch_stream_t *stream,
                                     holepunch_socket_t *socket,
                                     struct holepunch_error_t **error);

/**
 * Closes the stream: the peer receives what was sent, then the end, and blocked calls return HOLEPUNCH_ERROR_CLOSED
 * within 100 ms. From any thread, at any time; closing again changes nothing.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, stream is NULL.
 */
int32_t holepunch_stream_close(struct holepunch_stream_t *stream,
                               struct holepunch_error_t **error);

/**
 * Closes the stream, if it is not, and frees it. Calls on it must have returned. NULL is ignored. A socket that was
 * given away stays.
 */
void holepunch_stream_free(struct holepunch_stream_t *stream);

/**
 * Sends one datagram of at most HOLEPUNCH_MAX_DATAGRAM bytes.
 *
 * Does not wait for the peer, only while the system's buffer is full; a datagram may be lost on its way. data stays
 * the caller's; NULL only with length 0. Never raises SIGPIPE.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, also where it would wait in a callback of the endpoint;
 * HOLEPUNCH_ERROR_MESSAGE_TOO_LARGE; HOLEPUNCH_ERROR_CLOSED, also after holepunch_connection_end();
 * HOLEPUNCH_ERROR_LOST; HOLEPUNCH_ERROR_FORKED; HOLEPUNCH_ERROR_IO.
 */
int32_t holepunch_connection_send(struct holepunch_connection_t *connection,
                                  const uint8_t *data,
                                  size_t length,
                                  struct holepunch_error_t **error);

/**
 * As holepunch_connection_send(), but waits for at most timeout_ms while the system's buffer is full.
 *
 * Where it fails the datagram was not sent. cancel may be NULL.
 *
 * Errors: HOLEPUNCH_ERROR_TIMEOUT; HOLEPUNCH_ERROR_CANCELLED; those of holepunch_connection_send().
 */
int32_t holepunch_connection_send_within(struct holepunch_connection_t *connection,
                                         const uint8_t *data,
                                         size_t length,
                                         int64_t timeout_ms,
                                         struct holepunch_cancel_t *cancel,
                                         struct holepunch_error_t **error);

/**
 * Waits for one datagram and writes it to the buffer, its length, which may be 0, to *length.
 *
 * Datagrams have at most HOLEPUNCH_MAX_DATAGRAM bytes; one that is longer than the buffer is lost, with
 * HOLEPUNCH_ERROR_MESSAGE_TOO_LARGE. What came before the peer's end is received first. buffer stays the caller's;
 * NULL only with capacity 0. What it holds after a failure is undefined. cancel may be NULL.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT; HOLEPUNCH_ERROR_TIMEOUT; HOLEPUNCH_ERROR_CANCELLED;
 * HOLEPUNCH_ERROR_CLOSED, the peer has ended its data or this side has closed; HOLEPUNCH_ERROR_LOST;
 * HOLEPUNCH_ERROR_MESSAGE_TOO_LARGE; HOLEPUNCH_ERROR_FORKED; HOLEPUNCH_ERROR_IO.
 */
int32_t holepunch_connection_recv(struct holepunch_connection_t *connection,
                                  uint8_t *buffer,
                                  size_t capacity,
                                  size_t *length,
                                  int64_t timeout_ms,
                                  struct holepunch_cancel_t *cancel,
                                  struct holepunch_error_t **error);

/**
 * Announces the end of this side's data and waits until the peer has acknowledged it, for at most 3 seconds.
 *
 * Receiving goes on until the peer ends too. cancel may be NULL.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, HOLEPUNCH_ERROR_TIMEOUT, HOLEPUNCH_ERROR_CANCELLED,
 * HOLEPUNCH_ERROR_CLOSED, HOLEPUNCH_ERROR_LOST; HOLEPUNCH_ERROR_UNSUPPORTED, the peer has taken its socket
 * (holepunch_connection_into_socket()) and hears of no end.
 */
int32_t holepunch_connection_end(struct holepunch_connection_t *connection,
                                 int64_t timeout_ms,
                                 struct holepunch_cancel_t *cancel,
                                 struct holepunch_error_t **error);

/**
 * Tells what is known of the path. Set path->size first.
 *
 * The struct stays the caller's. The texts within it end with NUL.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, connection or path is NULL, or path->size cannot be right.
 */
int32_t holepunch_connection_path(struct holepunch_connection_t *connection,
                                  struct holepunch_path_t *path,
                                  struct holepunch_error_t **error);

/**
 * Gives the smoothed round-trip time to the peer, in microseconds, as the latest checks showed it.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, connection or rtt_us is NULL.
 */
int32_t holepunch_connection_rtt(struct holepunch_connection_t *connection,
                                 uint64_t *rtt_us,
                                 struct holepunch_error_t **error);

/**
 * Gives the connection's socket, to wait until a datagram may be there.
 *
 * Only for poll(), select(), epoll and their like; readable may be a false alarm, and then
 * holepunch_connection_recv() with timeout_ms 0 returns HOLEPUNCH_ERROR_TIMEOUT. It stays the connection's: never
 * read from it, never close it, and forget it before holepunch_connection_free().
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, connection or fd is NULL.
 */
int32_t holepunch_connection_fd(struct holepunch_connection_t *connection,
                                holepunch_socket_t *fd,
                                struct holepunch_error_t **error);

/**
 * Gives the connection's socket away: a plain UDP socket of the system's, connected to the peer and blocking, that
 * holds nothing but data and has nothing of this library on it. It is the caller's, who closes it; it outlives the
 * endpoint.
 *
 * Blocks for a round trip, in which the peer learns that it must send no checks any more; where it does not answer,
 * for 0.2 to 4 seconds, and then a peer that never heard of it may send checks for 30 seconds more. What had come and
 * was not received is in the socket; recvfrom() tells this side's own address as the source of these datagrams. From
 * then on nobody keeps NAT bindings alive, notices when the peer is gone, or tells it of the end. The peer may do the
 * same, or go on with its connection. SO_REUSEADDR must stay set: connections of one listener share its port.
 *
 * Calls on the connection must have returned. Every later one but holepunch_connection_free(), which must follow,
 * returns HOLEPUNCH_ERROR_CLOSED; also after a failure, which closes the connection, unless it is
 * HOLEPUNCH_ERROR_INVALID_ARGUMENT. Closing the endpoint from another thread ends the call.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, connection or socket is NULL, or a call has not returned;
 * HOLEPUNCH_ERROR_CLOSED, either side has ended or closed; HOLEPUNCH_ERROR_LOST; HOLEPUNCH_ERROR_UNSUPPORTED, on
 * systems other than Linux; HOLEPUNCH_ERROR_FORKED; HOLEPUNCH_ERROR_IO.
 */
int32_t holepunch_connection_into_socket(struct holepunch_connection_t *connection,
                                         holepunch_socket_t *socket,
                                         struct holepunch_error_t **error);

/**
 * Closes the connection: the peer is told in the background, and blocked calls return HOLEPUNCH_ERROR_CLOSED within
 * 100 ms. From any thread, at any time; closing again changes nothing.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, connection is NULL.
 */
int32_t holepunch_connection_close(struct holepunch_connection_t *connection,
                                   struct holepunch_error_t **error);

/**
 * Closes the connection, if it is not, and frees it. Calls on it must have returned. NULL is ignored.
 */
void holepunch_connection_free(struct holepunch_connection_t *connection);

/**
 * Sets every field to its default and size to the size given.
 *
 * size is sizeof(holepunch_agent_options_t) as the caller's compiler sees it. The struct stays the caller's.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, options is NULL or size cannot be right.
 */
int32_t holepunch_agent_options_init(struct holepunch_agent_options_t *options,
                                     size_t size,
                                     struct holepunch_error_t **error);

/**
 * Begins a negotiation whose signalling is the program's own. It binds to the endpoint's addresses, and asks none of its
 * rendezvous servers.
 *
 * role is HOLEPUNCH_ROLE_CONTROLLING or HOLEPUNCH_ROLE_CONTROLLED, the opposite of the peer's. options may be NULL:
 * all defaults; cancel may be NULL. Blocks only to look up the names of STUN servers, for at most 10 seconds. On success
 * *agent belongs to the caller, who frees it with holepunch_agent_free(). That no socket can be bound is told by
 * the agent's calls.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, HOLEPUNCH_ERROR_UNRESOLVABLE, HOLEPUNCH_ERROR_CANCELLED,
 * HOLEPUNCH_ERROR_CLOSED, HOLEPUNCH_ERROR_FORKED; HOLEPUNCH_ERROR_UNSUPPORTED, the options have fields that this
 * library does not know.
 */
int32_t holepunch_endpoint_agent(struct holepunch_endpoint_t *endpoint,
                                 int32_t role,
                                 const struct holepunch_agent_options_t *options,
                                 struct holepunch_cancel_t *cancel,
                                 struct holepunch_agent_t **agent,
                                 struct holepunch_error_t **error);

/**
 * Gives this side's username fragment, to be told to the peer. It stays the agent's and is valid until
 * holepunch_agent_free().
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, agent or ufrag is NULL.
 */
int32_t holepunch_agent_ufrag(struct holepunch_agent_t *agent,
                              const char **ufrag,
                              struct holepunch_error_t **error);

/**
 * Gives this side's password, to be told to the peer. It stays the agent's and is valid until holepunch_agent_free(). Who
 * knows it can pass for the peer.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, agent or password is NULL.
 */
int32_t holepunch_agent_password(struct holepunch_agent_t *agent,
                                 const char **password,
                                 struct holepunch_error_t **error);

/**
 * Waits for the next of this side's candidates and writes its line to the buffer, ended by NUL: "candidate:..." (RFC 8839
 * section 5.1). When there are no more the line is empty.
 *
 * Each is given once: addresses of this host at once, mapped ones when the STUN servers have answered, at most 5
 * seconds later. capacity is at least HOLEPUNCH_CANDIDATE_SIZE. line stays the caller's; cancel may be NULL.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, HOLEPUNCH_ERROR_TIMEOUT, HOLEPUNCH_ERROR_CANCELLED,
 * HOLEPUNCH_ERROR_CLOSED, HOLEPUNCH_ERROR_FORKED; why the negotiation failed, as HOLEPUNCH_ERROR_ADDRESS_IN_USE.
 */
int32_t holepunch_agent_next_candidate(struct holepunch_agent_t *agent,
                                       char *line,
                                       size_t capacity,
                                       int64_t timeout_ms,
                                       struct holepunch_cancel_t *cancel,
                                       struct holepunch_error_t **error);

/**
 * Waits until all of this side's candidates are known, and writes them with the credentials to the buffer as lines of
 * SDP, ended by NUL: the same each time, whatever holepunch_agent_next_candidate() gave.
 *
 * capacity is at least HOLEPUNCH_DESCRIPTION_SIZE. text stays the caller's; cancel may be NULL.
 *
 * Errors: those of holepunch_agent_next_candidate().
 */
int32_t holepunch_agent_local_description(struct holepunch_agent_t *agent,
                                          char *text,
                                          size_t capacity,
                                          int64_t timeout_ms,
                                          struct holepunch_cancel_t *cancel,
                                          struct holepunch_error_t **error);

/**
 * Tells the peer's credentials; checks begin. To tell the same again changes nothing. Does not block.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, they cannot be anybody's; HOLEPUNCH_ERROR_UNSUPPORTED, they are others than
 * before (an ICE restart needs a new agent); HOLEPUNCH_ERROR_CLOSED; HOLEPUNCH_ERROR_FORKED; why the negotiation
 * failed.
 */
int32_t holepunch_agent_set_remote(struct holepunch_agent_t *agent,
                                   const char *ufrag,
                                   const char *password,
                                   struct holepunch_error_t **error);

/**
 * Tells a candidate of the peer: a line of SDP, with or without "a=" and "candidate:". Does not block.
 *
 * One of TCP, of another component than 1, with a name instead of an address, or after the end of all, is left out. An
 * empty line is the end of all.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, it is no candidate; HOLEPUNCH_ERROR_CLOSED; HOLEPUNCH_ERROR_FORKED; why
 * the negotiation failed.
 */
int32_t holepunch_agent_add_remote_candidate(struct holepunch_agent_t *agent,
                                             const char *line,
                                             struct holepunch_error_t **error);

/**
 * Tells that these were all candidates of the peer; later ones are left out. Does not block.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, agent is NULL; HOLEPUNCH_ERROR_CLOSED; HOLEPUNCH_ERROR_FORKED; why the
 * negotiation failed.
 */
int32_t holepunch_agent_end_of_candidates(struct holepunch_agent_t *agent,
                                          struct holepunch_error_t **error);

/**
 * Tells the peer's credentials and candidates, found among lines of SDP, of which all others are skipped. Candidates that
 * cannot be read are left out. Does not block.
 *
 * Errors: those of holepunch_agent_set_remote(); HOLEPUNCH_ERROR_INVALID_ARGUMENT also where the peer is an agent of ICE
 * lite and this one is not controlling.
 */
int32_t holepunch_agent_set_remote_description(struct holepunch_agent_t *agent,
                                               const char *text,
                                               struct holepunch_error_t **error);

/**
 * Waits for the connection, which is given once. After HOLEPUNCH_ERROR_TIMEOUT of timeout_ms itself it may be waited for
 * again.
 *
 * It is like any other, save that the peer is not told of its end: holepunch_connection_end() returns
 * HOLEPUNCH_ERROR_UNSUPPORTED, and the other side notices that it was closed within 30 seconds (RFC 7675). cancel may be
 * NULL. On success *connection belongs to the caller, who frees it with holepunch_connection_free(); it lives on
 * when the agent is closed.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT; HOLEPUNCH_ERROR_TIMEOUT, also when the two have found no path in their
 * time; HOLEPUNCH_ERROR_CANCELLED, HOLEPUNCH_ERROR_ADDRESS_IN_USE, HOLEPUNCH_ERROR_IO, HOLEPUNCH_ERROR_CLOSED,
 * HOLEPUNCH_ERROR_FORKED.
 */
int32_t holepunch_agent_connect(struct holepunch_agent_t *agent,
                                int64_t timeout_ms,
                                struct holepunch_cancel_t *cancel,
                                struct holepunch_connection_t **connection,
                                struct holepunch_error_t **error);

/**
 * Gives the negotiation up: blocked calls return HOLEPUNCH_ERROR_CLOSED within 100 ms. A connection that it gave lives
 * on. From any thread, at any time; closing again changes nothing.
 *
 * Errors: HOLEPUNCH_ERROR_INVALID_ARGUMENT, agent is NULL.
 */
int32_t holepunch_agent_close(struct holepunch_agent_t *agent,
                              struct holepunch_error_t **error);

/**
 * Closes the agent, if it is not, and frees it. Calls on it must have returned. NULL is ignored.
 */
void holepunch_agent_free(struct holepunch_agent_t *agent);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* HOLEPUNCH_H */
