/*
 * One end of a path for datagrams in C: a worker of benches/datapath.rs, which says what it is asked and why.
 *
 *     datapath plain | connected | listen MODE SERVER | connect MODE SERVER
 */

#include <arpa/inet.h>
#include <holepunch.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define WINDOW 64
#define EVERY 16

enum kind { PLAIN, CONNECTED, THREAD, LOOP };

static enum kind kind;
static int fd;
static struct sockaddr_in peer;
static holepunch_endpoint_t *endpoint;
static holepunch_connection_t *connection;

static void fail(const char *what, holepunch_error_t *error) {
    fprintf(stderr, "%s: %s; %s\n", what, holepunch_error_message(error), holepunch_error_hint(error));
    exit(1);
}

static void say(const char *line) {
    printf("%s\n", line);
    fflush(stdout);
}

/* Waits until the connection is readable, and drives the endpoint, which has no thread. */
static void wait_readable(void) {
    holepunch_error_t *error = NULL;
    struct pollfd polled[2] = {{.events = POLLIN}, {.events = POLLIN}};
    int64_t timeout;
    int count;
    if (holepunch_connection_fd(connection, &polled[0].fd, &error) != HOLEPUNCH_OK ||
        holepunch_endpoint_fd(endpoint, &polled[1].fd, &error) != HOLEPUNCH_OK)
        fail("descriptor", error);
    do {
        if (holepunch_endpoint_next_timeout_ms(endpoint, &timeout, &error) != HOLEPUNCH_OK)
            fail("timeout", error);
        count = poll(polled, 2, (int)timeout);
        if (count < 0)
            perror("poll"), exit(1);
        if ((count == 0 || polled[1].revents) && holepunch_endpoint_process(endpoint, &error) != HOLEPUNCH_OK)
            fail("process", error);
    } while (!polled[0].revents);
}

static void send_one(const unsigned char *bytes, size_t length) {
    holepunch_error_t *error = NULL;
    switch (kind) {
    case PLAIN:
        if (sendto(fd, bytes, length, 0, (struct sockaddr *)&peer, sizeof peer) < 0)
            perror("sendto"), exit(1);
        break;
    case CONNECTED:
        if (send(fd, bytes, length, 0) < 0)
            perror("send"), exit(1);
        break;
    case THREAD:
    case LOOP:
        if (holepunch_connection_send(connection, bytes, length, &error) != HOLEPUNCH_OK)
            fail("send", error);
        break;
    }
}

static size_t receive_one(unsigned char *buffer, size_t capacity) {
    holepunch_error_t *error = NULL;
    struct sockaddr_in from;
    socklen_t from_length = sizeof from;
    ssize_t received = 0;
    size_t length = 0;
    switch (kind) {
    case PLAIN:
        received = recvfrom(fd, buffer, capacity, 0, (struct sockaddr *)&from, &from_length);
        break;
    case CONNECTED:
        received = recv(fd, buffer, capacity, 0);
        break;
    case LOOP:
        for (;;) {
            int32_t status = holepunch_connection_recv(connection, buffer, capacity, &length, 0, NULL, &error);
            if (status == HOLEPUNCH_OK)
                return length;
            if (status != HOLEPUNCH_ERROR_TIMEOUT)
                fail("recv", error);
            holepunch_error_free(error);
            error = NULL;
            wait_readable();
        }
    case THREAD:
        if (holepunch_connection_recv(connection, buffer, capacity, &length, HOLEPUNCH_FOREVER, NULL, &error) !=
            HOLEPUNCH_OK)
            fail("recv", error);
        return length;
    }
    if (received < 0)
        perror("recv"), exit(1);
    return (size_t)received;
}

static void open_socket(void) {
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof own;
    unsigned port;
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&own, sizeof own) || getsockname(fd, (struct sockaddr *)&own, &length))
        perror("socket"), exit(1);
    printf("%u\n", ntohs(own.sin_port));
    fflush(stdout);
    if (scanf("%u", &port) != 1)
        exit(1);
    peer = own;
    peer.sin_port = htons((unsigned short)port);
    if (kind == CONNECTED && connect(fd, (struct sockaddr *)&peer, sizeof peer))
        perror("connect"), exit(1);
}

static void open_connection(const char *role, const char *mode, const char *server) {
    const char *local = "127.0.0.1:0";
    holepunch_config_t config = {.size = sizeof config, .servers = &server, .servers_len = 1, .bind = &local, .bind_len = 1};
    holepunch_listener_t *listener;
    holepunch_error_t *error = NULL;
    config.no_thread = kind == LOOP;
    if (holepunch_endpoint_new(&config, &endpoint, &error) != HOLEPUNCH_OK)
        fail("endpoint", error);
    if (strcmp(role, "listen") == 0) {
        if (holepunch_endpoint_listen(endpoint, mode, NULL, NULL, &listener, &error) != HOLEPUNCH_OK)
            fail("listen", error);
        say("listening");
        if (holepunch_listener_accept_datagram(listener, 30000, NULL, &connection, &error) != HOLEPUNCH_OK)
            fail("accept", error);
    } else if (holepunch_endpoint_connect_datagram(endpoint, mode, NULL, NULL, &connection, &error) !=
               HOLEPUNCH_OK) {
        fail("connect", error);
    }
}

/* Waits for an acknowledgement: how many datagrams have arrived. */
static unsigned long read_acknowledgement(void) {
    unsigned char buffer[1200];
    unsigned long count = 0;
    if (receive_one(buffer, sizeof buffer) != 8)
        exit(1);
    for (int i = 1; i < 8; i++)
        count = count << 8 | buffer[i];
    return count;
}

static void send_all(size_t size, unsigned long count) {
    unsigned char datagram[1200];
    unsigned long acknowledged = 0;
    memset(datagram, 'x', sizeof datagram);
    for (unsigned long sent = 0; sent < count; sent++) {
        while (sent - acknowledged >= WINDOW)
            acknowledged = read_acknowledgement();
        send_one(datagram, size);
    }
    while (acknowledged < count)
        acknowledged = read_acknowledgement();
}

static void receive_all(size_t size, unsigned long count) {
    unsigned char buffer[1200], acknowledgement[8] = "a";
    for (unsigned long received = 1; received <= count; received++) {
        if (receive_one(buffer, sizeof buffer) != size)
            exit(1);
        if (received % EVERY == 0 || received == count) {
            for (int i = 1; i < 8; i++)
                acknowledgement[i] = (unsigned char)(received >> 8 * (7 - i));
            send_one(acknowledgement, sizeof acknowledgement);
        }
    }
}

int main(int argc, char **argv) {
    char verb[16];
    size_t size;
    unsigned long count;
    if (argc == 2 && (strcmp(argv[1], "plain") == 0 || strcmp(argv[1], "connected") == 0)) {
        kind = strcmp(argv[1], "plain") == 0 ? PLAIN : CONNECTED;
        open_socket();
    } else if (argc == 4) {
        kind = strcmp(argv[2], "thread") == 0 ? THREAD : LOOP;
        open_connection(argv[1], argv[2], argv[3]);
    } else {
        fprintf(stderr, "usage: datapath plain | connected | listen MODE SERVER | connect MODE SERVER\n");
        return 2;
    }
    say("ready");
    while (scanf("%15s %zu %lu", verb, &size, &count) == 3) {
        if (size > 1200)
            return 1;
        if (strcmp(verb, "send") == 0)
            send_all(size, count);
        else
            receive_all(size, count);
        say("done");
    }
    return 0;
}
