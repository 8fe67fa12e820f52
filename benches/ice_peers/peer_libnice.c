/* libnice as one of the agents of the benchmark `ice`: peer_libnice ADDRESS:PORT, that of a STUN server; ice_peers/mod.rs says
 * what it is told and says. Without candidates of TCP, which nobody else here has, and with which libnice would nominate
 * regularly, a round trip later at least; all else is as it comes. */
#include <agent.h>
#include <nice-version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const guint PATIENCE = 35; /* seconds */

static GMainLoop *loop;
static gint64 begun;
static gboolean has_ended;

static gboolean next_line(char *line, int size) {
    if (!fgets(line, size, stdin)) {
        return FALSE;
    }
    g_strchomp(line);
    return TRUE;
}

/* The clock of GLib is the monotonic one, in microseconds. */
static void end(const char *word) {
    if (!has_ended) {
        has_ended = TRUE;
        printf("%s %" G_GINT64_FORMAT " %" G_GINT64_FORMAT "\n", word, begun * 1000, g_get_monotonic_time() * 1000);
        fflush(stdout);
    }
}

static gboolean on_timeout(gpointer unused) {
    (void)unused;
    end("failed");
    return G_SOURCE_CONTINUE; /* It is removed with the turn. */
}

static void on_state(NiceAgent *agent, guint stream, guint component, guint state, gpointer unused) {
    (void)agent, (void)stream, (void)component, (void)unused;
    /* It is in use from here on; READY comes when the checks of likelier pairs have failed, and may come first. */
    if (state == NICE_COMPONENT_STATE_CONNECTED || state == NICE_COMPONENT_STATE_READY) {
        end("connected");
    } else if (state == NICE_COMPONENT_STATE_FAILED) {
        end("failed");
    }
}

static void on_data(NiceAgent *agent, guint stream, guint component, guint length, gchar *data, gpointer unused) {
    (void)agent, (void)stream, (void)component, (void)length, (void)data, (void)unused;
}

static void describe(NiceAgent *agent, guint stream) {
    gchar *ufrag, *password;
    GSList *candidates = nice_agent_get_local_candidates(agent, stream, 1), *each;
    nice_agent_get_local_credentials(agent, stream, &ufrag, &password);
    printf("a=ice-ufrag:%s\na=ice-pwd:%s\n", ufrag, password);
    for (each = candidates; each; each = each->next) {
        gchar *text = nice_agent_generate_local_candidate_sdp(agent, each->data);
        printf("%s\n", text);
        g_free(text);
    }
    printf("a=end-of-candidates\n");
    fflush(stdout);
    g_slist_free_full(candidates, (GDestroyNotify)nice_candidate_free);
    g_free(ufrag);
    g_free(password);
}

static void on_gathered(NiceAgent *agent, guint stream, gpointer unused) {
    char line[1024], ufrag[300] = "", password[300] = "";
    GSList *remote = NULL;
    (void)unused;
    describe(agent, stream);
    while (next_line(line, sizeof line) && !strstr(line, "end-of-candidates")) {
        sscanf(line, "a=ice-ufrag:%299s", ufrag);
        sscanf(line, "a=ice-pwd:%299s", password);
        if (g_str_has_prefix(line, "a=candidate:")) {
            NiceCandidate *candidate = nice_agent_parse_remote_candidate_sdp(agent, stream, line);
            if (candidate) {
                remote = g_slist_append(remote, candidate);
            }
        }
    }
    begun = g_get_monotonic_time();
    nice_agent_set_remote_credentials(agent, stream, ufrag, password);
    nice_agent_set_remote_candidates(agent, stream, 1, remote);
    g_slist_free_full(remote, (GDestroyNotify)nice_candidate_free);
}

static gboolean on_input(GIOChannel *input, GIOCondition condition, gpointer unused) {
    char line[1024];
    (void)input, (void)condition, (void)unused;
    if (!next_line(line, sizeof line)) {
        exit(0);
    }
    g_main_loop_quit(loop);
    return G_SOURCE_REMOVE;
}

static void turn(const char *role, const char *address, guint port) {
    NiceAgent *agent = nice_agent_new(NULL, NICE_COMPATIBILITY_RFC5245);
    GIOChannel *input = g_io_channel_unix_new(0);
    guint stream = nice_agent_add_stream(agent, 1), timer;
    has_ended = FALSE;
    g_object_set(agent, "controlling-mode", strcmp(role, "controlling") == 0, "upnp", FALSE, "ice-tcp", FALSE, NULL);
    g_object_set(agent, "stun-server", address, "stun-server-port", port, NULL);
    nice_agent_attach_recv(agent, stream, 1, NULL, on_data, NULL);
    g_signal_connect(agent, "candidate-gathering-done", G_CALLBACK(on_gathered), NULL);
    g_signal_connect(agent, "component-state-changed", G_CALLBACK(on_state), NULL);
    nice_agent_gather_candidates(agent, stream);
    timer = g_timeout_add_seconds(PATIENCE, on_timeout, NULL);
    /* By the time the agent is described this watch is there, and what it sees is the end of the turn. */
    g_io_add_watch(input, G_IO_IN | G_IO_HUP, on_input, NULL);
    g_main_loop_run(loop);
    g_source_remove(timer);
    g_io_channel_unref(input);
    g_object_unref(agent);
}

int main(int argc, char **argv) {
    char role[64], *colon = argc > 1 ? strrchr(argv[1], ':') : NULL;
    if (!colon) {
        return 2;
    }
    *colon = '\0';
    setvbuf(stdin, NULL, _IONBF, 0); /* What the main loop does not see must not wait in a buffer. */
    loop = g_main_loop_new(NULL, FALSE);
    printf("libnice %d.%d.%d\n", NICE_VERSION_MAJOR, NICE_VERSION_MINOR, NICE_VERSION_MICRO);
    fflush(stdout);
    while (next_line(role, sizeof role)) {
        turn(role, argv[1], (guint)atoi(colon + 1));
    }
    g_main_loop_unref(loop);
    return 0;
}
