#include "plan/place.h"

static uint64_t free_after(const struct place_node *p, uint64_t share)
{
    if (!p->knows_pool)
        return 0;
    return share && p->coming > p->free_bytes / share ? 0 : p->free_bytes - share * p->coming;
}

static bool is_better(const struct place_node *a, const struct place_node *b, uint64_t share)
{
    uint64_t free_a = free_after(a, share), free_b = free_after(b, share);
    if (a->knows_pool != b->knows_pool)
        return a->knows_pool;
    if (free_a != free_b)
        return free_a > free_b;
    return a->coming != b->coming ? a->coming < b->coming : uuid_compare(&a->id, &b->id) < 0;
}

size_t place_choose(const struct place_node *nodes, size_t n, uint64_t share)
{
    size_t best = n;
    for (size_t i = 0; i < n; i++)
        if (nodes[i].takes && (best == n || is_better(&nodes[i], &nodes[best], share)))
            best = i;
    return best;
}
