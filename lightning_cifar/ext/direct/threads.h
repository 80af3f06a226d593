/* A small pool of threads that share out numbered tasks. */
#ifndef LIGHTNING_CIFAR_THREADS_H
#define LIGHTNING_CIFAR_THREADS_H

#include <stddef.h>

/* Runs work(context, task, worker) for every task in [0, tasks), on at most `threads` threads, the caller among them.
 * 0 <= worker < threads, and no two tasks run at once with the same worker. Returns when all are done. Which thread gets
 * which task is not determined, so no result may depend on it. While the pool is taken by another caller, the caller works alone. */
typedef void (*task_function)(void *context, ptrdiff_t task, int worker);
void run_tasks(int threads, ptrdiff_t tasks, task_function work, void *context);

#define MAX_THREADS 256

#endif
