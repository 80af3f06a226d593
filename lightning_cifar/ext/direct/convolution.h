/* The three passes of a convolution, computed by the kernels of direct.h. */
#ifndef LIGHTNING_CIFAR_CONVOLUTION_H
#define LIGHTNING_CIFAR_CONVOLUTION_H

#include "direct.h"

/* N batch, C in- and K out-channels of one group, H W image, R S kernel, P Q output. All but N are at least 1. */
typedef struct {
    ptrdiff_t N, groups, C, K, H, W, R, S, P, Q;
    ptrdiff_t stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;
} geometry;

typedef struct {
    const void *data;
    ptrdiff_t out, in, row, column;  /* strides in elements */
} filters;

/* element_bytes is 4 or 8. All return 0, or -1 if memory cannot be allocated. bias may be NULL. */
int convolution_forward(const kernels *, int element_bytes, const geometry *, images x, filters w, const void *bias, images y, int threads);
int convolution_grad_input(const kernels *, int element_bytes, const geometry *, images grad_y, filters w, images grad_x, int threads);
int convolution_grad_weight(const kernels *, int element_bytes, const geometry *, images grad_y, images x, void *grad_w, void *grad_b, int threads);

#endif
