/*
 * Prints what a client tells of its servers, until it is interrupted or a number of seconds has passed.
 *
 *     cc -std=c99 events.c $(pkg-config --cflags --libs segue) -o events
 *     ./events "host=node1,node2 dbname=bank user=app" 60
 */
#define _POSIX_C_SOURCE 200809L /* nanosleep, sigaction */
#include <segue.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static volatile sig_atomic_t interrupted;

static void interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

/* Called on a thread of the library's, perhaps on several at once; it must not block for long. */
static void print_event(const segue_event *event, void *user_data)
{
    FILE *out = user_data;
    const char *address = segue_event_address(event);
    int64_t pause = segue_event_number(event, "pause_us");

    fprintf(out, "%-18s %-22s %s\n", segue_event_name(event), address != NULL ? address : "",
            segue_event_message(event));
    if (pause >= 0) {
        fprintf(out, "%-18s the session was without a server for %.1f ms\n", "", (double)pause / 1000);
    }
    fflush(out);
}

static int failed(const char *doing, segue_error *error)
{
    fprintf(stderr, "%s: %s\n", doing, segue_error_message(error));
    segue_error_free(error);
    return EXIT_FAILURE;
}

static void print_servers(const segue_client *client)
{
    segue_status *status = NULL;
    size_t server;

    if (segue_client_status(client, &status, NULL) != SEGUE_OK) {
        return;
    }
    for (server = 0; server < segue_status_server_count(status); server++) {
        printf("%-18s %s\n", "server", segue_status_server_summary(status, server));
    }
    fflush(stdout);
    segue_status_free(status);
}

int main(int argc, char **argv)
{
    segue_client *client = NULL;
    segue_session *session = NULL;
    segue_subscription *subscription = NULL;
    segue_error *error = NULL;
    struct sigaction action;
    struct timespec tick = {0, 100 * 1000 * 1000};
    time_t end = 0;

    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: %s CONNINFO [SECONDS]\n", argv[0]);
        return EXIT_FAILURE;
    }
    if (argc == 3) {
        end = time(NULL) + atol(argv[2]);
    }
    memset(&action, 0, sizeof action);
    action.sa_handler = interrupt;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);

    if (segue_client_open(argv[1], &client, &error) != SEGUE_OK) {
        return failed("opening the client", error);
    }
    if (segue_client_on_event(client, print_event, stdout, NULL, &subscription, &error) != SEGUE_OK) {
        segue_client_free(client);
        return failed("subscribing", error);
    }
    /* A session waits until the servers are known; this one then tells of its own moves, too. */
    if (segue_session_open(client, SEGUE_SESSION_DEFAULT, &session, &error) != SEGUE_OK) {
        segue_subscription_free(subscription);
        segue_client_free(client);
        return failed("opening a session", error);
    }
    print_servers(client);
    while (!interrupted && (end == 0 || time(NULL) < end)) {
        nanosleep(&tick, NULL);
    }
    print_servers(client);
    segue_session_free(session);
    segue_subscription_free(subscription);
    segue_client_free(client);
    return EXIT_SUCCESS;
}
