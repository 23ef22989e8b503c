/*
 * The libpq side of the benchmarks: a program as people write it, with PQexecPrepared, text
 * parameters and text results, and where it says so with binary ones. How it is driven stands in
 * peer.h. Its works:
 *
 *   point                       a point SELECT
 *   tpcb                        a TPC-B-like transaction
 *   large_text, large_binary    a result of 10,000 rows, every value of it read
 *   inserts, inserts_apart      100 pipelined INSERTs, in one transaction or each in its own
 *
 * With "cold" as second argument it does not connect yet. It answers each line with the time that a
 * new connection and one TPC-B-like transaction take, nothing prepared: what an application does
 * whose connection was lost.
 *
 *   cold _ SCALE SEED           connect, five statements, COMMIT -> "elapsed_ns 1"
 */
#include "peer.h"

#include <libpq-fe.h>

static __thread PGconn *conn;
static const char *conninfo;
static int unprepared;

static void fail(const char *what)
{
	fprintf(stderr, "libpq_peer: %s: %s", what, conn ? PQerrorMessage(conn) : "\n");
	exit(1);
}

static const char *const statements[][2] = {
	{"point", SQL_POINT},
	{"accounts", SQL_ACCOUNTS},
	{"tellers", SQL_TELLERS},
	{"branches", SQL_BRANCHES},
	{"history", SQL_HISTORY},
};
#define STATEMENTS (sizeof statements / sizeof statements[0])

static const char *text_of(const char *name)
{
	for (size_t i = 0; i < STATEMENTS; i++)
		if (strcmp(statements[i][0], name) == 0)
			return statements[i][1];
	fail(name);
	return NULL;
}

static void prepare(const char *name, const char *sql)
{
	PGresult *result = PQprepare(conn, name, sql, 0, NULL);
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		fail(sql);
	PQclear(result);
}

/* The tables of "large" and "inserts" are not there in every benchmark. */
static void prepare_once(bool *done, const char *name, const char *sql)
{
	if (!*done)
		prepare(name, sql);
	*done = true;
}

static void simple(const char *sql)
{
	PGresult *result = PQexec(conn, sql);
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		fail(sql);
	PQclear(result);
}

static PGresult *run(const char *name, int count, const int *numbers, ExecStatusType wanted)
{
	char text[4][16];
	const char *values[4];
	PGresult *result;

	for (int i = 0; i < count; i++)
	{
		snprintf(text[i], sizeof text[i], "%d", numbers[i]);
		values[i] = text[i];
	}
	if (unprepared)
		result = PQexecParams(conn, text_of(name), count, NULL, values, NULL, NULL, 0);
	else
		result = PQexecPrepared(conn, name, count, values, NULL, NULL, 0);
	if (PQresultStatus(result) != wanted)
		fail(name);
	return result;
}

static long number_of(PGresult *result)
{
	long value;
	if (PQntuples(result) != 1)
		fail("one row was expected");
	value = strtol(PQgetvalue(result, 0, 0), NULL, 10);
	PQclear(result);
	return value;
}

static void point(unsigned rows)
{
	int aid = 1 + (int) below(rows);
	note((uint64_t) number_of(run("point", 1, &aid, PGRES_TUPLES_OK)));
}

static void update(const char *name, int delta, int key)
{
	int values[2] = {delta, key};
	PQclear(run(name, 2, values, PGRES_COMMAND_OK));
}

static void tpcb(unsigned scale)
{
	int bid = 1 + (int) below(scale);
	int tid = 1 + (int) below(scale * 10);
	int aid = 1 + (int) below(scale * 100000);
	int delta = (int) below(10000) - 5000;
	int history[4] = {tid, bid, aid, delta};

	simple("BEGIN");
	update("accounts", delta, aid);
	(void) number_of(run("point", 1, &aid, PGRES_TUPLES_OK));
	update("tellers", delta, tid);
	update("branches", delta, bid);
	PQclear(run("history", 4, history, PGRES_COMMAND_OK));
	simple("COMMIT");
}

static PGresult *large_result(int format)
{
	static bool prepared;
	PGresult *result;

	prepare_once(&prepared, "large", SQL_LARGE);
	result = PQexecPrepared(conn, "large", 0, NULL, NULL, NULL, format);
	if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != LARGE_ROWS)
		fail("large");
	return result;
}

static void large_text(unsigned unused)
{
	PGresult *result = large_result(0);

	(void) unused;
	for (int i = 0; i < PQntuples(result); i++)
	{
		struct large row = {
			.id = (int32_t) strtol(PQgetvalue(result, i, 0), NULL, 10),
			.big = strtoll(PQgetvalue(result, i, 1), NULL, 10),
			.ratio = strtod(PQgetvalue(result, i, 2), NULL),
			.name = PQgetvalue(result, i, 3),
			.name_length = (size_t) PQgetlength(result, i, 3),
			.made_text = PQgetvalue(result, i, 4),
			.odd = *PQgetvalue(result, i, 5) == 't',
		};
		note_large(&row);
	}
	PQclear(result);
}

static void large_binary(unsigned unused)
{
	PGresult *result = large_result(1);

	(void) unused;
	for (int i = 0; i < PQntuples(result); i++)
	{
		uint64_t bits = big_endian_64(PQgetvalue(result, i, 2));
		struct large row = {
			.id = (int32_t) big_endian_32(PQgetvalue(result, i, 0)),
			.big = (int64_t) big_endian_64(PQgetvalue(result, i, 1)),
			.name = PQgetvalue(result, i, 3),
			.name_length = (size_t) PQgetlength(result, i, 3),
			.made = (int64_t) big_endian_64(PQgetvalue(result, i, 4)),
			.odd = *PQgetvalue(result, i, 5) != 0,
		};
		memcpy(&row.ratio, &bits, sizeof row.ratio);
		note_large(&row);
	}
	PQclear(result);
}

static void send(const char *name, int count, const char *const *values)
{
	if (PQsendQueryPrepared(conn, name, count, values, NULL, NULL, 0) != 1)
		fail(name);
}

/* The reply of one statement of a pipeline. */
static void receive(ExecStatusType wanted)
{
	PGresult *result = PQgetResult(conn);
	if (PQresultStatus(result) != wanted)
		fail("a reply of the pipeline");
	PQclear(result);
	if (wanted == PGRES_COMMAND_OK && PQgetResult(conn) != NULL)
		fail("the end of a reply of the pipeline");
}

static void pipelined(bool apart)
{
	static bool prepared, prepared_begin, prepared_commit;

	prepare_once(&prepared, "insert", SQL_INSERT);
	prepare_once(&prepared_begin, "begin", "BEGIN");
	prepare_once(&prepared_commit, "commit", "COMMIT");
	if (PQenterPipelineMode(conn) != 1)
		fail("pipeline mode");
	if (!apart)
		send("begin", 0, NULL);
	for (int i = 0; i < INSERTS; i++)
	{
		struct insert row = next_insert();
		char id[16], big[24];
		const char *values[3] = {id, big, row.name};

		snprintf(id, sizeof id, "%d", row.id);
		snprintf(big, sizeof big, "%lld", (long long) row.big);
		send("insert", 3, values);
		if (apart && PQpipelineSync(conn) != 1)
			fail("a sync of the pipeline");
	}
	if (!apart)
	{
		send("commit", 0, NULL);
		if (PQpipelineSync(conn) != 1)
			fail("the sync of the pipeline");
		receive(PGRES_COMMAND_OK);
	}
	for (int i = 0; i < INSERTS; i++)
	{
		receive(PGRES_COMMAND_OK);
		if (apart)
			receive(PGRES_PIPELINE_SYNC);
	}
	if (!apart)
	{
		receive(PGRES_COMMAND_OK);
		receive(PGRES_PIPELINE_SYNC);
	}
	if (PQexitPipelineMode(conn) != 1)
		fail("leaving the pipeline mode");
}

static void inserts(unsigned unused)
{
	(void) unused;
	pipelined(false);
}

static void inserts_apart(unsigned unused)
{
	(void) unused;
	pipelined(true);
}

static const struct work works[] = {
	{"point", point},
	{"tpcb", tpcb},
	{"large_text", large_text},
	{"large_binary", large_binary},
	{"inserts", inserts},
	{"inserts_apart", inserts_apart},
	{NULL, NULL},
};

static void connect_now(void)
{
	conn = PQconnectdb(conninfo);
	if (PQstatus(conn) != CONNECTION_OK)
		fail("connecting");
}

static void connect_and_prepare(void)
{
	connect_now();
	for (size_t i = 0; i < STATEMENTS; i++)
		prepare(statements[i][0], statements[i][1]);
}

/* Gives the calling thread the connection of this number, which is made at its first use. */
static void use_connection(unsigned number)
{
	static PGconn *connections[THREADS];

	if (connections[number] == NULL)
	{
		connect_and_prepare();
		connections[number] = conn;
	}
	conn = connections[number];
}

int main(int argc, char **argv)
{
	char line[256];

	if (argc < 2 || argc > 3)
	{
		fprintf(stderr, "usage: libpq_peer CONNINFO [cold]\n");
		return 2;
	}
	conninfo = argv[1];
	unprepared = argc == 3;
	if (!unprepared)
		connect_and_prepare();
	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin))
	{
		if (unprepared)
		{
			unsigned limit;
			unsigned long long seed;
			uint64_t start = now_ns();

			if (sscanf(line, "cold %*u %u %llu", &limit, &seed) != 2)
				fail("a command that is none");
			state = seed;
			connect_now();
			tpcb(limit);
			printf("%llu 1\n", (unsigned long long) (now_ns() - start));
			PQfinish(conn);
			conn = NULL;
		}
		else if (!obey(line, works))
			fail("a command that is none");
		fflush(stdout);
	}
	PQfinish(conn);
	return 0;
}
