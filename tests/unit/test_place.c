// Where volumes go that have to leave their node: every small cluster is tried, and the choice held against the rule.
#include "test.h"

#include "plan/place.h"

enum { NODES = 3, KINDS = 2 * 2 * 3 * 2 };

static struct place_node node(uint8_t number, int kind)
{
    return (struct place_node){ .id = { .b = { number } }, .takes = kind % 2, .knows_pool = kind / 2 % 2, .free_bytes = (uint64_t)(kind / 4 % 3) * 100,
                                .coming = (size_t)(kind / 12 % 2) };
}

static int64_t room(const struct place_node *p, uint64_t share)
{
    int64_t left = (int64_t)p->free_bytes - (int64_t)(share * p->coming);
    return !p->knows_pool ? -1 : left < 0 ? 0 : left;
}

static void the_most_room_wins(void **state)
{
    (void)state;
    for (int n = 0; n < KINDS * KINDS * KINDS * 2; n++) {
        uint64_t share = n % 2 ? 150 : 0;
        struct place_node nodes[NODES] = { node(1, n / 2 % KINDS), node(2, n / 2 / KINDS % KINDS), node(3, n / 2 / KINDS / KINDS) };
        size_t chosen = place_choose(nodes, NODES, share);
        for (size_t i = 0; i < NODES; i++) {
            if (!nodes[i].takes)
                assert_int_not_equal(chosen, i);
            else {
                assert_true(chosen < NODES);
                assert_true(room(&nodes[chosen], share) >= room(&nodes[i], share));
                if (room(&nodes[chosen], share) == room(&nodes[i], share))
                    assert_true(nodes[chosen].coming < nodes[i].coming || (nodes[chosen].coming == nodes[i].coming && chosen <= i));
            }
        }
    }
    assert_int_equal(place_choose(NULL, 0, 1), 0);
}

// Many volumes at once spread, although no node's report has come meanwhile.
static void a_crowd_spreads(void **state)
{
    (void)state;
    struct place_node nodes[] = { { .id = { .b = { 1 } }, .takes = true, .knows_pool = true, .free_bytes = 1000 },
                                  { .id = { .b = { 2 } }, .takes = true, .knows_pool = true, .free_bytes = 600 } };
    for (int i = 0; i < 12; i++)
        nodes[place_choose(nodes, 2, 100)].coming++;
    assert_int_equal(nodes[0].coming, 8);
    assert_int_equal(nodes[1].coming, 4);
}

int main(void)
{
    static const struct CMUnitTest tests[] = { cmocka_unit_test(the_most_room_wins), cmocka_unit_test(a_crowd_spreads) };
    return RUN_TESTS(tests);
}
