/* Two endpoints of one program meet through the server of HOLEPUNCH_SERVER and talk: by threads of the library and
 * without; what each function tells; nothing is left behind. */
#include "check.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECONDS(n) ((n) * INT64_C(1000))

static const char *const BIND[] = {"127.0.0.1"};

static holepunch_endpoint_t *endpoint(uint32_t no_thread, const char *secret) {
    holepunch_config_t config;
    holepunch_endpoint_t *made;
    OK(holepunch_config_init(&config, sizeof config, error));
    config.bind = BIND;
    config.bind_len = 1;
    config.secret = (const uint8_t *)secret;
    config.secret_len = secret == NULL ? 0 : strlen(secret);
    config.no_thread = no_thread;
    OK(holepunch_endpoint_new(&config, &made, error));
    return made;
}

struct connect {
    holepunch_endpoint_t *endpoint;
    const char *name;
    holepunch_connection_t *connection;
};

static void *connect_to(void *argument) {
    struct connect *connect = argument;
    OK(holepunch_endpoint_connect_datagram(connect->endpoint, connect->name, NULL, NULL, &connect->connection, error));
    return NULL;
}

static holepunch_listener_t *listen_as(holepunch_endpoint_t *by, const char *name) {
    holepunch_listener_t *listener;
    OK(holepunch_endpoint_listen(by, name, LISTEN_FOR(SECONDS(10)), NULL, &listener, error));
    return listener;
}

/* Connects two endpoints that each have a thread. */
static void meet(holepunch_endpoint_t *one, holepunch_listener_t *listener, const char *name,
                 holepunch_connection_t **connector, holepunch_connection_t **accepted) {
    struct connect connect = {one, name, NULL};
    pthread_t thread = start(connect_to, &connect);
    OK(holepunch_listener_accept_datagram(listener, SECONDS(10), NULL, accepted, error));
    join(thread);
    *connector = connect.connection;
}

static void tells_the_path(holepunch_connection_t *connection) {
    holepunch_path_t path = {.size = sizeof path};
    const struct sockaddr_in *local = (const struct sockaddr_in *)&path.local;
    const struct sockaddr_in *remote = (const struct sockaddr_in *)&path.remote;
    struct {
        holepunch_path_t path;
        uint8_t later[16];
    } newer;
    uint64_t rtt = 0;
    OK(holepunch_connection_path(connection, &path, error));
    CHECK(path.size == sizeof path);
    CHECK(local->sin_family == AF_INET && local->sin_port != 0);
    CHECK(remote->sin_family == AF_INET && remote->sin_port != 0);
    CHECK(remote->sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    CHECK(remote->sin_port != local->sin_port);
    CHECK(strcmp(path.kind, "host") == 0 || strcmp(path.kind, "srflx") == 0 || strcmp(path.kind, "prflx") == 0);
    CHECK(strcmp(path.strategy, "udp_simultaneous") == 0);
    CHECK(path.rtt_us > 0 && path.rtt_us < 10000000);
    CHECK(path.since_introduction_us > 0 && path.since_introduction_us < 10000000);
    CHECK(path.packets_sent >= 1 && path.sockets >= 1);
    OK(holepunch_connection_rtt(connection, &rtt, error));
    CHECK(rtt > 0 && rtt < 10000000);
    /* A program with a newer header: what this library does not know is zero. */
    memset(&newer, 0xff, sizeof newer);
    newer.path.size = sizeof newer;
    OK(holepunch_connection_path(connection, &newer.path, error));
    CHECK(newer.path.size == sizeof newer && strcmp(newer.path.kind, path.kind) == 0);
    CHECK(newer.later[0] == 0 && newer.later[15] == 0);
    path.size = sizeof path - 1;
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_connection_path(connection, &path, error));
    path.size = 0;
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_connection_path(connection, &path, error));
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_connection_path(connection, NULL, error));
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_connection_rtt(connection, NULL, error));
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_connection_fd(connection, NULL, error));
}

static void refuses_wrong_data(holepunch_connection_t *connection) {
    uint8_t data[HOLEPUNCH_MAX_DATAGRAM + 1] = {0};
    size_t length = 7;
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_connection_send(connection, NULL, 1, error));
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_connection_send(connection, NULL, SIZE_MAX, error));
    EXPECT(HOLEPUNCH_ERROR_MESSAGE_TOO_LARGE, holepunch_connection_send(connection, data, sizeof data, error));
    EXPECT(HOLEPUNCH_ERROR_MESSAGE_TOO_LARGE, holepunch_connection_send(connection, data, SIZE_MAX, error));
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_connection_recv(connection, NULL, 1, &length, 0, NULL, error));
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_connection_recv(connection, data, 1, NULL, 0, NULL, error));
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT,
           holepunch_connection_recv(connection, data, sizeof data, &length, -2, NULL, error));
    EXPECT(HOLEPUNCH_ERROR_TIMEOUT, holepunch_connection_recv(connection, data, sizeof data, &length, 0, NULL, error));
    EXPECT(HOLEPUNCH_ERROR_TIMEOUT, holepunch_connection_recv(connection, data, sizeof data, &length, 20, NULL, error));
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_connection_end(connection, -2, NULL, error));
    CHECK(length == 7);
}

static void carries_data(holepunch_connection_t *from, holepunch_connection_t *to) {
    uint8_t out[HOLEPUNCH_MAX_DATAGRAM], in[2 * HOLEPUNCH_MAX_DATAGRAM];
    struct pollfd poll_to = {.fd = -1, .events = POLLIN};
    size_t length, size;
    OK(holepunch_connection_fd(to, &poll_to.fd, error));
    CHECK(poll_to.fd >= 0);
    for (size = 1; size <= sizeof out; size = size < 600 ? size * 2 : size + 172) {
        memset(out, (int)size, sizeof out);
        OK(holepunch_connection_send(from, out, size, error));
        CHECK(poll(&poll_to, 1, 10000) == 1);
        OK(holepunch_connection_recv(to, in, sizeof in, &length, SECONDS(10), NULL, error));
        CHECK(length == size && memcmp(in, out, size) == 0);
    }
    /* A capacity that cannot be true does no harm. */
    OK(holepunch_connection_send(from, out, 5, error));
    OK(holepunch_connection_recv(to, in, SIZE_MAX, &length, SECONDS(10), NULL, error));
    CHECK(length == 5);
    /* A buffer that is too small. */
    OK(holepunch_connection_send(from, out, 5, error));
    EXPECT(HOLEPUNCH_ERROR_MESSAGE_TOO_LARGE,
           holepunch_connection_recv(to, in, 4, &length, SECONDS(10), NULL, error));
    OK(holepunch_connection_send(from, out, 5, error));
    EXPECT(HOLEPUNCH_ERROR_MESSAGE_TOO_LARGE,
           holepunch_connection_recv(to, NULL, 0, &length, SECONDS(10), NULL, error));
}

static void ends_in_order(holepunch_connection_t *one, holepunch_connection_t *other) {
    uint8_t in[16];
    size_t length;
    OK(holepunch_connection_end(one, SECONDS(10), NULL, error));
    EXPECT(HOLEPUNCH_ERROR_CLOSED, holepunch_connection_recv(other, in, sizeof in, &length, SECONDS(10), NULL, error));
    /* The other direction goes on. */
    OK(holepunch_connection_send(other, (const uint8_t *)"bye", 3, error));
    OK(holepunch_connection_recv(one, in, sizeof in, &length, SECONDS(10), NULL, error));
    CHECK(length == 3);
    OK(holepunch_connection_close(one, error));
    OK(holepunch_connection_close(one, error));
    EXPECT(HOLEPUNCH_ERROR_CLOSED, holepunch_connection_send(one, in, 3, error));
    EXPECT(HOLEPUNCH_ERROR_CLOSED, holepunch_connection_recv(one, in, sizeof in, &length, SECONDS(10), NULL, error));
    EXPECT(HOLEPUNCH_ERROR_CLOSED, holepunch_connection_recv(other, in, sizeof in, &length, SECONDS(10), NULL, error));
}

static void with_threads(void) {
    holepunch_endpoint_t *one = endpoint(0, NULL), *other = endpoint(0, NULL);
    holepunch_listener_t *listener = listen_as(other, "threads"), *second;
    holepunch_connection_t *connector, *accepted;
    struct sigaction sigpipe;
    meet(one, listener, "threads", &connector, &accepted);
    tells_the_path(connector);
    tells_the_path(accepted);
    refuses_wrong_data(connector);
    carries_data(connector, accepted);
    carries_data(accepted, connector);
    ends_in_order(connector, accepted);
    /* The signal would have ended this program, and still would. */
    CHECK(sigaction(SIGPIPE, NULL, &sigpipe) == 0 && sigpipe.sa_handler == SIG_DFL);
    holepunch_connection_free(connector);
    holepunch_connection_free(accepted);

    /* The listener is still there, its name is taken, and others are not there. */
    EXPECT(HOLEPUNCH_ERROR_NAME_TAKEN,
           holepunch_endpoint_listen(one, "threads", LISTEN_FOR(SECONDS(10)), NULL, &second, error));
    EXPECT(HOLEPUNCH_ERROR_NOT_FOUND,
           holepunch_endpoint_connect_datagram(one, "nobody", CONNECT_FOR(0, SECONDS(10)), NULL, &connector, error));
    EXPECT(HOLEPUNCH_ERROR_TIMEOUT, holepunch_listener_accept_datagram(listener, 0, NULL, &accepted, error));
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_listener_accept_datagram(listener, 0, NULL, NULL, error));
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_listener_accept_datagram(listener, -2, NULL, &accepted, error));
    meet(one, listener, "threads", &connector, &accepted);

    /* Freed in an unusual order: every handle stands on its own. */
    OK(holepunch_listener_close(listener, error));
    EXPECT(HOLEPUNCH_ERROR_CLOSED, holepunch_listener_accept_datagram(listener, SECONDS(10), NULL, &accepted, error));
    holepunch_endpoint_free(one);
    EXPECT(HOLEPUNCH_ERROR_CLOSED, holepunch_connection_send(connector, (const uint8_t *)"x", 1, error));
    holepunch_endpoint_free(other);
    holepunch_listener_free(listener);
    holepunch_connection_free(accepted);
    holepunch_connection_free(connector);
}

static void gives_sockets_away(void) {
    static const uint8_t EARLY[] = "early", LATER[] = "later";
    holepunch_endpoint_t *one = endpoint(0, NULL), *other = endpoint(0, NULL);
    holepunch_listener_t *listener = listen_as(other, "bare");
    holepunch_connection_t *connector, *accepted;
    holepunch_socket_t near = -7, far = -7, none = -7;
    uint8_t in[100];
    size_t length;
    meet(one, listener, "bare", &connector, &accepted);
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_connection_into_socket(connector, NULL, error));
    OK(holepunch_connection_send(accepted, EARLY, 5, error));
    OK(holepunch_connection_into_socket(connector, &near, error));
    EXPECT(HOLEPUNCH_ERROR_CLOSED, holepunch_connection_into_socket(connector, &none, error));
    EXPECT(HOLEPUNCH_ERROR_CLOSED, holepunch_connection_send(connector, EARLY, 5, error));
    EXPECT(HOLEPUNCH_ERROR_CLOSED, holepunch_connection_fd(connector, &none, error));
    OK(holepunch_connection_close(connector, error));
    holepunch_connection_free(connector);
    holepunch_endpoint_free(one);
    CHECK(none == -7 && recv(near, in, sizeof in, 0) == 5 && memcmp(in, EARLY, 5) == 0);
    CHECK(send(near, LATER, 5, MSG_NOSIGNAL) == 5);
    OK(holepunch_connection_recv(accepted, in, sizeof in, &length, SECONDS(10), NULL, error));
    CHECK(length == 5 && memcmp(in, LATER, 5) == 0);
    /* The other goes on; its end reaches nobody. Then it takes its socket too. */
    EXPECT(HOLEPUNCH_ERROR_UNSUPPORTED, holepunch_connection_end(accepted, SECONDS(10), NULL, error));
    OK(holepunch_connection_into_socket(accepted, &far, error));
    holepunch_connection_free(accepted);
    CHECK(send(far, EARLY, 1, MSG_NOSIGNAL) == 1 && recv(near, in, sizeof in, 0) == 1);
    CHECK(close(near) == 0 && close(far) == 0);

    one = endpoint(0, NULL);
    meet(one, listener, "bare", &connector, &accepted);
    OK(holepunch_connection_into_socket(connector, &near, error));
    OK(holepunch_connection_into_socket(accepted, &far, error));
    holepunch_connection_free(connector);
    holepunch_connection_free(accepted);
    holepunch_listener_free(listener);
    holepunch_endpoint_free(one);
    holepunch_endpoint_free(other);
    CHECK(send(far, EARLY, 5, MSG_NOSIGNAL) == 5 && recv(near, in, sizeof in, 0) == 5);
    CHECK(send(near, LATER, 5, MSG_NOSIGNAL) == 5 && recv(far, in, sizeof in, 0) == 5);
    CHECK(close(near) == 0 && close(far) == 0);
}

/* The listener's endpoint is driven by poll(), as a program with an event loop of its own does it. */
static void without_threads(void) {
    int before = threads();
    holepunch_endpoint_t *loop = endpoint(1, NULL), *other = endpoint(0, NULL);
    holepunch_listener_t *listener = listen_as(loop, "loop");
    struct connect connect = {other, "loop", NULL};
    pthread_t thread = start(connect_to, &connect);
    holepunch_connection_t *accepted = NULL;
    struct pollfd poll_loop = {.fd = -1, .events = POLLIN};
    int64_t deadline = now_ms() + SECONDS(10), timeout;
    CHECK(threads() <= before + 2);
    OK(holepunch_endpoint_fd(loop, &poll_loop.fd, error));
    while (holepunch_listener_accept_datagram(listener, 0, NULL, &accepted, NULL) == HOLEPUNCH_ERROR_TIMEOUT) {
        CHECK(now_ms() < deadline);
        OK(holepunch_endpoint_next_timeout_ms(loop, &timeout, error));
        CHECK(timeout >= HOLEPUNCH_FOREVER);
        if (timeout == HOLEPUNCH_FOREVER || timeout > SECONDS(10))
            timeout = SECONDS(10);
        CHECK(poll(&poll_loop, 1, (int)timeout) >= 0);
        OK(holepunch_endpoint_process(loop, error));
    }
    CHECK(accepted != NULL);
    join(thread);
    carries_data(connect.connection, accepted);
    carries_data(accepted, connect.connection);
    holepunch_connection_free(accepted);
    holepunch_connection_free(connect.connection);
    holepunch_listener_free(listener);
    holepunch_endpoint_free(loop);
    holepunch_endpoint_free(other);
}

static void with_a_wrong_secret(void) {
    holepunch_endpoint_t *one = endpoint(0, "sixteen bytes or"), *other = endpoint(0, "more than sixteen");
    holepunch_listener_t *listener = listen_as(other, "secret");
    holepunch_connection_t *connection;
    EXPECT(HOLEPUNCH_ERROR_WRONG_SECRET,
           holepunch_endpoint_connect_datagram(one, "secret", CONNECT_FOR(0, SECONDS(10)), NULL, &connection, error));
    holepunch_listener_free(listener);
    holepunch_endpoint_free(one);
    holepunch_endpoint_free(other);
}

static void in_a_child(void) {
    holepunch_endpoint_t *parent = endpoint(0, NULL);
    holepunch_listener_t *listener = listen_as(parent, "parent"), *second;
    holepunch_connection_t *connection;
    int status = -1;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(20);
        EXPECT(HOLEPUNCH_ERROR_FORKED, holepunch_endpoint_process(parent, error));
        EXPECT(HOLEPUNCH_ERROR_FORKED,
               holepunch_endpoint_listen(parent, "child", LISTEN_FOR(SECONDS(5)), NULL, &second, error));
        EXPECT(HOLEPUNCH_ERROR_FORKED,
               holepunch_listener_accept_datagram(listener, SECONDS(5), NULL, &connection, error));
        holepunch_listener_free(listener);
        holepunch_endpoint_free(parent);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    EXPECT(HOLEPUNCH_ERROR_TIMEOUT, holepunch_listener_accept_datagram(listener, 0, NULL, &connection, error));
    holepunch_listener_free(listener);
    holepunch_endpoint_free(parent);
}

static int lines, freed;

static void log_line(void *user, int32_t level, const char *message) {
    CHECK(user == &lines);
    CHECK(level >= HOLEPUNCH_LOG_ERROR && level <= HOLEPUNCH_LOG_DEBUG);
    CHECK(strlen(message) > 0 && strstr(message, "sixteen bytes or") == NULL);
    CHECK(!__atomic_load_n(&freed, __ATOMIC_SEQ_CST));
    __atomic_add_fetch(&lines, 1, __ATOMIC_SEQ_CST);
}

static void logs_until_freed(void) {
    holepunch_config_t config = {.size = sizeof config, .bind = BIND, .bind_len = 1};
    holepunch_endpoint_t *logging;
    holepunch_listener_t *listener, *second;
    int64_t deadline = now_ms() + SECONDS(10);
    config.secret = (const uint8_t *)"sixteen bytes or";
    config.secret_len = 16;
    config.log = log_line;
    config.log_user = &lines;
    OK(holepunch_endpoint_new(&config, &logging, error));
    listener = listen_as(logging, "logging");
    EXPECT(HOLEPUNCH_ERROR_NAME_TAKEN, holepunch_endpoint_listen(logging, "logging", NULL, NULL, &second, error));
    while (__atomic_load_n(&lines, __ATOMIC_SEQ_CST) == 0 && now_ms() < deadline)
        sched_yield();
    holepunch_endpoint_free(logging);
    __atomic_store_n(&freed, 1, __ATOMIC_SEQ_CST);
    CHECK(__atomic_load_n(&lines, __ATOMIC_SEQ_CST) > 0);
    holepunch_listener_free(listener);
}

int main(void) {
    int descriptors_before = descriptors(), threads_before = threads();
    int64_t deadline;
    with_threads();
    gives_sockets_away();
    without_threads();
    with_a_wrong_secret();
    in_a_child();
    logs_until_freed();
    /* Farewells go on in the background for at most 3 s; then nothing is left. */
    deadline = now_ms() + SECONDS(10);
    while ((descriptors() != descriptors_before || threads() != threads_before) && now_ms() < deadline)
        sched_yield();
    CHECK(descriptors() == descriptors_before);
    CHECK(threads() == threads_before);
    return 0;
}
