#include "plan/room.h"

#include "base/size.h"
#include "model/volume.h"

#define MARGIN_PART 32
#define MARGIN_MAX  (1ULL << 30)

uint64_t room_margin(uint64_t pool_size)
{
    uint64_t margin = pool_size / MARGIN_PART;
    return margin < MARGIN_MAX ? margin : MARGIN_MAX;
}

int room_check(const struct room *pool, uint64_t needed, struct error *e)
{
    char free_text[SIZE_TEXT_SIZE], needed_text[SIZE_TEXT_SIZE], margin_text[SIZE_TEXT_SIZE];
    uint64_t margin = room_margin(pool->size);
    if (!pool->size || (pool->free >= margin && pool->free - margin >= needed))
        return 0;
    return fail(e, E_NO_SPACE,
                "the pool is too full: %s of it are free, the move needs %s, and leaves %s free for other volumes; make room there, make the pool "
                "larger (`flocker pool grow`), or choose another node",
                size_format(pool->free, free_text), size_format(needed, needed_text), size_format(margin, margin_text));
}

int room_check_stream(uint64_t volume_size, uint64_t received, struct error *e)
{
    char size_text[SIZE_TEXT_SIZE], received_text[SIZE_TEXT_SIZE];
    if (received <= volume_copy_max(volume_size))
        return 0;
    return fail(e, E_TOO_LARGE, "the source sends more than the volume can hold, %s of it by now, and its size limit is %s: if its data shrinks well or "
                "is many small files, make that limit larger; else look at the source",
                size_format(received, received_text), size_format(volume_size, size_text));
}
