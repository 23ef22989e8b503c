/*
 * What became of the transactions of a client that was killed with SIGKILL: in the middle of a transaction, at
 * COMMIT before and behind its effect, in an autocommit statement, in a COPY. Journals that are locked, encrypted,
 * and none at all; NULL, frees in every order, fork().
 */
#define _DEFAULT_SOURCE

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/db.h"
#include "support/folder.h"

/* What an output holds that must not be touched. */
static char mark;
#define MARK ((void *)&mark)

#define KEY "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define OTHER_KEY "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
#define UPDATE "UPDATE r SET note = $1 WHERE id = 1"
#define INSERT "INSERT INTO r (id, note, raw) VALUES ($1, $2, $3)"

static const char *own_name;
static cluster *servers;
/* Of the tests, and beside the clients that die. */
static segue_client *client;
static segue_session *session;

/* The client that is killed: this program, run once more. It does something up to where it waits. */

static void insert(segue_session *it, int id)
{
    segue_param params[3] = {segue_param_int4(id), segue_param_text("Ada"), segue_param_bytea("\0\1", 2)};
    OK(segue_session_execute(it, INSERT, params, 3, NULL, ERR));
}

static int child(const char *conninfo, const char *what)
{
    segue_client *own = NULL;
    if (!OK(segue_client_open(conninfo, &own, ERR)))
        return 1;
    segue_session *it = db_session(own);
    db_execute(it, "SELECT 1");
    if (strcmp(what, "autocommit") == 0) {
        db_execute(it, "INSERT INTO r (id) SELECT 7 FROM pg_advisory_xact_lock(7)");
    } else if (strcmp(what, "many") == 0) {
        /* One after the other, until one waits behind its commit for a standby. */
        for (int id = 100;; id++) {
            OK(segue_session_begin(it, SEGUE_ISOLATION_DEFAULT, 0, ERR));
            insert(it, id);
            OK(segue_session_commit(it, ERR));
            if (id == 100) {
                printf("there\n");
                fflush(stdout);
            }
        }
    } else if (strcmp(what, "empty") == 0) {
        printf("there\n");
        fflush(stdout);
        pause();
    } else {
        OK(segue_session_begin(it, SEGUE_ISOLATION_SERIALIZABLE, 0, ERR));
        insert(it, 1);
        if (strcmp(what, "copy") == 0) {
            segue_copy_in *copy = NULL;
            OK(segue_session_copy_in(it, "COPY r (id) FROM STDIN", &copy, ERR));
            OK(segue_copy_in_write(copy, "2\n3\n", 4, ERR));
            OK(segue_copy_in_finish(copy, NULL, ERR));
            segue_copy_in_free(copy);
        }
        if (strcmp(what, "pipeline") == 0) {
            /* All of it, and COMMIT, is sent before anything is read. */
            segue_pipeline *pipeline = NULL;
            OK(segue_session_pipeline(it, SEGUE_FORMAT_TEXT, &pipeline, ERR));
            for (int id = 2; id < 6; id++) {
                segue_param params[1] = {segue_param_int4(id)};
                OK(segue_pipeline_add(pipeline, "INSERT INTO r (id) VALUES ($1)", params, 1, ERR));
            }
            OK(segue_pipeline_commit(pipeline, ERR));
            pause();
        }
        segue_param none[1] = {segue_param_null()};
        OK(segue_session_execute(it, UPDATE, none, 1, NULL, ERR));
        if (strcmp(what, "commit") == 0) {
            /* It waits in a trigger. */
            OK(segue_session_commit(it, ERR));
        } else {
            printf("there\n");
            fflush(stdout);
            pause();
        }
    }
    return 1;
}

/* A child that has not been killed yet. */
struct dying {
    pid_t pid;
    FILE *told;
};

static struct dying start(const char *conninfo, const char *what)
{
    struct dying it;
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    fflush(NULL);
    it.pid = fork();
    REQUIRE(it.pid >= 0);
    if (it.pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl(own_name, own_name, "--child", conninfo, what, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    it.told = fdopen(ends[0], "r");
    REQUIRE(it.told != NULL);
    return it;
}

static void kill_it(struct dying it)
{
    int status = 0;
    kill(it.pid, SIGKILL);
    waitpid(it.pid, &status, 0);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    fclose(it.told);
}

/* Until the child has said that it is there. */
static void hear(struct dying it)
{
    char word[16] = "";
    REQUIRE(fscanf(it.told, "%15s", word) == 1);
    CHECK_STR(word, "there");
}

/* A journal of its own for each test. */
struct journal {
    char *folder;
    char *conninfo;
};

static struct journal journal_make(const char *options)
{
    struct journal it = {.folder = folder_make()};
    char text[4300];
    snprintf(text, sizeof text, "journal=file journal_dir=%s %s", it.folder, options);
    it.conninfo = cluster_with(cluster_conninfo(servers), text);
    db_execute(session, "DELETE FROM r");
    return it;
}

static void journal_remove(struct journal it)
{
    folder_remove(it.folder);
    free(it.folder);
    free(it.conninfo);
}

/* Whether a file of the journal, which is in the clear, has a text in it. */
static bool has_text(const char *folder, const char *text)
{
    char command[8500];
    snprintf(command, sizeof command, "grep -qrF -- '%s' '%s'", text, folder);
    return system(command) == 0;
}

/* What nobody waits for is written a moment later: until it is. */
static void wait_until_written(struct journal it, const char *text)
{
    int64_t end = check_now_ms() + check_scaled(60000);
    while (!has_text(it.folder, text)) {
        REQUIRE(check_now_ms() < end);
        check_sleep_ms(5);
    }
}

static segue_client *open_journal(struct journal it)
{
    return db_client(it.conninfo, "");
}

static segue_recovery *recover(const segue_client *own, size_t count)
{
    segue_recovery *found = NULL;
    OK(segue_client_recover(own, &found, ERR));
    REQUIRE(found != NULL);
    CHECK_INT(segue_recovery_count(found), count);
    return found;
}

static int64_t rows(const char *where)
{
    char sql[128];
    snprintf(sql, sizeof sql, "SELECT count(*) FROM r WHERE %s", where);
    return db_int(session, sql);
}

/* Runs a statement again, as it was sent. */
static void run_again(segue_session *it, const segue_recovered_statements *statements)
{
    size_t length = 4711;
    const segue_param *params = segue_recovered_statements_params(statements, &length);
    const char *sql = segue_recovered_statements_sql(statements);
    size_t data_length = 4711;
    const void *data = segue_recovered_statements_copy_data(statements, &data_length);
    if (data == NULL) {
        CHECK_INT(data_length, 0);
        OK(segue_session_execute(it, sql, params, length, NULL, ERR));
    } else {
        segue_copy_in *copy = NULL;
        OK(segue_session_copy_in(it, sql, &copy, ERR));
        OK(segue_copy_in_write(copy, data, data_length, ERR));
        OK(segue_copy_in_finish(copy, NULL, ERR));
        segue_copy_in_free(copy);
    }
}

static void killed_in_the_middle(void)
{
    struct journal journal = journal_make("");
    struct dying dying = start(journal.conninfo, "middle");
    hear(dying);
    wait_until_written(journal, UPDATE);
    kill_it(dying);
    segue_client *own = open_journal(journal);
    segue_recovery *found = recover(own, 1);
    CHECK_INT(segue_recovery_verdict(found, 0), SEGUE_VERDICT_NEVER_SENT);
    CHECK_STR(segue_recovery_reason(found, 0), NULL);
    CHECK(!segue_recovery_is_doubtful(found, 0));
    CHECK(segue_recovery_number(found, 0) > 0);
    CHECK(segue_recovery_session_number(found, 0) > 0);
    CHECK_INT(strlen(segue_recovery_session(found, 0)), 36);
    CHECK(segue_recovery_database(found, 0) != NULL && segue_recovery_user(found, 0) != NULL);
    CHECK(segue_recovery_began_at_ms(found, 0) > 1700000000000);
    CHECK(!segue_recovery_is_autocommit(found, 0) && !segue_recovery_is_read_only(found, 0));
    CHECK_HAS(segue_recovery_begin(found, 0), "SERIALIZABLE");
    CHECK_INT(segue_recovery_statement_count(found, 0), 2);
    CHECK(segue_recovery_bytes(found, 0) > 0);
    CHECK_INT(segue_recovery_seal_count(found, 0), 0);
    CHECK_STR(segue_recovery_seal_row(found, 0, 0), NULL);
    CHECK_INT(segue_recovery_seal_committed(found, 0, 0), -1);
    CHECK_INT(rows("true"), 0);

    /* It is run again from what the journal has. */
    segue_recovered_statements *statements = NULL;
    bool there = true;
    size_t length = 4711;
    OK(segue_recovery_statements(found, 0, &statements, ERR));
    CHECK_STR(segue_recovered_statements_sql(statements), NULL);
    CHECK(segue_recovered_statements_params(statements, &length) == NULL);
    CHECK_INT(length, 0);
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    OK(segue_recovered_statements_next(statements, &there, ERR));
    REQUIRE(there);
    CHECK_STR(segue_recovered_statements_sql(statements), INSERT);
    CHECK(!segue_recovered_statements_is_simple(statements));
    const segue_param *params = segue_recovered_statements_params(statements, &length);
    REQUIRE(length == 3);
    CHECK_INT(params[0].kind, SEGUE_PARAM_BINARY);
    CHECK_INT(params[0].type_oid, 23);
    CHECK_INT(params[1].kind, SEGUE_PARAM_TEXT);
    CHECK_INT(params[1].length, 3);
    CHECK_INT(params[2].type_oid, 17);
    run_again(session, statements);
    OK(segue_recovered_statements_next(statements, &there, ERR));
    REQUIRE(there);
    params = segue_recovered_statements_params(statements, &length);
    REQUIRE(length == 1);
    CHECK_INT(params[0].kind, SEGUE_PARAM_NULL);
    run_again(session, statements);
    OK(segue_recovered_statements_next(statements, &there, ERR));
    CHECK(!there);
    OK(segue_recovered_statements_next(statements, &there, ERR));
    CHECK(!there);
    CHECK_STR(segue_recovered_statements_sql(statements), NULL);
    OK(segue_session_commit(session, ERR));
    segue_recovered_statements_free(statements);
    CHECK_INT(rows("id = 1 AND note IS NULL AND raw = '\\x0001'"), 1);

    /* It is found until it is done with. */
    segue_recovery_free(found);
    segue_client_free(own);
    own = open_journal(journal);
    found = recover(own, 1);
    OK(segue_recovery_done(found, 0, ERR));
    OK(segue_recovery_done(found, 0, ERR));
    segue_recovery_free(found);
    segue_recovery_free(recover(own, 0));
    segue_client_free(own);
    own = open_journal(journal);
    segue_recovery_free(recover(own, 0));
    segue_client_free(own);
    journal_remove(journal);
}

/* Until a backend that is not ours waits for this. */
static void wait_for(const char *event)
{
    int64_t end = check_now_ms() + check_scaled(60000);
    /* Not asked within a transaction, which would be told the same again and again. */
    while (cluster_number(servers, "sql 0 SELECT count(*) FROM pg_stat_activity WHERE wait_event = '%s'",
                          event) == 0) {
        REQUIRE(check_now_ms() < end);
        check_sleep_ms(5);
    }
}

static void killed_at_commit(void)
{
    struct journal journal = journal_make("");
    /* At COMMIT the transaction waits for a lock, before it seals. */
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    db_execute(session, "SELECT pg_advisory_xact_lock(1)");
    struct dying dying = start(journal.conninfo, "commit");
    wait_for("advisory");
    kill_it(dying);
    segue_client *own = open_journal(journal);
    segue_recovery *found = recover(own, 1);
    OK(segue_session_rollback(session, ERR));
    CHECK_INT(segue_recovery_verdict(found, 0), SEGUE_VERDICT_NOT_COMMITTED);
    REQUIRE(segue_recovery_seal_count(found, 0) == 1);
    CHECK_INT(strlen(segue_recovery_seal_row(found, 0, 0)), 36);
    CHECK(segue_recovery_seal_number(found, 0, 0) > 0);
    CHECK_INT(segue_recovery_seal_committed(found, 0, 0), 0);
    (void)segue_recovery_seal_is_guarded(found, 0, 0);
    CHECK_INT(rows("true"), 0);
    /* The ledger is asked once: the verdict is in the journal. */
    segue_recovery_free(found);
    found = recover(own, 1);
    CHECK_INT(segue_recovery_verdict(found, 0), SEGUE_VERDICT_NOT_COMMITTED);
    OK(segue_recovery_done(found, 0, ERR));
    segue_recovery_free(found);
    segue_client_free(own);
    journal_remove(journal);
}

static void killed_behind_a_pipeline(void)
{
    struct journal journal = journal_make("");
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    db_execute(session, "SELECT pg_advisory_xact_lock(1)");
    struct dying dying = start(journal.conninfo, "pipeline");
    wait_for("advisory");
    kill_it(dying);
    segue_client *own = open_journal(journal);
    segue_recovery *found = recover(own, 1);
    OK(segue_session_rollback(session, ERR));
    CHECK_INT(segue_recovery_verdict(found, 0), SEGUE_VERDICT_NOT_COMMITTED);
    CHECK_INT(segue_recovery_statement_count(found, 0), 5);
    segue_recovered_statements *statements = NULL;
    bool there = false;
    int count = 0;
    OK(segue_recovery_statements(found, 0, &statements, ERR));
    for (OK(segue_recovered_statements_next(statements, &there, ERR)); there; count++) {
        run_again(session, statements);
        OK(segue_recovered_statements_next(statements, &there, ERR));
    }
    CHECK_INT(count, 5);
    CHECK_INT(rows("id BETWEEN 1 AND 5"), 5);
    OK(segue_recovery_done(found, 0, ERR));
    segue_recovered_statements_free(statements);
    segue_recovery_free(found);
    segue_client_free(own);
    journal_remove(journal);
}

static void set_standbys(const char *names)
{
    cluster_do(servers, "sql 0 ALTER SYSTEM SET synchronous_standby_names = '%s'", names);
    cluster_do(servers, "sql 0 SELECT pg_reload_conf()");
}

static void killed_behind_commit(void)
{
    struct journal journal = journal_make("");
    struct dying dying = start(journal.conninfo, "many");
    hear(dying);
    set_standbys("nobody");
    wait_for("SyncRep");
    kill_it(dying);
    set_standbys("");
    segue_client *own = open_journal(journal);
    segue_recovery *found = recover(own, 1);
    CHECK_INT(segue_recovery_verdict(found, 0), SEGUE_VERDICT_COMMITTED);
    CHECK_INT(segue_recovery_seal_committed(found, 0, 0), 1);
    segue_recovered_statements *statements = NULL;
    bool there = false;
    size_t length = 0;
    char where[32];
    OK(segue_recovery_statements(found, 0, &statements, ERR));
    OK(segue_recovered_statements_next(statements, &there, ERR));
    const segue_param *params = segue_recovered_statements_params(statements, &length);
    REQUIRE(length == 3 && params[0].length == 4);
    const unsigned char *id = params[0].data;
    snprintf(where, sizeof where, "id = %d", id[0] << 24 | id[1] << 16 | id[2] << 8 | id[3]);
    CHECK_INT(rows(where), 1);
    segue_recovered_statements_free(statements);
    OK(segue_recovery_done(found, 0, ERR));
    segue_recovery_free(found);
    segue_client_free(own);
    journal_remove(journal);
}

static void killed_in_an_autocommit_statement(void)
{
    struct journal journal = journal_make("");
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    db_execute(session, "SELECT pg_advisory_xact_lock(7)");
    struct dying dying = start(journal.conninfo, "autocommit");
    wait_for("advisory");
    kill_it(dying);
    segue_client *own = open_journal(journal);
    segue_recovery *found = recover(own, 1);
    OK(segue_session_rollback(session, ERR));
    CHECK(segue_recovery_is_autocommit(found, 0));
    CHECK_INT(segue_recovery_verdict(found, 0), SEGUE_VERDICT_NOT_COMMITTED);
    CHECK_INT(rows("true"), 0);
    OK(segue_recovery_done(found, 0, ERR));
    segue_recovery_free(found);
    segue_client_free(own);
    journal_remove(journal);
}

static void killed_behind_a_copy(void)
{
    struct journal journal = journal_make("");
    struct dying dying = start(journal.conninfo, "copy");
    hear(dying);
    wait_until_written(journal, UPDATE);
    kill_it(dying);
    segue_client *own = open_journal(journal);
    segue_recovery *found = recover(own, 1);
    CHECK_INT(segue_recovery_verdict(found, 0), SEGUE_VERDICT_NEVER_SENT);
    segue_recovered_statements *statements = NULL;
    OK(segue_recovery_statements(found, 0, &statements, ERR));
    /* What is read does not need what it was opened from. */
    segue_client_free(own);
    segue_recovery_free(found);
    bool there = false;
    size_t count = 0;
    for (OK(segue_recovered_statements_next(statements, &there, ERR)); there; count++) {
        size_t length = 4711;
        const char *data = segue_recovered_statements_copy_data(statements, &length);
        CHECK_INT(length, count == 1 ? 4 : 0);
        if (count == 1)
            CHECK(memcmp(data, "2\n3\n", 4) == 0);
        run_again(session, statements);
        OK(segue_recovered_statements_next(statements, &there, ERR));
    }
    CHECK_INT(count, 3);
    CHECK_INT(rows("id IN (1, 2, 3)"), 3);
    segue_recovered_statements_free(statements);
    journal_remove(journal);
}

/* A client that is killed without anything in flight leaves nothing. */
static void killed_while_idle(void)
{
    struct journal journal = journal_make("");
    struct dying dying = start(journal.conninfo, "empty");
    hear(dying);
    kill_it(dying);
    segue_client *own = open_journal(journal);
    segue_recovery_free(recover(own, 0));
    segue_client_free(own);
    journal_remove(journal);
}

static void no_server_to_ask(void)
{
    cluster *before = servers;
    servers = cluster_start("--standbys 0 --replication async");
    segue_session *other = session;
    segue_client *own = db_client(cluster_conninfo(servers), "");
    session = db_session(own);
    db_execute(session, "CREATE TABLE r (id int, note text, raw bytea)");
    struct journal journal = journal_make("failover_timeout_ms=3000");
    struct dying dying = start(journal.conninfo, "many");
    hear(dying);
    set_standbys("nobody");
    wait_for("SyncRep");
    kill_it(dying);
    segue_session_free(session);
    segue_client_free(own);
    cluster_do(servers, "kill 0");

    own = open_journal(journal);
    segue_recovery *found = recover(own, 1);
    CHECK_INT(segue_recovery_verdict(found, 0), SEGUE_VERDICT_UNKNOWN);
    CHECK_HAS(segue_recovery_reason(found, 0), "the ledger could not be asked");
    CHECK_HAS(segue_recovery_reason(found, 0), "recover again");
    CHECK_INT(segue_recovery_seal_committed(found, 0, 0), -1);
    segue_recovery_free(found);
    segue_client_free(own);
    journal_remove(journal);
    cluster_stop(servers);
    servers = before;
    session = other;
}

static void journals_that_are_not_opened(void)
{
    struct journal journal = journal_make("journal_key=" KEY);
    OK(segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    db_execute(session, "SELECT pg_advisory_xact_lock(1)");
    struct dying dying = start(journal.conninfo, "commit");
    wait_for("advisory");
    segue_client *own = MARK;
    /* The process that is still there has it. */
    FAILS(SEGUE_CONFIG, segue_client_open(journal.conninfo, &own, ERR));
    CHECK_HAS(segue_error_message(LAST), "journal_locked");
    kill_it(dying);
    char *wrong = cluster_with(journal.conninfo, "journal_key=" OTHER_KEY);
    FAILS(SEGUE_CONFIG, segue_client_open(wrong, &own, ERR));
    CHECK_HAS(segue_error_message(LAST), "journal_wrong_key");
    CHECK(strstr(segue_error_message(LAST), OTHER_KEY) == NULL);
    CHECK(own == MARK);
    /* The right one finds what was there. */
    CHECK(!has_text(journal.folder, UPDATE));
    own = open_journal(journal);
    segue_recovery *found = recover(own, 1);
    CHECK_INT(segue_recovery_verdict(found, 0), SEGUE_VERDICT_NOT_COMMITTED);
    OK(segue_session_rollback(session, ERR));
    segue_recovery_free(found);
    segue_client_free(own);
    free(wrong);
    journal_remove(journal);
}

static void no_journal_and_its_figures(void)
{
    segue_recovery_free(recover(client, 0));
    segue_status *status = NULL;
    OK(segue_client_status(client, &status, ERR));
    CHECK_STR(segue_status_journal_dir(status), NULL);
    CHECK_INT(segue_status_number(status, "journal_bytes"), -1);
    segue_status_free(status);

    struct journal journal = journal_make("");
    segue_client *own = open_journal(journal);
    OK(segue_client_status(own, &status, ERR));
    CHECK_STR(segue_status_journal_dir(status), journal.folder);
    int64_t bytes = segue_status_number(status, "journal_bytes");
    CHECK(bytes >= 0);
    segue_status_free(status);
    /* It grows with what is in flight, and says so. */
    segue_session *it = db_session(own);
    OK(segue_session_begin(it, SEGUE_ISOLATION_DEFAULT, 0, ERR));
    for (int i = 0; i < 64; i++) {
        static char text[65536];
        memset(text, 'x', sizeof text);
        segue_param param = segue_param_text_sized(text, sizeof text);
        OK(segue_session_execute(it, "INSERT INTO r (note) VALUES ($1)", &param, 1, NULL, ERR));
    }
    int64_t end = check_now_ms() + check_scaled(60000);
    for (int64_t now = bytes; now < bytes + 64 * 65536; check_sleep_ms(5)) {
        REQUIRE(check_now_ms() < end);
        OK(segue_client_status(own, &status, ERR));
        now = segue_status_number(status, "journal_bytes");
        segue_status_free(status);
    }
    segue_session_free(it);
    segue_client_free(own);
    journal_remove(journal);
}

static void frees_in_every_order(void)
{
    static const char *const orders[] = {"crs", "csr", "rcs", "rsc", "scr", "src"};
    for (size_t i = 0; i < COUNT(orders); i++) {
        struct journal journal = journal_make("");
        struct dying dying = start(journal.conninfo, "middle");
        hear(dying);
        wait_until_written(journal, UPDATE);
        kill_it(dying);
        segue_client *own = open_journal(journal);
        segue_recovery *found = recover(own, 1);
        segue_recovered_statements *statements = NULL;
        bool there = false;
        OK(segue_recovery_statements(found, 0, &statements, ERR));
        for (const char *which = orders[i]; *which; which++) {
            switch (*which) {
            case 'c': segue_client_free(own); break;
            case 'r':
                OK(segue_recovery_done(found, 0, ERR));
                segue_recovery_free(found);
                break;
            default:
                OK(segue_recovered_statements_next(statements, &there, ERR));
                CHECK(there);
                CHECK_STR(segue_recovered_statements_sql(statements), INSERT);
                segue_recovered_statements_free(statements);
                break;
            }
        }
        own = open_journal(journal);
        segue_recovery_free(recover(own, 0));
        segue_client_free(own);
        journal_remove(journal);
    }
}

/* In the child of a fork(): a number of failed checks. */
static int use_after_fork(segue_client *own, segue_recovery *found, segue_recovered_statements *statements)
{
    int failed = 0;
    bool there = true;
    segue_recovery *out = MARK;
    segue_recovered_statements *statements_out = MARK;
    failed += !FAILS(SEGUE_FORKED, segue_client_recover(own, &out, ERR));
    failed += !FAILS(SEGUE_FORKED, segue_recovery_done(found, 0, ERR));
    failed += !FAILS(SEGUE_FORKED, segue_recovery_statements(found, 0, &statements_out, ERR));
    failed += !FAILS(SEGUE_FORKED, segue_recovered_statements_next(statements, &there, ERR));
    failed += !CHECK(out == MARK && statements_out == MARK && there);
    failed += !CHECK_INT(segue_recovery_verdict(found, 0), SEGUE_VERDICT_NEVER_SENT);
    segue_recovered_statements_free(statements);
    segue_recovery_free(found);
    segue_client_free(own);
    check_forget();
    return failed;
}

static void forking(void)
{
    struct journal journal = journal_make("");
    struct dying dying = start(journal.conninfo, "middle");
    hear(dying);
    wait_until_written(journal, UPDATE);
    kill_it(dying);
    segue_client *own = open_journal(journal);
    segue_recovery *found = recover(own, 1);
    segue_recovered_statements *statements = NULL;
    OK(segue_recovery_statements(found, 0, &statements, ERR));
    check_forget();
    fflush(NULL);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        alarm((unsigned)check_scaled(60));
        int failed = use_after_fork(own, found, statements);
        /* No leak check here: it would count what belongs to threads that fork() has not copied. */
        kill(getpid(), failed ? SIGTERM : SIGKILL);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    CHECK(WIFSIGNALED(status));
    CHECK_INT(WTERMSIG(status), SIGKILL);
    /* The parent is unharmed. */
    bool there = false;
    OK(segue_recovered_statements_next(statements, &there, ERR));
    CHECK(there);
    OK(segue_recovery_done(found, 0, ERR));
    segue_recovered_statements_free(statements);
    segue_recovery_free(found);
    segue_recovery_free(recover(own, 0));
    segue_client_free(own);
    journal_remove(journal);
}

static void null_and_none(void)
{
    segue_recovery *out = MARK;
    segue_recovered_statements *statements = MARK;
    bool there = true;
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_recover(NULL, &out, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_client_recover(client, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_recovery_statements(NULL, 0, &statements, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_recovery_done(NULL, 0, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_recovered_statements_next(NULL, &there, ERR));
    CHECK(out == MARK && statements == MARK && there);
    segue_recovery *none = recover(client, 0);
    FAILS(SEGUE_INVALID_ARGUMENT, segue_recovery_statements(none, 0, &statements, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_recovery_statements(none, 0, NULL, ERR));
    FAILS(SEGUE_INVALID_ARGUMENT, segue_recovery_done(none, 0, ERR));
    CHECK_HAS(segue_error_message(LAST), "there is no transaction 0: 0 were found");
    const segue_recovery *both[] = {NULL, none};
    for (size_t i = 0; i < COUNT(both); i++) {
        CHECK_INT(segue_recovery_count(both[i]), 0);
        CHECK_INT(segue_recovery_number(both[i], 0), 0);
        CHECK_INT(segue_recovery_verdict(both[i], 0), SEGUE_VERDICT_UNKNOWN);
        CHECK_STR(segue_recovery_reason(both[i], 0), NULL);
        CHECK(!segue_recovery_is_doubtful(both[i], 0));
        CHECK_STR(segue_recovery_session(both[i], 0), NULL);
        CHECK_INT(segue_recovery_session_number(both[i], 0), 0);
        CHECK_STR(segue_recovery_database(both[i], 0), NULL);
        CHECK_STR(segue_recovery_user(both[i], 0), NULL);
        CHECK_INT(segue_recovery_began_at_ms(both[i], 0), -1);
        CHECK(!segue_recovery_is_autocommit(both[i], 0) && !segue_recovery_is_read_only(both[i], 0));
        CHECK_STR(segue_recovery_begin(both[i], 0), NULL);
        CHECK_INT(segue_recovery_statement_count(both[i], 0), 0);
        CHECK_INT(segue_recovery_bytes(both[i], 0), 0);
        CHECK_INT(segue_recovery_seal_count(both[i], 0), 0);
        CHECK_STR(segue_recovery_seal_row(both[i], 0, 0), NULL);
        CHECK_INT(segue_recovery_seal_number(both[i], 0, 0), 0);
        CHECK(!segue_recovery_seal_is_guarded(both[i], 0, 0));
        CHECK_INT(segue_recovery_seal_committed(both[i], 0, 0), -1);
    }
    CHECK_STR(segue_recovered_statements_sql(NULL), NULL);
    CHECK(!segue_recovered_statements_is_simple(NULL));
    CHECK(segue_recovered_statements_params(NULL, NULL) == NULL);
    CHECK(segue_recovered_statements_copy_data(NULL, NULL) == NULL);
    CHECK_STR(segue_status_journal_dir(NULL), NULL);
    segue_recovery_free(none);
    segue_recovery_free(NULL);
    segue_recovered_statements_free(NULL);
}

int main(int argc, char **argv)
{
    own_name = argv[0];
    if (argc == 4 && strcmp(argv[1], "--child") == 0)
        return child(argv[2], argv[3]);
    check_start(argc, argv);
    servers = cluster_start("--standbys 0 --replication async");
    client = db_client(cluster_conninfo(servers), "");
    session = db_session(client);
    db_execute(session, "CREATE TABLE r (id int, note text, raw bytea)");
    db_execute(session, "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS "
                        "$$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$");
    db_execute(session, "CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON r DEFERRABLE INITIALLY DEFERRED "
                        "FOR EACH ROW EXECUTE FUNCTION wait()");
    RUN(null_and_none);
    RUN(no_journal_and_its_figures);
    RUN(killed_in_the_middle);
    RUN(killed_at_commit);
    RUN(killed_behind_commit);
    RUN(killed_behind_a_pipeline);
    RUN(killed_in_an_autocommit_statement);
    RUN(killed_behind_a_copy);
    RUN(killed_while_idle);
    RUN(no_server_to_ask);
    RUN(journals_that_are_not_opened);
    RUN(frees_in_every_order);
    RUN(forking);
    segue_session_free(session);
    segue_client_free(client);
    cluster_stop(servers);
    return check_finish();
}
