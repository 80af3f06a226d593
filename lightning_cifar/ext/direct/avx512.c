/* 32 registers of 16 floats: 14 x 2 sums, 2 of weights, 1 pixel. */
#include "direct.h"
#include "threads.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#endif

#define INSTRUCTION_SET avx512
#define VECTOR_BYTES 64
#define MAX_PIXELS 14
#define MAX_CHANNELS 12
#include "kernels.h"

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
