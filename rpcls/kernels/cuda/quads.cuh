// How the lists of quads.cu are laid out, for those that make them and those that read them.
#pragma once
#include "types.cuh"

#define QUAD 4   // rows of S that go abreast
#define ROOMS 3  // for panels in shared memory: two that are worked on, one on its way

// Where the rows of A of a pair of entries begin, in bits; 1 << LOW_ROW is the bytes of a row in shared memory.
#define LOW_ROW 7
#define HIGH_ROW 18
#define ROW_BITS 0x7ffu
