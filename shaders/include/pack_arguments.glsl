// What pack and unpack share. Packed matrices follow each other; each has its own padding.

layout(push_constant) uniform Arguments {
  uint rows;           // of each matrix
  uint columns;        // of each matrix, in bytes
  uint words_per_row;  // of ORDER_ROWS: at least ceil(columns / 4); of ORDER_TILES: a multiple of 16, too
  uint word_count;     // packed words (pack) or row-major words (unpack) in all
  uint first_byte;     // where the row-major bytes start in their buffer (pack)
  uint byte_count;     // row-major bytes in all
};

const uint ORDER_ROWS =
    0;  // [row][k4], rows of words_per_row words; PACKED_INT8_4W where that is ceil(columns / 4)
const uint ORDER_BLOCKS = 1;  // [row4][k4][row % 4]; PACKED_INT8_4H4W
// [row64][k64][chunk of 16 bytes]: chunk c of 256 is the row c / 8 + c / 4 % 2 * 32 and the chunk c % 4 along
// K
const uint ORDER_TILES = 2;
