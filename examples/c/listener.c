/* Registers a name, accepts one peer, and sends every datagram back until the peer ends.
 *
 * cc listener.c $(pkg-config --cflags --libs holepunch) -o listener && ./listener NAME
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
    holepunch_listener_t *listener;
    holepunch_connection_t *connection;
    uint8_t buffer[HOLEPUNCH_MAX_DATAGRAM];
    size_t length;
    int32_t status;
    if (argc != 2) {
        fprintf(stderr, "usage: listener NAME\n");
        return 2;
    }
    check(holepunch_endpoint_new(NULL, &endpoint, &error));
    check(holepunch_endpoint_listen(endpoint, argv[1], NULL, NULL, &listener, &error));
    check(holepunch_listener_accept_datagram(listener, HOLEPUNCH_FOREVER, NULL, &connection, &error));
    print_path(connection);
    while ((status = holepunch_connection_recv(connection, buffer, sizeof buffer, &length, HOLEPUNCH_FOREVER, NULL,
                                               &error)) == HOLEPUNCH_OK)
        check(holepunch_connection_send(connection, buffer, length, &error));
    if (status != HOLEPUNCH_ERROR_CLOSED)
        check(status);
    holepunch_error_free(error);
    holepunch_connection_free(connection);
    holepunch_listener_free(listener);
    holepunch_endpoint_free(endpoint);
    return 0;
}
