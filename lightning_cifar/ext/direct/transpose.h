/* Vectors of T, and the transposition of a matrix by blocks of LANES x LANES. */
#undef LANES
#undef LOWER
#undef UPPER
#define LANES (VECTOR_BYTES / T_BYTES)
#if LANES == 16
#define LOWER 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define UPPER 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif LANES == 8
#define LOWER 0, 8, 1, 9, 2, 10, 3, 11
#define UPPER 4, 12, 5, 13, 6, 14, 7, 15
#elif LANES == 4
#define LOWER 0, 4, 1, 5
#define UPPER 2, 6, 3, 7
#else
#define LOWER 0, 2
#define UPPER 1, 3
#endif

typedef T NAME(vector) __attribute__((vector_size(VECTOR_BYTES), aligned(T_BYTES), may_alias));
#undef vec
#define vec NAME(vector)

INLINE vec NAME(load)(const T *from) { return *(const vec *)from; }
INLINE void NAME(store)(T *to, vec value) { *(vec *)to = value; }

#ifdef HAS_SHUFFLE
/* Transposes by interleaving the first half of the rows with the second, log2(LANES) times. */
INLINE void NAME(transpose_block)(const T *from, ptrdiff_t from_row, T *to, ptrdiff_t to_row)
{
    vec v[LANES], t[LANES];
    UNROLL for (int i = 0; i < LANES; i++)
        v[i] = NAME(load)(from + i * from_row);
    UNROLL for (int round = 1; round < LANES; round *= 2) {
        UNROLL for (int i = 0; i < LANES / 2; i++) {
            t[2 * i] = __builtin_shufflevector(v[i], v[i + LANES / 2], LOWER);
            t[2 * i + 1] = __builtin_shufflevector(v[i], v[i + LANES / 2], UPPER);
        }
        UNROLL for (int i = 0; i < LANES; i++)
            v[i] = t[i];
    }
    UNROLL for (int i = 0; i < LANES; i++)
        NAME(store)(to + i * to_row, v[i]);
}
#else
INLINE void NAME(transpose_block)(const T *from, ptrdiff_t from_row, T *to, ptrdiff_t to_row)
{
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < LANES; j++)
            to[j * to_row + i] = from[i * from_row + j];
}
#endif

/* to[j, i] = from[i, j] for a matrix of rows x columns; in both, columns are contiguous. */
static void NAME(transpose)(const T *from, ptrdiff_t from_row, ptrdiff_t rows, ptrdiff_t columns, T *to, ptrdiff_t to_row)
{
    ptrdiff_t whole_rows = rows - rows % LANES, whole_columns = columns - columns % LANES;
    for (ptrdiff_t i = 0; i < whole_rows; i += LANES)
        for (ptrdiff_t j = 0; j < whole_columns; j += LANES)
            NAME(transpose_block)(from + i * from_row + j, from_row, to + j * to_row + i, to_row);
    for (ptrdiff_t j = 0; j < columns; j++)
        for (ptrdiff_t i = j < whole_columns ? whole_rows : 0; i < rows; i++)
            to[j * to_row + i] = from[i * from_row + j];
}
