/* OpenMP is not used for three reasons: torch contains another libgomp, and the thread pools of two in one process compete for
 * cores; a child process after fork() deadlocks in a pool that the parent has used; and Apple's compiler does not support it. */
#include "threads.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#else
#define PAUSE() ((void)0)
#endif

/* About 20 microseconds: as long as the gap between two passes of one convolution, shorter than waking a sleeping thread. */
#define SPINS 500

static pthread_mutex_t taken = PTHREAD_MUTEX_INITIALIZER;  /* held by the caller that uses the pool */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;   /* guards everything below */
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static pthread_cond_t finished = PTHREAD_COND_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int started;         /* threads without the caller */
static int open_places;     /* number of threads that may still join the round */
static int next_worker;
static task_function work_now;
static void *context_now;
static ptrdiff_t tasks_now;
static atomic_long next_task;
static atomic_ulong round_now;
static atomic_int active;

static void take_tasks(task_function work, void *context, ptrdiff_t tasks, int worker)
{
    ptrdiff_t task;
    while ((task = atomic_fetch_add_explicit(&next_task, 1, memory_order_relaxed)) < tasks)
        work(context, task, worker);
}

static void *serve(void *unused)
{
    unsigned long seen = 0;
    (void)unused;
    for (;;) {
        for (int i = 0; i < SPINS && atomic_load_explicit(&round_now, memory_order_relaxed) == seen; i++)
            PAUSE();
        pthread_mutex_lock(&lock);
        while (atomic_load(&round_now) == seen || open_places == 0) {
            seen = atomic_load(&round_now);
            pthread_cond_wait(&wake, &lock);
        }
        seen = atomic_load(&round_now);
        open_places--;
        int worker = next_worker++;
        task_function work = work_now;
        void *context = context_now;
        ptrdiff_t tasks = tasks_now;
        atomic_fetch_add(&active, 1);
        pthread_mutex_unlock(&lock);

        take_tasks(work, context, tasks, worker);

        pthread_mutex_lock(&lock);
        if (atomic_fetch_sub(&active, 1) == 1)
            pthread_cond_signal(&finished);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

/* A forked child has the memory of the pool, possibly locked, but not its threads. */
static void forget_the_pool(void)
{
    pthread_mutex_init(&taken, NULL);
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&wake, NULL);
    pthread_cond_init(&finished, NULL);
    started = 0;
    open_places = 0;
    atomic_store(&active, 0);
}

static void prepare(void)
{
    pthread_atfork(NULL, NULL, forget_the_pool);
}

static void start_threads(int wanted)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  /* signals are handled by the threads of the host program */
    while (started < wanted) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve, NULL) != 0)
            break;  /* the tasks are done with fewer threads */
        pthread_detach(thread);
        started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void run_tasks(int threads, ptrdiff_t tasks, task_function work, void *context)
{
    if (threads > MAX_THREADS)
        threads = MAX_THREADS;
    if (threads > tasks)
        threads = (int)tasks;
    if (threads > 1)
        pthread_once(&once, prepare);
    if (threads <= 1 || pthread_mutex_trylock(&taken) != 0) {
        for (ptrdiff_t task = 0; task < tasks; task++)
            work(context, task, 0);
        return;
    }
    pthread_mutex_lock(&lock);
    start_threads(threads - 1);
    work_now = work;
    context_now = context;
    tasks_now = tasks;
    next_worker = 1;
    open_places = threads - 1;
    atomic_store(&next_task, 0);
    atomic_fetch_add(&round_now, 1);
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&lock);

    take_tasks(work, context, tasks, 0);

    for (int i = 0; i < SPINS && atomic_load_explicit(&active, memory_order_relaxed) != 0; i++)
        PAUSE();
    pthread_mutex_lock(&lock);
    open_places = 0;  /* threads that have not woken up are not waited for */
    while (atomic_load(&active) != 0)
        pthread_cond_wait(&finished, &lock);
    pthread_mutex_unlock(&lock);
    pthread_mutex_unlock(&taken);
}
