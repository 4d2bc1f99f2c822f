/* The caller owns the result and must free it with release(). */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

char *shout(const char *text) {
    size_t length = strlen(text);
    char *loud = malloc(length + 2);
    if (loud == NULL) return NULL;
    for (size_t i = 0; i < length; i++) loud[i] = (char)toupper((unsigned char)text[i]);
    loud[length] = '!';
    loud[length + 1] = '\0';
    return loud;
}

void release(char *loud) { free(loud); }
