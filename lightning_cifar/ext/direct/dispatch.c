#include "direct.h"

#include <string.h>

extern const kernels kernels_portable;

#if defined(__x86_64__)
extern const kernels kernels_avx2, kernels_avx512;

static int has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

/* The compiler's check includes the support of the operating system for the wide registers. */
static int has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif

const kernels *find_kernels(const char *name)
{
    int any = name[0] == '\0';
#if defined(__x86_64__)
    __builtin_cpu_init();
    if ((any || strcmp(name, "avx512") == 0) && has_avx512())
        return &kernels_avx512;
    if ((any || strcmp(name, "avx2") == 0) && has_avx2())
        return &kernels_avx2;
#endif
    if (any || strcmp(name, "portable") == 0)
        return &kernels_portable;
    return NULL;
}
