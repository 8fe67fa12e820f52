/* A stream in C: `listen NAME` echoes one peer's, `connect NAME` sends more than a window and wants all of it back.
 *
 * The server comes from HOLEPUNCH_SERVER. */
#define _POSIX_C_SOURCE 200112L
#include <holepunch.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE 1000000
#define PATIENCE 20000

static uint8_t data[SIZE], received[SIZE];

static void check(int32_t status, holepunch_error_t *error) {
    if (status != HOLEPUNCH_OK) {
        fprintf(stderr, "%s; %s\n", holepunch_error_message(error), holepunch_error_hint(error));
        exit(1);
    }
}

static void print_path(holepunch_stream_t *stream) {
    holepunch_error_t *error = NULL;
    holepunch_path_t path = {.size = sizeof path};
    char host[64], port[8];
    check(holepunch_stream_path(stream, &path, &error), error);
    getnameinfo((struct sockaddr *)&path.remote, sizeof path.remote, host, sizeof host, port, sizeof port,
                NI_NUMERICHOST | NI_NUMERICSERV);
    fprintf(stderr, strchr(host, ':') ? "connected to [%s]:%s\n" : "connected to %s:%s\n", host, port);
}

static void send_all(holepunch_stream_t *stream, const uint8_t *bytes, size_t length) {
    holepunch_error_t *error = NULL;
    check(holepunch_stream_send_all(stream, bytes, length, PATIENCE, NULL, &error), error);
    check(holepunch_stream_shutdown(stream, &error), error);
}

static void *send_data(void *stream) {
    send_all(stream, data, SIZE);
    return NULL;
}

static size_t receive(holepunch_stream_t *stream) {
    holepunch_error_t *error = NULL;
    size_t total = 0, length = 1;
    while (length > 0 && total < SIZE) {
        check(holepunch_stream_recv(stream, received + total, SIZE - total, &length, PATIENCE, NULL, &error), error);
        total += length;
    }
    return total;
}

int main(int argc, char **argv) {
    holepunch_error_t *error = NULL;
    holepunch_endpoint_t *endpoint;
    holepunch_listener_t *listener = NULL;
    holepunch_stream_t *stream;
    if (argc != 3) {
        fprintf(stderr, "usage: streams listen|connect NAME\n");
        return 2;
    }
    check(holepunch_endpoint_new(NULL, &endpoint, &error), error);
    if (strcmp(argv[1], "listen") == 0) {
        check(holepunch_endpoint_listen(endpoint, argv[2], NULL, NULL, &listener, &error), error);
        fprintf(stderr, "ready\n");
        check(holepunch_listener_accept(listener, PATIENCE, NULL, &stream, &error), error);
        print_path(stream);
        send_all(stream, received, receive(stream));
    } else {
        pthread_t sender;
        check(holepunch_endpoint_connect(endpoint, argv[2], NULL, NULL, &stream, &error), error);
        print_path(stream);
        for (size_t i = 0; i < SIZE; i++)
            data[i] = (uint8_t)(i % 251);
        pthread_create(&sender, NULL, send_data, stream);
        size_t length = receive(stream);
        pthread_join(sender, NULL);
        printf("%s\n", length == SIZE && memcmp(data, received, SIZE) == 0 ? "the same" : "not the same");
    }
    holepunch_stream_free(stream);
    holepunch_listener_free(listener);
    holepunch_endpoint_free(endpoint);
    return 0;
}
