#include "convolution.h"

#include <stdlib.h>

/* The four lists of taps that a correlation needs, in one block of memory. */
static ptrdiff_t *allocate_taps(const geometry *g)
{
    return malloc(2 * (g->R + g->S) * sizeof(ptrdiff_t));
}

int convolution_forward(const kernels *set, int element_bytes, const geometry *g, images x, filters w, const void *bias, images y, int threads)
{
    ptrdiff_t *row = allocate_taps(g);
    if (row == NULL)
        return -1;
    ptrdiff_t *row_w = row + g->R, *column = row_w + g->R, *column_w = column + g->S;
    for (ptrdiff_t r = 0; r < g->R; r++) {
        row[r] = r * g->dilation_h - g->padding_h;
        row_w[r] = r * w.row;
    }
    for (ptrdiff_t s = 0; s < g->S; s++) {
        column[s] = s * g->dilation_w - g->padding_w;
        column_w[s] = s * w.column;
    }
    correlation problem = {
        .in = x, .out = y, .w = w.data, .bias = bias, .w_group = g->K * w.out, .w_out = w.out, .w_in = w.in,
        .N = g->N, .G = g->groups, .C = g->C, .K = g->K, .H = g->H, .W = g->W, .P = g->P, .Q = g->Q,
        .step_h = g->stride_h, .step_w = g->stride_w, .rows = g->R, .columns = g->S,
        .row = row, .row_w = row_w, .column = column, .column_w = column_w,
    };
    int error = element_bytes == 4 ? set->correlate_f32(&problem, threads) : set->correlate_f64(&problem, threads);
    free(row);
    return error;
}

/* Taps t of one axis with (phase + padding - t * dilation) divisible by the stride: those used by input positions of this phase.
 * The gradient of a position is that of output position (position / stride) + offset. */
static ptrdiff_t taps_of_phase(ptrdiff_t phase, ptrdiff_t taps, ptrdiff_t stride, ptrdiff_t padding, ptrdiff_t dilation,
                               ptrdiff_t w_stride, ptrdiff_t *offset, ptrdiff_t *offset_w)
{
    ptrdiff_t count = 0;
    for (ptrdiff_t t = 0; t < taps; t++)
        if ((phase + padding - t * dilation) % stride == 0) {
            offset[count] = (phase + padding - t * dilation) / stride;
            offset_w[count++] = t * w_stride;
        }
    return count;
}

/* With a stride, input positions of different phases (position modulo stride) are used by different taps. The gradient of each
 * phase is a convolution of grad_y with stride 1 and its taps in reverse. */
int convolution_grad_input(const kernels *set, int element_bytes, const geometry *g, images grad_y, filters w, images grad_x, int threads)
{
    ptrdiff_t *row = allocate_taps(g);
    if (row == NULL)
        return -1;
    ptrdiff_t *row_w = row + g->R, *column = row_w + g->R, *column_w = column + g->S;
    /* With a single output position, any stride is equivalent. */
    const ptrdiff_t stride_h = g->P == 1 ? 1 : g->stride_h, stride_w = g->Q == 1 ? 1 : g->stride_w;
    int error = 0;
    for (ptrdiff_t i = 0; i < stride_h && i < g->H && !error; i++)
        for (ptrdiff_t j = 0; j < stride_w && j < g->W && !error; j++) {
            images phase = {(char *)grad_x.data + (i * grad_x.row + j * grad_x.column) * element_bytes,
                            grad_x.image, grad_x.channel, grad_x.row * stride_h, grad_x.column * stride_w};
            correlation problem = {
                .in = grad_y, .out = phase, .w = w.data, .bias = NULL, .w_group = g->K * w.out, .w_out = w.in, .w_in = w.out,
                .N = g->N, .G = g->groups, .C = g->K, .K = g->C, .H = g->P, .W = g->Q,
                .P = (g->H - i + stride_h - 1) / stride_h, .Q = (g->W - j + stride_w - 1) / stride_w,
                .step_h = 1, .step_w = 1,
                .rows = taps_of_phase(i, g->R, stride_h, g->padding_h, g->dilation_h, w.row, row, row_w),
                .columns = taps_of_phase(j, g->S, stride_w, g->padding_w, g->dilation_w, w.column, column, column_w),
                .row = row, .row_w = row_w, .column = column, .column_w = column_w,
            };
            error = element_bytes == 4 ? set->correlate_f32(&problem, threads) : set->correlate_f64(&problem, threads);
        }
    free(row);
    return error;
}

int convolution_grad_weight(const kernels *set, int element_bytes, const geometry *g, images grad_y, images x, void *grad_w, void *grad_b, int threads)
{
    ptrdiff_t *row = allocate_taps(g);
    if (row == NULL)
        return -1;
    ptrdiff_t *column = row + g->R;
    for (ptrdiff_t r = 0; r < g->R; r++)
        row[r] = r * g->dilation_h - g->padding_h;
    for (ptrdiff_t s = 0; s < g->S; s++)
        column[s] = s * g->dilation_w - g->padding_w;
    weight_gradient problem = {
        .x = x, .grad_y = grad_y, .grad_w = grad_w, .grad_b = grad_b,
        .N = g->N, .G = g->groups, .C = g->C, .K = g->K, .H = g->H, .W = g->W, .P = g->P, .Q = g->Q, .R = g->R, .S = g->S,
        .step_h = g->stride_h, .step_w = g->stride_w, .row = row, .column = column,
    };
    int error = element_bytes == 4 ? set->grad_weight_f32(&problem, threads) : set->grad_weight_f64(&problem, threads);
    free(row);
    return error;
}
