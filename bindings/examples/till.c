/*
 * A till that sells while the shop's line is down: store and forward. Each sale is handed over whole, is in
 * the journal before the customer leaves, and reaches the database once, in the order of sale, as soon as a
 * server is there; whether this program still runs then, or is started again, makes no difference.
 *
 *     cc -std=c99 till.c $(pkg-config --cflags --libs segue) -o till
 *     ./till "host=node1,node2 dbname=shop user=till" /var/lib/till/journal 100
 *
 * Run it without a server, interrupt it, start the server, run it again with 0 sales: they arrive.
 * The table: CREATE TABLE sale (till text, number int, pieces int, PRIMARY KEY (till, number))
 */
#include <segue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TILL "till 7"

static int failed(const char *doing, segue_error *error)
{
    fprintf(stderr, "%s: %s\n", doing, segue_error_message(error));
    segue_error_free(error);
    return EXIT_FAILURE;
}

/* Called on a thread of the client's; it must not block for long. */
static void print_outcome(const segue_ticket *ticket, const segue_error *error, void *user_data)
{
    FILE *out = user_data;

    if (error == NULL) {
        fprintf(out, "%s: in the database\n", segue_ticket_key(ticket));
    } else {
        fprintf(out, "%s: %s\n", segue_ticket_key(ticket), segue_error_message(error));
    }
    fflush(out);
}

/* Hands over one sale. The key names it: handed over twice, by whichever program, it is booked once. */
static int32_t sell(const segue_client *client, int number, int pieces, segue_error **error)
{
    segue_submission *sale = NULL;
    segue_ticket *ticket = NULL;
    segue_param params[3];
    char key[64];
    int32_t status;

    snprintf(key, sizeof key, TILL " sale %d", number);
    params[0] = segue_param_text(TILL);
    params[1] = segue_param_int4(number);
    params[2] = segue_param_int4(pieces);
    status = segue_submission_new(&sale, error);
    if (status == SEGUE_OK) {
        status = segue_submission_add_statement(
            sale, "INSERT INTO sale (till, number, pieces) VALUES ($1, $2, $3)", params, 3, error);
    }
    if (status == SEGUE_OK) {
        status = segue_submission_set_lane(sale, TILL, error);
    }
    if (status == SEGUE_OK) {
        status = segue_submission_set_key(sale, key, error);
    }
    if (status == SEGUE_OK) {
        status = segue_submit(client, sale, &ticket, error);
    }
    if (status == SEGUE_OK) {
        printf("%s: kept\n", key);
        fflush(stdout);
        status = segue_ticket_on_done(ticket, print_outcome, stdout, NULL, error);
    }
    /* Neither is needed any more: the sale goes its way, and the callback stays. */
    segue_ticket_free(ticket);
    segue_submission_free(sale);
    return status;
}

/* What can never succeed as things are: somebody has to look at it. */
static void print_dead_letters(const segue_client *client)
{
    segue_dead_letters *letters = NULL;
    size_t i;

    if (segue_client_dead_letters(client, &letters, NULL) != SEGUE_OK) {
        return;
    }
    for (i = 0; i < segue_dead_letters_count(letters); i++) {
        const char *key = segue_dead_letters_key(letters, i);

        printf("dead letter %s (%s): %s %s\n", segue_dead_letters_id(letters, i), key != NULL ? key : "no key",
               segue_dead_letters_sqlstate(letters, i), segue_dead_letters_message(letters, i));
    }
    segue_dead_letters_free(letters);
}

/* How many sales are still on their way; -1 if that cannot be asked. */
static int64_t on_their_way(const segue_client *client)
{
    segue_submission_status *status = NULL;
    const char *problem;
    int64_t count;

    if (segue_client_submissions(client, &status, NULL) != SEGUE_OK) {
        return -1;
    }
    count = segue_submission_status_number(status, "waiting") +
            segue_submission_status_number(status, "in_flight");
    problem = segue_submission_status_problem(status);
    printf("%ld on their way%s%s\n", (long)count, problem != NULL ? ": " : "", problem != NULL ? problem : "");
    segue_submission_status_free(status);
    return count;
}

int main(int argc, char **argv)
{
    segue_options *options = NULL;
    segue_client *client = NULL;
    segue_error *error = NULL;
    int32_t status;
    int number;
    int sales;
    int first;

    if (argc < 3 || argc > 5) {
        fprintf(stderr, "usage: %s CONNINFO JOURNAL_DIRECTORY [SALES [FIRST_NUMBER]]\n", argv[0]);
        return EXIT_FAILURE;
    }
    sales = argc > 3 ? atoi(argv[3]) : 10;
    first = argc > 4 ? atoi(argv[4]) : 1;

    status = segue_options_new(&options, &error);
    if (status == SEGUE_OK) {
        status = segue_options_set_conninfo(options, argv[1], &error);
    }
    if (status == SEGUE_OK) {
        status = segue_options_set(options, "journal", "file", &error);
    }
    if (status == SEGUE_OK) {
        status = segue_options_set(options, "journal_dir", argv[2], &error);
    }
    /* What an earlier run has left in the journal goes on by itself from here on. */
    if (status == SEGUE_OK) {
        status = segue_client_open_options(options, &client, &error);
    }
    segue_options_free(options);
    if (status != SEGUE_OK) {
        return failed("opening the client", error);
    }
    for (number = first; number < first + sales; number++) {
        if (sell(client, number, 1 + number % 5, &error) != SEGUE_OK) {
            segue_client_free(client);
            return failed("the sale was not kept", error);
        }
    }

    /* A till would go on selling. This one says once how things are, waits for Enter, and says it again. */
    on_their_way(client);
    printf("Enter ends this program; what is on its way stays in the journal.\n");
    fflush(stdout);
    getchar();
    on_their_way(client);
    print_dead_letters(client);
    segue_client_free(client);
    return EXIT_SUCCESS;
}
