/* Assertions: see check.h. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

enum { TIME_LIMIT_S = 280, STATUS_MAX = 1000 };

static atomic_int failures;
static atomic_bool seen[STATUS_MAX];
static _Thread_local segue_error *last;
/* Whether the last call was given the place for its error. */
static _Thread_local bool armed;
static int wanted_count;
static char **wanted;

static void fail(const char *file, int line)
{
    atomic_fetch_add(&failures, 1);
    fprintf(stderr, "%s:%d: ", file, line);
}

bool check_that(const char *file, int line, const char *what, bool is_true)
{
    if (!is_true) {
        fail(file, line);
        fprintf(stderr, "not true: %s\n", what);
    }
    return is_true;
}

bool check_int(const char *file, int line, const char *what, int64_t actual, int64_t expected)
{
    if (actual != expected) {
        fail(file, line);
        fprintf(stderr, "%s is %lld, not %lld\n", what, (long long)actual, (long long)expected);
    }
    return actual == expected;
}

static const char *shown(const char *text)
{
    return text ? text : "(NULL)";
}

bool check_str(const char *file, int line, const char *what, const char *actual, const char *expected)
{
    bool same = actual && expected ? strcmp(actual, expected) == 0 : actual == expected;
    if (!same) {
        fail(file, line);
        fprintf(stderr, "%s is \"%s\", not \"%s\"\n", what, shown(actual), shown(expected));
    }
    return same;
}

bool check_has(const char *file, int line, const char *what, const char *text, const char *part)
{
    bool has = text && strstr(text, part);
    if (!has) {
        fail(file, line);
        fprintf(stderr, "%s is \"%s\", without \"%s\"\n", what, shown(text), part);
    }
    return has;
}

segue_error **check_error(void)
{
    check_forget();
    armed = true;
    return &last;
}

const segue_error *check_last(void)
{
    return last;
}

void check_forget(void)
{
    segue_error_free(last);
    last = NULL;
}

bool check_status(const char *file, int line, const char *what, int32_t actual, int32_t expected)
{
    bool with_error = armed;
    armed = false;
    if (actual >= 0 && actual < STATUS_MAX)
        atomic_store(&seen[actual], true);
    if (actual != expected) {
        fail(file, line);
        fprintf(stderr, "%s gives %s (%s; %s), not %s\n", what, segue_status_name(actual),
                segue_error_message(last), shown(segue_error_cause(last)),
                segue_status_name(expected));
        return false;
    }
    if (!with_error)
        return true;
    if (actual == SEGUE_OK)
        return check_that(file, line, "no error is set on success", last == NULL);
    if (!check_that(file, line, "an error is set on failure", last != NULL))
        return false;
    return check_int(file, line, "the error's status", segue_error_status(last), actual) &&
           check_that(file, line, "the error has a message", *segue_error_message(last) != '\0') &&
           check_int(file, line, "the length of the SQLSTATE",
                     (int64_t)strlen(segue_error_sqlstate(last)), 5) &&
           check_that(file, line, "maybe_committed goes with the outcome",
                      segue_error_maybe_committed(last) ==
                          (segue_error_outcome(last) != SEGUE_TXN_NOT_COMMITTED));
}

bool check_seen(int32_t status)
{
    return status >= 0 && status < STATUS_MAX && atomic_load(&seen[status]);
}

void check_start(int argc, char **argv)
{
    wanted_count = argc - 1;
    wanted = argv + 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    /* A test that hangs shall fail, and say in which test it hangs. */
    alarm((unsigned)check_scaled(TIME_LIMIT_S));
}

bool check_wanted(const char *test)
{
    bool is_wanted = wanted_count <= 0;
    for (int i = 0; i < wanted_count; i++)
        is_wanted = is_wanted || strcmp(wanted[i], test) == 0;
    if (is_wanted)
        printf("- %s\n", test);
    return is_wanted;
}

int check_finish(void)
{
    check_forget();
    int count = atomic_load(&failures);
    if (count)
        fprintf(stderr, "%d checks failed\n", count);
    else
        printf("all well\n");
    return count ? 1 : 0;
}

static int slowness(void)
{
    const char *text = getenv("SEGUE_TEST_SLOWNESS");
    int factor = text ? atoi(text) : 1;
    return factor > 0 ? factor : 1;
}

int check_scaled(int milliseconds)
{
    return milliseconds * slowness();
}

bool check_is_slow(void)
{
    return slowness() > 1;
}

int64_t check_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void check_sleep_ms(int milliseconds)
{
    struct timespec time = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000};
    nanosleep(&time, NULL);
}
