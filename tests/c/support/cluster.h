/*
 * A real cluster, driven through the program segue-cluster (tests/support), whose path is in the
 * environment as SEGUE_CLUSTER or else the one that CMake has compiled in. One thread at a time.
 *
 * What goes wrong with a cluster ends the test program: no test can go on without it.
 */
#ifndef SEGUE_TEST_CLUSTER_H
#define SEGUE_TEST_CLUSTER_H

#include <stdint.h>

typedef struct cluster cluster;

/* Arguments of segue-cluster, separated by blanks. */
cluster *cluster_start(const char *arguments);
/* Ends the servers. */
void cluster_stop(cluster *it);

/* Connection strings of all servers: over TCP, Unix sockets, and through the proxies. */
const char *cluster_conninfo(const cluster *it);
const char *cluster_conninfo_unix(const cluster *it);
const char *cluster_conninfo_proxy(const cluster *it);
/* The file of the authority that has signed the servers' certificates. */
const char *cluster_tls_ca(const cluster *it);

/* Gives a command, as with printf(); its answer is good until the next command. */
const char *cluster_do(cluster *it, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The answer as a number. */
int64_t cluster_number(cluster *it, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "conninfo options" in one text that the caller frees. */
char *cluster_with(const char *conninfo, const char *options);

#endif
