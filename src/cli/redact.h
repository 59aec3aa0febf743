// Text that may be shown to strangers.
#ifndef FLOCKER_CLI_REDACT_H
#define FLOCKER_CLI_REDACT_H

// A copy without what looks like a secret: private keys, what follows words such as "password" or "token", users and passwords in URLs.
// The caller frees it. A net below those who choose what is shown, not in place of them.
char *redact(const char *text);

#endif
