/* Threads that compute one job together: they sleep between jobs and spin between the phases of one. */
#pragma once

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

#define MOST_THREADS 64
#define SPINS 4000 /* before a thread that waits lets others run */

typedef void (*Job)(void *what, int thread);

static struct {
    pthread_mutex_t lock, one_job;
    pthread_cond_t begin;
    int n_threads, n_started;
    unsigned generation;
    Job job;
    void *what;
    atomic_int arrived, n_running;
    atomic_uint phase;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .one_job = PTHREAD_MUTEX_INITIALIZER, .begin = PTHREAD_COND_INITIALIZER,
          .n_threads = 1};

static inline void pause_a_little(int *spins) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
    if (++*spins > SPINS) sched_yield();
}

/* Wait until every thread of the job is here. */
static void meet(void) {
    unsigned phase = atomic_load(&pool.phase);
    if (atomic_fetch_add(&pool.arrived, 1) + 1 == pool.n_threads) {
        atomic_store(&pool.arrived, 0);
        atomic_store(&pool.phase, phase + 1);
        return;
    }
    int spins = 0;
    while (atomic_load_explicit(&pool.phase, memory_order_acquire) == phase) pause_a_little(&spins);
}

static void *work(void *index) {
    unsigned seen = 0;
    int thread = (int)(intptr_t)index;
    for (;;) {
        pthread_mutex_lock(&pool.lock);
        while (pool.generation == seen || thread >= pool.n_threads) {
            seen = pool.generation;
            pthread_cond_wait(&pool.begin, &pool.lock);
        }
        seen = pool.generation;
        Job job = pool.job;
        void *what = pool.what;
        pthread_mutex_unlock(&pool.lock);
        job(what, thread);
        atomic_fetch_sub(&pool.n_running, 1);
    }
    return 0;
}

/* Start missing threads; the number that there are. Called with `one_job` held. */
static int start_threads(int n) {
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    for (; pool.n_started < n - 1; pool.n_started++) {
        pthread_t id;
        if (pthread_create(&id, &detached, work, (void *)(intptr_t)(pool.n_started + 1))) break;
    }
    pthread_attr_destroy(&detached);
    return pool.n_started + 1;
}

/* Run a job on up to n threads, the caller's one of them; one job at a time. */
static void run(Job job, void *what, int n) {
    pthread_mutex_lock(&pool.one_job);
    n = n < 1 ? 1 : n > MOST_THREADS ? MOST_THREADS : n;
    int have = start_threads(n);
    pthread_mutex_lock(&pool.lock);
    pool.n_threads = n < have ? n : have;
    atomic_store(&pool.n_running, pool.n_threads - 1);
    pool.job = job;
    pool.what = what;
    pool.generation++;
    pthread_cond_broadcast(&pool.begin);
    pthread_mutex_unlock(&pool.lock);
    job(what, 0);
    int spins = 0;
    while (atomic_load_explicit(&pool.n_running, memory_order_acquire)) pause_a_little(&spins);
    pthread_mutex_unlock(&pool.one_job);
}

/* Pieces of work from `next` on, half a thread's share at a time; 0 when there are no more. Small shares would break the
 * runs of memory that the processor fetches ahead, by which a step took half as long again.
 */
static inline int take(atomic_int *next, int n_pieces, int *first, int *end) {
    int parts = 2 * pool.n_threads, some = (n_pieces + parts - 1) / parts;
    *first = atomic_fetch_add(next, some);
    *end = *first + some < n_pieces ? *first + some : n_pieces;
    return *first < n_pieces;
}
