// The pace of a transfer, in virtual time: the limit of the rate holds over any span, compression is used where it brings something and
// costs next to nothing where it doesn't.
#include "test.h"

#include "base/mem.h"
#include "transfer/pace.h"

#define MIB    (1ULL << 20)
#define SECOND 1000000

static void the_limit_holds_over_any_span(void **state)
{
    (void)state;
    struct pace_limit l = { .rate = 10 * MIB };
    int64_t now = 5, began = now;
    uint64_t sent = 0;
    for (int i = 0; i < 3000; i++) {
        uint64_t n = i % 3 ? MIB : 777;
        sent += n;
        now += pace_limit_wait(&l, n, now);
        if (i % 500 == 250)
            now += 3 * SECOND; // nothing is sent for a while: that isn't made up for
        uint64_t allowed = (uint64_t)((double)(now - began) * 10 * MIB / SECOND);
        assert_true(sent <= allowed + 10 * MIB * PACE_BURST_US / SECOND + 1);
    }
    int64_t least = (int64_t)(sent / (10 * MIB)) * SECOND; // and it is used
    assert_true(now - began < least + 6 * 3 * SECOND + SECOND);
}

static void without_a_limit_nothing_waits(void **state)
{
    (void)state;
    struct pace_limit l = { 0 };
    for (int i = 0; i < 10; i++)
        assert_int_equal(pace_limit_wait(&l, 1ULL << 40, i), 0);
    struct pace_limit least = { .rate = 1 };
    assert_true(pace_limit_wait(&least, 1ULL << 62, 0) <= 3600LL * SECOND);
}

// A sender: makes chunks at `source`, compresses at `zstd`, sends at `link`, to a disk that takes `disk`; bytes per second.
struct link {
    double source, zstd, link, disk, ratio;
};

struct outcome {
    uint64_t zipped; // chunks on which compression was spent
    double seconds;
};

static struct outcome run(const struct link *l, int chunks)
{
    struct pace_zip z;
    struct outcome o = { 0 };
    double now = 1;
    pace_zip_begin(&z, (int64_t)(now * SECOND));
    for (int i = 0; i < chunks; i++) {
        bool zips = pace_zip_wanted(&z);
        double wire = zips && l->ratio < 1 ? MIB * l->ratio : MIB;
        double made = MIB / l->source, zip = zips ? MIB / l->zstd : 0, send = wire / l->link;
        // The disk writes while we compress and make the next.
        double disk = MIB / l->disk, blocked = send > disk - made - zip ? send : disk - made - zip;
        o.zipped += zips;
        now += made + zip + blocked;
        pace_zip_sent(&z, MIB, (uint64_t)wire, (int64_t)(blocked * SECOND), (int64_t)(now * SECOND));
    }
    o.seconds = now - 1;
    return o;
}

static void compression_is_used_where_it_brings_something(void **state)
{
    (void)state;
    const struct link slow = { .source = 1e9, .zstd = 4e8, .link = 2e7, .disk = 1e9, .ratio = 0.4 };
    struct outcome o = run(&slow, 4000);
    assert_true(o.zipped > 3800); // but for the first window, and now and then one
    assert_true(o.seconds < 4000 * (double)MIB / slow.link * 0.5);
}

static void compression_is_left_where_it_brings_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        struct link l;
        uint64_t most; // zipped of 8000
    } cases[] = {
        { "a fast link", { 1e9, 4e8, 2e9, 2e9, 0.4 }, 0 },
        { "faster than zstd", { 3e9, 4e8, 5e8, 2e9, 0.4 }, 0 },
        { "a slow source", { 2e7, 4e8, 1e8, 1e9, 0.4 }, 0 },
        { "what doesn't shrink", { 1e9, 4e8, 2e7, 1e9, 1.0 }, 20 },
        { "a slow disk at the target", { 1e9, 4e8, 1e9, 1e8, 0.4 }, 300 },
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct outcome o = run(&cases[i].l, 8000);
        if (o.zipped > cases[i].most)
            fail_msg("%s: %llu chunks were compressed", cases[i].what, (unsigned long long)o.zipped);
    }
}

static void progress_is_told(void **state)
{
    (void)state;
    struct pace_meter m = { 0 };
    pace_meter_note(&m, 100 * MIB, 7); // it goes on there
    assert_int_equal(pace_meter_left_s(&m, 200 * MIB), -1);
    for (int i = 1; i <= 100; i++)
        pace_meter_note(&m, 100 * MIB + (unsigned)i * MIB, 7 + i * SECOND / 10);
    assert_true(m.rate > 9.9 * MIB && m.rate < 10.1 * MIB);
    int64_t left = pace_meter_left_s(&m, 300 * MIB);
    assert_true(left >= 9 && left <= 11);
    assert_int_equal(pace_meter_left_s(&m, 150 * MIB), -1); // an estimate that was too low
    pace_meter_note(&m, 0, 12 * SECOND);                    // from the start again
    assert_true(m.rate < 1 && m.bytes == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_limit_holds_over_any_span),
        cmocka_unit_test(without_a_limit_nothing_waits),
        cmocka_unit_test(compression_is_used_where_it_brings_something),
        cmocka_unit_test(compression_is_left_where_it_brings_nothing),
        cmocka_unit_test(progress_is_told),
    };
    return RUN_TESTS(tests);
}
