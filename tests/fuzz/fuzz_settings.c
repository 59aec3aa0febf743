// flocker.conf over any bytes. What is accepted is written and read back as the same; an error is one printable line that names the file.
#include "fuzz.h"

#include "base/mem.h"
#include "cli/cli.h"
#include "main/settings.h"

#include <string.h>

static const struct cli_option known[] = {
    { "rest", 0, "ADDRESS:PORT", "" }, { "pool", 0, "PATH", "" }, { "qgroups", 0, NULL, "" }, { NULL, 0, NULL, NULL },
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error e = ERROR_INIT;
    struct settings s, back;
    int rc = settings_parse("flocker.conf", (const char *)data, size, known, &s, &e);
    if (rc < 0) {
        ASSERT((rc == -E_INVALID || (rc == -E_TOO_LARGE && size > SETTINGS_BYTES_MAX)) && s.n == 0);
        ASSERT(strncmp(e.msg, "flocker.conf", 12) == 0);
        for (const char *p = e.msg; *p; p++)
            ASSERT(*p >= 0x20 && *p < 0x7f);
        return 0;
    }
    AUTO(free) char *text = settings_text(&s);
    ASSERT(strlen(text) > SETTINGS_BYTES_MAX || settings_parse("again", text, strlen(text), known, &back, &e) == 0);
    if (strlen(text) <= SETTINGS_BYTES_MAX) {
        AUTO(free) char *again = settings_text(&back);
        ASSERT(strcmp(text, again) == 0);
        settings_done(&back);
    }
    for (const struct cli_option *o = known; o->name; o++) {
        const char *value = settings_value(&s, o->name);
        ASSERT(!value || (o->arg != NULL) == (*value != '\0'));
        ASSERT(!value || settings_set(&s, o->name, value, &e) == 0);
        settings_forget(&s, o->name);
        ASSERT(!settings_value(&s, o->name));
    }
    settings_done(&s);
    return 0;
}
