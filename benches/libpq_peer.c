/*
 * The libpq side of the benchmarks: a program as people write it, with PQexecPrepared, text
 * parameters and text results. It is driven over stdin, one command a line, and answers on stdout
 * with one line, so that it can take turns with the others in short batches:
 *
 *   point N ROWS SEED               N point SELECTs            -> "elapsed_ns p50_ns"
 *   tpcb N SCALE SEED               N TPC-B-like transactions  -> "elapsed_ns p50_ns"
 *   tpcb_for MS SCALE SEED          as many as fit in MS       -> "elapsed_ns count"
 *
 * With "cold" as second argument it does not connect yet. It answers each line with the time that a
 * new connection and one TPC-B-like transaction take, nothing prepared: what an application does
 * whose connection was lost.
 *
 *   cold _ SCALE SEED               connect, five statements, COMMIT -> "elapsed_ns 1"
 */
#include <libpq-fe.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static PGconn *conn;
static int unprepared;
static uint64_t state;

static void fail(const char *what)
{
	fprintf(stderr, "libpq_peer: %s: %s", what, conn ? PQerrorMessage(conn) : "\n");
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;
}

/* The same generator as on the Rust side, so that all ask for the same rows. */
static unsigned below(unsigned limit)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (unsigned) ((state >> 33) % limit);
}

static const char *const statements[][2] = {
	{"point", "SELECT abalance FROM pgbench_accounts WHERE aid = $1"},
	{"accounts", "UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2"},
	{"tellers", "UPDATE pgbench_tellers SET tbalance = tbalance + $1 WHERE tid = $2"},
	{"branches", "UPDATE pgbench_branches SET bbalance = bbalance + $1 WHERE bid = $2"},
	{"history", "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) "
	 "VALUES ($1, $2, $3, $4, now())"},
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
	(void) number_of(run("point", 1, &aid, PGRES_TUPLES_OK));
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

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *) a, y = *(const uint64_t *) b;
	return x < y ? -1 : x > y;
}

static void batch(void (*work)(unsigned), unsigned count, unsigned limit)
{
	uint64_t *took = malloc((size_t) count * sizeof *took);
	uint64_t start = now_ns(), last = start;

	if (took == NULL || count == 0)
		fail("nothing to do");
	for (unsigned i = 0; i < count; i++)
	{
		uint64_t now;
		work(limit);
		now = now_ns();
		took[i] = now - last;
		last = now;
	}
	qsort(took, count, sizeof *took, by_size);
	printf("%llu %llu\n", (unsigned long long) (last - start), (unsigned long long) took[count / 2]);
	free(took);
}

static void connect_to(const char *conninfo)
{
	conn = PQconnectdb(conninfo);
	if (PQstatus(conn) != CONNECTION_OK)
		fail("connecting");
}

int main(int argc, char **argv)
{
	char line[256];

	if (argc < 2 || argc > 3)
	{
		fprintf(stderr, "usage: libpq_peer CONNINFO [cold]\n");
		return 2;
	}
	unprepared = argc == 3;
	if (!unprepared)
	{
		connect_to(argv[1]);
		for (size_t i = 0; i < STATEMENTS; i++)
			prepare(statements[i][0], statements[i][1]);
	}
	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin))
	{
		char command[16];
		unsigned count, limit;
		unsigned long long seed;

		if (sscanf(line, "%15s %u %u %llu", command, &count, &limit, &seed) != 4)
			fail("a command that is none");
		state = seed;
		if (unprepared)
		{
			uint64_t start = now_ns();
			connect_to(argv[1]);
			tpcb(limit);
			printf("%llu 1\n", (unsigned long long) (now_ns() - start));
			PQfinish(conn);
			conn = NULL;
		}
		else if (strcmp(command, "point") == 0)
			batch(point, count, limit);
		else if (strcmp(command, "tpcb") == 0)
			batch(tpcb, count, limit);
		else if (strcmp(command, "tpcb_for") == 0)
		{
			uint64_t start = now_ns(), end = start + (uint64_t) count * 1000000u, last;
			unsigned long long done = 0;
			do
			{
				tpcb(limit);
				done++;
				last = now_ns();
			} while (last < end);
			printf("%llu %llu\n", (unsigned long long) (last - start), done);
		}
		else
			fail("an unknown command");
		fflush(stdout);
	}
	PQfinish(conn);
	return 0;
}
