/* Connects to a name, sends each message, and prints the answer to each.
 *
 * cc connector.c $(pkg-config --cflags --libs holepunch) -o connector && ./connector NAME [MESSAGE...]
 * The server is the one in HOLEPUNCH_SERVER. */
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

int main(int argc, char **argv) {
    holepunch_endpoint_t *endpoint;
    holepunch_connection_t *connection;
    char buffer[HOLEPUNCH_MAX_DATAGRAM];
    size_t length;
    if (argc < 2) {
        fprintf(stderr, "usage: connector NAME [MESSAGE...]\n");
        return 2;
    }
    check(holepunch_endpoint_new(NULL, &endpoint, &error));
    check(holepunch_endpoint_connect_datagram(endpoint, argv[1], NULL, NULL, &connection, &error));
    print_path(connection);
    for (int i = 2; i < argc; i++) {
        check(holepunch_connection_send(connection, (uint8_t *)argv[i], strlen(argv[i]), &error));
        check(holepunch_connection_recv(connection, (uint8_t *)buffer, sizeof buffer, &length, 5000, NULL, &error));
        printf("%.*s\n", (int)length, buffer);
    }
    check(holepunch_connection_end(connection, HOLEPUNCH_FOREVER, NULL, &error));
    holepunch_connection_free(connection);
    holepunch_endpoint_free(endpoint);
    return 0;
}
