/* 16 registers of 8 floats: 6 x 2 sums, 2 of weights, 1 pixel. */
#include "direct.h"
#include "threads.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define INSTRUCTION_SET avx2
#define VECTOR_BYTES 32
#define MAX_PIXELS 6
#define MAX_CHANNELS 6
#include "kernels.h"

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
