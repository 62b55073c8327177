/* Threads that compute one job together: they sleep between jobs, and within one wait for work that is done, never for each
 * other. A thread that lost its core to another program holds the others up by the piece that it has begun, no more.
 */
#pragma once

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

#define MOST_THREADS 64
#define SPINS 2000 /* before a thread that waits lets others run */

typedef void (*Job)(void *what, int thread);

static struct {
    pthread_mutex_t lock, one_job;
    pthread_cond_t begin;
    int n_threads, n_started;
    unsigned generation;
    Job job; /* null: it is done, and who wakes late has nothing to do with it */
    void *what;
    atomic_int n_inside;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .one_job = PTHREAD_MUTEX_INITIALIZER, .begin = PTHREAD_COND_INITIALIZER,
          .n_threads = 1};

static inline void pause_a_little(int *spins) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
    if (++*spins > SPINS) sched_yield();
}

static void *work(void *index) {
    unsigned seen = 0;
    int thread = (int)(intptr_t)index;
    for (;;) {
        pthread_mutex_lock(&pool.lock);
        while (!pool.job || pool.generation == seen || thread >= pool.n_threads) pthread_cond_wait(&pool.begin, &pool.lock);
        seen = pool.generation;
        Job job = pool.job;
        void *what = pool.what;
        atomic_fetch_add(&pool.n_inside, 1);
        pthread_mutex_unlock(&pool.lock);
        job(what, thread);
        atomic_fetch_sub(&pool.n_inside, 1);
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
    int have = start_threads(n), spins = 0;
    pthread_mutex_lock(&pool.lock);
    pool.n_threads = n < have ? n : have;
    pool.job = job;
    pool.what = what;
    pool.generation++;
    pthread_cond_broadcast(&pool.begin);
    pthread_mutex_unlock(&pool.lock);
    job(what, 0);
    pthread_mutex_lock(&pool.lock);
    pool.job = 0;
    pthread_mutex_unlock(&pool.lock);
    while (atomic_load_explicit(&pool.n_inside, memory_order_acquire)) pause_a_little(&spins);
    pthread_mutex_unlock(&pool.one_job);
}

/* A phase of a job: pieces of work that threads take, and how many are done. All zero at first. */
typedef struct {
    atomic_int next, done;
} Phase;

/* The pieces of a phase that a thread takes, so many at a time. */
typedef struct {
    Phase *phase;
    int n, some, first, end, piece;
} Pieces;

/* Half a thread's share at a time. Small shares would break the runs of memory that the processor fetches ahead, by which a
 * step took half as long again.
 */
static inline Pieces pieces(Phase *phase, int n) {
    int parts = 2 * pool.n_threads;
    return (Pieces){phase, n, (n + parts - 1) / parts, 0, 0, -1};
}

/* One at a time: few that take long. */
static inline Pieces long_pieces(Phase *phase, int n) { return (Pieces){phase, n, 1, 0, 0, -1}; }

/* Step to the next piece; 0 once all of the phase are done, whoever did them. */
static inline int more(Pieces *p) {
    if (++p->piece < p->end) return 1;
    if (p->end > p->first) atomic_fetch_add_explicit(&p->phase->done, p->end - p->first, memory_order_release);
    int spins = 0;
    p->first = p->piece = atomic_fetch_add(&p->phase->next, p->some);
    p->end = p->first + p->some < p->n ? p->first + p->some : p->n;
    if (p->first < p->n) return 1;
    while (atomic_load_explicit(&p->phase->done, memory_order_acquire) < p->n) pause_a_little(&spins);
    return 0;
}
