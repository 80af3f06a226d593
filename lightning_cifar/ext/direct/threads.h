/* A small pool of threads for numbered tasks. */
#ifndef LIGHTNING_CIFAR_THREADS_H
#define LIGHTNING_CIFAR_THREADS_H

#include <stddef.h>

/* Runs work(context, task, worker) for every task in [0, tasks), on at most `threads` threads, including the caller.
 * 0 <= worker < threads, and tasks with the same worker do not run concurrently. Returns when all tasks are done. The thread of
 * a task is not determined, so results must not depend on it. If another caller uses the pool, the caller runs all tasks. */
typedef void (*task_function)(void *context, ptrdiff_t task, int worker);
void run_tasks(int threads, ptrdiff_t tasks, task_function work, void *context);

#define MAX_THREADS 256

#endif
