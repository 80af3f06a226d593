/* The direct kernel. A tile is a few neighbouring pixels of one output row times one or two vectors of out-channels; its sums
 * stay in registers over all taps and a chunk of in-channels. For each tap and in-channel, it loads the vectors of weights, and for
 * each pixel broadcasts one value of the image and multiply-adds. The order of additions depends only on the shapes. */

/* Inputs and outputs of a tile. block = vectors * LANES, the out-channels of a tile. */
typedef struct {
    const T *x;             /* in-channel 0 of the chunk, input row of the output row, column 0 */
    ptrdiff_t channel;      /* from one in-channel to the next */
    ptrdiff_t channels;     /* of the chunk */
    const ptrdiff_t *row_x; /* input offset of each kernel row */
    ptrdiff_t first_row, last_row; /* kernel rows inside the image */
    const T *w;             /* [kernel row][kernel column][channels][block] */
    ptrdiff_t w_columns;
    const column_taps *column;
    ptrdiff_t columns;
    const T *start;         /* initial sums: the bias (start_step 0), or the sums of earlier chunks (sums_step) */
    ptrdiff_t start_step;
    T *sums;                /* [pixels][step], of which this tile uses block */
    ptrdiff_t sums_step;
} NAME(tile_work);

INLINE void NAME(tile)(const int pixels, const int vectors, const NAME(tile_work) *work)
{
    vec sum[MAX_PIXELS][2];
    const ptrdiff_t block = vectors * LANES, channel = work->channel, channels = work->channels;
    UNROLL for (int i = 0; i < pixels; i++)
        UNROLL for (int v = 0; v < vectors; v++)
            sum[i][v] = NAME(load)(work->start + i * work->start_step + v * LANES);
#define MULTIPLY_ADD(low, high)                                             \
    for (ptrdiff_t c = 0; c < channels; c++, w += block, x += channel) {    \
        vec weight[2];                                                      \
        UNROLL for (int v = 0; v < vectors; v++)                            \
            weight[v] = NAME(load)(w + v * LANES);                          \
        UNROLL for (int i = low; i < high; i++) {                           \
            vec pixel = x[i] - (vec){0};                                    \
            UNROLL for (int v = 0; v < vectors; v++)                        \
                sum[i][v] += pixel * weight[v];                             \
        }                                                                   \
    }
    for (ptrdiff_t b = 0; b < work->columns; b++) {
        const column_taps *column = work->column + b;
        for (ptrdiff_t a = work->first_row; a < work->last_row; a++) {
            const T *x = work->x + (column->x + work->row_x[a]);
            const T *w = work->w + (a * work->w_columns + column->tap) * channels * block;
            if (column->low > 0)
                MULTIPLY_ADD(1, pixels)
            else if (column->high < pixels)
                MULTIPLY_ADD(0, pixels - 1)
            else
                MULTIPLY_ADD(0, pixels)
        }
    }
    UNROLL for (int i = 0; i < pixels; i++)
        UNROLL for (int v = 0; v < vectors; v++)
            NAME(store)(work->sums + i * work->sums_step + v * LANES, sum[i][v]);
#undef MULTIPLY_ADD
}

#define TILE(pixels)                                                                                        \
    static void NAME(tile_##pixels##_1)(const NAME(tile_work) *work) { NAME(tile)(pixels, 1, work); }       \
    static void NAME(tile_##pixels##_2)(const NAME(tile_work) *work) { NAME(tile)(pixels, 2, work); }
#define ENTRY(pixels) {NAME(tile_##pixels##_1), NAME(tile_##pixels##_2)}
TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6)
#if MAX_PIXELS > 6
TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12) TILE(13) TILE(14)
#endif
static void (*const NAME(tiles)[MAX_PIXELS][2])(const NAME(tile_work) *) = {
    ENTRY(1), ENTRY(2), ENTRY(3), ENTRY(4), ENTRY(5), ENTRY(6),
#if MAX_PIXELS > 6
    ENTRY(7), ENTRY(8), ENTRY(9), ENTRY(10), ENTRY(11), ENTRY(12), ENTRY(13), ENTRY(14),
#endif
};
#undef TILE
#undef ENTRY

/* The tiles of an output row, equal for all rows: their positions, and the taps of each kernel column inside the image. */
typedef struct {
    ptrdiff_t first, pixels;
    ptrdiff_t columns;       /* kernel columns for all pixels of the tile, or all but the first or the last */
    ptrdiff_t odd_columns;   /* kernel columns for fewer pixels, computed as a narrower tile */
    column_taps *column;     /* [columns], then [odd_columns] from the end of the kernel's width on */
} NAME(tile_plan);

typedef struct {
    const correlation *p;
    T *weights, *bias;
    NAME(tile_plan) *plan;
    ptrdiff_t tiles, tiles_per_block, rows_per_block, row_blocks, segments;
    ptrdiff_t bands, k_parts;
    ptrdiff_t chunk;          /* in-channels at a time */
    ptrdiff_t padded_K;
    int pack;                 /* the image is copied so that the pixels of a row are contiguous */
    ptrdiff_t packed_width, row_low, row_high;
    char *scratch;
    size_t scratch_bytes, sums_bytes, packed_bytes, row_bytes;
} NAME(correlate_job);

/* weights: [group][block of out-channels][chunk][kernel row][kernel column][in-channel][out-channel of the block] */
static void NAME(pack_weights)(void *context, ptrdiff_t task, int worker)
{
    const NAME(correlate_job) *job = context;
    const correlation *p = job->p;
    const ptrdiff_t blocks = ceil_div(p->K, 2 * LANES), g = task / blocks, k0 = task % blocks * 2 * LANES;
    const ptrdiff_t taps = p->rows * p->columns, k_here = smaller(2 * LANES, p->K - k0);
    const ptrdiff_t block = smaller(2 * LANES, job->padded_K - k0);
    const T *from = (const T *)p->w + g * p->w_group + k0 * p->w_out;
    T *to = job->weights + (g * job->padded_K + k0) * p->C * taps;
    int in_order = p->w_in == taps && k_here == block;  /* in-channels, rows and columns are contiguous */
    (void)worker;
    if (taps == 0) /* a phase without outputs */
        return;
    for (ptrdiff_t a = 0; a < p->rows; a++)
        for (ptrdiff_t b = 0; b < p->columns; b++)
            in_order &= p->row_w[a] + p->column_w[b] == a * p->columns + b;
    ptrdiff_t done = 0; /* pairs (in-channel, tap) copied in whole blocks */
    if (in_order) {
        ptrdiff_t c = 0, tap = 0, c0 = 0, channels = smaller(job->chunk, p->C); /* of the next number; its chunk */
        for (; done + LANES <= p->C * taps; done += LANES) {
            T square[2][LANES * LANES];
            for (ptrdiff_t v = 0; v < block / LANES; v++)
                NAME(transpose_block)(from + v * LANES * p->w_out + done, p->w_out, square[v], LANES);
            for (ptrdiff_t i = 0; i < LANES; i++) {
                T *line = to + (c0 * taps + tap * channels + (c - c0)) * block;
                for (ptrdiff_t v = 0; v < block / LANES; v++)
                    NAME(store)(line + v * LANES, NAME(load)(square[v] + i * LANES));
                if (++tap == taps) {
                    tap = 0;
                    if (++c == c0 + channels) {
                        c0 = c;
                        channels = smaller(job->chunk, p->C - c0);
                    }
                }
            }
        }
    }
    for (ptrdiff_t c = done / taps; c < p->C; c++) {
        const ptrdiff_t c0 = c - c % job->chunk, channels = smaller(job->chunk, p->C - c0);
        for (ptrdiff_t a = 0; a < p->rows; a++)
            for (ptrdiff_t b = 0; b < p->columns; b++) {
                const T *w = from + c * p->w_in + p->row_w[a] + p->column_w[b];
                T *line = to + (c0 * taps + (a * p->columns + b) * channels + (c - c0)) * block;
                for (ptrdiff_t k = 0; k < block; k++)
                    line[k] = k < k_here ? w[k * p->w_out] : 0;
            }
    }
}

/* Copies input rows [top, bottom) of one image's group to [in-channel][row][packed_width]. With a step, the columns are sorted
 * by their remainder: 0, step, 2 step, ..., 1, 1 + step, ...; so the pixels of an output row are neighbours again. */
static void NAME(pack_rows)(const NAME(correlate_job) *job, const T *in, ptrdiff_t top, ptrdiff_t bottom, T *to)
{
    const correlation *p = job->p;
    const ptrdiff_t plane = (bottom - top) * job->packed_width, per_phase = job->packed_width / p->step_w;
    if (p->step_w == 1 && p->in.channel == 1) {
        if (p->in.row == p->W * p->in.column)
            NAME(transpose)(in + top * p->in.row, p->in.column, plane, p->C, to, plane);
        else
            for (ptrdiff_t h = top; h < bottom; h++)
                NAME(transpose)(in + h * p->in.row, p->in.column, p->W, p->C, to + (h - top) * p->W, plane);
        return;
    }
    for (ptrdiff_t c = 0; c < p->C; c++)
        for (ptrdiff_t h = top; h < bottom; h++) {
            const T *row = in + c * p->in.channel + h * p->in.row;
            T *packed = to + c * plane + (h - top) * job->packed_width;
            for (ptrdiff_t phase = 0; phase < p->step_w; phase++)
                for (ptrdiff_t w = phase, i = phase * per_phase; w < p->W; w += p->step_w, i++)
                    packed[i] = row[w * p->in.column];
        }
}

/* sums [rows][width][block] to the output; row 0 and column 0 of out are those of the sums. */
static void NAME(write_out)(const correlation *p, const T *sums, ptrdiff_t block, ptrdiff_t channels, ptrdiff_t rows, ptrdiff_t width, T *out)
{
    const images *o = &p->out;
    if (o->column == 1 && o->row == width)
        width *= rows, rows = 1;
    for (ptrdiff_t i = 0; i < rows; i++, sums += width * block, out += o->row) {
        if (o->column == 1)
            NAME(transpose)(sums, block, width, channels, out, o->channel);
        else if (o->channel == 1)
            for (ptrdiff_t j = 0; j < width; j++) {
                const T *from = sums + j * block;
                T *to = out + j * o->column;
                ptrdiff_t k = 0;
                for (; k + LANES <= channels; k += LANES) /* calling memcpy for each pixel is slower */
                    NAME(store)(to + k, NAME(load)(from + k));
                for (; k < channels; k++)
                    to[k] = from[k];
            }
        else
            for (ptrdiff_t k = 0; k < channels; k++)
                for (ptrdiff_t j = 0; j < width; j++)
                    out[k * o->channel + j * o->column] = sums[j * block + k];
    }
}

/* One output row, one segment of its tiles, one block of out-channels, one chunk of in-channels. */
static void NAME(correlate_row)(const NAME(correlate_job) *job, NAME(tile_work) *work, ptrdiff_t first_tile, ptrdiff_t last_tile,
                                ptrdiff_t vectors, T *sums, const T *bias)
{
    const ptrdiff_t origin = job->plan[first_tile].first, step = work->sums_step;
    for (ptrdiff_t t = first_tile; t < last_tile; t++) {
        const NAME(tile_plan) *plan = job->plan + t;
        work->sums = sums + (plan->first - origin) * step;
        work->start = bias ? bias : work->sums;
        work->start_step = bias ? 0 : step;
        work->column = plan->column;
        work->columns = plan->columns;
        NAME(tiles)[plan->pixels - 1][vectors - 1](work);
        for (ptrdiff_t i = 0; i < plan->odd_columns; i++) {
            column_taps odd = plan->column[job->p->columns + i], part = {odd.x + odd.low, odd.tap, 0, odd.high - odd.low};
            NAME(tile_work) narrow = *work;
            narrow.sums = work->sums + odd.low * step;
            narrow.start = narrow.sums;
            narrow.start_step = step;
            narrow.column = &part;
            narrow.columns = 1;
            NAME(tiles)[part.high - 1][vectors - 1](&narrow);
        }
    }
}

static void NAME(correlate_task)(void *context, ptrdiff_t task, int worker)
{
    const NAME(correlate_job) *job = context;
    const correlation *p = job->p;
    const ptrdiff_t k_part = task % job->k_parts, band = task / job->k_parts % job->bands;
    const ptrdiff_t g = task / (job->k_parts * job->bands) % p->G, n = task / (job->k_parts * job->bands * p->G);
    const ptrdiff_t all_blocks = job->row_blocks * job->segments, taps = p->rows * p->columns;
    const ptrdiff_t first_block = band * all_blocks / job->bands, last_block = (band + 1) * all_blocks / job->bands;
    const ptrdiff_t k_blocks = ceil_div(p->K, 2 * LANES);
    char *scratch = job->scratch + worker * job->scratch_bytes;
    T *sums = carve(&scratch, job->sums_bytes), *packed = carve(&scratch, job->packed_bytes);
    ptrdiff_t *row_x = carve(&scratch, job->row_bytes);
    const T *in = (const T *)p->in.data + n * p->in.image + g * p->C * p->in.channel;
    T *out = (T *)p->out.data + n * p->out.image + g * p->K * p->out.channel;

    NAME(tile_work) work = {.channel = p->in.channel, .w_columns = p->columns};
    ptrdiff_t in_row = p->in.row, top = 0;
    if (job->pack) {
        const ptrdiff_t first_p = first_block / job->segments * job->rows_per_block;
        const ptrdiff_t last_p = smaller(p->P, ((last_block - 1) / job->segments + 1) * job->rows_per_block);
        top = smaller(p->H, larger(0, first_p * p->step_h + job->row_low));
        const ptrdiff_t bottom = larger(top, smaller(p->H, (last_p - 1) * p->step_h + job->row_high + 1));
        NAME(pack_rows)(job, in, top, bottom, packed);
        in = packed;
        in_row = job->packed_width;
        work.channel = (bottom - top) * in_row;
    }
    for (ptrdiff_t a = 0; a < p->rows; a++)
        row_x[a] = (p->row[a] - top) * in_row;
    work.row_x = row_x;
    const int in_place = p->out.channel == 1 && p->K % LANES == 0; /* whole contiguous vectors: write the sums directly */

    for (ptrdiff_t kb = k_part * k_blocks / job->k_parts; kb < (k_part + 1) * k_blocks / job->k_parts; kb++) {
        const ptrdiff_t k0 = kb * 2 * LANES, block = smaller(2 * LANES, job->padded_K - k0);
        const T *weights = job->weights + (g * job->padded_K + k0) * p->C * taps, *bias = job->bias + g * job->padded_K + k0;
        for (ptrdiff_t i = first_block; i < last_block; i++) {
            const ptrdiff_t p0 = i / job->segments * job->rows_per_block, p1 = smaller(p->P, p0 + job->rows_per_block);
            const ptrdiff_t first_tile = i % job->segments * job->tiles_per_block;
            const ptrdiff_t last_tile = smaller(job->tiles, first_tile + job->tiles_per_block);
            const ptrdiff_t q0 = job->plan[first_tile].first;
            const ptrdiff_t width = job->plan[last_tile - 1].first + job->plan[last_tile - 1].pixels - q0;
            T *place = out + k0 * p->out.channel + p0 * p->out.row + q0 * p->out.column;
            work.sums_step = in_place ? p->out.column : block;
            for (ptrdiff_t c = 0; c < p->C; c += job->chunk) {
                work.channels = smaller(job->chunk, p->C - c);
                work.w = weights + c * taps * block;
                for (ptrdiff_t row = p0; row < p1; row++) {
                    /* kernel rows inside the image: they are contiguous, because their offsets are monotonic */
                    for (work.first_row = 0; work.first_row < p->rows; work.first_row++)
                        if ((size_t)(row * p->step_h + p->row[work.first_row]) < (size_t)p->H)
                            break;
                    for (work.last_row = p->rows; work.last_row > work.first_row; work.last_row--)
                        if ((size_t)(row * p->step_h + p->row[work.last_row - 1]) < (size_t)p->H)
                            break;
                    work.x = in + c * work.channel + row * p->step_h * in_row;
                    T *line = in_place ? place + (row - p0) * p->out.row : sums + (row - p0) * width * block;
                    NAME(correlate_row)(job, &work, first_tile, last_tile, block / LANES, line, c ? NULL : bias);
                }
            }
            if (!in_place)
                NAME(write_out)(p, sums, block, smaller(block, p->K - k0), p1 - p0, width, place);
        }
    }
}

static void NAME(plan_tiles)(NAME(correlate_job) *job, column_taps *columns)
{
    const correlation *p = job->p;
    const ptrdiff_t per_phase = job->packed_width / p->step_w;
    for (ptrdiff_t t = 0; t < job->tiles; t++, columns += 2 * p->columns) {
        NAME(tile_plan) *plan = job->plan + t;
        plan->first = t * p->Q / job->tiles;
        plan->pixels = (t + 1) * p->Q / job->tiles - plan->first;
        plan->columns = plan->odd_columns = 0;
        plan->column = columns;
        for (ptrdiff_t b = 0; b < p->columns; b++) {
            const ptrdiff_t offset = p->column[b] + plan->first * p->step_w, left = floor_div(offset, p->step_w);
            column_taps taps = {(offset - left * p->step_w) * per_phase + left, b, 0, 0};
            valid_range(plan->pixels, p->step_w, offset, p->W, &taps.low, &taps.high);
            if (taps.low == taps.high)
                continue;
            if (taps.low + (plan->pixels - taps.high) <= 1)
                columns[plan->columns++] = taps;
            else
                columns[p->columns + plan->odd_columns++] = taps;
        }
    }
}

static int NAME(correlate)(const correlation *original, int threads)
{
    correlation problem = *original, *p = &problem;
    if (p->N <= 0)
        return 0;
    threads = (int)smaller(threads, MAX_THREADS);
    if (NAME(is_narrow)(p))
        return NAME(correlate_narrow)(p, threads);
    NAME(correlate_job) job = {.p = p};
    job.pack = p->in.column != 1 || p->step_w != 1;
    if (!job.pack && p->rows == 1 && p->columns == 1 && p->row[0] == 0 && p->column[0] == 0 && p->step_h == 1 && p->P == p->H
        && p->Q == p->W && p->in.row == p->W && p->out.row == p->Q * p->out.column) {
        p->W = p->Q = p->H * p->W;  /* a 1x1 kernel knows no rows */
        p->H = p->P = 1;
    }
    const ptrdiff_t taps = p->rows * p->columns, k_blocks = ceil_div(p->K, 2 * LANES);
    job.padded_K = ceil_div(p->K, LANES) * LANES;
    job.packed_width = job.pack ? ceil_div(p->W, p->step_w) * p->step_w : p->W;
    job.tiles = ceil_div(p->Q, MAX_PIXELS);
    /* 16 KiB of sums, for the first-level cache, and 96 KiB of weights, for the second: smaller chunks of in-channels make the
     * innermost loop too short (with 24 KiB, 2 % slower at 128 channels). */
    const ptrdiff_t pixels = larger(1, 16384 / (ptrdiff_t)(2 * LANES * sizeof(T)));
    job.rows_per_block = larger(1, smaller(p->P, pixels / p->Q));
    job.row_blocks = ceil_div(p->P, job.rows_per_block);
    job.segments = job.rows_per_block > 1 ? 1 : larger(1, smaller(job.tiles, p->Q / pixels));
    job.tiles_per_block = ceil_div(job.tiles, job.segments);
    job.segments = ceil_div(job.tiles, job.tiles_per_block);
    const ptrdiff_t chunks = ceil_div(p->C, larger(1, 98304 / (ptrdiff_t)(larger(1, taps) * 2 * LANES * sizeof(T))));
    job.chunk = ceil_div(p->C, chunks);
    job.row_low = job.row_high = p->rows ? p->row[0] : 0;
    for (ptrdiff_t a = 1; a < p->rows; a++) {
        job.row_low = smaller(job.row_low, p->row[a]);
        job.row_high = larger(job.row_high, p->row[a]);
    }

    threads = useful_threads(threads, 2.0 * p->N * p->G * p->K * p->C * taps * p->P * p->Q);
    const ptrdiff_t blocks = job.row_blocks * job.segments, outer = p->N * p->G;
    job.bands = threads > 1 && outer < 4 * threads ? smaller(blocks, ceil_div(4 * threads, outer)) : 1;
    if (job.pack) /* a quarter of a MiB of packed rows at a time */
        job.bands = smaller(blocks, larger(job.bands, (ptrdiff_t)((double)p->C * p->H * job.packed_width * sizeof(T) / 262144)));
    job.k_parts = threads > 1 && outer * job.bands < 2 * threads ? smaller(k_blocks, ceil_div(2 * threads, outer * job.bands)) : 1;

    ptrdiff_t band_rows = smaller(p->P, (ceil_div(blocks, job.bands) / job.segments + 2) * job.rows_per_block);
    ptrdiff_t input_rows = smaller(p->H, (band_rows - 1) * p->step_h + job.row_high - job.row_low + 1);
    job.sums_bytes = job.rows_per_block * (job.tiles_per_block * MAX_PIXELS) * 2 * LANES * sizeof(T);
    job.packed_bytes = job.pack ? p->C * input_rows * job.packed_width * sizeof(T) : 0;
    job.row_bytes = p->rows * sizeof(ptrdiff_t);
    job.scratch_bytes = room(job.sums_bytes) + room(job.packed_bytes) + room(job.row_bytes);
    const size_t weights_bytes = p->G * job.padded_K * p->C * taps * sizeof(T), bias_bytes = p->G * job.padded_K * sizeof(T);
    const size_t plan_bytes = job.tiles * sizeof(NAME(tile_plan)), column_bytes = job.tiles * 2 * p->columns * sizeof(column_taps);
    const size_t shared_bytes = room(weights_bytes) + room(bias_bytes) + room(plan_bytes) + room(column_bytes);
    void *memory;
    if (posix_memalign(&memory, 64, shared_bytes + threads * job.scratch_bytes) != 0)
        return -1;
    char *rest = memory;
    job.weights = carve(&rest, weights_bytes);
    job.bias = carve(&rest, bias_bytes);
    job.plan = carve(&rest, plan_bytes);
    NAME(plan_tiles)(&job, carve(&rest, column_bytes));
    job.scratch = rest;
    for (ptrdiff_t g = 0; g < p->G; g++)
        for (ptrdiff_t k = 0; k < job.padded_K; k++)
            job.bias[g * job.padded_K + k] = p->bias && k < p->K ? ((const T *)p->bias)[g * p->K + k] : 0;
    run_tasks(p->G * job.padded_K * p->C * taps > 65536 ? threads : 1, p->G * k_blocks, NAME(pack_weights), &job);
    run_tasks(threads, outer * job.bands * job.k_parts, NAME(correlate_task), &job);
    free(memory);
    return 0;
}
