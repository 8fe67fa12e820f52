/* The library is loaded and unloaded at run time, again and again, with an endpoint and its thread in between. Its
 * path is the argument. */
#include "check.h"

#include <dlfcn.h>

/* Loads a function, without a cast that the standard does not know. */
#define LOAD(name)                                                                                                     \
    do {                                                                                                               \
        void *symbol = dlsym(library, #name);                                                                          \
        CHECK(symbol != NULL);                                                                                         \
        memcpy(&functions.name, &symbol, sizeof symbol);                                                               \
    } while (0)

static struct {
    int32_t (*holepunch_endpoint_new)(const holepunch_config_t *, holepunch_endpoint_t **, holepunch_error_t **);
    int32_t (*holepunch_endpoint_listen)(holepunch_endpoint_t *, const char *, const holepunch_listen_options_t *,
                                         holepunch_cancel_t *, holepunch_listener_t **, holepunch_error_t **);
    void (*holepunch_listener_free)(holepunch_listener_t *);
    void (*holepunch_endpoint_free)(holepunch_endpoint_t *);
} functions;

/* In a thread of its own: what the library keeps for a thread goes with it, and only then can the library go. */
static void *use(void *library) {
    static const char *const BIND[] = {"127.0.0.1"};
    holepunch_config_t config = {.size = sizeof config, .bind = BIND, .bind_len = 1};
    holepunch_endpoint_t *endpoint;
    holepunch_listener_t *listener;
    LOAD(holepunch_endpoint_new);
    LOAD(holepunch_endpoint_listen);
    LOAD(holepunch_listener_free);
    LOAD(holepunch_endpoint_free);
    CHECK(functions.holepunch_endpoint_new(&config, &endpoint, NULL) == HOLEPUNCH_OK);
    CHECK(functions.holepunch_endpoint_listen(endpoint, "loading", LISTEN_FOR(20000), NULL, &listener, NULL) ==
          HOLEPUNCH_OK);
    functions.holepunch_listener_free(listener);
    functions.holepunch_endpoint_free(endpoint);
    return NULL;
}

/* Whether the library is mapped. */
static inline int is_loaded(void) {
    char line[1024];
    FILE *maps = fopen("/proc/self/maps", "r");
    int found = 0;
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL)
        found |= strstr(line, "libholepunch") != NULL;
    fclose(maps);
    return found;
}

static void *load(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(library != NULL);
    return library;
}

int main(int argc, char **argv) {
    int round, before_descriptors = descriptors(), before_threads = threads();
    void *library;
    CHECK(argc == 2);
    for (round = 0; round < 20; round++) {
        library = load(argv[1]);
        join(start(use, library));
        CHECK(dlclose(library) == 0);
#ifndef __SANITIZE_ADDRESS__
        /* The sanitiser keeps it, to tell where what it finds came from. */
        CHECK(!is_loaded());
#endif
        CHECK(descriptors() == before_descriptors);
        CHECK(threads() == before_threads);
    }
    /* A thread that lives on keeps it in memory, and can use it again. */
    for (round = 0; round < 20; round++) {
        library = load(argv[1]);
        use(library);
        CHECK(dlclose(library) == 0);
        CHECK(descriptors() == before_descriptors);
        CHECK(threads() == before_threads);
    }
    return 0;
}
