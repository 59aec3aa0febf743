#include "base/log.h"

int main(void)
{
    log_open("flocker");
    return 0;
}
