/* A directory of a test's own, such as for a journal. */
#ifndef SEGUE_TEST_FOLDER_H
#define SEGUE_TEST_FOLDER_H

/* Makes one; free() its name after folder_remove(). */
char *folder_make(void);
/* Removes it with all that is in it. */
void folder_remove(const char *path);

#endif
