// The quotient of IEEE 754, rounded to the nearest float, ties to even. Vulkan lets `/` be wrong by 2.5 units
// in the last place, and lets it lose subnormal numbers; integer arithmetic has neither freedom.

const uint SIGN = 0x80000000u;
const uint INFINITY = 0x7f800000u;
const uint NOT_A_NUMBER = 0x7fc00000u;
const uint HIDDEN_BIT = 0x00800000u;

// 24 bits of a finite number > 0, the highest one set, and its exponent (biased; below 1 if subnormal).
void take_apart(uint magnitude, out uint mantissa, out int exponent) {
  exponent = int(magnitude >> 23);
  mantissa = magnitude & (HIDDEN_BIT - 1);
  if (exponent == 0) {
    int shift = 23 - findMSB(mantissa);
    mantissa <<= shift;
    exponent = 1 - shift;
  } else {
    mantissa |= HIDDEN_BIT;
  }
}

// Bits of a / b.
uint divide(uint a, uint b) {
  uint sign = (a ^ b) & SIGN;
  a &= ~SIGN;
  b &= ~SIGN;
  if (a > INFINITY || b > INFINITY) return NOT_A_NUMBER;
  if (a == INFINITY || b == 0) return b == a || b == INFINITY || a == 0 ? NOT_A_NUMBER : sign | INFINITY;
  if (b == INFINITY || a == 0) return sign;

  uint remainder, divisor;
  int exponent, b_exponent;
  take_apart(a, remainder, exponent);
  take_apart(b, divisor, b_exponent);
  exponent += 127 - b_exponent;
  if (remainder < divisor) {
    remainder <<= 1;
    --exponent;
  }
  uint quotient = 0;  // 24 bits and one more, for rounding
  for (uint i = 0; i < 25; ++i) {
    quotient <<= 1;
    if (remainder >= divisor) {
      remainder -= divisor;
      quotient |= 1;
    }
    remainder <<= 1;
  }

  if (exponent >= 255) return sign | INFINITY;
  // A subnormal result has fewer bits. Beyond 26 none is left, whatever the rounding.
  uint dropped = exponent >= 1 ? 1 : uint(min(2 - exponent, 27));
  uint kept = quotient >> dropped;
  bool upper_half = (quotient >> (dropped - 1) & 1) != 0;
  bool more = remainder != 0 || (quotient & ((1u << (dropped - 1)) - 1)) != 0;
  if (upper_half && (more || (kept & 1) != 0)) ++kept;  // a carry runs into the exponent, as it should
  return sign | (exponent >= 1 ? kept + (uint(exponent - 1) << 23) : kept);
}
