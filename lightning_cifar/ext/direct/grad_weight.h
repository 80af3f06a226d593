/* The gradient by the weights. For one kernel tap, a tile is a few in-channels times one or two vectors of out-channels; its sums
 * stay in registers over all pixels of a band of rows. For each pixel, it loads the vectors of grad_y, and for each in-channel
 * broadcasts one value of the image and multiply-adds. Arrays whose channels are not contiguous are copied.
 *
 * The batch is divided into parts, whose sums are added in order at the end. The division depends only on the shapes: the result is
 * the same for any number of threads. */

typedef struct {
    const T *x;                   /* in-channel 0 of the tile, at the first pixel */
    ptrdiff_t x_row, x_pixel;     /* from one output row, one output pixel, to the next */
    const T *grad;                /* grad_y, out-channel 0 of the block, at the first pixel */
    ptrdiff_t grad_row, grad_pixel;
    ptrdiff_t rows, pixels;
    T *sums;                      /* [in-channel][block] */
} NAME(grad_work);

INLINE void NAME(grad_tile)(const int channels, const int vectors, const NAME(grad_work) *work)
{
    vec sum[MAX_CHANNELS][2];
    UNROLL for (int c = 0; c < channels; c++)
        UNROLL for (int v = 0; v < vectors; v++)
            sum[c][v] = NAME(load)(work->sums + (c * vectors + v) * LANES);
    const ptrdiff_t x_pixel = work->x_pixel, grad_pixel = work->grad_pixel;
    for (ptrdiff_t p = 0; p < work->rows; p++) {
        const T *x = work->x + p * work->x_row, *grad = work->grad + p * work->grad_row;
        for (ptrdiff_t q = 0; q < work->pixels; q++, x += x_pixel, grad += grad_pixel) {
            vec g[2];
            UNROLL for (int v = 0; v < vectors; v++)
                g[v] = NAME(load)(grad + v * LANES);
            UNROLL for (int c = 0; c < channels; c++) {
                vec pixel = x[c] - (vec){0};
                UNROLL for (int v = 0; v < vectors; v++)
                    sum[c][v] += pixel * g[v];
            }
        }
    }
    UNROLL for (int c = 0; c < channels; c++)
        UNROLL for (int v = 0; v < vectors; v++)
            NAME(store)(work->sums + (c * vectors + v) * LANES, sum[c][v]);
}

#define TILE(channels)                                                                                            \
    static void NAME(grad_tile_##channels##_1)(const NAME(grad_work) *work) { NAME(grad_tile)(channels, 1, work); } \
    static void NAME(grad_tile_##channels##_2)(const NAME(grad_work) *work) { NAME(grad_tile)(channels, 2, work); }
#define ENTRY(channels) {NAME(grad_tile_##channels##_1), NAME(grad_tile_##channels##_2)}
TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6)
#if MAX_CHANNELS > 6
TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12)
#endif
static void (*const NAME(grad_tiles)[MAX_CHANNELS][2])(const NAME(grad_work) *) = {
    ENTRY(1), ENTRY(2), ENTRY(3), ENTRY(4), ENTRY(5), ENTRY(6),
#if MAX_CHANNELS > 6
    ENTRY(7), ENTRY(8), ENTRY(9), ENTRY(10), ENTRY(11), ENTRY(12),
#endif
};
#undef TILE
#undef ENTRY

typedef struct {
    const weight_gradient *p;
    T *sums;      /* [part][group][block of out-channels]([kernel row][kernel column][in-channel][out-channel], [out-channel] of grad_b) */
    ptrdiff_t parts, band, k_blocks, padded_K, per_k; /* per_k: number of sums of one out-channel */
    int pack_x;
    char *scratch;
    size_t scratch_bytes, x_bytes, grad_bytes;
} NAME(grad_job);

/* Input rows [top, bottom) of a group to [row][column][in-channel]. */
static void NAME(pack_x)(const weight_gradient *p, const T *x, ptrdiff_t top, ptrdiff_t bottom, T *to)
{
    for (ptrdiff_t h = top; h < bottom; h++, to += p->W * p->C) {
        const T *row = x + h * p->x.row;
        if (p->x.column == 1 && p->x.row == p->W) {
            NAME(transpose)(row, p->x.channel, p->C, (bottom - h) * p->W, to, p->C);
            return;
        }
        if (p->x.column == 1)
            NAME(transpose)(row, p->x.channel, p->C, p->W, to, p->C);
        else
            for (ptrdiff_t w = 0; w < p->W; w++)
                for (ptrdiff_t c = 0; c < p->C; c++)
                    to[w * p->C + c] = row[c * p->x.channel + w * p->x.column];
    }
}

/* `rows` rows of grad_y, `channels` of its out-channels, to [row][column][block]; padded with zeros. */
static void NAME(pack_grad)(const weight_gradient *p, const T *grad, ptrdiff_t rows, ptrdiff_t channels, ptrdiff_t block, T *to)
{
    const images *y = &p->grad_y;
    if (channels < block)
        memset(to, 0, rows * p->Q * block * sizeof(T));
    if (y->column == 1 && y->row == p->Q)
        NAME(transpose)(grad, y->channel, channels, rows * p->Q, to, block);
    else
        for (ptrdiff_t i = 0; i < rows; i++)
            for (ptrdiff_t q = 0; q < p->Q; q++)
                for (ptrdiff_t k = 0; k < channels; k++)
                    to[(i * p->Q + q) * block + k] = grad[k * y->channel + i * y->row + q * y->column];
}

/* Output rows [p0, p1) of one image. x is row `top` of the packed image, or of the image itself. */
static void NAME(grad_band)(const weight_gradient *p, ptrdiff_t p0, ptrdiff_t p1, NAME(grad_work) *work, const T *x, ptrdiff_t top,
                            ptrdiff_t x_row, ptrdiff_t x_pixel, const T *grad, ptrdiff_t vectors, T *sums)
{
    const ptrdiff_t block = vectors * LANES, tiles = ceil_div(p->C, MAX_CHANNELS);
    work->x_row = p->step_h * x_row;
    work->x_pixel = p->step_w * x_pixel;
    for (ptrdiff_t r = 0; r < p->R; r++) {
        ptrdiff_t first_p, last_p;
        valid_range(p->P, p->step_h, p->row[r], p->H, &first_p, &last_p);
        first_p = larger(first_p, p0);
        work->rows = smaller(last_p, p1) - first_p;
        for (ptrdiff_t s = 0; s < p->S; s++, sums += p->C * block) {
            ptrdiff_t first_q, last_q;
            valid_range(p->Q, p->step_w, p->column[s], p->W, &first_q, &last_q);
            work->pixels = last_q - first_q;
            if (work->rows <= 0 || work->pixels <= 0)
                continue;
            work->grad = grad + (first_p - p0) * work->grad_row + first_q * work->grad_pixel;
            const T *corner = x + (first_p * p->step_h + p->row[r] - top) * x_row + (first_q * p->step_w + p->column[s]) * x_pixel;
            for (ptrdiff_t t = 0; t < tiles; t++) {
                const ptrdiff_t c0 = t * p->C / tiles, c1 = (t + 1) * p->C / tiles;
                work->x = corner + c0;
                work->sums = sums + c0 * block;
                NAME(grad_tiles)[c1 - c0 - 1][vectors - 1](work);
            }
        }
    }
}

static void NAME(grad_task)(void *context, ptrdiff_t task, int worker)
{
    const NAME(grad_job) *job = context;
    const weight_gradient *p = job->p;
    const ptrdiff_t kb = task % job->k_blocks, g = task / job->k_blocks % p->G, part = task / job->k_blocks / p->G;
    const ptrdiff_t k0 = kb * 2 * LANES, block = smaller(2 * LANES, job->padded_K - k0), channels = smaller(block, p->K - k0);
    const ptrdiff_t first_n = part * p->N / job->parts, last_n = (part + 1) * p->N / job->parts;
    char *scratch = job->scratch + worker * job->scratch_bytes;
    T *packed_x = carve(&scratch, job->x_bytes), *packed_grad = carve(&scratch, job->grad_bytes);
    T *sums = job->sums + ((part * p->G + g) * job->padded_K + k0) * job->per_k, *grad_b = sums + block * (job->per_k - 1);
    const int pack_grad = p->grad_y.channel != 1 || channels < block;
    memset(sums, 0, block * job->per_k * sizeof(T));
    for (ptrdiff_t n = first_n; n < last_n; n++)
        for (ptrdiff_t p0 = 0; p0 < p->P; p0 += job->band) {
            const ptrdiff_t p1 = smaller(p->P, p0 + job->band);
            const T *x = (const T *)p->x.data + n * p->x.image + g * p->C * p->x.channel;
            const T *grad = (const T *)p->grad_y.data + n * p->grad_y.image + (g * p->K + k0) * p->grad_y.channel + p0 * p->grad_y.row;
            ptrdiff_t x_row = p->x.row, x_pixel = p->x.column, top = 0;
            NAME(grad_work) work = {.grad_row = p->grad_y.row, .grad_pixel = p->grad_y.column};
            if (job->pack_x) {
                top = smaller(p->H, larger(0, p0 * p->step_h + p->row[0]));
                NAME(pack_x)(p, x, top, larger(top, smaller(p->H, (p1 - 1) * p->step_h + p->row[p->R - 1] + 1)), packed_x);
                x = packed_x;
                x_pixel = p->C;
                x_row = p->W * p->C;
            }
            if (pack_grad) {
                NAME(pack_grad)(p, grad, p1 - p0, channels, block, packed_grad);
                grad = packed_grad;
                work.grad_pixel = block;
                work.grad_row = p->Q * block;
            }
            NAME(grad_band)(p, p0, p1, &work, x, top, x_row, x_pixel, grad, block / LANES, sums);
            for (ptrdiff_t v = 0; v < block; v += LANES) {
                vec sum = {0};
                for (ptrdiff_t i = 0; i < p1 - p0; i++)
                    for (ptrdiff_t q = 0; q < p->Q; q++)
                        sum += NAME(load)(grad + i * work.grad_row + q * work.grad_pixel + v);
                NAME(store)(grad_b + v, NAME(load)(grad_b + v) + sum);
            }
        }
}

/* Adds the parts and writes [out-channel][in-channel][kernel row][kernel column]. */
static void NAME(finish_grad)(void *context, ptrdiff_t task, int worker)
{
    const NAME(grad_job) *job = context;
    const weight_gradient *p = job->p;
    const ptrdiff_t kb = task % job->k_blocks, g = task / job->k_blocks, taps = p->R * p->S;
    const ptrdiff_t k0 = kb * 2 * LANES, block = smaller(2 * LANES, job->padded_K - k0), channels = smaller(block, p->K - k0);
    T *sums = job->sums + (g * job->padded_K + k0) * job->per_k;
    T *grad_w = (T *)p->grad_w + (g * p->K + k0) * p->C * taps, *grad_b = (T *)p->grad_b + g * p->K + k0;
    (void)worker;
    for (ptrdiff_t part = 1; part < job->parts; part++) {
        const T *more = sums + part * p->G * job->padded_K * job->per_k;
        for (ptrdiff_t i = 0; i < block * job->per_k; i += LANES)
            NAME(store)(sums + i, NAME(load)(sums + i) + NAME(load)(more + i));
    }
    for (ptrdiff_t tap = 0; tap < taps; tap++)
        for (ptrdiff_t c = 0; c < p->C; c++)
            for (ptrdiff_t k = 0; k < channels; k++)
                grad_w[(k * p->C + c) * taps + tap] = sums[(tap * p->C + c) * block + k];
    for (ptrdiff_t k = 0; k < channels; k++)
        grad_b[k] = sums[block * (job->per_k - 1) + k];
}

static int NAME(grad_weight)(const weight_gradient *p, int threads)
{
    NAME(grad_job) job = {.p = p};
    threads = useful_threads((int)smaller(threads, MAX_THREADS), 2.0 * p->N * p->G * p->K * p->C * p->R * p->S * p->P * p->Q);
    /* At least a thousand pixels in a part, so that adding the parts takes little of the time. */
    job.parts = larger(1, smaller(smaller(p->N, 16), (ptrdiff_t)((double)p->N * p->P * p->Q / 1024)));
    job.k_blocks = ceil_div(p->K, 2 * LANES);
    job.padded_K = ceil_div(p->K, LANES) * LANES;
    job.per_k = p->C * p->R * p->S + 1;
    job.pack_x = p->x.channel != 1;
    /* A band of rows that fits in the second-level cache. */
    const ptrdiff_t row_bytes = (p->W * p->C * p->step_h + p->Q * 2 * LANES) * (ptrdiff_t)sizeof(T);
    job.band = larger(1, smaller(p->P, 262144 / row_bytes));
    const ptrdiff_t x_rows = smaller(p->H, (job.band - 1) * p->step_h + p->row[p->R - 1] - p->row[0] + 1);
    job.x_bytes = job.pack_x ? x_rows * p->W * p->C * sizeof(T) : 0;
    job.grad_bytes = job.band * p->Q * 2 * LANES * sizeof(T);
    job.scratch_bytes = room(job.x_bytes) + room(job.grad_bytes);
    const size_t sums_bytes = job.parts * p->G * job.padded_K * job.per_k * sizeof(T);
    void *memory;
    if (posix_memalign(&memory, 64, room(sums_bytes) + threads * job.scratch_bytes) != 0)
        return -1;
    char *rest = memory;
    job.sums = carve(&rest, sums_bytes);
    job.scratch = rest;
    run_tasks(threads, job.parts * p->G * job.k_blocks, NAME(grad_task), &job);
    run_tasks(job.parts * p->G * job.padded_K * job.per_k > 65536 ? threads : 1, p->G * job.k_blocks, NAME(finish_grad), &job);
    free(memory);
    return 0;
}
