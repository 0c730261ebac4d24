// How the lists of quads.cu are laid out, for those that make them and those that read them.
#pragma once
#include "types.cuh"

#define QUAD 4       // rows of S that go abreast
#define ROOMS 3      // for panels in shared memory: two that are worked on, one on its way
#define ROW_SHIFT 4  // an entry of 16 bits counts rows of panels from this bit on
#define ROW_BITS 0x7ffu
