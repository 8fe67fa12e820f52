/* Calls functions with every combination of the values below; tests/table.rs makes the list of functions from the
 * header and says what for.
 *
 * A kind is a type of argument: its values, how many there are now, and what a call that succeeds with it leaves to be
 * freed. Every function gets a scene of its own, since it may close what it is called on. */
#ifndef TABLE_H
#define TABLE_H

#include "check.h"

#include <sched.h>
#include <unistd.h>

#define MOST_PARAMETERS 8
/* What a call may take that waits for nobody, on a busy machine and under a sanitiser. Taking a socket waits for the
 * peer, for 4 seconds at most. */
#define PROMPT_MS 8000

int32_t panic_on(void *handle, const char *name);

enum state { ALIVE, CLOSED, GIVEN_AWAY, PANICKED, IN_CALLBACK, STATES };
static const char *const STATE_NAMES[] = {"alive", "closed", "given away", "panicked", "in a callback"};

/* What a kind of argument is for. */
enum role { PLAIN, HANDLE, OUT };

struct kind {
    const char *name;
    enum role role;
    size_t count;
    /* Frees what a call wrote, and tells whether it wrote anything. */
    int (*take)(void);
};

struct function {
    const char *name;
    int32_t (*call)(const size_t *pick, holepunch_error_t **error);
    int reports;
    const struct kind *kinds[MOST_PARAMETERS];
};

/* --- The values of every kind ------------------------------------------------------------------------------------- */

/* The handles: NULL, and the one of the scene. */
#define HANDLE_KIND(type)                                                                                              \
    static holepunch_##type##_t *type##_values[2];                                                                     \
    static const struct kind type##_kind = {#type, HANDLE, 2, NULL};                                                   \
    static holepunch_##type##_t *made_##type;                                                                          \
    static holepunch_##type##_t **const out_##type##_values[] = {NULL, &made_##type};                                  \
    static int take_##type(void) {                                                                                     \
        int written = made_##type != NULL;                                                                             \
        holepunch_##type##_free(made_##type);                                                                          \
        made_##type = NULL;                                                                                            \
        return written;                                                                                                \
    }                                                                                                                  \
    static const struct kind out_##type##_kind = {"out " #type, OUT, 2, take_##type};

HANDLE_KIND(cancel)
HANDLE_KIND(endpoint)
HANDLE_KIND(listener)
HANDLE_KIND(stream)
HANDLE_KIND(connection)
HANDLE_KIND(agent)

static const holepunch_error_t *given_error_values[2];
static const struct kind given_error_kind = {"error", PLAIN, 2, NULL};

static char long_text[100000];
static const char *const text_values[] = {NULL, "", "Not A Name", "\xff", long_text, "table"};
static const struct kind text_kind = {"text", PLAIN, 6, NULL};

/* As large as anything that is received at once, so that no capacity is a lie that can be seen. */
static uint8_t memory[1 << 24];
static const uint8_t *const bytes_values[] = {NULL, memory};
static const struct kind bytes_kind = {"bytes", PLAIN, 2, NULL};
static uint8_t *const buffer_values[] = {NULL, memory};
static const struct kind buffer_kind = {"buffer", PLAIN, 2, NULL};
static char *const text_buffer_values[] = {NULL, (char *)memory};
static const struct kind text_buffer_kind = {"text buffer", PLAIN, 2, NULL};
static const size_t size_values[] = {0, 1, HOLEPUNCH_MAX_DATAGRAM, SIZE_MAX};
static const struct kind size_kind = {"size", PLAIN, 4, NULL};
static const int32_t number_values[] = {INT32_MIN, -1, 0, HOLEPUNCH_ROLE_CONTROLLING, HOLEPUNCH_ERROR_LIMIT_REACHED,
                                        INT32_MAX};
static const struct kind number_kind = {"number", PLAIN, 6, NULL};

/* Times that end at once, those that are wrong, and those that are long, which need a token that is cancelled or a
 * caller who must not wait. */
static int64_t time_values[4];
static struct kind time_kind = {"time", PLAIN, 0, NULL};

#define OUT_KIND(name, type, sentinel)                                                                                 \
    static type made_##name = sentinel;                                                                                \
    static type *const out_##name##_values[] = {NULL, &made_##name};                                                   \
    static int take_##name(void) {                                                                                     \
        int written = made_##name != sentinel;                                                                         \
        made_##name = sentinel;                                                                                        \
        return written;                                                                                                \
    }                                                                                                                  \
    static const struct kind out_##name##_kind = {"out " #name, OUT, 2, take_##name};

OUT_KIND(size, size_t, (size_t)0xbadbad)
OUT_KIND(time, int64_t, (int64_t)-77)
OUT_KIND(number, uint64_t, (uint64_t)0xbadbadbad)
OUT_KIND(socket, holepunch_socket_t, -7)
OUT_KIND(text, const char *, NULL)

/* Structs that start with their size, in room for any size that is accepted. */
#define STRUCT_KIND(type, room)                                                                                        \
    static union {                                                                                                     \
        holepunch_##type##_t value;                                                                                    \
        uint8_t bytes[4096];                                                                                           \
    } room[5];                                                                                                         \
    static holepunch_##type##_t *type##_values[] = {NULL,           &room[0].value, &room[1].value,                    \
                                                    &room[2].value, &room[3].value, &room[4].value};                   \
    static const struct kind type##_kind = {#type, PLAIN, 6, NULL};

STRUCT_KIND(config, config_room)
STRUCT_KIND(listen_options, listen_room)
STRUCT_KIND(connect_options, connect_room)
STRUCT_KIND(agent_options, agent_room)
STRUCT_KIND(path, path_room)

static const holepunch_config_t *given_config_values[5];
static struct kind given_config_kind = {"config", PLAIN, 0, NULL};
static const holepunch_listen_options_t *given_listen_options_values[5];
static struct kind given_listen_options_kind = {"listen options", PLAIN, 0, NULL};
static const holepunch_connect_options_t *given_connect_options_values[5];
static struct kind given_connect_options_kind = {"connect options", PLAIN, 0, NULL};

static const holepunch_agent_options_t *given_agent_options_values[5];
static struct kind given_agent_options_kind = {"agent options", PLAIN, 0, NULL};

/* Sizes that are wrong, and one that is right, where a function may have changed them. */
static void reset_structs(void) {
    static const size_t WRONG[] = {0, 1, 4096, SIZE_MAX};
    size_t i;
    for (i = 0; i < 4; i++)
        config_room[i].value.size = listen_room[i].value.size = connect_room[i].value.size = agent_room[i].value.size = path_room[i].value.size =
            WRONG[i];
    path_room[4].value.size = sizeof(holepunch_path_t);
}

/* Whether calls may wait: no, with a token that is cancelled, or as if they could (in a callback they cannot). */
enum patience { NONE, CANCELLED, ENDLESS };

static holepunch_cancel_t *fresh, *cancelled;

static void set_patience(enum patience patience) {
    static const int64_t TIMES[3][4] = {
        {0, -2, INT64_MIN, -3}, {INT64_MAX, HOLEPUNCH_FOREVER, 1000000, 0}, {HOLEPUNCH_FOREVER, INT64_MAX, 1000000, 0}};
    static holepunch_config_t config = {.size = sizeof config}, odd = {.size = sizeof odd, .family = 7};
    static holepunch_listen_options_t listen[2] = {{.size = sizeof *listen}, {.size = sizeof *listen}};
    static holepunch_connect_options_t connect[2] = {{.size = sizeof *connect}, {.size = sizeof *connect}};
    static holepunch_agent_options_t agent[2] = {{.size = sizeof *agent}, {.size = sizeof *agent}};
    size_t i, wrong;
    for (i = 0; i < 4; i++)
        time_values[i] = TIMES[patience][i];
    time_kind.count = patience == NONE ? 4 : 3;
    for (i = 0; i < 2; i++)
        listen[i].timeout_ms = connect[i].wait_ms = connect[i].timeout_ms = agent[i].timeout_ms = time_values[i];
    for (i = 0; i < 2; i++) {
        given_config_values[i] = i == 0 ? &config : &odd;
        given_listen_options_values[i] = &listen[i];
        given_connect_options_values[i] = &connect[i];
        given_agent_options_values[i] = &agent[i];
    }
    for (wrong = 0; wrong < 2; wrong++, i++) {
        given_config_values[i] = &config_room[wrong * 3].value;
        given_listen_options_values[i] = &listen_room[wrong * 3].value;
        given_connect_options_values[i] = &connect_room[wrong * 3].value;
        given_agent_options_values[i] = &agent_room[wrong * 3].value;
    }
    given_config_values[i] = NULL;
    given_listen_options_values[i] = NULL;
    given_connect_options_values[i] = NULL;
    given_agent_options_values[i] = NULL;
    given_config_kind.count = given_agent_options_kind.count = 5;
    /* NULL is the default, which waits. */
    given_listen_options_kind.count = given_connect_options_kind.count = patience == NONE ? 4 : 5;
    cancel_values[0] = patience == CANCELLED ? cancelled : NULL;
    cancel_values[1] = patience == CANCELLED ? cancelled : fresh;
}

/* --- The scene ---------------------------------------------------------------------------------------------------- */

static struct {
    holepunch_endpoint_t *near, *far;
    holepunch_listener_t *listener, *own;
    holepunch_connection_t *connection, *accepted;
    holepunch_stream_t *stream, *accepted_stream;
    holepunch_agent_t *agent;
} scene;

static void on_log(void *user, int32_t level, const char *message);

static holepunch_endpoint_t *endpoint(holepunch_log_t log) {
    static const char *const BIND[] = {"127.0.0.1"};
    holepunch_config_t config = {.size = sizeof config, .bind = BIND, .bind_len = 1, .log = log};
    holepunch_endpoint_t *made;
    OK(holepunch_endpoint_new(&config, &made, error));
    return made;
}

static void *connect_both(void *argument) {
    OK(holepunch_endpoint_connect_datagram(scene.near, "table", NULL, NULL, &scene.connection, error));
    OK(holepunch_endpoint_connect(scene.near, "table", NULL, NULL, &scene.stream, error));
    return argument;
}

static void close_all(void) {
    OK(holepunch_listener_close(scene.own, error));
    OK(holepunch_connection_close(scene.connection, error));
    OK(holepunch_stream_close(scene.stream, error));
    OK(holepunch_agent_close(scene.agent, error));
    OK(holepunch_endpoint_close(scene.near, error));
    OK(holepunch_endpoint_close(scene.far, error));
}

static void give_away(void) {
    holepunch_socket_t datagrams, stream;
    OK(holepunch_connection_into_socket(scene.connection, &datagrams, error));
    OK(holepunch_stream_into_socket(scene.stream, &stream, error));
    CHECK(close(datagrams) == 0 && close(stream) == 0);
}

static void panic_all(void) {
    CHECK(panic_on(scene.near, "endpoint") == HOLEPUNCH_ERROR_POISONED);
    CHECK(panic_on(scene.own, "listener") == HOLEPUNCH_ERROR_POISONED);
    CHECK(panic_on(scene.connection, "connection") == HOLEPUNCH_ERROR_POISONED);
    CHECK(panic_on(scene.stream, "stream") == HOLEPUNCH_ERROR_POISONED);
    CHECK(panic_on(scene.agent, "agent") == HOLEPUNCH_ERROR_POISONED);
    CHECK(panic_on(fresh, "cancel") == HOLEPUNCH_ERROR_POISONED);
    CHECK(panic_on(cancelled, "cancel") == HOLEPUNCH_ERROR_POISONED);
}

static void begin(enum state state) {
    pthread_t thread;
    OK(holepunch_cancel_new(&fresh, error));
    OK(holepunch_cancel_new(&cancelled, error));
    OK(holepunch_cancel_cancel(cancelled, error));
    scene.near = endpoint(on_log);
    scene.far = endpoint(NULL);
    OK(holepunch_endpoint_listen(scene.far, "table", LISTEN_FOR(20000), NULL, &scene.listener, error));
    OK(holepunch_endpoint_listen(scene.near, "own", LISTEN_FOR(20000), NULL, &scene.own, error));
    thread = start(connect_both, NULL);
    OK(holepunch_listener_accept_datagram(scene.listener, 20000, NULL, &scene.accepted, error));
    OK(holepunch_listener_accept(scene.listener, 20000, NULL, &scene.accepted_stream, error));
    join(thread);
    OK(holepunch_endpoint_agent(scene.near, HOLEPUNCH_ROLE_CONTROLLED, NULL, NULL, &scene.agent, error));
    if (state == CLOSED)
        close_all();
    if (state == GIVEN_AWAY)
        give_away();
    if (state == PANICKED)
        panic_all();
    endpoint_values[1] = scene.near;
    listener_values[1] = scene.own;
    connection_values[1] = scene.connection;
    stream_values[1] = scene.stream;
    agent_values[1] = scene.agent;
}

static void end(void) {
    holepunch_stream_free(scene.stream);
    holepunch_stream_free(scene.accepted_stream);
    holepunch_connection_free(scene.connection);
    holepunch_connection_free(scene.accepted);
    holepunch_agent_free(scene.agent);
    holepunch_listener_free(scene.listener);
    holepunch_listener_free(scene.own);
    holepunch_endpoint_free(scene.near);
    holepunch_endpoint_free(scene.far);
    holepunch_cancel_free(fresh);
    holepunch_cancel_free(cancelled);
}

/* --- The calls ---------------------------------------------------------------------------------------------------- */

static int ends_with(const char *text, const char *end) {
    size_t length = strlen(text), last = strlen(end);
    return length >= last && strcmp(text + length - last, end) == 0;
}

/* Whether a function goes on after its handle was closed: it only tells something, or ends what has ended. */
static int only_tells(const char *name) {
    static const char *const TELLS[] = {"_close", "_cancel", "_path", "_rtt", "_fd", "_process", "_next_timeout_ms", "_ufrag",
                                        "_password"};
    size_t i;
    for (i = 0; i < sizeof TELLS / sizeof *TELLS; i++)
        if (ends_with(name, TELLS[i]))
            return 1;
    return 0;
}

static void complain(const struct function *function, const size_t *pick, enum state state, int32_t got,
                     const char *what) {
    size_t i;
    fprintf(stderr, "%s, %s: %s; it gave %s (%d) with", function->name, STATE_NAMES[state], what,
            holepunch_status_name(got), (int)got);
    for (i = 0; function->kinds[i] != NULL; i++)
        fprintf(stderr, " %s %zu,", function->kinds[i]->name, pick[i]);
    fprintf(stderr, "\n");
    exit(1);
}

/* One call, and what is true of any. */
static void call_once(const struct function *function, const size_t *pick, enum state state, holepunch_error_t **error) {
    const struct kind *const *kinds = function->kinds;
    int on_handle = function->reports && kinds[0] != NULL && kinds[0]->role == HANDLE;
    int64_t before = now_ms();
    int32_t got;
    size_t i;
    reset_structs();
    got = function->call(pick, error);
    if (now_ms() - before > PROMPT_MS)
        complain(function, pick, state, got, "it took too long");
    if (!function->reports)
        return;
    if (strcmp(holepunch_status_name(got), "unknown") == 0)
        complain(function, pick, state, got, "it is no status");
    if (error != NULL) {
        if ((*error != NULL) != (got != HOLEPUNCH_OK) || holepunch_error_code(*error) != got)
            complain(function, pick, state, got, "the error does not match");
        if (*error != NULL && (strlen(holepunch_error_message(*error)) < 6 || strlen(holepunch_error_hint(*error)) < 6))
            complain(function, pick, state, got, "the error says nothing");
        holepunch_error_free(*error);
    }
    if (on_handle && state == PANICKED && (pick[0] != 0 || kinds[0] == &cancel_kind) &&
        got != HOLEPUNCH_ERROR_POISONED && !(kinds[0] == &cancel_kind && cancel_values[pick[0]] == NULL))
        complain(function, pick, state, got, "a panic was forgotten");
    if (on_handle && pick[0] == 0 && kinds[0] != &cancel_kind && got != HOLEPUNCH_ERROR_INVALID_ARGUMENT)
        complain(function, pick, state, got, "the handle is NULL");
    if (on_handle && state == CLOSED && got == HOLEPUNCH_OK && !only_tells(function->name))
        complain(function, pick, state, got, "it is closed");
    if (on_handle && state == GIVEN_AWAY && (kinds[0] == &connection_kind || kinds[0] == &stream_kind) &&
        got != HOLEPUNCH_ERROR_CLOSED && got != HOLEPUNCH_ERROR_INVALID_ARGUMENT &&
        got != HOLEPUNCH_ERROR_MESSAGE_TOO_LARGE && !ends_with(function->name, "_close"))
        complain(function, pick, state, got, "it has no socket");
    if (got == HOLEPUNCH_OK && ends_with(function->name, "_into_socket"))
        close(made_socket);
    for (i = 0; kinds[i] != NULL; i++) {
        if (kinds[i]->role != OUT)
            continue;
        if (pick[i] == 0 && got == HOLEPUNCH_OK)
            complain(function, pick, state, got, "a result had no place");
        if (kinds[i]->take() != (got == HOLEPUNCH_OK))
            complain(function, pick, state, got, "a result is written on success, and only then");
    }
}

/* Every combination, with an error and without. */
static size_t call_all(const struct function *function, enum state state) {
    size_t pick[MOST_PARAMETERS] = {0}, calls = 0, i;
    do {
        holepunch_error_t *failure = NULL;
        call_once(function, pick, state, calls % 3 == 2 ? NULL : &failure);
        calls++;
        for (i = 0; function->kinds[i] != NULL && ++pick[i] == function->kinds[i]->count; i++)
            pick[i] = 0;
    } while (function->kinds[i] != NULL);
    return calls;
}

static const struct function *from_callback;
static size_t calls_from_callback;

/* A line of the log, in whichever thread; the first one while there is a function calls it. */
static void on_log(void *user, int32_t level, const char *message) {
    const struct function *function = __atomic_exchange_n(&from_callback, NULL, __ATOMIC_SEQ_CST);
    (void)user, (void)level, (void)message;
    if (function != NULL)
        __atomic_store_n(&calls_from_callback, call_all(function, IN_CALLBACK), __ATOMIC_SEQ_CST);
}

/* Has the endpoint write a line of its log: that a name is taken. Its callback calls the function. */
static size_t call_from_callback(const struct function *function) {
    holepunch_listener_t *listener;
    size_t calls;
    __atomic_store_n(&calls_from_callback, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&from_callback, function, __ATOMIC_SEQ_CST);
    /* The function may have closed the endpoint when this returns. */
    CHECK(holepunch_endpoint_listen(scene.near, "table", NULL, NULL, &listener, NULL) != HOLEPUNCH_OK);
    while ((calls = __atomic_load_n(&calls_from_callback, __ATOMIC_SEQ_CST)) == 0)
        sched_yield();
    return calls;
}

static int run_table(const struct function *functions, size_t count) {
    int descriptors_before = descriptors(), threads_before = threads();
    holepunch_error_t *failure = NULL;
    size_t i, calls = 0;
    int64_t deadline;
    int state;
    alarm(280);
    memset(long_text, 'a', sizeof long_text - 1);
    CHECK(holepunch_endpoint_process(NULL, &failure) == HOLEPUNCH_ERROR_INVALID_ARGUMENT);
    given_error_values[1] = failure;
    holepunch_error_free(NULL);
    for (i = 0; i < count; i++)
        for (state = ALIVE; state < STATES; state++) {
            begin((enum state)state);
            set_patience(NONE);
            calls += state == IN_CALLBACK ? 0 : call_all(&functions[i], (enum state)state);
            set_patience(state == IN_CALLBACK ? ENDLESS : CANCELLED);
            calls += state == IN_CALLBACK ? call_from_callback(&functions[i])
                                          : call_all(&functions[i], (enum state)state);
            end();
        }
    holepunch_error_free(failure);
    fprintf(stderr, "%zu calls of %zu functions\n", calls, count);
    deadline = now_ms() + 10000;
    while ((descriptors() != descriptors_before || threads() != threads_before) && now_ms() < deadline)
        sched_yield();
    CHECK(descriptors() == descriptors_before);
    CHECK(threads() == threads_before);
    return 0;
}

#endif
