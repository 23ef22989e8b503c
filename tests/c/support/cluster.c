/* Starts segue-cluster and speaks with it: see cluster.h. */
#define _POSIX_C_SOURCE 200809L

#include "cluster.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SEGUE_CLUSTER_DEFAULT
#define SEGUE_CLUSTER_DEFAULT "segue-cluster"
#endif

enum { ARGUMENTS_MAX = 32 };

struct cluster {
    pid_t pid;
    FILE *to;
    FILE *from;
    char *line;
    size_t line_size;
    char *conninfo;
    char *conninfo_unix;
    char *conninfo_proxy;
    char *tls_ca;
};

static void give_up(const char *what, const char *text)
{
    fprintf(stderr, "the cluster: %s: %s\n", what, text);
    exit(1);
}

static const char *next_line(cluster *it)
{
    ssize_t length = getline(&it->line, &it->line_size, it->from);
    if (length < 0)
        give_up("it has ended", strerror(errno));
    if (length > 0 && it->line[length - 1] == '\n')
        it->line[length - 1] = '\0';
    return it->line;
}

/* What follows a key in a line, copied; NULL for another key. */
static char *value_of(const char *line, const char *key)
{
    size_t length = strlen(key);
    if (strncmp(line, key, length) != 0 || line[length] != ' ')
        return NULL;
    return strdup(line + length + 1);
}

static void keep(char **place, char *value)
{
    if (value)
        *place = value;
}

cluster *cluster_start(const char *arguments)
{
    const char *program = getenv("SEGUE_CLUSTER");
    if (!program)
        program = SEGUE_CLUSTER_DEFAULT;
    char *copy = strdup(arguments);
    /* The machine stays up whatever dies here, so that nothing need be flushed to its disk. */
    char *argv[ARGUMENTS_MAX] = {(char *)program, "--setting", "fsync=off"};
    char *rest = NULL;
    int count = 3;
    for (char *word = strtok_r(copy, " ", &rest); word && count < ARGUMENTS_MAX - 1;
         word = strtok_r(NULL, " ", &rest))
        argv[count++] = word;
    int to[2];
    int from[2];
    if (pipe(to) || pipe(from))
        give_up("pipe", strerror(errno));
    pid_t pid = fork();
    if (pid < 0)
        give_up("fork", strerror(errno));
    if (pid == 0) {
        dup2(to[0], STDIN_FILENO);
        dup2(from[1], STDOUT_FILENO);
        close(to[0]);
        close(to[1]);
        close(from[0]);
        close(from[1]);
        execvp(program, argv);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    free(copy);
    fcntl(to[1], F_SETFD, FD_CLOEXEC);
    fcntl(from[0], F_SETFD, FD_CLOEXEC);
    /* Its death shall be an error of the next command, not this program's end. */
    signal(SIGPIPE, SIG_IGN);
    cluster *it = calloc(1, sizeof *it);
    if (!it)
        give_up("calloc", strerror(errno));
    it->pid = pid;
    it->to = fdopen(to[1], "w");
    it->from = fdopen(from[0], "r");
    for (;;) {
        const char *line = next_line(it);
        if (strcmp(line, "ready") == 0)
            return it;
        if (strncmp(line, "error ", 6) == 0)
            give_up("it does not start", line);
        keep(&it->conninfo, value_of(line, "conninfo"));
        keep(&it->conninfo_unix, value_of(line, "conninfo_unix"));
        keep(&it->conninfo_proxy, value_of(line, "conninfo_proxy"));
        keep(&it->tls_ca, value_of(line, "tls_ca"));
    }
}

void cluster_stop(cluster *it)
{
    if (!it)
        return;
    fclose(it->to);
    fclose(it->from);
    waitpid(it->pid, NULL, 0);
    free(it->line);
    free(it->conninfo);
    free(it->conninfo_unix);
    free(it->conninfo_proxy);
    free(it->tls_ca);
    free(it);
}

const char *cluster_conninfo(const cluster *it)
{
    return it->conninfo;
}

const char *cluster_conninfo_unix(const cluster *it)
{
    return it->conninfo_unix;
}

const char *cluster_conninfo_proxy(const cluster *it)
{
    return it->conninfo_proxy;
}

const char *cluster_tls_ca(const cluster *it)
{
    return it->tls_ca;
}

static const char *command(cluster *it, const char *format, va_list arguments)
{
    vfprintf(it->to, format, arguments);
    fputc('\n', it->to);
    fflush(it->to);
    const char *line = next_line(it);
    if (strcmp(line, "ok") == 0)
        return "";
    if (strncmp(line, "ok ", 3) == 0)
        return line + 3;
    fprintf(stderr, "%s: ", format);
    give_up("it refuses a command", line);
    return NULL;
}

const char *cluster_do(cluster *it, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const char *answer = command(it, format, arguments);
    va_end(arguments);
    return answer;
}

int64_t cluster_number(cluster *it, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const char *answer = command(it, format, arguments);
    va_end(arguments);
    return strtoll(answer, NULL, 10);
}

char *cluster_with(const char *conninfo, const char *options)
{
    size_t size = strlen(conninfo) + strlen(options) + 2;
    char *text = malloc(size);
    if (!text)
        give_up("malloc", strerror(errno));
    snprintf(text, size, "%s %s", conninfo, options);
    return text;
}
