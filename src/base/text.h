// Text from outside, made fit for messages.
#ifndef FLOCKER_BASE_TEXT_H
#define FLOCKER_BASE_TEXT_H

#include <stddef.h>

#define TEXT_SIZE 160 // of what TEXT() shows

// Writes at most size - 1 bytes of `text` to `ret`, a "?" in place of each that isn't printable ASCII; returns `ret`.
const char *text_printable(const char *text, char *ret, size_t size);
// The same in a buffer of the expression's own lifetime, for use in one argument list.
#define TEXT(text) text_printable((text), (char[TEXT_SIZE]){ 0 }, TEXT_SIZE)

#endif
