/* What a process has after many connections is what it had before: descriptors, threads, memory; what it inherits and
 * what it forks comes to no harm. HOLEPUNCH_TEST_CONNECTIONS says how many connections of each kind; 100 without. */
#include "check.h"

#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* The most by which memory may grow while connections come and go, after the first have made what is kept, in KiB: the
 * allocator's caches, some hundreds; a thousand connections that left one page each would be 4,000. */
#define GROWTH_KIB 2048

static const char *const BIND[] = {"127.0.0.1"};

static holepunch_endpoint_t *endpoint_with(holepunch_log_t log, uint32_t no_thread) {
    holepunch_config_t config = {
        .size = sizeof config, .bind = BIND, .bind_len = 1, .log = log, .no_thread = no_thread};
    holepunch_endpoint_t *made;
    OK(holepunch_endpoint_new(&config, &made, error));
    return made;
}

static holepunch_endpoint_t *near, *far;
static holepunch_listener_t *listener;

static void open_ends(void) {
    near = endpoint_with(NULL, 0);
    far = endpoint_with(NULL, 0);
    OK(holepunch_endpoint_listen(far, "life", LISTEN_FOR(20000), NULL, &listener, error));
}

static void close_ends(void) {
    holepunch_listener_free(listener);
    holepunch_endpoint_free(near);
    holepunch_endpoint_free(far);
}

/* --- Many connections --------------------------------------------------------------------------------------------- */

static void *accept_datagrams(void *count) {
    int i;
    for (i = 0; i < *(int *)count; i++) {
        holepunch_connection_t *accepted;
        uint8_t buffer[16];
        size_t length;
        OK(holepunch_listener_accept_datagram(listener, 20000, NULL, &accepted, error));
        OK(holepunch_connection_recv(accepted, buffer, sizeof buffer, &length, 20000, NULL, error));
        OK(holepunch_connection_send(accepted, buffer, length, error));
        EXPECT(HOLEPUNCH_ERROR_CLOSED,
               holepunch_connection_recv(accepted, buffer, sizeof buffer, &length, 20000, NULL, error));
        holepunch_connection_free(accepted);
    }
    return NULL;
}

static void connect_datagrams(int count) {
    pthread_t thread = start(accept_datagrams, &count);
    int i;
    for (i = 0; i < count; i++) {
        holepunch_connection_t *connection;
        uint8_t buffer[16];
        size_t length;
        OK(holepunch_endpoint_connect_datagram(near, "life", NULL, NULL, &connection, error));
        OK(holepunch_connection_send(connection, (const uint8_t *)"x", 1, error));
        OK(holepunch_connection_recv(connection, buffer, sizeof buffer, &length, 20000, NULL, error));
        holepunch_connection_free(connection);
    }
    join(thread);
}

static void *accept_streams(void *count) {
    int i;
    for (i = 0; i < *(int *)count; i++) {
        holepunch_stream_t *accepted;
        uint8_t buffer[16];
        size_t length;
        OK(holepunch_listener_accept(listener, 20000, NULL, &accepted, error));
        OK(holepunch_stream_recv(accepted, buffer, sizeof buffer, &length, 20000, NULL, error));
        OK(holepunch_stream_send_all(accepted, buffer, length, 20000, NULL, error));
        OK(holepunch_stream_recv(accepted, buffer, sizeof buffer, &length, 20000, NULL, error));
        CHECK(length == 0);
        holepunch_stream_free(accepted);
    }
    return NULL;
}

static void connect_streams(int count) {
    pthread_t thread = start(accept_streams, &count);
    int i;
    for (i = 0; i < count; i++) {
        holepunch_stream_t *stream;
        uint8_t buffer[16];
        size_t length;
        OK(holepunch_endpoint_connect(near, "life", NULL, NULL, &stream, error));
        OK(holepunch_stream_send_all(stream, (const uint8_t *)"x", 1, 20000, NULL, error));
        OK(holepunch_stream_recv(stream, buffer, sizeof buffer, &length, 20000, NULL, error));
        holepunch_stream_free(stream);
    }
    join(thread);
}

static void fail_datagrams(int count) {
    while (count-- > 0) {
        holepunch_connection_t *connection;
        EXPECT(HOLEPUNCH_ERROR_NOT_FOUND,
               holepunch_endpoint_connect_datagram(near, "nobody", CONNECT_FOR(0, 20000), NULL, &connection, error));
    }
}

static void fail_streams(int count) {
    while (count-- > 0) {
        holepunch_stream_t *stream;
        EXPECT(HOLEPUNCH_ERROR_NOT_FOUND,
               holepunch_endpoint_connect(near, "nobody", CONNECT_FOR(0, 20000), NULL, &stream, error));
    }
}

/* Introduced, and then out of time or not, as it happens. */
static void fail_late(int count) {
    while (count-- > 0) {
        holepunch_connection_t *connection = NULL;
        int32_t status =
            holepunch_endpoint_connect_datagram(near, "life", CONNECT_FOR(20000, 0), NULL, &connection, NULL);
        CHECK(status == HOLEPUNCH_OK || status == HOLEPUNCH_ERROR_TIMEOUT || status == HOLEPUNCH_ERROR_SERVER_SILENT);
        holepunch_connection_free(connection);
    }
}

/* Memory of this process that is in use, in KiB. */
static long resident(void) {
    long pages = 0, ignored;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%ld %ld", &ignored, &pages) == 2);
    fclose(file);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void settle_to(int wanted_descriptors, int wanted_threads) {
    int64_t deadline = now_ms() + 20000;
    while ((descriptors() > wanted_descriptors || threads() > wanted_threads) && now_ms() < deadline)
        sched_yield();
    CHECK(descriptors() == wanted_descriptors);
    CHECK(threads() == wanted_threads);
}

static void many_connections_leave_nothing(void) {
    static const struct {
        const char *what;
        void (*make)(int count);
    } KINDS[] = {{"datagrams", connect_datagrams},
                 {"streams", connect_streams},
                 {"failed, for datagrams", fail_datagrams},
                 {"failed, for a stream", fail_streams}};
    const char *asked = getenv("HOLEPUNCH_TEST_CONNECTIONS");
    int count = asked != NULL ? atoi(asked) : 100, before_descriptors, before_threads;
    size_t kind;
    open_ends();
    before_threads = threads();
    before_descriptors = descriptors();
    for (kind = 0; kind < sizeof KINDS / sizeof *KINDS; kind++) {
        long memory;
        int64_t began;
        KINDS[kind].make(count / 4 + 1);
        settle_to(before_descriptors, before_threads);
        memory = resident();
        began = now_ms();
        KINDS[kind].make(count);
        settle_to(before_descriptors, before_threads);
        memory = resident() - memory;
        fprintf(stderr, "%d %s: %ld KiB more after %d ms\n", count, KINDS[kind].what, memory, (int)(now_ms() - began));
#ifndef __SANITIZE_ADDRESS__
        /* The sanitiser keeps what is freed. */
        CHECK(memory < GROWTH_KIB);
#endif
    }
    fail_late(10);
    close_ends();
}

/* --- SIGPIPE ------------------------------------------------------------------------------------------------------ */

static void *accept_and_break(void *argument) {
    holepunch_stream_t *accepted;
    OK(holepunch_listener_accept(listener, 20000, NULL, &accepted, error));
    holepunch_stream_free(accepted);
    return argument;
}

/* The default action of the signal ends a program; sending to a peer that is gone must not raise it. */
static void sigpipe_is_left_alone(void) {
    static uint8_t bytes[100000];
    struct sigaction before, after;
    holepunch_stream_t *stream;
    pthread_t thread;
    int32_t status;
    CHECK(sigaction(SIGPIPE, NULL, &before) == 0 && before.sa_handler == SIG_DFL);
    open_ends();
    thread = start(accept_and_break, NULL);
    OK(holepunch_endpoint_connect(near, "life", NULL, NULL, &stream, error));
    join(thread);
    do
        status = holepunch_stream_send_all(stream, bytes, sizeof bytes, 20000, NULL, NULL);
    while (status == HOLEPUNCH_OK);
    CHECK(status == HOLEPUNCH_ERROR_LOST);
    EXPECT(HOLEPUNCH_ERROR_LOST, holepunch_stream_send_all(stream, bytes, sizeof bytes, 20000, NULL, error));
    OK(holepunch_stream_close(stream, error));
    EXPECT(HOLEPUNCH_ERROR_CLOSED, holepunch_stream_send_all(stream, bytes, sizeof bytes, 20000, NULL, error));
    holepunch_stream_free(stream);
    close_ends();
    CHECK(sigaction(SIGPIPE, NULL, &after) == 0 && after.sa_handler == SIG_DFL && after.sa_flags == before.sa_flags);
}

/* --- Fork --------------------------------------------------------------------------------------------------------- */

static int stop;

static void busy_log(void *user, int32_t level, const char *message) {
    (void)user, (void)level, (void)message;
}

static void *make_log_lines(void *endpoint) {
    while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST)) {
        holepunch_listener_t *second;
        EXPECT(HOLEPUNCH_ERROR_NAME_TAKEN, holepunch_endpoint_listen(endpoint, "life", NULL, NULL, &second, error));
    }
    return NULL;
}

struct ends {
    holepunch_connection_t *connection, *accepted;
};

static void *send_all_the_time(void *argument) {
    struct ends *ends = argument;
    while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST))
        OK(holepunch_connection_send(ends->connection, (const uint8_t *)"x", 1, error));
    return NULL;
}

static void *receive_all_the_time(void *argument) {
    struct ends *ends = argument;
    uint8_t buffer[16];
    size_t length;
    while (holepunch_connection_recv(ends->accepted, buffer, sizeof buffer, &length, 20000, NULL, NULL) == HOLEPUNCH_OK)
        ;
    return NULL;
}

static void *connect_one(void *argument) {
    struct ends *ends = argument;
    OK(holepunch_endpoint_connect_datagram(near, "life", NULL, NULL, &ends->connection, error));
    return NULL;
}

/* Everything that a child may do with what its parent has: it is told, and nothing hangs. */
static void in_the_child(holepunch_endpoint_t *busy, struct ends *ends) {
    holepunch_listener_t *second;
    holepunch_connection_t *connection;
    holepunch_stream_t *stream;
    holepunch_socket_t fd;
    uint8_t buffer[16];
    size_t length;
    int64_t timeout;
    alarm(30);
    EXPECT(HOLEPUNCH_ERROR_FORKED, holepunch_endpoint_process(busy, error));
    EXPECT(HOLEPUNCH_ERROR_FORKED, holepunch_endpoint_listen(busy, "child", NULL, NULL, &second, error));
    EXPECT(HOLEPUNCH_ERROR_FORKED, holepunch_endpoint_connect(near, "life", NULL, NULL, &stream, error));
    EXPECT(HOLEPUNCH_ERROR_FORKED, holepunch_endpoint_connect_datagram(near, "life", NULL, NULL, &connection, error));
    EXPECT(HOLEPUNCH_ERROR_FORKED, holepunch_listener_accept(listener, HOLEPUNCH_FOREVER, NULL, &stream, error));
    EXPECT(HOLEPUNCH_ERROR_FORKED, holepunch_connection_send(ends->connection, buffer, 1, error));
    EXPECT(HOLEPUNCH_ERROR_FORKED, holepunch_connection_recv(ends->accepted, buffer, sizeof buffer, &length,
                                                             HOLEPUNCH_FOREVER, NULL, error));
    EXPECT(HOLEPUNCH_ERROR_FORKED, holepunch_connection_end(ends->accepted, HOLEPUNCH_FOREVER, NULL, error));
    OK(holepunch_endpoint_next_timeout_ms(busy, &timeout, error));
    /* At the moment of the fork another call may have used it. */
    CHECK(holepunch_connection_into_socket(ends->connection, &fd, NULL) != HOLEPUNCH_OK);
    OK(holepunch_connection_close(ends->accepted, error));
    holepunch_connection_free(ends->connection);
    holepunch_connection_free(ends->accepted);
    holepunch_listener_free(listener);
    holepunch_endpoint_free(near);
    holepunch_endpoint_free(far);
    holepunch_endpoint_free(busy);
    _exit(0);
}

/* Forks at moments when other threads are within the library, also in a callback. */
static void forked_children_are_told(void) {
    struct ends ends;
    holepunch_endpoint_t *busy;
    pthread_t threads[3];
    int i, status;
    open_ends();
    busy = endpoint_with(busy_log, 0);
    threads[0] = start(connect_one, &ends);
    OK(holepunch_listener_accept_datagram(listener, 20000, NULL, &ends.accepted, error));
    join(threads[0]);
    threads[0] = start(make_log_lines, busy);
    threads[1] = start(send_all_the_time, &ends);
    threads[2] = start(receive_all_the_time, &ends);
    for (i = 0; i < 20; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
            in_the_child(busy, &ends);
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    /* The parent's connection has noticed nothing of it. */
    __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
    join(threads[0]);
    join(threads[1]);
    OK(holepunch_connection_send(ends.connection, (const uint8_t *)"x", 1, error));
    OK(holepunch_connection_close(ends.connection, error));
    join(threads[2]);
    holepunch_connection_free(ends.connection);
    holepunch_connection_free(ends.accepted);
    holepunch_endpoint_free(busy);
    close_ends();
}

int main(void) {
    int before_descriptors = descriptors(), before_threads = threads();
    many_connections_leave_nothing();
    sigpipe_is_left_alone();
    forked_children_are_told();
    settle_to(before_descriptors, before_threads);
    return 0;
}
