/*
 * The C side of Segue's benchmarks: a program on segue.h as people write it. It does the same as
 * libpq_peer.c, with everything on that protects it. How it is driven stands in peer.h. Its works:
 *
 *   point, point_by_text        a point SELECT, by a segue_statement and by its text
 *   tpcb                        a TPC-B-like transaction, its statements given by their text
 *   large_text, large_binary    a result of 10,000 rows, every value of it read
 *   inserts, inserts_apart      100 pipelined INSERTs, in one transaction or each in its own
 */
#include "peer.h"

#include <segue.h>

static segue_client *client;
static __thread segue_session *session;
static segue_statement *point_statement;
static __thread segue_error *error;

/* The program ends with the first failure. */
static void fail(const char *what)
{
	fprintf(stderr, "segue_peer: %s: %s\n", what, segue_error_message(error));
	exit(1);
}

static void point_of(segue_result *result)
{
	int64_t balance;

	if (segue_result_row_count(result) != 1)
		fail("one row was expected");
	if (segue_result_int64(result, 0, 0, &balance, &error) != SEGUE_OK)
		fail("the balance");
	segue_result_free(result);
	note((uint64_t) balance);
}

static void point(unsigned rows)
{
	segue_param aid = segue_param_int4(1 + (int) below(rows));
	segue_result *result;

	if (segue_statement_query(point_statement, &aid, 1, SEGUE_FORMAT_TEXT, &result, &error) != SEGUE_OK)
		fail(SQL_POINT);
	point_of(result);
}

static void select_by_text(int aid)
{
	segue_param param = segue_param_int4(aid);
	segue_result *result;

	if (segue_session_query(session, SQL_POINT, &param, 1, SEGUE_FORMAT_TEXT, &result, &error) != SEGUE_OK)
		fail(SQL_POINT);
	point_of(result);
}

static void point_by_text(unsigned rows)
{
	select_by_text(1 + (int) below(rows));
}

static void execute(const char *sql, const segue_param *params, size_t count)
{
	if (segue_session_execute(session, sql, params, count, NULL, &error) != SEGUE_OK)
		fail(sql);
}

static void update(const char *sql, int delta, int key)
{
	segue_param params[2] = {segue_param_int4(delta), segue_param_int4(key)};
	execute(sql, params, 2);
}

static void begin(void)
{
	if (segue_session_begin(session, SEGUE_ISOLATION_DEFAULT, 0, &error) != SEGUE_OK)
		fail("begin");
}

static void commit(void)
{
	if (segue_session_commit(session, &error) != SEGUE_OK)
		fail("commit");
}

static void tpcb(unsigned scale)
{
	int bid = 1 + (int) below(scale);
	int tid = 1 + (int) below(scale * 10);
	int aid = 1 + (int) below(scale * 100000);
	int delta = (int) below(10000) - 5000;
	segue_param history[4] = {segue_param_int4(tid), segue_param_int4(bid), segue_param_int4(aid),
		segue_param_int4(delta)};

	begin();
	update(SQL_ACCOUNTS, delta, aid);
	select_by_text(aid);
	update(SQL_TELLERS, delta, tid);
	update(SQL_BRANCHES, delta, bid);
	execute(SQL_HISTORY, history, 4);
	commit();
}

static segue_result *large_result(int32_t format)
{
	segue_result *result;

	if (segue_session_query(session, SQL_LARGE, NULL, 0, format, &result, &error) != SEGUE_OK)
		fail(SQL_LARGE);
	if (segue_result_row_count(result) != LARGE_ROWS)
		fail("the large result");
	return result;
}

/* The columns that are read in the same way whatever the format. */
static void read_typed(const segue_result *result, size_t i, struct large *row)
{
	int64_t id;

	if (segue_result_int64(result, i, 0, &id, &error) != SEGUE_OK
		|| segue_result_int64(result, i, 1, &row->big, &error) != SEGUE_OK
		|| segue_result_double(result, i, 2, &row->ratio, &error) != SEGUE_OK
		|| segue_result_text(result, i, 3, &row->name, &row->name_length, &error) != SEGUE_OK
		|| segue_result_bool(result, i, 5, &row->odd, &error) != SEGUE_OK)
		fail("a value");
	row->id = (int32_t) id;
}

static void large_text(unsigned unused)
{
	segue_result *result = large_result(SEGUE_FORMAT_TEXT);
	size_t rows = segue_result_row_count(result);

	(void) unused;
	for (size_t i = 0; i < rows; i++)
	{
		struct large row = {0};
		read_typed(result, i, &row);
		if (segue_result_text(result, i, 4, &row.made_text, NULL, &error) != SEGUE_OK)
			fail("a time");
		note_large(&row);
	}
	segue_result_free(result);
}

static void large_binary(unsigned unused)
{
	segue_result *result = large_result(SEGUE_FORMAT_BINARY);
	size_t rows = segue_result_row_count(result);

	(void) unused;
	for (size_t i = 0; i < rows; i++)
	{
		struct large row = {0};
		read_typed(result, i, &row);
		row.made = (int64_t) big_endian_64(segue_result_value(result, i, 4, NULL));
		note_large(&row);
	}
	segue_result_free(result);
}

static void pipelined(bool apart)
{
	segue_pipeline *pipeline;

	if (segue_session_pipeline(session, SEGUE_FORMAT_TEXT, &pipeline, &error) != SEGUE_OK)
		fail("a pipeline");
	for (int i = 0; i < INSERTS; i++)
	{
		struct insert row = next_insert();
		segue_param params[3] = {segue_param_int4(row.id), segue_param_int8(row.big),
			segue_param_text(row.name)};
		if (segue_pipeline_add(pipeline, SQL_INSERT, params, 3, &error) != SEGUE_OK)
			fail(SQL_INSERT);
	}
	if (!apart && segue_pipeline_commit(pipeline, &error) != SEGUE_OK)
		fail("COMMIT in the pipeline");
	for (;;)
	{
		segue_result *result;
		if (segue_pipeline_next(pipeline, &result, &error) != SEGUE_OK)
			fail("a reply of the pipeline");
		if (result == NULL)
			break;
		segue_result_free(result);
	}
	segue_pipeline_free(pipeline);
}

static void inserts(unsigned unused)
{
	(void) unused;
	begin();
	pipelined(false);
}

static void inserts_apart(unsigned unused)
{
	(void) unused;
	pipelined(true);
}

static const struct work works[] = {
	{"point", point},
	{"point_by_text", point_by_text},
	{"tpcb", tpcb},
	{"large_text", large_text},
	{"large_binary", large_binary},
	{"inserts", inserts},
	{"inserts_apart", inserts_apart},
	{NULL, NULL},
};

/* There is nothing to measure without the protection. */
static void check_protection(void)
{
	segue_session_state *now;
	bool ledger;

	if (segue_session_status(session, &now, &error) != SEGUE_OK)
		fail("the session's status");
	ledger = segue_session_state_ledger(now);
	segue_session_state_free(now);
	if (!ledger)
		fail("the ledger is not in use");
}

static void open_session(void)
{
	if (segue_session_open(client, SEGUE_SESSION_DEFAULT, &session, &error) != SEGUE_OK)
		fail("a session");
	check_protection();
}

/* Gives the calling thread the session of this number, which is opened at its first use. */
static void use_connection(unsigned number)
{
	static segue_session *sessions[THREADS];

	if (sessions[number] == NULL)
	{
		open_session();
		sessions[number] = session;
	}
	session = sessions[number];
}

int main(int argc, char **argv)
{
	char line[256];

	if (argc != 2)
	{
		fprintf(stderr, "usage: segue_peer CONNINFO\n");
		return 2;
	}
	if (segue_client_open(argv[1], &client, &error) != SEGUE_OK)
		fail("connecting");
	open_session();
	if (segue_session_prepare(session, SQL_POINT, NULL, 0, &point_statement, &error) != SEGUE_OK)
		fail(SQL_POINT);
	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin))
	{
		if (!obey(line, works))
			fail("a command that is none");
		fflush(stdout);
	}
	segue_statement_free(point_statement);
	segue_session_free(session);
	segue_client_free(client);
	return 0;
}
