/* See folder.h. */
#define _XOPEN_SOURCE 700

#include "folder.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *folder_make(void)
{
    const char *parent = getenv("TMPDIR");
    char name[4096];
    snprintf(name, sizeof name, "%s/segue-test.XXXXXX", parent && *parent ? parent : "/tmp");
    if (!mkdtemp(name)) {
        perror(name);
        exit(1);
    }
    return strdup(name);
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status;
    (void)type;
    (void)place;
    return remove(path);
}

void folder_remove(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
