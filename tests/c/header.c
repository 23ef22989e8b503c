/* The header alone, twice, as every standard that it promises to be: compiled, never run. */
#include <segue.h>
#include <segue.h>
