// sim [--seeds N] [--seed N] [--jobs N] [--plants] [--plant NAME]
#include "sim.h"

#include <string.h>
#include <sys/wait.h>
#include <time.h>

static const char *const plant_names[PLANT_COUNT] = {
    [PLANT_NOTHING] = "NOTHING",
#define X(name, what) [name] = #name,
    PLANT_TABLE(X)
#undef X
};

static const char *const plant_texts[PLANT_COUNT] = {
#define X(name, what) [name] = what,
    PLANT_TABLE(X)
#undef X
};

struct sums {
    uint64_t seeds, steps, faults;
    uint64_t failed_seed; // 0: none
    char failure[400];
};

static void run_seed(uint64_t seed, enum plant plant, bool is_traced, struct sums *sums)
{
    struct world *w = world_new(seed, plant, is_traced);
    world_run(w);
    sums->seeds++;
    sums->steps += w->steps;
    sums->faults += w->faults;
    if (w->is_failed) {
        sums->failed_seed = seed;
        memcpy(sums->failure, w->failure, sizeof sums->failure);
    }
    world_free(w);
}

static void run_share(uint64_t from, uint64_t to, uint64_t by, enum plant plant, struct sums *sums)
{
    for (uint64_t seed = from; seed <= to && !sums->failed_seed; seed += by)
        run_seed(seed, plant, false, sums);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

// Each process runs every n-th seed, and writes its sums into the pipe.
static int run_seeds(uint64_t count, int jobs)
{
    struct sums all = { 0 };
    int ends[2];
    double began = seconds();
    if (pipe(ends) < 0)
        return 2;
    for (int job = 0; job < jobs; job++) {
        if (fork() != 0)
            continue;
        struct sums share = { 0 };
        run_share((uint64_t)job + 1, count, (uint64_t)jobs, PLANT_NOTHING, &share);
        _exit(write(ends[1], &share, sizeof share) == sizeof share ? 0 : 2);
    }
    close(ends[1]);
    int answers = 0;
    for (struct sums share; read(ends[0], &share, sizeof share) == sizeof share; answers++) {
        all.seeds += share.seeds;
        all.steps += share.steps;
        all.faults += share.faults;
        if (share.failed_seed && (!all.failed_seed || share.failed_seed < all.failed_seed))
            all.failed_seed = share.failed_seed;
    }
    while (wait(NULL) > 0)
        ;
    double took = seconds() - began;
    if (all.failed_seed) {
        run_seed(all.failed_seed, PLANT_NOTHING, true, &(struct sums){ 0 });
        printf("FAILED: seed %llu; once more: make sim SEED=%llu\n", (unsigned long long)all.failed_seed, (unsigned long long)all.failed_seed);
        return 1;
    }
    if (answers < jobs) {
        printf("FAILED: a process of the simulator died\n");
        return 2;
    }
    printf("%llu seeds, %llu steps, %llu faults in %.1f s: %.0f seeds per second\n", (unsigned long long)all.seeds, (unsigned long long)all.steps,
           (unsigned long long)all.faults, took, (double)all.seeds / took);
    return 0;
}

enum { PLANT_SEEDS = 60000 };

static bool find_plant(enum plant plant, uint64_t from)
{
    struct sums sums = { 0 };
    run_share(from, from + PLANT_SEEDS - 1, 1, plant, &sums);
    printf("%-24s %-90s ", plant_names[plant] + strlen("PLANT_"), plant_texts[plant]);
    if (sums.failed_seed)
        printf("found by seed %llu: %s\n", (unsigned long long)sums.failed_seed, sums.failure);
    else
        printf("NOT FOUND in %d seeds\n", PLANT_SEEDS);
    fflush(stdout);
    return sums.failed_seed != 0;
}

// Each process looks for every n-th.
static int run_plants(int only, uint64_t from, int jobs)
{
    int missed = 0, status;
    for (int job = 0; job < jobs; job++) {
        if (fork() != 0)
            continue;
        for (int plant = 1 + job; plant < PLANT_COUNT; plant += jobs)
            missed += (only == PLANT_NOTHING || plant == only) && !find_plant((enum plant)plant, from);
        _exit(missed != 0);
    }
    while (wait(&status) > 0)
        missed += status != 0;
    return missed ? 1 : 0;
}

static int plant_of(const char *name)
{
    for (int plant = 1; plant < PLANT_COUNT; plant++)
        if (strcmp(plant_names[plant] + strlen("PLANT_"), name) == 0)
            return plant;
    fprintf(stderr, "no such plant: %s\n", name);
    exit(2);
}

int main(int argc, char **argv)
{
    uint64_t seeds = 10000, seed = 0;
    int jobs = 2, plant = PLANT_NOTHING;
    bool plants = false;
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    for (int n = 1; n < argc; n++) {
        const char *value = n + 1 < argc ? argv[n + 1] : "";
        if (strcmp(argv[n], "--plants") == 0)
            plants = true;
        else if (strcmp(argv[n], "--seeds") == 0)
            seeds = strtoull(value, NULL, 10), n++;
        else if (strcmp(argv[n], "--seed") == 0)
            seed = strtoull(value, NULL, 10), n++;
        else if (strcmp(argv[n], "--jobs") == 0)
            jobs = (int)strtol(value, NULL, 10), n++;
        else if (strcmp(argv[n], "--plant") == 0)
            plant = plant_of(value), n++;
        else {
            fprintf(stderr, "usage: sim [--seeds N] [--jobs N] | --seed N [--plant NAME] | --plants [--plant NAME] [--seed FIRST] [--jobs N]\n");
            return 2;
        }
    }
    if (plants)
        return run_plants(plant, seed ? seed : 1, jobs);
    if (!seed)
        return run_seeds(seeds, jobs);
    struct sums sums = { 0 };
    run_seed(seed, (enum plant)plant, true, &sums);
    printf("%llu steps, %llu faults\n", (unsigned long long)sums.steps, (unsigned long long)sums.faults);
    return sums.failed_seed ? 1 : 0;
}
