/* ICE with signalling of your own: here you are the signalling, and copy and paste what each side prints into the other.
 *
 * cc agent.c $(pkg-config --cflags --libs holepunch) -o agent && ./agent controlling|controlled MESSAGE [STUN-SERVER...]
 * The peer is this program on another machine, or any agent of ICE. It ends when both have said their message. */
#define _POSIX_C_SOURCE 200112L
#include <holepunch.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static holepunch_error_t *error;

static void check(int32_t status) {
    if (status != HOLEPUNCH_OK) {
        fprintf(stderr, "%s; %s\n", holepunch_error_message(error), holepunch_error_hint(error));
        exit(1);
    }
}

static void print_path(holepunch_connection_t *connection) {
    holepunch_path_t path = {.size = sizeof path};
    char host[64], port[8];
    check(holepunch_connection_path(connection, &path, &error));
    getnameinfo((struct sockaddr *)&path.remote, sizeof path.remote, host, sizeof host, port, sizeof port,
                NI_NUMERICHOST | NI_NUMERICSERV);
    fprintf(stderr, strchr(host, ':') ? "connected to [%s]:%s over %s, rtt %.1f ms\n"
                                      : "connected to %s:%s over %s, rtt %.1f ms\n",
            host, port, path.kind, (double)path.rtt_us / 1000);
}

/* Reads the peer's lines, up to the last; its candidates may come one by one. */
static void read_peer(holepunch_agent_t *agent) {
    static char said[HOLEPUNCH_DESCRIPTION_SIZE];
    char line[1024];
    size_t length = 0;
    while (fgets(line, sizeof line, stdin) && !strstr(line, "end-of-candidates")) {
        if (length + strlen(line) >= sizeof said) {
            break;
        }
        strcpy(said + length, line);
        length += strlen(line);
        if (strstr(line, "candidate:") || strstr(line, "ice-pwd:")) {
            check(holepunch_agent_set_remote_description(agent, said, &error));
        }
    }
}

int main(int argc, char **argv) {
    holepunch_endpoint_t *endpoint;
    holepunch_agent_options_t options;
    holepunch_agent_t *agent;
    holepunch_connection_t *connection;
    char description[HOLEPUNCH_DESCRIPTION_SIZE], buffer[HOLEPUNCH_MAX_DATAGRAM];
    size_t length;
    int32_t status;
    int controlling = argc > 1 && strcmp(argv[1], "controlling") == 0;
    if (argc < 3 || (!controlling && strcmp(argv[1], "controlled") != 0)) {
        fprintf(stderr, "usage: agent controlling|controlled MESSAGE [STUN-SERVER...]\n");
        return 2;
    }
    check(holepunch_agent_options_init(&options, sizeof options, &error));
    options.stun_servers = (const char *const *)argv + 3;
    options.stun_servers_len = (size_t)argc - 3;
    check(holepunch_endpoint_new(NULL, &endpoint, &error));
    check(holepunch_endpoint_agent(endpoint, controlling ? HOLEPUNCH_ROLE_CONTROLLING : HOLEPUNCH_ROLE_CONTROLLED,
                                   &options, NULL, &agent, &error));
    check(holepunch_agent_local_description(agent, description, sizeof description, HOLEPUNCH_FOREVER, NULL, &error));
    fputs(description, stdout);
    fflush(stdout);
    read_peer(agent);
    check(holepunch_agent_connect(agent, HOLEPUNCH_FOREVER, NULL, &connection, &error));
    print_path(connection);
    /* A datagram may be lost, so it is said until the peer was heard, and once more. */
    for (;;) {
        check(holepunch_connection_send(connection, (uint8_t *)argv[2], strlen(argv[2]), &error));
        status = holepunch_connection_recv(connection, (uint8_t *)buffer, sizeof buffer, &length, 500, NULL, &error);
        if (status != HOLEPUNCH_ERROR_TIMEOUT) {
            break;
        }
        holepunch_error_free(error);
    }
    check(status);
    check(holepunch_connection_send(connection, (uint8_t *)argv[2], strlen(argv[2]), &error));
    printf("%.*s\n", (int)length, buffer);
    holepunch_connection_free(connection);
    holepunch_agent_free(agent);
    holepunch_endpoint_free(endpoint);
    return 0;
}
