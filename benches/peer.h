/*
 * What the C peers share: the commands, the turns and the clock. A peer is driven over stdin, one
 * command a line, and answers on stdout with one line, so that it can take turns with the others in
 * short batches:
 *
 *   COMMAND N LIMIT SEED        N times the work of this name        -> "elapsed_ns p50_ns checksum"
 *   tpcb_for MS SCALE SEED      as many transactions as fit in MS    -> "elapsed_ns count"
 *   tpcb_many MS SCALE SEED     the same, from eight connections     -> "elapsed_ns count"
 *
 * The checksum is made of the values that were read; all who are given the same seed must agree.
 */
#ifndef PEER_H
#define PEER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { THREADS = 8, INSERTS = 100, LARGE_ROWS = 10000 };

#define SQL_POINT "SELECT abalance FROM pgbench_accounts WHERE aid = $1"
#define SQL_ACCOUNTS "UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2"
#define SQL_TELLERS "UPDATE pgbench_tellers SET tbalance = tbalance + $1 WHERE tid = $2"
#define SQL_BRANCHES "UPDATE pgbench_branches SET bbalance = bbalance + $1 WHERE bid = $2"
#define SQL_HISTORY                                                                             \
	"INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES ($1, $2, $3, $4, now())"
#define SQL_LARGE "SELECT id, big, ratio, name, made, odd FROM bench_large"
#define SQL_INSERT "INSERT INTO bench_inserts (id, big, name) VALUES ($1, $2, $3)"

/* Each thread has a generator, a connection and a checksum of its own. */
static __thread uint64_t state;
static __thread uint64_t checksum;

/* One piece of work, known by its name. */
struct work
{
	const char *name;
	void (*run)(unsigned limit);
};

/* What a peer brings. */
static void tpcb(unsigned scale);
static void use_connection(unsigned number);

static inline uint64_t now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;
}

/* The same generator as on the Rust side, so that all ask for the same rows. */
static inline unsigned below(unsigned limit)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (unsigned) ((state >> 33) % limit);
}

/* A row of the large result, as C values. The name stays in the result. */
struct large
{
	int32_t id;
	int64_t big;
	double ratio;
	const char *name;
	size_t name_length;
	/* As text it stays in the result; in binary it is the microseconds since 2000. */
	const char *made_text;
	int64_t made;
	bool odd;
};

static inline void note(uint64_t value)
{
	checksum = checksum * 31 + value;
}

static inline void note_large(const struct large *row)
{
	note((uint64_t) row->id);
	note((uint64_t) row->big);
	note((uint64_t) (int64_t) (row->ratio * 1024));
	note(row->name_length + (unsigned char) row->name[row->name_length - 1]);
	note(row->made_text ? (unsigned char) row->made_text[18] : (uint64_t) row->made);
	note(row->odd);
}

static inline uint32_t big_endian_32(const void *bytes)
{
	uint32_t value;
	memcpy(&value, bytes, sizeof value);
	return __builtin_bswap32(value);
}

static inline uint64_t big_endian_64(const void *bytes)
{
	uint64_t value;
	memcpy(&value, bytes, sizeof value);
	return __builtin_bswap64(value);
}

/* The values of the n-th row that is inserted. */
struct insert
{
	int32_t id;
	int64_t big;
	char name[32];
};

static inline struct insert next_insert(void)
{
	struct insert row = {.id = (int32_t) below(1000000), .big = (int64_t) below(1000000) << 20};
	snprintf(row.name, sizeof row.name, "an item called %d", row.id);
	return row;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *) a, y = *(const uint64_t *) b;
	return x < y ? -1 : x > y;
}

static void batch(void (*run)(unsigned), unsigned count, unsigned limit)
{
	uint64_t *took = malloc((size_t) count * sizeof *took);
	uint64_t start, last;

	if (took == NULL || count == 0)
		exit(2);
	checksum = 0;
	start = last = now_ns();
	for (unsigned i = 0; i < count; i++)
	{
		uint64_t now;
		run(limit);
		now = now_ns();
		took[i] = now - last;
		last = now;
	}
	qsort(took, count, sizeof *took, by_size);
	printf("%llu %llu %llu\n", (unsigned long long) (last - start),
		   (unsigned long long) took[count / 2], (unsigned long long) checksum);
	free(took);
}

static unsigned long long tpcb_until(uint64_t end, unsigned scale)
{
	unsigned long long done = 0;
	do
	{
		tpcb(scale);
		done++;
	} while (now_ns() < end);
	return done;
}

struct thread
{
	pthread_t id;
	unsigned number;
	uint64_t seed;
	uint64_t end;
	unsigned scale;
	unsigned long long done;
};

static void *thread_main(void *argument)
{
	struct thread *self = argument;

	use_connection(self->number);
	state = self->seed;
	self->done = tpcb_until(self->end, self->scale);
	return NULL;
}

static unsigned long long tpcb_many(uint64_t end, unsigned scale, uint64_t seed)
{
	struct thread threads[THREADS];
	unsigned long long done = 0;

	for (unsigned i = 0; i < THREADS; i++)
	{
		threads[i] = (struct thread){.number = i, .seed = seed + i, .end = end, .scale = scale};
		if (pthread_create(&threads[i].id, NULL, thread_main, &threads[i]) != 0)
			exit(2);
	}
	for (unsigned i = 0; i < THREADS; i++)
	{
		pthread_join(threads[i].id, NULL);
		done += threads[i].done;
	}
	return done;
}

/* Carries out one line; false if there is no such command. */
static bool obey(const char *line, const struct work *works)
{
	char command[24];
	unsigned count, limit;
	unsigned long long seed;

	if (sscanf(line, "%23s %u %u %llu", command, &count, &limit, &seed) != 4)
		return false;
	state = seed;
	if (strcmp(command, "tpcb_for") == 0 || strcmp(command, "tpcb_many") == 0)
	{
		uint64_t start = now_ns(), end = start + (uint64_t) count * 1000000u;
		unsigned long long done = strcmp(command, "tpcb_for") == 0
			? tpcb_until(end, limit)
			: tpcb_many(end, limit, seed);
		printf("%llu %llu\n", (unsigned long long) (now_ns() - start), done);
		return true;
	}
	for (const struct work *work = works; work->name; work++)
	{
		if (strcmp(work->name, command) == 0)
		{
			batch(work->run, count, limit);
			return true;
		}
	}
	return false;
}

#endif
