/* Calls that block are ended from another thread: by a token, by closing their handle, by closing the endpoint. */
#include "check.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

/* It is to be 100 ms, which is what is printed; a busy machine may add the rest. */
#define PROMPT_MS 5000

static const char *const BIND[] = {"127.0.0.1"};

static holepunch_endpoint_t *endpoint(void) {
    holepunch_config_t config = {.size = sizeof config, .bind = BIND, .bind_len = 1};
    holepunch_endpoint_t *made;
    OK(holepunch_endpoint_new(&config, &made, error));
    return made;
}

/* Everything that a test may block on or end. */
struct scene {
    holepunch_endpoint_t *listening, *connecting;
    holepunch_listener_t *listener;
    holepunch_connection_t *connection, *accepted;
    holepunch_stream_t *stream, *accepted_stream;
    holepunch_agent_t *agent;
    holepunch_cancel_t *cancel;
    pid_t blocked;
    int32_t status;
    int64_t returned;
};

static int32_t blocks_in_accept(struct scene *scene, holepunch_error_t **error) {
    holepunch_connection_t *connection;
    return holepunch_listener_accept_datagram(scene->listener, HOLEPUNCH_FOREVER, scene->cancel, &connection, error);
}

static int32_t blocks_in_connect(struct scene *scene, holepunch_error_t **error) {
    holepunch_connection_t *connection;
    return holepunch_endpoint_connect_datagram(scene->connecting, "nobody",
                                               CONNECT_FOR(HOLEPUNCH_FOREVER, HOLEPUNCH_FOREVER), scene->cancel,
                                               &connection, error);
}

static int32_t blocks_in_recv(struct scene *scene, holepunch_error_t **error) {
    uint8_t buffer[16];
    size_t length;
    return holepunch_connection_recv(scene->connection, buffer, sizeof buffer, &length, HOLEPUNCH_FOREVER,
                                     scene->cancel, error);
}

static int32_t blocks_in_stream_accept(struct scene *scene, holepunch_error_t **error) {
    holepunch_stream_t *stream;
    return holepunch_listener_accept(scene->listener, HOLEPUNCH_FOREVER, scene->cancel, &stream, error);
}

static int32_t blocks_in_stream_connect(struct scene *scene, holepunch_error_t **error) {
    holepunch_stream_t *stream;
    return holepunch_endpoint_connect(scene->connecting, "nobody", CONNECT_FOR(HOLEPUNCH_FOREVER, HOLEPUNCH_FOREVER),
                                      scene->cancel, &stream, error);
}

static int32_t blocks_in_stream_recv(struct scene *scene, holepunch_error_t **error) {
    uint8_t buffer[16];
    size_t length;
    return holepunch_stream_recv(scene->stream, buffer, sizeof buffer, &length, HOLEPUNCH_FOREVER, scene->cancel,
                                 error);
}

/* Nobody reads what is sent. */
static int32_t blocks_in_stream_send(struct scene *scene, holepunch_error_t **error) {
    static uint8_t bytes[1 << 26];
    return holepunch_stream_send_all(scene->stream, bytes, sizeof bytes, HOLEPUNCH_FOREVER, scene->cancel, error);
}

/* Its peer's credentials are never told. */
static int32_t blocks_in_agent_connect(struct scene *scene, holepunch_error_t **error) {
    holepunch_connection_t *connection;
    return holepunch_agent_connect(scene->agent, HOLEPUNCH_FOREVER, scene->cancel, &connection, error);
}

/* As without a token and a deadline, where the call sleeps in the system's own. */
static int32_t sleeps_in_recv(struct scene *scene, holepunch_error_t **error) {
    uint8_t buffer[HOLEPUNCH_MAX_DATAGRAM];
    size_t length;
    return holepunch_connection_recv(scene->connection, buffer, sizeof buffer, &length, HOLEPUNCH_FOREVER, NULL, error);
}

static int32_t sleeps_in_stream_recv(struct scene *scene, holepunch_error_t **error) {
    uint8_t buffer[16];
    size_t length;
    return holepunch_stream_recv(scene->stream, buffer, sizeof buffer, &length, HOLEPUNCH_FOREVER, NULL, error);
}

static int32_t sleeps_in_stream_send(struct scene *scene, holepunch_error_t **error) {
    static uint8_t bytes[1 << 26];
    return holepunch_stream_send_all(scene->stream, bytes, sizeof bytes, HOLEPUNCH_FOREVER, NULL, error);
}

static int32_t closes_stream(struct scene *scene, holepunch_error_t **error) {
    return holepunch_stream_close(scene->stream, error);
}

static int32_t closes_agent(struct scene *scene, holepunch_error_t **error) {
    return holepunch_agent_close(scene->agent, error);
}

static int32_t cancels(struct scene *scene, holepunch_error_t **error) {
    return holepunch_cancel_cancel(scene->cancel, error);
}

static int32_t closes_listener(struct scene *scene, holepunch_error_t **error) {
    return holepunch_listener_close(scene->listener, error);
}

static int32_t closes_connection(struct scene *scene, holepunch_error_t **error) {
    return holepunch_connection_close(scene->connection, error);
}

static int32_t peer_closes(struct scene *scene, holepunch_error_t **error) {
    return holepunch_connection_close(scene->accepted, error);
}

static int32_t closes_listening_endpoint(struct scene *scene, holepunch_error_t **error) {
    return holepunch_endpoint_close(scene->listening, error);
}

static int32_t closes_connecting_endpoint(struct scene *scene, holepunch_error_t **error) {
    return holepunch_endpoint_close(scene->connecting, error);
}

typedef int32_t action(struct scene *scene, holepunch_error_t **error);

static const struct {
    const char *what;
    action *block, *end;
    int32_t status;
} CASES[] = {
    {"accept, cancelled", blocks_in_accept, cancels, HOLEPUNCH_ERROR_CANCELLED},
    {"accept, listener closed", blocks_in_accept, closes_listener, HOLEPUNCH_ERROR_CLOSED},
    {"accept, endpoint closed", blocks_in_accept, closes_listening_endpoint, HOLEPUNCH_ERROR_CLOSED},
    {"connect, cancelled", blocks_in_connect, cancels, HOLEPUNCH_ERROR_CANCELLED},
    {"connect, endpoint closed", blocks_in_connect, closes_connecting_endpoint, HOLEPUNCH_ERROR_CLOSED},
    {"recv, cancelled", blocks_in_recv, cancels, HOLEPUNCH_ERROR_CANCELLED},
    {"recv, connection closed", blocks_in_recv, closes_connection, HOLEPUNCH_ERROR_CLOSED},
    {"recv, endpoint closed", blocks_in_recv, closes_connecting_endpoint, HOLEPUNCH_ERROR_CLOSED},
    {"recv, peer closed", blocks_in_recv, peer_closes, HOLEPUNCH_ERROR_CLOSED},
    {"recv without limits, connection closed", sleeps_in_recv, closes_connection, HOLEPUNCH_ERROR_CLOSED},
    {"recv without limits, endpoint closed", sleeps_in_recv, closes_connecting_endpoint, HOLEPUNCH_ERROR_CLOSED},
    {"agent connect, cancelled", blocks_in_agent_connect, cancels, HOLEPUNCH_ERROR_CANCELLED},
    {"agent connect, agent closed", blocks_in_agent_connect, closes_agent, HOLEPUNCH_ERROR_CLOSED},
    {"agent connect, endpoint closed", blocks_in_agent_connect, closes_connecting_endpoint, HOLEPUNCH_ERROR_CLOSED},
    {"stream accept, cancelled", blocks_in_stream_accept, cancels, HOLEPUNCH_ERROR_CANCELLED},
    {"stream accept, listener closed", blocks_in_stream_accept, closes_listener, HOLEPUNCH_ERROR_CLOSED},
    {"stream accept, endpoint closed", blocks_in_stream_accept, closes_listening_endpoint, HOLEPUNCH_ERROR_CLOSED},
    {"stream connect, cancelled", blocks_in_stream_connect, cancels, HOLEPUNCH_ERROR_CANCELLED},
    {"stream connect, endpoint closed", blocks_in_stream_connect, closes_connecting_endpoint, HOLEPUNCH_ERROR_CLOSED},
    {"stream recv, cancelled", blocks_in_stream_recv, cancels, HOLEPUNCH_ERROR_CANCELLED},
    {"stream recv, stream closed", blocks_in_stream_recv, closes_stream, HOLEPUNCH_ERROR_CLOSED},
    {"stream recv, endpoint closed", blocks_in_stream_recv, closes_connecting_endpoint, HOLEPUNCH_ERROR_CLOSED},
    {"stream recv without limits, stream closed", sleeps_in_stream_recv, closes_stream, HOLEPUNCH_ERROR_CLOSED},
    {"stream recv without limits, endpoint closed", sleeps_in_stream_recv, closes_connecting_endpoint,
     HOLEPUNCH_ERROR_CLOSED},
    {"stream send, cancelled", blocks_in_stream_send, cancels, HOLEPUNCH_ERROR_CANCELLED},
    {"stream send, stream closed", blocks_in_stream_send, closes_stream, HOLEPUNCH_ERROR_CLOSED},
    {"stream send, endpoint closed", blocks_in_stream_send, closes_connecting_endpoint, HOLEPUNCH_ERROR_CLOSED},
    {"stream send without limits, stream closed", sleeps_in_stream_send, closes_stream, HOLEPUNCH_ERROR_CLOSED},
    {"stream send without limits, endpoint closed", sleeps_in_stream_send, closes_connecting_endpoint,
     HOLEPUNCH_ERROR_CLOSED},
};

struct run {
    struct scene *scene;
    action *block;
};

static void *block(void *argument) {
    struct run *run = argument;
    holepunch_error_t *error = NULL;
    __atomic_store_n(&run->scene->blocked, (pid_t)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
    run->scene->status = run->block(run->scene, &error);
    run->scene->returned = now_ms();
    CHECK(error != NULL && holepunch_error_code(error) == run->scene->status);
    holepunch_error_free(error);
    return NULL;
}

static void *connect_to(void *argument) {
    struct scene *scene = argument;
    OK(holepunch_endpoint_connect_datagram(scene->connecting, "blocking", NULL, NULL, &scene->connection, error));
    OK(holepunch_endpoint_connect(scene->connecting, "blocking", NULL, NULL, &scene->stream, error));
    return NULL;
}

static void run_case(size_t index) {
    struct scene scene = {.listening = endpoint(), .connecting = endpoint()};
    struct run run = {&scene, CASES[index].block};
    pthread_t thread;
    int64_t began;
    pid_t blocked;
    OK(holepunch_cancel_new(&scene.cancel, error));
    OK(holepunch_endpoint_listen(scene.listening, "blocking", LISTEN_FOR(10000), NULL, &scene.listener, error));
    thread = start(connect_to, &scene);
    OK(holepunch_listener_accept_datagram(scene.listener, 10000, NULL, &scene.accepted, error));
    OK(holepunch_listener_accept(scene.listener, 10000, NULL, &scene.accepted_stream, error));
    join(thread);
    OK(holepunch_endpoint_agent(scene.connecting, HOLEPUNCH_ROLE_CONTROLLING, NULL, NULL, &scene.agent, error));

    thread = start(block, &run);
    while ((blocked = __atomic_load_n(&scene.blocked, __ATOMIC_SEQ_CST)) == 0 || !is_asleep(blocked))
        sched_yield();
    began = now_ms();
    OK(CASES[index].end(&scene, error));
    join(thread);
    fprintf(stderr, "%s: %s after %d ms\n", CASES[index].what, holepunch_status_name(scene.status),
            (int)(scene.returned - began));
    CHECK(scene.status == CASES[index].status);
    CHECK(scene.returned - began < PROMPT_MS);

    holepunch_stream_free(scene.stream);
    holepunch_stream_free(scene.accepted_stream);
    holepunch_connection_free(scene.connection);
    holepunch_connection_free(scene.accepted);
    holepunch_agent_free(scene.agent);
    holepunch_listener_free(scene.listener);
    holepunch_endpoint_free(scene.listening);
    holepunch_endpoint_free(scene.connecting);
    holepunch_cancel_free(scene.cancel);
}

int main(void) {
    size_t index;
    for (index = 0; index < sizeof CASES / sizeof *CASES; index++)
        run_case(index);
    return 0;
}
