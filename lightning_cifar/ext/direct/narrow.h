/* Kernel for few out-channels, for which vectors of out-channels would be mostly empty. Vectors contain pixels instead. A band of
 * the image is copied with zero padding, so that a tap is one offset for all pixels of the band, which is one long row. The sums at
 * the ends of rows, which wrap around, are omitted when the result is written. Only for step 1, which includes every phase of the
 * gradient by the input.
 *
 * It is also used for many out-channels if there are few products to sum (a first layer): transposing vectors of out-channels to
 * rows of pixels would take as long as the sums. Rows of whole vectors are then written directly. */

#define NARROW_CHANNELS (LANES / 2) /* out-channels of a tile, at most */
#if VECTOR_BYTES == 64
#define NARROW_VECTORS(channels) ((channels) <= 3 ? 8 : (channels) == 4 ? 6 : (channels) <= 6 ? 4 : (channels) == 7 ? 3 : 2)
#else
#define NARROW_VECTORS(channels) ((channels) <= 2 ? 5 : (channels) == 3 ? 4 : (channels) == 4 ? 3 : 2)
#endif

typedef struct {
    const T *x;                /* pixel 0 of the tile in in-channel 0 */
    ptrdiff_t plane, channels;
    const ptrdiff_t *tap;      /* [taps], offsets into a plane */
    ptrdiff_t taps;
    const T *w, *bias;         /* [tap][in-channel][out-channel of the tile]; [out-channel] */
    T *sums;                   /* [out-channel][sums_row] */
    ptrdiff_t sums_row;
} NAME(narrow_work);

INLINE void NAME(narrow_tile)(const int out, const int vectors, const NAME(narrow_work) *work)
{
    vec sum[8][8];
    UNROLL for (int k = 0; k < out; k++)
        UNROLL for (int v = 0; v < vectors; v++)
            sum[k][v] = work->bias[k] - (vec){0};
    const T *w = work->w;
    for (ptrdiff_t t = 0; t < work->taps; t++) {
        const T *x = work->x + work->tap[t];
        for (ptrdiff_t c = 0; c < work->channels; c++, x += work->plane, w += out) {
            vec pixels[8];
            UNROLL for (int v = 0; v < vectors; v++)
                pixels[v] = NAME(load)(x + v * LANES);
            UNROLL for (int k = 0; k < out; k++) {
                vec weight = w[k] - (vec){0};
                UNROLL for (int v = 0; v < vectors; v++)
                    sum[k][v] += pixels[v] * weight;
            }
        }
    }
    UNROLL for (int k = 0; k < out; k++)
        UNROLL for (int v = 0; v < vectors; v++)
            NAME(store)(work->sums + k * work->sums_row + v * LANES, sum[k][v]);
}

#define TILE(out)                                                                                                     \
    static void NAME(narrow_##out##_wide)(const NAME(narrow_work) *work)                                              \
    {                                                                                                                 \
        NAME(narrow_tile)(out, NARROW_VECTORS(out), work);                                                            \
    }                                                                                                                 \
    static void NAME(narrow_##out##_one)(const NAME(narrow_work) *work) { NAME(narrow_tile)(out, 1, work); }
#define ENTRY(out) {NAME(narrow_##out##_wide), NAME(narrow_##out##_one)}
TILE(1)
#if LANES >= 4
TILE(2)
#endif
#if LANES >= 8
TILE(3) TILE(4)
#endif
#if LANES >= 16
TILE(5) TILE(6) TILE(7) TILE(8)
#endif
static void (*const NAME(narrow_tiles)[LANES / 2][2])(const NAME(narrow_work) *) = {
    ENTRY(1),
#if LANES >= 4
    ENTRY(2),
#endif
#if LANES >= 8
    ENTRY(3), ENTRY(4),
#endif
#if LANES >= 16
    ENTRY(5), ENTRY(6), ENTRY(7), ENTRY(8),
#endif
};
#undef TILE
#undef ENTRY

typedef struct {
    const correlation *p;
    T *weights, *bias;
    ptrdiff_t *tap;
    ptrdiff_t bands, row_low, row_span, column_low, width; /* width of a row in the copy */
    ptrdiff_t slack; /* elements read beyond the copy */
    char *scratch;
    size_t scratch_bytes, packed_bytes, sums_bytes;
} NAME(narrow_job);

INLINE void NAME(copy)(const T *from, ptrdiff_t from_step, ptrdiff_t count, T *to, ptrdiff_t to_step)
{
    ptrdiff_t i = 0;
    if (from_step == 1 && to_step == 1)
        for (; i + LANES <= count; i += LANES)
            NAME(store)(to + i, NAME(load)(from + i));
    for (; i < count; i++)
        to[i * to_step] = from[i * from_step];
}

/* Copies input rows [top, top + rows) of a group to [channel][row][width], with zeros outside the image. */
static void NAME(narrow_pack)(const NAME(narrow_job) *job, const T *in, ptrdiff_t top, ptrdiff_t rows, T *to)
{
    const correlation *p = job->p;
    ptrdiff_t first, last; /* of the copy's columns, those in the image */
    valid_range(job->width, 1, job->column_low, p->W, &first, &last);
    for (ptrdiff_t c = 0; c < p->C; c++)
        for (ptrdiff_t h = top; h < top + rows; h++, to += job->width) {
            const int inside = h >= 0 && h < p->H && first < last;
            const ptrdiff_t left = inside ? first : job->width, right = inside ? last : job->width;
            for (ptrdiff_t i = 0; i < left; i++)
                to[i] = 0;
            if (inside)
                NAME(copy)(in + c * p->in.channel + h * p->in.row + (first + job->column_low) * p->in.column, p->in.column, last - first, to + first, 1);
            for (ptrdiff_t i = right; i < job->width; i++)
                to[i] = 0;
        }
    memset(to, 0, job->slack * sizeof(T)); /* read by the last tile */
}

/* `pixels` sums in a row, rounded up to whole vectors. */
static void NAME(narrow_row)(NAME(narrow_work) work, ptrdiff_t channels, ptrdiff_t pixels)
{
    const ptrdiff_t wide = NARROW_VECTORS(channels) * LANES;
    for (ptrdiff_t i = 0; i < pixels;) {
        const int one = pixels - i <= wide - LANES;
        NAME(narrow_tiles)[channels - 1][one](&work);
        i += one ? LANES : wide;
        work.x += one ? LANES : wide;
        work.sums += one ? LANES : wide;
    }
}

/* One image, one group, a band of rows. */
static void NAME(narrow_task)(void *context, ptrdiff_t task, int worker)
{
    const NAME(narrow_job) *job = context;
    const correlation *p = job->p;
    const images *o = &p->out;
    const ptrdiff_t band = task % job->bands, g = task / job->bands % p->G, n = task / job->bands / p->G;
    const ptrdiff_t p0 = band * p->P / job->bands, rows = (band + 1) * p->P / job->bands - p0, taps = p->rows * p->columns;
    const ptrdiff_t rounded = ceil_div(rows * job->width, LANES) * LANES;
    char *scratch = job->scratch + worker * job->scratch_bytes;
    T *packed = carve(&scratch, job->packed_bytes), *sums = carve(&scratch, job->sums_bytes);
    const int in_place = o->column == 1 && p->Q % LANES == 0;
    NAME(narrow_pack)(job, (const T *)p->in.data + n * p->in.image + g * p->C * p->in.channel, p0 + job->row_low, rows + job->row_span, packed);
    NAME(narrow_work) work = {.plane = (rows + job->row_span) * job->width, .channels = p->C, .tap = job->tap, .taps = taps};
    for (ptrdiff_t k0 = 0; k0 < p->K; k0 += NARROW_CHANNELS) {
        const ptrdiff_t channels = smaller(NARROW_CHANNELS, p->K - k0);
        T *out = (T *)o->data + n * o->image + (g * p->K + k0) * o->channel + p0 * o->row;
        work.w = job->weights + (g * p->K + k0) * taps * p->C;
        work.bias = job->bias + g * p->K + k0;
        work.sums_row = in_place ? o->channel : rounded;
        work.sums = sums;
        work.x = packed;
        if (!in_place)
            NAME(narrow_row)(work, channels, rows * job->width);
        for (ptrdiff_t i = 0; i < rows; i++, out += o->row) {
            work.x = packed + i * job->width;
            work.sums = out;
            if (in_place)
                NAME(narrow_row)(work, channels, p->Q);
            else
                for (ptrdiff_t k = 0; k < channels; k++)
                    NAME(copy)(sums + k * rounded + i * job->width, 1, p->Q, out + k * o->channel, o->column);
        }
    }
}

static int NAME(correlate_narrow)(const correlation *p, int threads)
{
    NAME(narrow_job) job = {.p = p};
    const ptrdiff_t taps = p->rows * p->columns;
    ptrdiff_t row_high = p->row[0], column_high = p->column[0];
    job.row_low = row_high;
    job.column_low = column_high;
    for (ptrdiff_t a = 1; a < p->rows; a++) {
        job.row_low = smaller(job.row_low, p->row[a]);
        row_high = larger(row_high, p->row[a]);
    }
    for (ptrdiff_t b = 1; b < p->columns; b++) {
        job.column_low = smaller(job.column_low, p->column[b]);
        column_high = larger(column_high, p->column[b]);
    }
    job.row_span = row_high - job.row_low;
    job.width = p->Q + column_high - job.column_low;
    job.slack = LANES + column_high - job.column_low;
    threads = useful_threads(threads, 2.0 * p->N * p->G * p->K * p->C * taps * p->P * p->Q);
    /* Bands of at most a quarter of a MiB, and enough bands for the threads. */
    job.bands = (ptrdiff_t)((double)p->C * p->P * job.width * sizeof(T) / 262144) + 1;
    if (threads > 1)
        job.bands = larger(job.bands, ceil_div(4 * threads, p->N * p->G));
    job.bands = smaller(p->P, job.bands);

    const ptrdiff_t rows = ceil_div(p->P, job.bands);
    job.packed_bytes = (p->C * (rows + job.row_span) * job.width + job.slack) * sizeof(T);
    job.sums_bytes = smaller(p->K, NARROW_CHANNELS) * ceil_div(rows * job.width, LANES) * sizeof(vec);
    job.scratch_bytes = room(job.packed_bytes) + room(job.sums_bytes);
    const size_t weights_bytes = p->G * taps * p->C * p->K * sizeof(T), bias_bytes = p->G * p->K * sizeof(T);
    const size_t tap_bytes = taps * sizeof(ptrdiff_t);
    void *memory;
    if (posix_memalign(&memory, 64, room(weights_bytes) + room(bias_bytes) + room(tap_bytes) + threads * job.scratch_bytes) != 0)
        return -1;
    char *rest = memory;
    job.weights = carve(&rest, weights_bytes);
    job.bias = carve(&rest, bias_bytes);
    job.tap = carve(&rest, tap_bytes);
    job.scratch = rest;
    for (ptrdiff_t a = 0; a < p->rows; a++)
        for (ptrdiff_t b = 0; b < p->columns; b++)
            job.tap[a * p->columns + b] = (p->row[a] - job.row_low) * job.width + (p->column[b] - job.column_low);
    T *w = job.weights;
    for (ptrdiff_t g = 0; g < p->G; g++)
        for (ptrdiff_t k0 = 0; k0 < p->K; k0 += NARROW_CHANNELS)
            for (ptrdiff_t a = 0; a < p->rows; a++)
                for (ptrdiff_t b = 0; b < p->columns; b++) {
                    const T *from = (const T *)p->w + g * p->w_group + k0 * p->w_out + p->row_w[a] + p->column_w[b];
                    for (ptrdiff_t c = 0; c < p->C; c++)
                        for (ptrdiff_t k = 0; k < smaller(NARROW_CHANNELS, p->K - k0); k++)
                            *w++ = from[c * p->w_in + k * p->w_out];
                }
    for (ptrdiff_t k = 0; k < p->G * p->K; k++)
        job.bias[k] = p->bias ? ((const T *)p->bias)[k] : 0;
    run_tasks(threads, p->N * p->G * job.bands, NAME(narrow_task), &job);
    free(memory);
    return 0;
}

/* Whether this kernel is faster than that of correlate.h. */
static int NAME(is_narrow)(const correlation *p)
{
    if (p->step_h != 1 || p->step_w != 1 || p->rows == 0 || p->columns == 0)
        return 0;
    return p->K <= NARROW_CHANNELS || (p->C * p->rows * p->columns <= 48 && p->out.column == 1 && p->Q % LANES == 0 && LANES >= 8);
}
