# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The register-blocked convolution of direct/*.c on memoryviews. Checks only what would crash the process; see convolution.py.

Outputs are arguments. The GIL is released while the kernels run. N batch, C in-channels, K out-channels, H W image,
R S kernel, P Q output.
"""

ctypedef fused real:
    float
    double

cdef extern from "direct.h" nogil:
    ctypedef struct images:
        void *data
        Py_ssize_t image, channel, row, column
    ctypedef struct kernels:
        const char *name
    const kernels *find_kernels(const char *name)

cdef extern from "convolution.h" nogil:
    ctypedef struct geometry:
        Py_ssize_t N, groups, C, K, H, W, R, S, P, Q
        Py_ssize_t stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w
    ctypedef struct filters:
        const void *data
        Py_ssize_t out "out", in_ "in", row, column
    int convolution_forward(const kernels *, int, const geometry *, images, filters, const void *, images, int)
    int convolution_grad_input(const kernels *, int, const geometry *, images, filters, images, int)
    int convolution_grad_weight(const kernels *, int, const geometry *, images, images, void *, void *, int)

cdef const kernels *chosen = find_kernels(b"")


def instruction_set():
    """Return the name of the kernels in use: avx512, avx2 or portable."""
    return (<bytes>chosen.name).decode()


def use_instruction_set(str name):
    """Select kernels by name; an empty name selects the best that the processor supports."""
    global chosen
    cdef bytes encoded = name.encode()
    cdef const kernels *found = find_kernels(encoded)
    if found is NULL:
        raise ValueError(f"{name!r}: this processor or this build has no such instruction set: avx512, avx2, portable")
    chosen = found


def elements_to_cache_line(const real[::1] array):
    """Return the number of elements before the first that starts a cache line of 64 bytes."""
    return -<Py_ssize_t>&array[0] % 64 // sizeof(real)


cdef images as_images(const void *data, const Py_ssize_t *strides, Py_ssize_t size) noexcept:
    cdef images a
    a.data = <void *>data
    a.image, a.channel, a.row, a.column = strides[0] // size, strides[1] // size, strides[2] // size, strides[3] // size
    return a


cdef filters as_filters(const void *data, const Py_ssize_t *strides, Py_ssize_t size) noexcept:
    cdef filters a
    a.data = data
    a.out, a.in_, a.row, a.column = strides[0] // size, strides[1] // size, strides[2] // size, strides[3] // size
    return a


cdef geometry measure(const Py_ssize_t *x, const Py_ssize_t *y, const Py_ssize_t *w, tuple settings) except *:
    """Return the geometry from the shapes of x, y and w, and (stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w, groups)."""
    cdef geometry g
    g.stride_h, g.stride_w, g.padding_h, g.padding_w, g.dilation_h, g.dilation_w, g.groups = settings
    g.N, g.H, g.W = x[0], x[2], x[3]
    g.P, g.Q = y[2], y[3]
    g.C, g.R, g.S = w[1], w[2], w[3]
    g.K = w[0] // g.groups if g.groups > 0 else 0
    if (min(g.stride_h, g.stride_w, g.dilation_h, g.dilation_w, g.groups) < 1 or min(g.padding_h, g.padding_w) < 0
            or min(g.C, g.K, g.H, g.W, g.R, g.S, g.P, g.Q) < 1
            or y[0] != g.N or x[1] != g.C * g.groups or w[0] != g.K * g.groups or y[1] != w[0]
            or (g.H + 2 * g.padding_h - g.dilation_h * (g.R - 1) - 1) // g.stride_h + 1 != g.P
            or (g.W + 2 * g.padding_w - g.dilation_w * (g.S - 1) - 1) // g.stride_w + 1 != g.Q):
        raise ValueError("the shapes do not belong to one convolution")
    return g


def forward(const real[:, :, :, :] x, const real[:, :, :, :] w, const real[::1] b, real[:, :, :, :] y, tuple settings, int threads):
    """Compute y (N, K, P, Q) = convolution of x (N, C, H, W) with w (K, C / groups, R, S), plus b (K,) or None."""
    cdef geometry g = measure(x.shape, y.shape, w.shape, settings)
    cdef const void *bias = NULL
    cdef images x_images, y_images
    cdef filters w_filters
    cdef int error
    if b is not None and b.shape[0] != w.shape[0]:
        raise ValueError("the shapes do not belong to one convolution")
    if g.N == 0:
        return
    if b is not None:
        bias = <const void *>&b[0]
    x_images, y_images = as_images(&x[0, 0, 0, 0], x.strides, sizeof(real)), as_images(&y[0, 0, 0, 0], y.strides, sizeof(real))
    w_filters = as_filters(&w[0, 0, 0, 0], w.strides, sizeof(real))
    with nogil:
        error = convolution_forward(chosen, sizeof(real), &g, x_images, w_filters, bias, y_images, threads)
    if error:
        raise MemoryError("not enough memory for the convolution")


def grad_input(const real[:, :, :, :] grad_y, const real[:, :, :, :] w, real[:, :, :, :] grad_x, tuple settings, int threads):
    """Compute grad_x (N, C, H, W) from grad_y (N, K, P, Q) and w (K, C / groups, R, S)."""
    cdef geometry g = measure(grad_x.shape, grad_y.shape, w.shape, settings)
    cdef images x_images, y_images
    cdef filters w_filters
    cdef int error
    if g.N == 0:
        return
    x_images, y_images = as_images(&grad_x[0, 0, 0, 0], grad_x.strides, sizeof(real)), as_images(&grad_y[0, 0, 0, 0], grad_y.strides, sizeof(real))
    w_filters = as_filters(&w[0, 0, 0, 0], w.strides, sizeof(real))
    with nogil:
        error = convolution_grad_input(chosen, sizeof(real), &g, y_images, w_filters, x_images, threads)
    if error:
        raise MemoryError("not enough memory for the convolution")


def grad_weight(const real[:, :, :, :] grad_y, const real[:, :, :, :] x, real[:, :, :, ::1] grad_w, real[::1] grad_b, tuple settings, int threads):
    """Compute grad_w (K, C / groups, R, S) and grad_b (K,), both contiguous, from grad_y (N, K, P, Q) and x (N, C, H, W)."""
    cdef geometry g = measure(x.shape, grad_y.shape, grad_w.shape, settings)
    cdef images x_images, y_images
    cdef int error
    if grad_b.shape[0] != grad_w.shape[0]:
        raise ValueError("the shapes do not belong to one convolution")
    if g.N == 0:
        grad_w[...] = 0
        grad_b[...] = 0
        return
    x_images, y_images = as_images(&x[0, 0, 0, 0], x.strides, sizeof(real)), as_images(&grad_y[0, 0, 0, 0], grad_y.strides, sizeof(real))
    with nogil:
        error = convolution_grad_weight(chosen, sizeof(real), &g, y_images, x_images, &grad_w[0, 0, 0, 0], &grad_b[0], threads)
    if error:
        raise MemoryError("not enough memory for the convolution")
