# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The seven loops of the definition with types, ordered so that the innermost loop runs along a row.

Outputs are arguments, filled with zeros or the bias. N batch, C in-channels, K out-channels, H W image, R S kernel, P Q output.
"""

ctypedef fused real:
    float
    double


cdef inline Py_ssize_t first_valid(Py_ssize_t count, Py_ssize_t step, Py_ssize_t offset) noexcept nogil:
    """Return the first position i in [0, count) with i * step + offset >= 0."""
    return 0 if offset >= 0 else min(count, (-offset + step - 1) // step)


cdef inline Py_ssize_t end_valid(Py_ssize_t count, Py_ssize_t step, Py_ssize_t offset, Py_ssize_t size) noexcept nogil:
    """Return the end of the positions i in [0, count) with i * step + offset < size."""
    return 0 if offset >= size else min(count, (size - 1 - offset) // step + 1)


def forward(const real[:, :, :, ::1] x, const real[:, :, :, ::1] w, real[:, :, :, ::1] y,
            tuple stride, tuple padding, tuple dilation, Py_ssize_t groups):
    """Add the convolution of x (N, C, H, W) with w (K, C / groups, R, S) to y (N, K, P, Q)."""
    cdef Py_ssize_t n, k, p, q, c, r, s, h, channel, column, first, last
    cdef Py_ssize_t stride_h = stride[0], stride_w = stride[1], padding_h = padding[0], padding_w = padding[1]
    cdef Py_ssize_t dilation_h = dilation[0], dilation_w = dilation[1]
    cdef Py_ssize_t per_group = w.shape[0] // groups
    cdef real weight
    with nogil:
        for n in range(y.shape[0]):
            for k in range(y.shape[1]):
                for c in range(w.shape[1]):
                    channel = k // per_group * w.shape[1] + c
                    for r in range(w.shape[2]):
                        for s in range(w.shape[3]):
                            weight = w[k, c, r, s]
                            column = s * dilation_w - padding_w
                            first = first_valid(y.shape[3], stride_w, column)
                            last = end_valid(y.shape[3], stride_w, column, x.shape[3])
                            for p in range(y.shape[2]):
                                h = p * stride_h - padding_h + r * dilation_h
                                if h < 0 or h >= x.shape[2]:
                                    continue
                                for q in range(first, last):
                                    y[n, k, p, q] += weight * x[n, channel, h, q * stride_w + column]


def grad_input(const real[:, :, :, ::1] grad_y, const real[:, :, :, ::1] w, real[:, :, :, ::1] grad_x,
               tuple stride, tuple padding, tuple dilation, Py_ssize_t groups):
    """Add the gradient by x to grad_x (N, C, H, W)."""
    cdef Py_ssize_t n, k, p, q, c, r, s, h, channel, column, first, last
    cdef Py_ssize_t stride_h = stride[0], stride_w = stride[1], padding_h = padding[0], padding_w = padding[1]
    cdef Py_ssize_t dilation_h = dilation[0], dilation_w = dilation[1]
    cdef Py_ssize_t per_group = w.shape[0] // groups
    cdef real weight
    with nogil:
        for n in range(grad_y.shape[0]):
            for k in range(grad_y.shape[1]):
                for c in range(w.shape[1]):
                    channel = k // per_group * w.shape[1] + c
                    for r in range(w.shape[2]):
                        for s in range(w.shape[3]):
                            weight = w[k, c, r, s]
                            column = s * dilation_w - padding_w
                            first = first_valid(grad_y.shape[3], stride_w, column)
                            last = end_valid(grad_y.shape[3], stride_w, column, grad_x.shape[3])
                            for p in range(grad_y.shape[2]):
                                h = p * stride_h - padding_h + r * dilation_h
                                if h < 0 or h >= grad_x.shape[2]:
                                    continue
                                for q in range(first, last):
                                    grad_x[n, channel, h, q * stride_w + column] += weight * grad_y[n, k, p, q]


def grad_weight(const real[:, :, :, ::1] grad_y, const real[:, :, :, ::1] x, real[:, :, :, ::1] grad_w,
                tuple stride, tuple padding, tuple dilation, Py_ssize_t groups):
    """Add the gradient by w to grad_w (K, C / groups, R, S)."""
    cdef Py_ssize_t n, k, p, q, c, r, s, h, channel, column, first, last
    cdef Py_ssize_t stride_h = stride[0], stride_w = stride[1], padding_h = padding[0], padding_w = padding[1]
    cdef Py_ssize_t dilation_h = dilation[0], dilation_w = dilation[1]
    cdef Py_ssize_t per_group = grad_w.shape[0] // groups
    cdef real total
    with nogil:
        for n in range(grad_y.shape[0]):
            for k in range(grad_y.shape[1]):
                for c in range(grad_w.shape[1]):
                    channel = k // per_group * grad_w.shape[1] + c
                    for r in range(grad_w.shape[2]):
                        for s in range(grad_w.shape[3]):
                            total = 0
                            column = s * dilation_w - padding_w
                            first = first_valid(grad_y.shape[3], stride_w, column)
                            last = end_valid(grad_y.shape[3], stride_w, column, x.shape[3])
                            for p in range(grad_y.shape[2]):
                                h = p * stride_h - padding_h + r * dilation_h
                                if h < 0 or h >= x.shape[2]:
                                    continue
                                for q in range(first, last):
                                    total += grad_y[n, k, p, q] * x[n, channel, h, q * stride_w + column]
                            grad_w[k, c, r, s] += total
