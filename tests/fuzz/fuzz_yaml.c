// What people write for flockerctl and flocker-deploy, over any bytes: it is JSON that can be written, or an error that names the file. And
// redact() over the same bytes: whatever stands before a secret, it is
// left out.
#include "fuzz.h"

#include "base/limits.h"
#include "base/mem.h"
#include "cli/redact.h"
#include "cli/yaml.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error e = ERROR_INIT;
    json_t *value = NULL;
    AUTO(free) char *text = xcalloc(size + 1, 1);
    memcpy(text, data, size);
    int rc = yaml_parse("file.yml", text, size, &value, &e);
    ASSERT((rc == 0) == (value != NULL));
    if (rc < 0)
        ASSERT(rc == -E_INVALID && strncmp(e.msg, "file.yml", 8) == 0);
    AUTO(free) char *again = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    ASSERT(!value || again);
    json_decref(value);
    AUTO(free) char *planted = xasprintf("%s\npassword=S3CR3T-S3CR3T", text);
    AUTO(free) char *shown = redact(planted);
    ASSERT(strstr(text, "S3CR3T") || !strstr(shown, "S3CR3T"));
    return 0;
}
