/*
 * The server's work done by the least of C: the yardsticks of benches/server, which says what is measured and how.
 *
 *     plain udp                       answers STUN Binding requests, one recvfrom and one sendto each
 *     plain tcp                       introduces clients of 2015, one thread in epoll
 *     plain flood PORT WINDOW COUNT   asks for COUNT Bindings, WINDOW of them at a time
 *
 * The first two print their port on 127.0.0.1 and run until they are killed. They keep no limits and no times, and look at
 * no more than they must.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define COOKIE 0x2112a442U
#define MAX_WINDOW 256
#define MAX_CLIENTS 65536
#define BUCKETS 65536

static void fail(const char *what) {
    perror(what);
    exit(1);
}

/* A socket of this type at 127.0.0.1, and its port on the output. */
static int serve_at(int type) {
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof own;
    int fd = socket(AF_INET, type, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&own, sizeof own) || getsockname(fd, (struct sockaddr *)&own, &length))
        fail("socket");
    if (type == SOCK_STREAM && listen(fd, 4096))
        fail("listen");
    printf("%u\n", ntohs(own.sin_port));
    fflush(stdout);
    return fd;
}

static void put16(unsigned char *to, unsigned value) {
    to[0] = (unsigned char)(value >> 8);
    to[1] = (unsigned char)value;
}

static void put32(unsigned char *to, uint32_t value) {
    put16(to, value >> 16);
    put16(to + 2, value & 0xffff);
}

static uint32_t get32(const unsigned char *from) {
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

static void answer_bindings(void) {
    unsigned char bytes[2048];
    int fd = serve_at(SOCK_DGRAM);
    for (;;) {
        struct sockaddr_in from;
        socklen_t from_length = sizeof from;
        ssize_t length = recvfrom(fd, bytes, sizeof bytes, 0, (struct sockaddr *)&from, &from_length);
        if (length < 20 || bytes[0] != 0 || bytes[1] != 1 || get32(bytes + 4) != COOKIE)
            continue;
        put16(bytes, 0x0101);
        put16(bytes + 2, 12);
        put16(bytes + 20, 0x0020); /* XOR-MAPPED-ADDRESS */
        put16(bytes + 22, 8);
        put16(bytes + 24, 1);
        put16(bytes + 26, ntohs(from.sin_port) ^ (COOKIE >> 16));
        put32(bytes + 28, ntohl(from.sin_addr.s_addr) ^ COOKIE);
        sendto(fd, bytes, 32, 0, (struct sockaddr *)&from, from_length);
    }
}

/* A client, by its descriptor; those who listen are linked, the oldest first. */
struct client {
    uint32_t ip;
    int is_listening, before, after;
};

static struct client clients[MAX_CLIENTS];
static struct { int first, last; } buckets[BUCKETS];

static unsigned bucket_of(uint32_t ip) { return (ip ^ ip >> 16) % BUCKETS; }

static void add_listener(int fd) {
    struct client *client = &clients[fd];
    unsigned bucket = bucket_of(client->ip);
    if (client->is_listening)
        return;
    client->is_listening = 1;
    client->before = buckets[bucket].last;
    client->after = 0;
    if (client->before)
        clients[client->before].after = fd;
    else
        buckets[bucket].first = fd;
    buckets[bucket].last = fd;
}

static void remove_listener(int fd) {
    struct client *client = &clients[fd];
    unsigned bucket = bucket_of(client->ip);
    if (!client->is_listening)
        return;
    client->is_listening = 0;
    if (client->before)
        clients[client->before].after = client->after;
    else
        buckets[bucket].first = client->after;
    if (client->after)
        clients[client->after].before = client->before;
    else
        buckets[bucket].last = client->before;
}

static void send_introduction(int fd, uint32_t ip) {
    char host[INET_ADDRSTRLEN], text[64];
    struct in_addr address = {.s_addr = ip};
    inet_ntop(AF_INET, &address, host, sizeof host);
    int length = snprintf(text, sizeof text, "*('%s', %d)", host, 20001);
    send(fd, text, (size_t)length, MSG_NOSIGNAL);
}

static void introduce(int connector, const char *host) {
    struct in_addr address;
    int listener = 0;
    if (inet_pton(AF_INET, host, &address) == 1)
        for (listener = buckets[bucket_of(address.s_addr)].first; listener; listener = clients[listener].after)
            if (clients[listener].ip == address.s_addr && listener != connector)
                break;
    if (!listener) {
        send(connector, "?", 1, MSG_NOSIGNAL);
        return;
    }
    send_introduction(connector, address.s_addr);
    send_introduction(listener, clients[connector].ip);
    remove_listener(listener);
}

static void introduce_all(void) {
    struct epoll_event events[256], interest = {.events = EPOLLIN};
    struct rlimit limit;
    int server = serve_at(SOCK_STREAM), epoll = epoll_create1(EPOLL_CLOEXEC), on = 1;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    interest.data.fd = server;
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, server, &interest))
        fail("epoll");
    for (;;) {
        int count = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == server) {
                struct sockaddr_in from;
                socklen_t length = sizeof from;
                int client = accept4(server, (struct sockaddr *)&from, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (client < 0 || client >= MAX_CLIENTS)
                    fail("accept");
                clients[client] = (struct client){.ip = from.sin_addr.s_addr};
                interest.data.fd = client;
                epoll_ctl(epoll, EPOLL_CTL_ADD, client, &interest);
                continue;
            }
            char text[1024];
            ssize_t length = recv(fd, text, sizeof text - 1, 0);
            if (length <= 0) {
                remove_listener(fd);
                close(fd);
                continue;
            }
            text[length] = 0;
            if (text[0] == '<')
                add_listener(fd);
            else if (text[0] == '>')
                introduce(fd, text + 1);
        }
    }
}

static void flood(uint16_t port, unsigned window, unsigned long count) {
    static unsigned char requests[MAX_WINDOW][20], answers[MAX_WINDOW][256];
    static struct mmsghdr out[MAX_WINDOW], in[MAX_WINDOW];
    static struct iovec out_bytes[MAX_WINDOW], in_bytes[MAX_WINDOW];
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    struct timeval patience = {.tv_sec = 2};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof server) ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience))
        fail("socket");
    for (unsigned i = 0; i < window; i++) {
        put16(requests[i], 0x0001);
        put32(requests[i] + 4, COOKIE);
        put32(requests[i] + 8, i);
        out_bytes[i] = (struct iovec){requests[i], sizeof requests[i]};
        in_bytes[i] = (struct iovec){answers[i], sizeof answers[i]};
        out[i].msg_hdr = (struct msghdr){.msg_iov = &out_bytes[i], .msg_iovlen = 1};
        in[i].msg_hdr = (struct msghdr){.msg_iov = &in_bytes[i], .msg_iovlen = 1};
    }
    for (unsigned long asked = 0; asked < count; asked += window) {
        for (unsigned sent = 0; sent < window;) {
            int now = sendmmsg(fd, out + sent, window - sent, 0);
            if (now <= 0)
                fail("sendmmsg");
            sent += (unsigned)now;
        }
        for (unsigned received = 0; received < window;) {
            int now = recvmmsg(fd, in, window - received, MSG_WAITFORONE, NULL);
            if (now <= 0)
                fail("an answer is missing");
            for (int i = 0; i < now; i++)
                if (in[i].msg_len < 32 || answers[i][0] != 1 || answers[i][1] != 1)
                    fail("that is no answer");
            received += (unsigned)now;
        }
    }
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "udp") == 0)
        answer_bindings();
    if (argc == 2 && strcmp(argv[1], "tcp") == 0)
        introduce_all();
    if (argc != 5 || strcmp(argv[1], "flood") != 0 || atoi(argv[3]) < 1 || atoi(argv[3]) > MAX_WINDOW) {
        fprintf(stderr, "usage: plain udp | tcp | flood PORT WINDOW COUNT\n");
        return 2;
    }
    flood((uint16_t)atoi(argv[2]), (unsigned)atoi(argv[3]), strtoul(argv[4], NULL, 10));
    return 0;
}
