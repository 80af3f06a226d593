/* 16 registers of 4 floats, available on any 64-bit processor: 6 x 2 sums, 2 of weights, 1 pixel. */
#include "direct.h"
#include "threads.h"

#include <stdlib.h>
#include <string.h>

#define INSTRUCTION_SET portable
#define VECTOR_BYTES 16
#define MAX_PIXELS 6
#define MAX_CHANNELS 6
#include "kernels.h"
