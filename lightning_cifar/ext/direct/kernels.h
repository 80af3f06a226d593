/* Compiled once per instruction set; here, once per element type. */
#define PASTE_(a, b, c) a##_##b##_##c
#define PASTE(a, b, c) PASTE_(a, b, c)
#define STRING_(a) #a
#define STRING(a) STRING_(a)

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define INLINE static inline __attribute__((always_inline))

#ifdef __has_builtin
#if __has_builtin(__builtin_shufflevector)
#define HAS_SHUFFLE 1
#endif
#endif

INLINE ptrdiff_t smaller(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
INLINE ptrdiff_t larger(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }
INLINE ptrdiff_t ceil_div(ptrdiff_t a, ptrdiff_t b) { return (a >= 0) ? (a + b - 1) / b : -(-a / b); } /* b > 0 */
INLINE ptrdiff_t floor_div(ptrdiff_t a, ptrdiff_t b) { return -ceil_div(-a, b); }

/* A pass has one allocation, divided into pieces that start on cache lines. room() is the size that carve() uses. With the address
 * sanitizer, each piece is followed by a poisoned gap. */
#ifdef __SANITIZE_ADDRESS__
void __asan_poison_memory_region(void const volatile *address, size_t bytes);
INLINE size_t room(size_t bytes) { return ((bytes + 63) & ~(size_t)63) + 64; }
#else
#define __asan_poison_memory_region(address, bytes) ((void)0)
INLINE size_t room(size_t bytes) { return (bytes + 63) & ~(size_t)63; }
#endif
INLINE void *carve(char **rest, size_t bytes)
{
    char *piece = *rest;
    *rest += room(bytes);
    __asan_poison_memory_region(piece + bytes, room(bytes) - bytes);
    return piece;
}

/* Waking a thread takes as long as about a million operations. */
INLINE int useful_threads(int threads, double operations)
{
    return operations < 1e6 * threads ? (int)(1 + operations / 1e6) : threads;
}

/* Positions p in [0, count) with 0 <= p * step + offset < size, as [*first, *last). */
INLINE void valid_range(ptrdiff_t count, ptrdiff_t step, ptrdiff_t offset, ptrdiff_t size, ptrdiff_t *first, ptrdiff_t *last)
{
    *first = smaller(count, larger(0, ceil_div(-offset, step)));
    *last = larger(*first, smaller(count, floor_div(size - 1 - offset, step) + 1));
}

/* Taps of one kernel column for a tile of pixels. Pixels whose tap is outside the image are omitted, not multiplied by zero:
 * at 8 x 8 pixels with padding 1, this saves a sixth of the work. */
typedef struct {
    ptrdiff_t x, tap;    /* offset of pixel 0 of the tile in the input row; number of the kernel column */
    ptrdiff_t low, high; /* pixels that have this tap */
} column_taps;

#define T float
#define T_BYTES 4
#define NAME(x) PASTE(x, f32, INSTRUCTION_SET)
#include "transpose.h"
#include "narrow.h"
#include "correlate.h"
#include "grad_weight.h"
#undef T
#undef T_BYTES
#undef NAME

#define T double
#define T_BYTES 8
#define NAME(x) PASTE(x, f64, INSTRUCTION_SET)
#include "transpose.h"
#include "narrow.h"
#include "correlate.h"
#include "grad_weight.h"
#undef T
#undef T_BYTES
#undef NAME

#define TABLE_(set) kernels_##set
#define TABLE(set) TABLE_(set)
const kernels TABLE(INSTRUCTION_SET) = {
    STRING(INSTRUCTION_SET),
    PASTE(correlate, f32, INSTRUCTION_SET),
    PASTE(correlate, f64, INSTRUCTION_SET),
    PASTE(grad_weight, f32, INSTRUCTION_SET),
    PASTE(grad_weight, f64, INSTRUCTION_SET),
};
