/* libnice as the peer of the example `agent`: the same arguments and texts.
 *
 * peer_libnice controlling|controlled MESSAGE [SERVER]     SERVER is one of STUN and TURN; its user is "user", "password" */
#include <agent.h>
#include <stdio.h>
#include <string.h>

static NiceAgent *agent;
static GMainLoop *loop;
static guint stream;
static const char *message;
static gboolean heard;

static gboolean say(gpointer unused) {
    (void)unused;
    nice_agent_send(agent, stream, 1, (guint)strlen(message), message);
    return G_SOURCE_CONTINUE;
}

static gboolean quit(gpointer unused) {
    (void)unused;
    g_main_loop_quit(loop);
    return G_SOURCE_REMOVE;
}

static void on_data(NiceAgent *from, guint id, guint component, guint length, gchar *data, gpointer unused) {
    (void)from, (void)id, (void)component, (void)unused;
    if (!heard) {
        heard = TRUE;
        printf("%.*s\n", (int)length, data);
        fflush(stdout);
        say(NULL);
        g_timeout_add(50, quit, NULL);
    }
}

static void on_state(NiceAgent *from, guint id, guint component, guint state, gpointer unused) {
    static gboolean ready;
    (void)from, (void)id, (void)component, (void)unused;
    if (state == NICE_COMPONENT_STATE_READY && !ready) {
        ready = TRUE;
        say(NULL);
        g_timeout_add(200, say, NULL);
    } else if (state == NICE_COMPONENT_STATE_FAILED) {
        fprintf(stderr, "libnice has failed\n");
        g_main_loop_quit(loop);
    }
}

static void on_gathered(NiceAgent *from, guint id, gpointer unused) {
    gchar *ufrag, *password, line[1024];
    gchar their_ufrag[300] = "", their_password[300] = "";
    GSList *candidates = nice_agent_get_local_candidates(agent, stream, 1), *remote = NULL, *each;
    (void)from, (void)id, (void)unused;
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
    while (fgets(line, sizeof line, stdin) && !strstr(line, "end-of-candidates")) {
        g_strchomp(line);
        sscanf(line, "a=ice-ufrag:%299s", their_ufrag);
        sscanf(line, "a=ice-pwd:%299s", their_password);
        if (g_str_has_prefix(line, "a=candidate:")) {
            NiceCandidate *candidate = nice_agent_parse_remote_candidate_sdp(agent, stream, line);
            if (candidate) {
                remote = g_slist_append(remote, candidate);
            }
        }
    }
    nice_agent_set_remote_credentials(agent, stream, their_ufrag, their_password);
    nice_agent_set_remote_candidates(agent, stream, 1, remote);
    g_slist_free_full(remote, (GDestroyNotify)nice_candidate_free);
}

int main(int argc, char **argv) {
    if (argc < 3) {
        return 2;
    }
    message = argv[2];
    loop = g_main_loop_new(NULL, FALSE);
    agent = nice_agent_new(NULL, NICE_COMPATIBILITY_RFC5245);
    g_object_set(agent, "controlling-mode", strcmp(argv[1], "controlling") == 0, "upnp", FALSE, NULL);
    if (argc > 3) {
        g_object_set(agent, "stun-server", argv[3], "stun-server-port", 3478, NULL);
    }
    stream = nice_agent_add_stream(agent, 1);
    if (argc > 3) {
        nice_agent_set_relay_info(agent, stream, 1, argv[3], 3478, "user", "password", NICE_RELAY_TYPE_TURN_UDP);
    }
    nice_agent_attach_recv(agent, stream, 1, NULL, on_data, NULL);
    g_signal_connect(agent, "candidate-gathering-done", G_CALLBACK(on_gathered), NULL);
    g_signal_connect(agent, "component-state-changed", G_CALLBACK(on_state), NULL);
    nice_agent_gather_candidates(agent, stream);
    g_main_loop_run(loop);
    g_object_unref(agent);
    g_main_loop_unref(loop);
    return heard ? 0 : 1;
}
