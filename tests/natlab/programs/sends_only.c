/* A program that only sends: `sends_only NAME SECONDS` connects, sends ten datagrams a second, and never receives.
 *
 * The server comes from HOLEPUNCH_SERVER. */
#define _POSIX_C_SOURCE 200112L
#include <holepunch.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void check(int32_t status, holepunch_error_t *error) {
    if (status != HOLEPUNCH_OK) {
        fprintf(stderr, "%s; %s\n", holepunch_error_message(error), holepunch_error_hint(error));
        exit(1);
    }
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    static const struct timespec pause = {0, 100000000};
    holepunch_connect_options_t options = {.size = sizeof options};
    holepunch_error_t *error = NULL;
    holepunch_endpoint_t *endpoint;
    holepunch_connection_t *connection;
    double until;
    if (argc != 3) {
        fprintf(stderr, "sends_only NAME SECONDS\n");
        return 2;
    }
    check(holepunch_connect_options_init(&options, sizeof options, &error), error);
    options.wait_ms = 20000;
    check(holepunch_endpoint_new(NULL, &endpoint, &error), error);
    check(holepunch_endpoint_connect_datagram(endpoint, argv[1], &options, NULL, &connection, &error), error);
    fprintf(stderr, "connected\n");
    for (until = now() + atof(argv[2]); now() < until;) {
        check(holepunch_connection_send(connection, (const uint8_t *)"again", 5, &error), error);
        nanosleep(&pause, NULL);
    }
    check(holepunch_connection_end(connection, HOLEPUNCH_FOREVER, NULL, &error), error);
    printf("all sent\n");
    holepunch_connection_free(connection);
    holepunch_endpoint_free(endpoint);
    return 0;
}
