"""C++ vocabulary of the kernels: the lane vector ``V`` and its mathematical functions."""

from __future__ import annotations

from typing import Final

__all__ = ["DEVICES", "LANE_COUNTS", "prelude"]

LANE_COUNTS: Final = (1, 2, 4, 8)
DEVICES: Final = ("cpu", "cuda")

_VECTOR_TYPES = """\
constexpr int LANES = {lanes};
typedef double V __attribute__((ext_vector_type({lanes})));
typedef decltype(V(0.0) > V(0.0)) M;
typedef M VBITS;
const auto vany = [](M m) INLINE_ -> bool {{ return __builtin_reduce_or(m) != 0; }};
const auto vall = [](M m) INLINE_ -> bool {{ return __builtin_reduce_and(m) != 0; }};
const auto vbool = [](M m) INLINE_ -> V {{ return m ? V(1.0) : V(0.0); }};
const auto vsum = [](V x) INLINE_ -> double {{
  double s = 0.0; for (int l = 0; l < {lanes}; ++l) s += x[l]; return s; }};
const auto vlane = [](const V& x, int l) INLINE_ -> double {{ return x[l]; }};
const auto vput = [](V& x, int l, double y) INLINE_ {{ x[l] = y; }};
"""

_SCALAR_TYPES = """\
constexpr int LANES = 1;
typedef double V;
typedef bool M;
typedef long long VBITS;
const auto vany = [](M m) INLINE_ -> bool { return m; };
const auto vall = [](M m) INLINE_ -> bool { return m; };
const auto vbool = [](M m) INLINE_ -> V { return m ? 1.0 : 0.0; };
const auto vsum = [](V x) INLINE_ -> double { return x; };
const auto vlane = [](const V& x, int) INLINE_ -> double { return x; };
const auto vput = [](V& x, int, double y) INLINE_ { x = y; };
"""

# pi/2 in three parts, the first two short enough for exact products with whole numbers up to 2^20;
# minimax polynomials on [-pi/4, pi/4] as tabulated in Sun's fdlibm (1993)
_SIN_COS = """\
const auto vsincos = [](V x, V& s, V& c) INLINE_ {
#pragma clang fp contract(fast)
  const V shifted = x * 0x1.45f306dc9c883p-1 + VROUND_;
  const V k = shifted - VROUND_;
  const V r = ((x - k * 0x1.921fb544p+0) - k * 0x1.0b4611a6p-34) - k * 0x1.3198a2e037073p-69;
  const V z = r * r;
  const V hz = 0.5 * z;
  const V w = 1.0 - hz;
  const V ps = r + r * z * (-1.66666666666666324348e-01 + z * (8.33333333332248946124e-03
    + z * (-1.98412698298579493134e-04 + z * (2.75573137070700676789e-06
    + z * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10)))));
  const V pc = w + (((1.0 - w) - hz) + z * z * (4.16666666666666019037e-02
    + z * (-1.38888888888741095749e-03 + z * (2.48015872894767294178e-05
    + z * (-2.75573143513906633035e-07 + z * (2.08757232129817482790e-09
    + z * -1.13596475577881948265e-11))))));
  const VBITS q = __builtin_bit_cast(VBITS, shifted);
  const M odd = (q & 1) != 0;
  const V sine = odd ? pc : ps;
  const V cosine = odd ? ps : pc;
  s = __builtin_bit_cast(V, __builtin_bit_cast(VBITS, sine) ^ ((q & 2) << 62));
  c = __builtin_bit_cast(V, __builtin_bit_cast(VBITS, cosine) ^ (((q + 1) & 2) << 62));
};
const auto vsin = [=](V x) INLINE_ -> V { V s, c; vsincos(x, s, c); return s; };
const auto vcos = [=](V x) INLINE_ -> V { V s, c; vsincos(x, s, c); return c; };
"""

# exp(x) = 2^k exp(r), |r| <= ln(2)/2, Taylor polynomial of degree 13: remainder below 5e-18;
# 2^k in two factors so that results near overflow and below the normal range come out right
_EXP = """\
const auto vexp = [](V x) INLINE_ -> V {
#pragma clang fp contract(fast)
  const V k = (x * 0x1.71547652b82fep+0 + VROUND_) - VROUND_;
  const V r = (x - k * 0x1.62e42fee00000p-1) - k * 0x1.a39ef35793c76p-33;
  V p = 1.0 / 6227020800.0 + V(0.0);
  p = p * r + 1.0 / 479001600.0; p = p * r + 1.0 / 39916800.0; p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0; p = p * r + 1.0 / 40320.0; p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0; p = p * r + 1.0 / 120.0; p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0; p = p * r + 0.5;
  const V e = 1.0 + (r + r * r * p);
  const V half = k * 0.5 + VROUND_;
  const V rest = (k - (half - VROUND_)) + VROUND_;
  const VBITS one = __builtin_bit_cast(VBITS, V(1.0));
  const V f = __builtin_bit_cast(V, one + (__builtin_bit_cast(VBITS, half) << 52));
  const V g = __builtin_bit_cast(V, one + (__builtin_bit_cast(VBITS, rest) << 52));
  V y = (e * f) * g;
  y = x > 709.782712893384 ? V(__builtin_inf()) : y;
  return x < -745.1332191019412 ? V(0.0) : y;
};
"""

# rational form near 0 as in Moshier's Cephes (1989), elsewhere 1 - 2/(exp(2|x|) + 1)
_TANH = """\
const auto vtanh = [=](V x) INLINE_ -> V {
#pragma clang fp contract(fast)
  const V a = vabs(x);
  const V z = x * x;
  const V n = (-9.64399179425052238628e-1 * z - 9.92877231001918586564e1) * z
    - 1.61468768441708447952e3;
  const V d = ((z + 1.12811678491632931402e2) * z + 2.23548839060100448583e3) * z
    + 4.84406305325125486048e3;
  const V near = a + a * (z * (n / d));
  const V far = 1.0 - 2.0 / (vexp(a + a) + 1.0);
  const V y = a < 0.625 ? near : far;
  return x < 0.0 ? -y : y;
};
"""

# x = 2^k (1 + f), 1 + f in [1/sqrt(2), sqrt(2)); with s = f / (2 + f) the odd series of log(1 + f),
# minimax polynomial as tabulated in Sun's fdlibm (1993); numbers below the normal range are scaled
_LOG = """\
const auto vlog = [](V x) INLINE_ -> V {
#pragma clang fp contract(fast)
  const M small = x < 0x1p-1022;
  const VBITS bits = __builtin_bit_cast(VBITS, small ? x * 0x1p+54 : x);
  const VBITS e = (bits - 0x3fe6a09e667f3bcdLL) >> 52;
  const V f = __builtin_bit_cast(V, bits - (e << 52)) - 1.0;
  V k = __builtin_bit_cast(V, e + __builtin_bit_cast(VBITS, VROUND_ + V(0.0))) - VROUND_;
  k = small ? k - 54.0 : k;
  const V s = f / (2.0 + f);
  const V z = s * s;
  const V r = z * (6.666666666666735130e-01 + z * (3.999999999940941908e-01
    + z * (2.857142874366239149e-01 + z * (2.222219843214978396e-01
    + z * (1.818357216161805012e-01 + z * (1.531383769920937332e-01
    + z * 1.479819860511658591e-01))))));
  const V h = 0.5 * f * f;
  V y = k * 0x1.62e42fee00000p-1 - ((h - (s * (h + r) + k * 0x1.a39ef35793c76p-33)) - f);
  y = x < __builtin_inf() ? y : x;
  y = x > 0.0 ? y : V(__builtin_nan(""));
  return x == 0.0 ? V(-__builtin_inf()) : y;
};
"""

_COMMON = """\
constexpr double VROUND_ = 0x1.8p+52;
const auto vselect = [](M m, V a, V b) INLINE_ -> V { return m ? a : b; };
const auto vsqrt = [](V x) INLINE_ -> V { return __builtin_elementwise_sqrt(x); };
const auto vabs = [](V x) INLINE_ -> V { return __builtin_elementwise_abs(x); };
const auto vmax = [](V a, V b) INLINE_ -> V { return ((b > a) | (b != b)) ? b : a; };
const auto vmin = [](V a, V b) INLINE_ -> V { return ((b < a) | (b != b)) ? b : a; };
const auto vmax_number = [](V a, double b) INLINE_ -> V { return V(b) > a ? V(b) : a; };
const auto vmin_number = [](V a, double b) INLINE_ -> V { return V(b) < a ? V(b) : a; };
"""

# rows of LANES items to vectors and back; the columns left over repeat some of the last block
_ROWS = """\
const auto vgather_rows = [=](const double* const* rows, int width, V* target) {
  const int most = width < LANES ? 0 : width;
  for (int done = 0; done < most; done += LANES) {
    const int first = done + LANES <= width ? done : width - LANES;
    V tile[LANES];
    for (int l = 0; l < LANES; ++l) __builtin_memcpy(tile + l, rows[l] + first, sizeof(V));
    vturn(tile);
    for (int i = 0; i < LANES; ++i) target[first + i] = tile[i];
  }
  for (int i = most; i < width; ++i)
    for (int l = 0; l < LANES; ++l) vput(target[i], l, rows[l][i]);
};
const auto vscatter_rows = [=](const V* source, int width, double* const* rows, int count) {
  const int most = width < LANES ? 0 : width;
  for (int done = 0; done < most; done += LANES) {
    const int first = done + LANES <= width ? done : width - LANES;
    V tile[LANES];
    for (int i = 0; i < LANES; ++i) tile[i] = source[first + i];
    vturn(tile);
    for (int l = 0; l < count; ++l) __builtin_memcpy(rows[l] + first, tile + l, sizeof(V));
  }
  for (int i = most; i < width; ++i)
    for (int l = 0; l < count; ++l) rows[l][i] = vlane(source[i], l);
};
"""

_SCALAR_ROWS = """\
const auto vgather_rows = [](const double* const* rows, int width, V* target) {
  for (int i = 0; i < width; ++i) target[i] = rows[0][i];
};
const auto vscatter_rows = [](const V* source, int width, double* const* rows, int count) {
  if (count > 0) for (int i = 0; i < width; ++i) rows[0][i] = source[i];
};
"""


def _turn(lanes: int) -> str:
    """Transposition of a square of lanes: halves change places, then halves of halves."""
    lines, stride = [], lanes // 2
    while stride:
        for i in range(lanes):
            if i & stride:
                continue
            low = [j if not j & stride else j - stride + lanes for j in range(lanes)]
            high = [j + stride if not j & stride else j + lanes for j in range(lanes)]
            a, b = f"tile[{i}]", f"tile[{i + stride}]"
            shuffle = "__builtin_shufflevector({}, {}, {})"
            lines.append(
                f"  {{ const V x = {shuffle.format(a, b, ', '.join(map(str, low)))};\n"
                f"    {b} = {shuffle.format(a, b, ', '.join(map(str, high)))}; {a} = x; }}"
            )
        stride //= 2
    body = "\n".join(lines)
    return f"const auto vturn = [](V* tile) INLINE_ {{\n{body}\n}};\n"


# clang's builtins in terms of what both clang and NVRTC know
_DEVICE_BUILTINS = """\
#define __builtin_elementwise_sqrt(x) sqrt(x)
#define __builtin_elementwise_abs(x) fabs(x)
#define __builtin_malloc(n) malloc(n)
#define __builtin_free(p) free(p)
#define __builtin_prefetch(p) ((void)0)
#define __builtin_ctzll(x) (__ffsll(x) - 1)
#define __builtin_inf() __builtin_bit_cast(double, 0x7ff0000000000000LL)
#define __builtin_nan(payload) __builtin_bit_cast(double, 0x7ff8000000000000LL)
"""


def prelude(lanes: int, *, device: str = "cpu", body: str = "vlog") -> str:
    """Write the C++ definitions that emitted code and hand-written bodies build on.

    They are local definitions, to stand at the top of a function body:

    - types: ``V`` (``lanes`` doubles), ``M`` (result of a comparison), constant ``LANES``;
    - functions: ``vsqrt vabs vmax vmin vselect(m, a, b) vsin vcos vsincos(x, s, c) vexp vtanh
      vlog``;
    - masks: ``vany(m)``, ``vall(m)``, ``vbool(m)`` (1.0 or 0.0 per lane);
    - lanes: ``vsum(x)`` over lanes, ``vlane(x, l)`` reads one, ``vput(x, l, y)`` writes one;
    - rows of memory, one a lane: ``vgather_rows(rows, width, target)`` and
      ``vscatter_rows(source, width, rows, count)``.

    ``vmax`` and ``vmin`` give NaN if either argument is NaN. ``vmax_number`` and ``vmin_number``
    take a number as second argument and are cheaper.

    Largest errors, in units in the last place: ``vsin`` and ``vcos`` 2.5 for ``|x| < 1e6`` (beyond,
    the reduction to a quarter turn loses digits), ``vexp`` 1 from overflow to underflow, ``vtanh``
    1.5, ``vlog`` 1; ``vsqrt`` is correctly rounded. Infinities and NaN go through as in the C
    library.

    The text for CUDA holds the same formulas, in which the compiler may fuse products and sums
    everywhere.

    Args:
        lanes: Doubles in a vector: 1, 2, 4 or 8. With 1 lane ``V`` is ``double``.
        device: ``"cpu"`` or ``"cuda"``; the latter has one lane a thread.
        body: Text that follows; ``vlog`` is left out if it is not named there.

    Raises:
        ValueError: If ``lanes`` or ``device`` is not one of these, or CUDA is to have other than
            one lane.

    Reference: Cody and Waite (1980), Software Manual for the Elementary Functions, chapters 6, 8.
    """
    if lanes not in LANE_COUNTS:
        raise ValueError(f"lanes is {lanes!r}, expected one of {LANE_COUNTS}")
    if device not in DEVICES:
        raise ValueError(f"device is {device!r}, expected one of {DEVICES}")
    if device == "cuda" and lanes != 1:
        raise ValueError(f"lanes is {lanes!r}, expected 1 on CUDA, where a thread takes one item")
    types = _SCALAR_TYPES if lanes == 1 else _VECTOR_TYPES.format(lanes=lanes)
    builtins = _DEVICE_BUILTINS if device == "cuda" else ""
    rows = _SCALAR_ROWS if lanes == 1 else _turn(lanes) + _ROWS
    log = _LOG if "vlog" in body else ""
    text = builtins + types + _COMMON + _SIN_COS + _EXP + log + _TANH + rows
    return text.replace("INLINE_", "__attribute__((always_inline))")
