/* Interface of the register-blocked convolution kernels. Strides are in elements, not bytes.
 *
 * N batch, G groups, C in-channels and K out-channels of one group, H W image, R S kernel, P Q output. */
#ifndef LIGHTNING_CIFAR_DIRECT_H
#define LIGHTNING_CIFAR_DIRECT_H

#include <stddef.h>

/* A batch of images with any strides. */
typedef struct {
    void *data;
    ptrdiff_t image, channel, row, column;  /* strides */
} images;

/* out[n, k, p, q] = bias[k] + sum over c, a, b of  in[n, c, p * step_h + row[a], q * step_w + column[b]] * w[k, c, a, b]
 *
 * where in is zero outside H x W, and w[k, c, a, b] is at w + group * g + out * k + in * c + row_w[a] + column_w[b].
 * The forward pass is one such sum; the gradient by the input is one per phase of the stride. */
typedef struct {
    images in, out;
    const void *w, *bias;  /* bias may be NULL */
    ptrdiff_t w_group, w_out, w_in;
    ptrdiff_t N, G, C, K, H, W, P, Q;
    ptrdiff_t step_h, step_w;
    ptrdiff_t rows, columns;            /* number of taps a and b */
    const ptrdiff_t *row, *row_w;       /* [rows] */
    const ptrdiff_t *column, *column_w; /* [columns] */
} correlation;

/* grad_w[k, c, r, s] = sum over n, p, q of  grad_y[n, k, p, q] * x[n, c, p * step_h + row[r], q * step_w + column[s]]
 * grad_b[k] = sum over n, p, q of  grad_y[n, k, p, q];  both outputs are contiguous. */
typedef struct {
    images x, grad_y;
    void *grad_w, *grad_b;
    ptrdiff_t N, G, C, K, H, W, P, Q, R, S;
    ptrdiff_t step_h, step_w;
    const ptrdiff_t *row;     /* [R] */
    const ptrdiff_t *column;  /* [S] */
} weight_gradient;

/* All functions return 0, or -1 if memory cannot be allocated. */
typedef struct {
    const char *name;
    int (*correlate_f32)(const correlation *, int threads);
    int (*correlate_f64)(const correlation *, int threads);
    int (*grad_weight_f32)(const weight_gradient *, int threads);
    int (*grad_weight_f64)(const weight_gradient *, int threads);
} kernels;

/* Kernels for an instruction set ("avx512", "avx2", "portable"); the best one if the name is empty; NULL if this processor or
 * this build does not support it. */
const kernels *find_kernels(const char *name);

#endif
