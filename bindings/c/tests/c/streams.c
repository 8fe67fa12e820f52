/* Two endpoints of one program have streams between them, through the server of HOLEPUNCH_SERVER: bytes both ways, each
 * direction's end, the socket given away, calls that are ended from another thread; nothing is left behind. */
#include "check.h"

#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#define SECONDS(n) ((n) * INT64_C(1000))

static const char *const BIND[] = {"127.0.0.1"};

static holepunch_endpoint_t *endpoint(void) {
    holepunch_config_t config;
    holepunch_endpoint_t *made;
    OK(holepunch_config_init(&config, sizeof config, error));
    config.bind = BIND;
    config.bind_len = 1;
    OK(holepunch_endpoint_new(&config, &made, error));
    return made;
}

struct ends {
    holepunch_endpoint_t *one, *other;
    holepunch_listener_t *listener;
    holepunch_stream_t *near, *far;
};

static struct ends meet(const char *name) {
    struct ends ends;
    ends.one = endpoint();
    ends.other = endpoint();
    OK(holepunch_endpoint_listen(ends.other, name, LISTEN_FOR(SECONDS(10)), NULL, &ends.listener, error));
    OK(holepunch_endpoint_connect(ends.one, name, NULL, NULL, &ends.near, error));
    OK(holepunch_listener_accept(ends.listener, SECONDS(10), NULL, &ends.far, error));
    return ends;
}

static void part(struct ends *ends) {
    holepunch_stream_free(ends->near);
    holepunch_stream_free(ends->far);
    holepunch_listener_free(ends->listener);
    holepunch_endpoint_free(ends->one);
    holepunch_endpoint_free(ends->other);
}

/* Receives exactly so much. */
static void receive(holepunch_stream_t *stream, uint8_t *buffer, size_t wanted) {
    size_t length;
    while (wanted > 0) {
        OK(holepunch_stream_recv(stream, buffer, wanted, &length, SECONDS(10), NULL, error));
        CHECK(length > 0 && length <= wanted);
        buffer += length;
        wanted -= length;
    }
}

static void carries_bytes_and_ends(void) {
    struct ends ends = meet("bytes");
    holepunch_path_t path = {.size = sizeof path};
    struct pollfd poll_far = {.fd = -1, .events = POLLIN};
    uint8_t out[70000], in[70000];
    size_t length = 7, i;
    uint64_t rtt = 0;
    holepunch_stream_t *none = (holepunch_stream_t *)0x1;
    OK(holepunch_stream_path(ends.near, &path, error));
    CHECK(strcmp(path.strategy, "tcp_simultaneous_open") == 0 && path.packets_sent + path.sockets > 0);
    OK(holepunch_stream_rtt(ends.near, &rtt, error));
    CHECK(rtt > 0 && rtt < 10000000);
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_stream_send(ends.near, NULL, 1, &length, 0, NULL, error));
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_stream_send(ends.near, out, 1, NULL, 0, NULL, error));
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_stream_send(ends.near, out, SIZE_MAX, &length, 0, NULL, error));
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_stream_send_all(ends.near, out, 1, -2, NULL, error));
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_stream_recv(ends.near, NULL, 1, &length, 0, NULL, error));
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_stream_recv(ends.near, in, 1, NULL, 0, NULL, error));
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_stream_path(ends.near, NULL, error));
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_stream_rtt(ends.near, NULL, error));
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_stream_fd(ends.near, NULL, error));
    EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, holepunch_stream_into_socket(ends.near, NULL, error));
    EXPECT(HOLEPUNCH_ERROR_TIMEOUT, holepunch_stream_recv(ends.near, in, sizeof in, &length, 0, NULL, error));
    EXPECT(HOLEPUNCH_ERROR_TIMEOUT, holepunch_stream_recv(ends.near, in, sizeof in, &length, 20, NULL, error));
    EXPECT(HOLEPUNCH_ERROR_TIMEOUT, holepunch_listener_accept(ends.listener, 0, NULL, &none, error));
    CHECK(length == 7 && none == (holepunch_stream_t *)0x1);
    for (i = 0; i < sizeof out; i++)
        out[i] = (uint8_t)(i * 7 >> 4);
    OK(holepunch_stream_fd(ends.far, &poll_far.fd, error));
    CHECK(poll(&poll_far, 1, 0) == 0);
    OK(holepunch_stream_send_all(ends.near, out, sizeof out, SECONDS(10), NULL, error));
    CHECK(poll(&poll_far, 1, 10000) == 1);
    receive(ends.far, in, sizeof in);
    CHECK(memcmp(in, out, sizeof in) == 0);
    OK(holepunch_stream_send(ends.far, out, 5, &length, SECONDS(10), NULL, error));
    CHECK(length == 5);
    OK(holepunch_stream_recv(ends.near, in, SIZE_MAX, &length, SECONDS(10), NULL, error));
    CHECK(length == 5);
    OK(holepunch_stream_shutdown(ends.near, error));
    EXPECT(HOLEPUNCH_ERROR_CLOSED, holepunch_stream_send(ends.near, out, 5, &length, SECONDS(10), NULL, error));
    OK(holepunch_stream_recv(ends.far, in, sizeof in, &length, SECONDS(10), NULL, error));
    CHECK(length == 0);
    /* The other direction goes on. */
    OK(holepunch_stream_send_all(ends.far, out, 5, SECONDS(10), NULL, error));
    receive(ends.near, in, 5);
    OK(holepunch_stream_close(ends.near, error));
    OK(holepunch_stream_close(ends.near, error));
    EXPECT(HOLEPUNCH_ERROR_CLOSED, holepunch_stream_recv(ends.near, in, 5, &length, SECONDS(10), NULL, error));
    part(&ends);
}

static void gives_the_socket_away(void) {
    struct ends ends = meet("socket");
    holepunch_socket_t socket = -7, none = -7;
    uint8_t in[5];
    size_t length;
    OK(holepunch_stream_send_all(ends.far, (const uint8_t *)"early", 5, SECONDS(10), NULL, error));
    OK(holepunch_stream_into_socket(ends.near, &socket, error));
    EXPECT(HOLEPUNCH_ERROR_CLOSED, holepunch_stream_into_socket(ends.near, &none, error));
    EXPECT(HOLEPUNCH_ERROR_CLOSED, holepunch_stream_recv(ends.near, in, 5, &length, 0, NULL, error));
    OK(holepunch_stream_close(ends.near, error));
    holepunch_stream_free(ends.near);
    holepunch_endpoint_free(ends.one);
    CHECK(none == -7 && recv(socket, in, 5, MSG_WAITALL) == 5 && memcmp(in, "early", 5) == 0);
    CHECK(send(socket, "later", 5, MSG_NOSIGNAL) == 5);
    receive(ends.far, in, 5);
    CHECK(memcmp(in, "later", 5) == 0);
    CHECK(close(socket) == 0);
    OK(holepunch_stream_recv(ends.far, in, 5, &length, SECONDS(10), NULL, error));
    CHECK(length == 0);
    holepunch_stream_free(ends.far);
    holepunch_listener_free(ends.listener);
    holepunch_endpoint_free(ends.other);
}

struct blocked {
    holepunch_stream_t *stream;
    int32_t status;
};

static void *receive_for_ever(void *argument) {
    struct blocked *blocked = argument;
    uint8_t in[5];
    size_t length;
    blocked->status = holepunch_stream_recv(blocked->stream, in, 5, &length, HOLEPUNCH_FOREVER, NULL, NULL);
    return NULL;
}

static void a_close_ends_what_blocks(void) {
    struct ends ends = meet("blocked");
    struct blocked blocked = {ends.near, HOLEPUNCH_OK};
    pthread_t thread = start(receive_for_ever, &blocked);
    OK(holepunch_stream_close(ends.near, error));
    join(thread);
    CHECK(blocked.status == HOLEPUNCH_ERROR_CLOSED);
    part(&ends);
}

int main(void) {
    int descriptors_before = descriptors(), threads_before = threads();
    int64_t deadline;
    carries_bytes_and_ends();
    gives_the_socket_away();
    a_close_ends_what_blocks();
    deadline = now_ms() + SECONDS(10);
    while ((descriptors() != descriptors_before || threads() != threads_before) && now_ms() < deadline)
        sched_yield();
    CHECK(descriptors() == descriptors_before);
    CHECK(threads() == threads_before);
    return 0;
}
