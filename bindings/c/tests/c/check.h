/* What the C tests share: checks that say what failed, and threads. A test exits 0 or names its first failure. */
#ifndef CHECK_H
#define CHECK_H

#define _GNU_SOURCE
#include <dirent.h>
#include <holepunch.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHECK(condition) check(condition, #condition, __FILE__, __LINE__)

/* Runs the call with the variable "error" in its arguments, and expects the status and an error to match. */
#define EXPECT(status, call)                                                                                           \
    do {                                                                                                               \
        holepunch_error_t *failure = NULL, **error = &failure;                                                         \
        int32_t got = (call);                                                                                          \
        expect_status(status, got, failure, #call, __FILE__, __LINE__);                                                \
        holepunch_error_free(failure);                                                                                 \
    } while (0)

#define OK(call) EXPECT(HOLEPUNCH_OK, call)

/* Options with these times, as the argument of a call. */
#define LISTEN_FOR(timeout)                                                                                            \
    (&(holepunch_listen_options_t){.size = sizeof(holepunch_listen_options_t), .timeout_ms = (timeout)})
#define CONNECT_FOR(wait, timeout)                                                                                     \
    (&(holepunch_connect_options_t){                                                                                   \
        .size = sizeof(holepunch_connect_options_t), .wait_ms = (wait), .timeout_ms = (timeout)})

static inline void check(int condition, const char *text, const char *file, int line) {
    if (!condition) {
        fprintf(stderr, "%s:%d: %s\n", file, line, text);
        exit(1);
    }
}

static inline void expect_status(int32_t want, int32_t got, const holepunch_error_t *failure, const char *text,
                                 const char *file, int line) {
    if (got != want) {
        fprintf(stderr, "%s:%d: %s\n  is %s, not %s: %s; %s\n", file, line, text, holepunch_status_name(got),
                holepunch_status_name(want), holepunch_error_message(failure), holepunch_error_hint(failure));
        exit(1);
    }
    check((failure != NULL) == (got != HOLEPUNCH_OK), text, file, line);
    check(holepunch_error_code(failure) == got, text, file, line);
    if (failure != NULL) {
        check(strlen(holepunch_error_message(failure)) > 5, text, file, line);
        check(strlen(holepunch_error_hint(failure)) > 5, text, file, line);
    }
}

static inline int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static inline pthread_t start(void *(*body)(void *), void *argument) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, body, argument) == 0);
    return thread;
}

static inline void join(pthread_t thread) {
    CHECK(pthread_join(thread, NULL) == 0);
}

/* How many descriptors the process has. */
static inline int descriptors(void) {
    DIR *directory = opendir("/proc/self/fd");
    int count = 0;
    CHECK(directory != NULL);
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

/* How many threads the process has. */
static inline int threads(void) {
    DIR *directory = opendir("/proc/self/task");
    int count = -2;
    CHECK(directory != NULL);
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

/* Whether a thread with that id sleeps in the kernel: how a test knows that a call blocks, without guessing a time. */
static inline int is_asleep(pid_t thread) {
    char path[64], line[512], *state;
    FILE *file;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)thread);
    file = fopen(path, "r");
    if (file == NULL || fgets(line, sizeof line, file) == NULL)
        line[0] = '\0';
    if (file != NULL)
        fclose(file);
    state = strrchr(line, ')');
    return state != NULL && state[1] == ' ' && state[2] == 'S';
}

#endif
