/* Wrong arguments to every function: NULL, zero, huge, malformed. Each gives its status with a text and advice, and
 * leaves the out-parameters alone; none crashes. No server is needed. */
#include "check.h"

#define INVALID(call) EXPECT(HOLEPUNCH_ERROR_INVALID_ARGUMENT, call)

static const uint8_t SHORT_SECRET[15], SECRET[16];

static void texts(void) {
    int32_t status;
    CHECK(strcmp(holepunch_version(), EXPECTED_VERSION) == 0);
    CHECK(strcmp(holepunch_status_name(HOLEPUNCH_OK), "ok") == 0);
    CHECK(strcmp(holepunch_status_name(HOLEPUNCH_ERROR_NOT_FOUND), "not_found") == 0);
    CHECK(strcmp(holepunch_status_name(HOLEPUNCH_ERROR_LIMIT_REACHED), "limit_reached") == 0);
    for (status = -2; status <= 1000; status++)
        CHECK(strlen(holepunch_status_name(status)) > 0);
    CHECK(strcmp(holepunch_status_name(INT32_MIN), "unknown") == 0);
    CHECK(strcmp(holepunch_status_name(INT32_MAX), "unknown") == 0);
    CHECK(holepunch_error_code(NULL) == HOLEPUNCH_OK);
    CHECK(holepunch_error_os_errno(NULL) == 0);
    CHECK(strcmp(holepunch_error_message(NULL), "") == 0);
    CHECK(strcmp(holepunch_error_hint(NULL), "") == 0);
}

static void free_ignores_null(void) {
    holepunch_error_free(NULL);
    holepunch_cancel_free(NULL);
    holepunch_endpoint_free(NULL);
    holepunch_listener_free(NULL);
    holepunch_stream_free(NULL);
    holepunch_connection_free(NULL);
    holepunch_agent_free(NULL);
}

/* Every function with a NULL handle. */
static void null_handles(void) {
    holepunch_listener_t *listener = (holepunch_listener_t *)0x1;
    holepunch_connection_t *connection = (holepunch_connection_t *)0x1;
    holepunch_stream_t *stream = (holepunch_stream_t *)0x1;
    holepunch_path_t path = {.size = sizeof path};
    holepunch_socket_t fd = -7;
    uint8_t byte = 7;
    size_t length = 7;
    int64_t timeout = 7;
    uint64_t rtt = 7;
    INVALID(holepunch_config_init(NULL, sizeof(holepunch_config_t), error));
    INVALID(holepunch_cancel_cancel(NULL, error));
    INVALID(holepunch_endpoint_listen(NULL, "bob", LISTEN_FOR(0), NULL, &listener, error));
    INVALID(holepunch_endpoint_connect_datagram(NULL, "bob", CONNECT_FOR(0, 0), NULL, &connection, error));
    INVALID(holepunch_endpoint_connect(NULL, "bob", CONNECT_FOR(0, 0), NULL, &stream, error));
    INVALID(holepunch_endpoint_process(NULL, error));
    INVALID(holepunch_endpoint_next_timeout_ms(NULL, &timeout, error));
    INVALID(holepunch_endpoint_fd(NULL, &fd, error));
    INVALID(holepunch_endpoint_close(NULL, error));
    INVALID(holepunch_listener_accept_datagram(NULL, 0, NULL, &connection, error));
    INVALID(holepunch_listener_accept(NULL, 0, NULL, &stream, error));
    INVALID(holepunch_listener_close(NULL, error));
    INVALID(holepunch_stream_send(NULL, &byte, 1, &length, 0, NULL, error));
    INVALID(holepunch_stream_send_all(NULL, &byte, 1, 0, NULL, error));
    INVALID(holepunch_stream_recv(NULL, &byte, 1, &length, 0, NULL, error));
    INVALID(holepunch_stream_shutdown(NULL, error));
    INVALID(holepunch_stream_path(NULL, &path, error));
    INVALID(holepunch_stream_rtt(NULL, &rtt, error));
    INVALID(holepunch_stream_fd(NULL, &fd, error));
    INVALID(holepunch_stream_into_socket(NULL, &fd, error));
    INVALID(holepunch_connection_into_socket(NULL, &fd, error));
    INVALID(holepunch_stream_close(NULL, error));
    INVALID(holepunch_connection_send(NULL, &byte, 1, error));
    INVALID(holepunch_connection_send_within(NULL, &byte, 1, 0, NULL, error));
    INVALID(holepunch_connection_recv(NULL, &byte, 1, &length, 0, NULL, error));
    INVALID(holepunch_connection_end(NULL, 0, NULL, error));
    INVALID(holepunch_connection_path(NULL, &path, error));
    INVALID(holepunch_connection_rtt(NULL, &rtt, error));
    INVALID(holepunch_connection_fd(NULL, &fd, error));
    INVALID(holepunch_connection_close(NULL, error));
    CHECK(listener == (holepunch_listener_t *)0x1 && connection == (holepunch_connection_t *)0x1);
    CHECK(stream == (holepunch_stream_t *)0x1);
    CHECK(fd == -7 && byte == 7 && length == 7 && timeout == 7 && rtt == 7 && path.kind[0] == 0);
    /* The error is optional. */
    CHECK(holepunch_endpoint_process(NULL, NULL) == HOLEPUNCH_ERROR_INVALID_ARGUMENT);
    CHECK(holepunch_config_init(NULL, 0, NULL) == HOLEPUNCH_ERROR_INVALID_ARGUMENT);
}

/* A NULL where a result would go. */
static void null_results(holepunch_endpoint_t *endpoint) {
    INVALID(holepunch_cancel_new(NULL, error));
    INVALID(holepunch_endpoint_new(NULL, NULL, error));
    INVALID(holepunch_endpoint_listen(endpoint, "bob", LISTEN_FOR(0), NULL, NULL, error));
    INVALID(holepunch_endpoint_connect_datagram(endpoint, "bob", CONNECT_FOR(0, 0), NULL, NULL, error));
    INVALID(holepunch_endpoint_connect(endpoint, "bob", CONNECT_FOR(0, 0), NULL, NULL, error));
    INVALID(holepunch_endpoint_next_timeout_ms(endpoint, NULL, error));
    INVALID(holepunch_endpoint_fd(endpoint, NULL, error));
}

static void names_and_times(holepunch_endpoint_t *endpoint) {
    static const char *const BAD_NAMES[] = {"", "Bob", "bob:1", "bob@home", "bob/1", "b b", "b\xff", "b\xc3\xa4"};
    static const int64_t BAD_TIMES[] = {-2, INT64_MIN};
    holepunch_listener_t *listener = (holepunch_listener_t *)0x1;
    holepunch_connection_t *connection = (holepunch_connection_t *)0x1;
    holepunch_stream_t *stream = (holepunch_stream_t *)0x1;
    char long_name[100000];
    size_t i;
    memset(long_name, 'a', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    INVALID(holepunch_endpoint_listen(endpoint, long_name, LISTEN_FOR(0), NULL, &listener, error));
    INVALID(holepunch_endpoint_connect_datagram(endpoint, long_name, CONNECT_FOR(0, 0), NULL, &connection, error));
    INVALID(holepunch_endpoint_connect_datagram(endpoint, NULL, CONNECT_FOR(0, 0), NULL, &connection, error));
    INVALID(holepunch_endpoint_connect(endpoint, long_name, CONNECT_FOR(0, 0), NULL, &stream, error));
    INVALID(holepunch_endpoint_connect(endpoint, NULL, CONNECT_FOR(0, 0), NULL, &stream, error));
    for (i = 0; i < sizeof BAD_NAMES / sizeof *BAD_NAMES; i++) {
        INVALID(holepunch_endpoint_listen(endpoint, BAD_NAMES[i], LISTEN_FOR(0), NULL, &listener, error));
        INVALID(
            holepunch_endpoint_connect_datagram(endpoint, BAD_NAMES[i], CONNECT_FOR(0, 0), NULL, &connection, error));
    }
    for (i = 0; i < sizeof BAD_TIMES / sizeof *BAD_TIMES; i++) {
        INVALID(holepunch_endpoint_listen(endpoint, "bob", LISTEN_FOR(BAD_TIMES[i]), NULL, &listener, error));
        INVALID(holepunch_endpoint_connect_datagram(endpoint, "bob", CONNECT_FOR(BAD_TIMES[i], 0), NULL, &connection,
                                                    error));
        INVALID(holepunch_endpoint_connect_datagram(endpoint, "bob", CONNECT_FOR(0, BAD_TIMES[i]), NULL, &connection,
                                                    error));
        INVALID(holepunch_endpoint_connect(endpoint, "bob", CONNECT_FOR(BAD_TIMES[i], 0), NULL, &stream, error));
    }
    CHECK(stream == (holepunch_stream_t *)0x1);
    CHECK(listener == (holepunch_listener_t *)0x1 && connection == (holepunch_connection_t *)0x1);
}

/* Everything of agents, whose peer is never told. */
static void agents(holepunch_endpoint_t *endpoint) {
    static const char *const SERVERS[] = {"a b"}, *const MANY[] = {"::1", "::1", "::1", "::1", "::1", "::1", "::1", "::1", "::1"};
    static const char LITE[] = "a=ice-lite\na=ice-ufrag:abcd\na=ice-pwd:0123456789012345678901\n";
    static const char PASSWORD[] = "0123456789012345678901";
    holepunch_agent_options_t options;
    holepunch_agent_t *agent = (holepunch_agent_t *)0x1;
    holepunch_connection_t *connection = (holepunch_connection_t *)0x1;
    const char *ufrag = NULL, *password = NULL;
    static char text[HOLEPUNCH_DESCRIPTION_SIZE], again[HOLEPUNCH_DESCRIPTION_SIZE];
    char line[HOLEPUNCH_CANDIDATE_SIZE];
    INVALID(holepunch_agent_options_init(NULL, sizeof options, error));
    INVALID(holepunch_agent_options_init(&options, 1, error));
    OK(holepunch_agent_options_init(&options, sizeof options, error));
    CHECK(options.stun_servers == NULL && options.timeout_ms == HOLEPUNCH_CONNECT_TIMEOUT_MS);
    INVALID(holepunch_endpoint_agent(NULL, HOLEPUNCH_ROLE_CONTROLLED, NULL, NULL, &agent, error));
    INVALID(holepunch_endpoint_agent(endpoint, 0, NULL, NULL, &agent, error));
    INVALID(holepunch_endpoint_agent(endpoint, INT32_MIN, NULL, NULL, &agent, error));
    INVALID(holepunch_endpoint_agent(endpoint, HOLEPUNCH_ROLE_CONTROLLED, NULL, NULL, NULL, error));
    options.stun_servers_len = 1;
    INVALID(holepunch_endpoint_agent(endpoint, HOLEPUNCH_ROLE_CONTROLLED, &options, NULL, &agent, error));
    options.stun_servers = SERVERS;
    INVALID(holepunch_endpoint_agent(endpoint, HOLEPUNCH_ROLE_CONTROLLED, &options, NULL, &agent, error));
    options.stun_servers = MANY;
    options.stun_servers_len = 9;
    INVALID(holepunch_endpoint_agent(endpoint, HOLEPUNCH_ROLE_CONTROLLED, &options, NULL, &agent, error));
    options.stun_servers_len = SIZE_MAX;
    INVALID(holepunch_endpoint_agent(endpoint, HOLEPUNCH_ROLE_CONTROLLED, &options, NULL, &agent, error));
    options.stun_servers_len = 0;
    options.timeout_ms = -2;
    INVALID(holepunch_endpoint_agent(endpoint, HOLEPUNCH_ROLE_CONTROLLED, &options, NULL, &agent, error));
    INVALID(holepunch_agent_ufrag(NULL, &ufrag, error));
    INVALID(holepunch_agent_password(NULL, &password, error));
    INVALID(holepunch_agent_next_candidate(NULL, text, sizeof text, 0, NULL, error));
    INVALID(holepunch_agent_local_description(NULL, text, sizeof text, 0, NULL, error));
    INVALID(holepunch_agent_set_remote(NULL, "abcd", PASSWORD, error));
    INVALID(holepunch_agent_add_remote_candidate(NULL, "", error));
    INVALID(holepunch_agent_end_of_candidates(NULL, error));
    INVALID(holepunch_agent_set_remote_description(NULL, "", error));
    INVALID(holepunch_agent_connect(NULL, 0, NULL, &connection, error));
    INVALID(holepunch_agent_close(NULL, error));
    CHECK(agent == (holepunch_agent_t *)0x1);
    options.timeout_ms = HOLEPUNCH_FOREVER;
    OK(holepunch_endpoint_agent(endpoint, HOLEPUNCH_ROLE_CONTROLLED, &options, NULL, &agent, error));
    INVALID(holepunch_agent_ufrag(agent, NULL, error));
    INVALID(holepunch_agent_password(agent, NULL, error));
    OK(holepunch_agent_ufrag(agent, &ufrag, error));
    OK(holepunch_agent_password(agent, &password, error));
    CHECK(strlen(ufrag) == 8 && strlen(password) == 32);
    INVALID(holepunch_agent_next_candidate(agent, NULL, sizeof text, 0, NULL, error));
    INVALID(holepunch_agent_next_candidate(agent, text, HOLEPUNCH_CANDIDATE_SIZE - 1, 0, NULL, error));
    INVALID(holepunch_agent_next_candidate(agent, text, sizeof text, -2, NULL, error));
    INVALID(holepunch_agent_local_description(agent, NULL, sizeof text, 0, NULL, error));
    INVALID(holepunch_agent_local_description(agent, text, HOLEPUNCH_DESCRIPTION_SIZE - 1, 0, NULL, error));
    OK(holepunch_agent_local_description(agent, text, sizeof text, HOLEPUNCH_FOREVER, NULL, error));
    CHECK(strstr(text, password) != NULL && strstr(text, "a=end-of-candidates") != NULL);
    do {
        OK(holepunch_agent_next_candidate(agent, line, sizeof line, HOLEPUNCH_FOREVER, NULL, error));
        CHECK(strstr(text, line) != NULL);
    } while (line[0] != '\0');
    OK(holepunch_agent_local_description(agent, again, sizeof again, HOLEPUNCH_FOREVER, NULL, error));
    CHECK(strcmp(text, again) == 0);
    INVALID(holepunch_agent_set_remote_description(agent, LITE, error));
    INVALID(holepunch_agent_set_remote(agent, NULL, PASSWORD, error));
    INVALID(holepunch_agent_set_remote(agent, "abcd", NULL, error));
    INVALID(holepunch_agent_set_remote(agent, "abc", PASSWORD, error));
    INVALID(holepunch_agent_set_remote(agent, "abcd", "\xff", error));
    INVALID(holepunch_agent_add_remote_candidate(agent, NULL, error));
    INVALID(holepunch_agent_add_remote_candidate(agent, "candidate:", error));
    INVALID(holepunch_agent_set_remote_description(agent, NULL, error));
    INVALID(holepunch_agent_set_remote_description(agent, "v=0", error));
    OK(holepunch_agent_add_remote_candidate(agent, "1 1 tcp 1 192.0.2.1 9 typ host", error));
    OK(holepunch_agent_set_remote(agent, "abcd", PASSWORD, error));
    OK(holepunch_agent_set_remote(agent, "abcd", PASSWORD, error));
    EXPECT(HOLEPUNCH_ERROR_UNSUPPORTED, holepunch_agent_set_remote(agent, "abcde", PASSWORD, error));
    OK(holepunch_agent_end_of_candidates(agent, error));
    INVALID(holepunch_agent_connect(agent, 0, NULL, NULL, error));
    EXPECT(HOLEPUNCH_ERROR_TIMEOUT, holepunch_agent_connect(agent, 0, NULL, &connection, error));
    OK(holepunch_agent_close(agent, error));
    OK(holepunch_agent_close(agent, error));
    EXPECT(HOLEPUNCH_ERROR_CLOSED, holepunch_agent_connect(agent, HOLEPUNCH_FOREVER, NULL, &connection, error));
    EXPECT(HOLEPUNCH_ERROR_CLOSED, holepunch_agent_end_of_candidates(agent, error));
    CHECK(connection == (holepunch_connection_t *)0x1);
    holepunch_agent_free(agent);
}

/* A cancelled token ends every call before it begins, however long it may wait. */
static void cancelled_before(holepunch_endpoint_t *endpoint) {
    holepunch_listener_t *listener;
    holepunch_connection_t *connection;
    holepunch_cancel_t *cancel;
    OK(holepunch_cancel_new(&cancel, error));
    OK(holepunch_cancel_cancel(cancel, error));
    OK(holepunch_cancel_cancel(cancel, error));
    EXPECT(HOLEPUNCH_ERROR_CANCELLED,
           holepunch_endpoint_listen(endpoint, "bob", LISTEN_FOR(INT64_MAX), cancel, &listener, error));
    EXPECT(HOLEPUNCH_ERROR_CANCELLED,
           holepunch_endpoint_connect_datagram(endpoint, "bob", CONNECT_FOR(INT64_MAX, INT64_MAX), cancel, &connection,
                                               error));
    holepunch_cancel_free(cancel);
}

/* What the two calls say to options. They have a cancelled token, so that options that are right end in "cancelled". */
static void listens(holepunch_endpoint_t *endpoint, const holepunch_listen_options_t *options, int32_t status) {
    holepunch_listener_t *listener = (holepunch_listener_t *)0x1;
    holepunch_cancel_t *cancel;
    OK(holepunch_cancel_new(&cancel, error));
    OK(holepunch_cancel_cancel(cancel, error));
    EXPECT(status, holepunch_endpoint_listen(endpoint, "bob", options, cancel, &listener, error));
    CHECK(listener == (holepunch_listener_t *)0x1);
    holepunch_cancel_free(cancel);
}

static void connects(holepunch_endpoint_t *endpoint, const holepunch_connect_options_t *options, int32_t status) {
    holepunch_connection_t *connection = (holepunch_connection_t *)0x1;
    holepunch_cancel_t *cancel;
    OK(holepunch_cancel_new(&cancel, error));
    OK(holepunch_cancel_cancel(cancel, error));
    EXPECT(status, holepunch_endpoint_connect_datagram(endpoint, "bob", options, cancel, &connection, error));
    CHECK(connection == (holepunch_connection_t *)0x1);
    holepunch_cancel_free(cancel);
}

static void listen_options(holepunch_endpoint_t *endpoint) {
    static const size_t WRONG[] = {0, 1, sizeof(size_t), sizeof(holepunch_listen_options_t) - 1, 4096, SIZE_MAX};
    struct {
        holepunch_listen_options_t options;
        uint8_t later[64];
    } newer;
    size_t i;
    for (i = 0; i < sizeof WRONG / sizeof *WRONG; i++) {
        holepunch_listen_options_t options = {.size = WRONG[i], .timeout_ms = 7};
        listens(endpoint, &options, HOLEPUNCH_ERROR_INVALID_ARGUMENT);
        INVALID(holepunch_listen_options_init(&options, WRONG[i], error));
        CHECK(options.size == WRONG[i] && options.timeout_ms == 7);
    }
    INVALID(holepunch_listen_options_init(NULL, sizeof(holepunch_listen_options_t), error));
    memset(&newer, 0xff, sizeof newer);
    OK(holepunch_listen_options_init(&newer.options, sizeof newer, error));
    CHECK(newer.options.size == sizeof newer && newer.options.timeout_ms == HOLEPUNCH_FOREVER);
    CHECK(newer.later[0] == 0 && newer.later[63] == 0);
    listens(endpoint, &newer.options, HOLEPUNCH_ERROR_CANCELLED);
    newer.later[0] = 1;
    listens(endpoint, &newer.options, HOLEPUNCH_ERROR_UNSUPPORTED);
    newer.later[0] = 0;
    newer.later[63] = 1;
    listens(endpoint, &newer.options, HOLEPUNCH_ERROR_UNSUPPORTED);
    listens(endpoint, NULL, HOLEPUNCH_ERROR_CANCELLED);
}

static void connect_options(holepunch_endpoint_t *endpoint) {
    static const size_t WRONG[] = {0, 1, sizeof(size_t), sizeof(holepunch_connect_options_t) - 1, 4096, SIZE_MAX};
    struct {
        holepunch_connect_options_t options;
        uint8_t later[64];
    } newer;
    size_t i;
    for (i = 0; i < sizeof WRONG / sizeof *WRONG; i++) {
        holepunch_connect_options_t options = {.size = WRONG[i], .wait_ms = 7, .timeout_ms = 8};
        connects(endpoint, &options, HOLEPUNCH_ERROR_INVALID_ARGUMENT);
        INVALID(holepunch_connect_options_init(&options, WRONG[i], error));
        CHECK(options.size == WRONG[i] && options.wait_ms == 7 && options.timeout_ms == 8);
    }
    INVALID(holepunch_connect_options_init(NULL, sizeof(holepunch_connect_options_t), error));
    memset(&newer, 0xff, sizeof newer);
    OK(holepunch_connect_options_init(&newer.options, sizeof newer, error));
    CHECK(newer.options.size == sizeof newer && newer.options.wait_ms == HOLEPUNCH_CONNECT_WAIT_MS);
    CHECK(newer.options.timeout_ms == HOLEPUNCH_CONNECT_TIMEOUT_MS);
    CHECK(newer.later[0] == 0 && newer.later[63] == 0);
    connects(endpoint, &newer.options, HOLEPUNCH_ERROR_CANCELLED);
    newer.later[0] = 1;
    connects(endpoint, &newer.options, HOLEPUNCH_ERROR_UNSUPPORTED);
    newer.later[0] = 0;
    newer.later[63] = 1;
    connects(endpoint, &newer.options, HOLEPUNCH_ERROR_UNSUPPORTED);
    connects(endpoint, NULL, HOLEPUNCH_ERROR_CANCELLED);
}

/* What holepunch_endpoint_new() says to a config. */
static void refuses(const holepunch_config_t *config, int32_t status) {
    holepunch_endpoint_t *endpoint = (holepunch_endpoint_t *)0x1;
    EXPECT(status, holepunch_endpoint_new(config, &endpoint, error));
    CHECK(endpoint == (holepunch_endpoint_t *)0x1);
}

static void sizes(void) {
    static const size_t WRONG[] = {0, 1, sizeof(size_t), sizeof(holepunch_config_t) - 1, 4096, SIZE_MAX};
    struct {
        holepunch_config_t config;
        uint8_t later[64];
    } newer;
    holepunch_endpoint_t *endpoint;
    size_t i;
    for (i = 0; i < sizeof WRONG / sizeof *WRONG; i++) {
        holepunch_config_t config = {.size = WRONG[i]};
        refuses(&config, HOLEPUNCH_ERROR_INVALID_ARGUMENT);
        INVALID(holepunch_config_init(&config, WRONG[i], error));
        CHECK(config.size == WRONG[i]);
    }
    /* A program whose header is newer: fine, as long as it does not use what is new. */
    memset(&newer, 0xff, sizeof newer);
    OK(holepunch_config_init(&newer.config, sizeof newer, error));
    CHECK(newer.config.size == sizeof newer && newer.config.servers == NULL && newer.later[63] == 0);
    newer.config.family = HOLEPUNCH_FAMILY_IPV4;
    newer.later[63] = 1;
    refuses(&newer.config, HOLEPUNCH_ERROR_UNSUPPORTED);
    newer.later[63] = 0;
    OK(holepunch_endpoint_new(&newer.config, &endpoint, error));
    holepunch_endpoint_free(endpoint);
}

static void fields(void) {
    static const char *const HOLE[] = {"127.0.0.1:1", NULL};
    static const char *const NOT_UTF8[] = {"\xff"};
    static const char *const NO_ADDRESS[] = {"bob"};
    static const char *const BAD_PORT[] = {"127.0.0.1:65536"};
    static const char *const ONE[] = {"127.0.0.1"};
    static const struct {
        const char *what;
        holepunch_config_t config;
    } REFUSED[] = {
        {"servers NULL", {.servers_len = 1}},
        {"servers huge", {.servers = ONE, .servers_len = SIZE_MAX}},
        {"a server NULL", {.servers = HOLE, .servers_len = 2}},
        {"a server not UTF-8", {.servers = NOT_UTF8, .servers_len = 1}},
        {"a server's port", {.servers = BAD_PORT, .servers_len = 1}},
        {"bind NULL", {.bind_len = 1}},
        {"bind huge", {.bind = ONE, .bind_len = SIZE_MAX}},
        {"bind a name", {.bind = NO_ADDRESS, .bind_len = 1}},
        {"bind a port", {.bind = BAD_PORT, .bind_len = 1}},
        {"secret NULL", {.secret_len = 16}},
        {"secret empty", {.secret = SECRET}},
        {"secret short", {.secret = SHORT_SECRET, .secret_len = sizeof SHORT_SECRET}},
        {"secret huge", {.secret = SECRET, .secret_len = SIZE_MAX}},
        {"family 5", {.family = 5}},
        {"family negative", {.family = -1}},
        {"no_thread 2", {.no_thread = 2}},
    };
    size_t i;
    for (i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++) {
        holepunch_config_t config = REFUSED[i].config;
        config.size = sizeof config;
        fprintf(stderr, "config: %s\n", REFUSED[i].what);
        refuses(&config, HOLEPUNCH_ERROR_INVALID_ARGUMENT);
    }
}

/* Everything in a config may be freed once the endpoint is there. */
static holepunch_endpoint_t *full(void) {
    char server[] = "127.0.0.1:1", bind_v4[] = "127.0.0.1", bind_v6[] = "[::1]:0";
    const char *servers[] = {server}, *binds[] = {bind_v4, bind_v6};
    uint8_t secret[16] = {1, 2, 3};
    holepunch_config_t config;
    holepunch_endpoint_t *endpoint;
    OK(holepunch_config_init(&config, sizeof config, error));
    config.servers = servers;
    config.servers_len = 1;
    config.bind = binds;
    config.bind_len = 2;
    config.secret = secret;
    config.secret_len = sizeof secret;
    config.no_thread = 1;
    OK(holepunch_endpoint_new(&config, &endpoint, error));
    memset(server, 'x', sizeof server - 1);
    memset(secret, 0, sizeof secret);
    return endpoint;
}

int main(void) {
    int before = descriptors();
    holepunch_endpoint_t *endpoint;
    texts();
    free_ignores_null();
    null_handles();
    sizes();
    fields();
    endpoint = full();
    null_results(endpoint);
    names_and_times(endpoint);
    agents(endpoint);
    cancelled_before(endpoint);
    listen_options(endpoint);
    connect_options(endpoint);
    OK(holepunch_endpoint_close(endpoint, error));
    OK(holepunch_endpoint_close(endpoint, error));
    holepunch_endpoint_free(endpoint);
    CHECK(descriptors() == before);
    return 0;
}
