// Newton's matrix and its solution by loops over the tree's tables. Rows are eliminated from the
// last degree of freedom to the first, leaves before roots, without pivoting: a tree makes no fill.
// Contacts between links couple branches. Entries that one lane needs and another does not are zero
// there and change no digit.
struct Matrix {
  V entry[NV * NV + 1];
  // For each row, one bit for each earlier row that it couples with.
  unsigned long long earlier[WORDS * NV + 1];
};
const auto rows_of = [&](const Matrix& a, int k, int* rows) -> int {
  int count = 0;
  for (int word = 0; word < WORDS; ++word)
    for (auto left = a.earlier[WORDS * k + word]; left; left &= left - 1)
      rows[count++] = 64 * word + __builtin_ctzll(left);
  return count;
};
// Couples row `k` with more of the earlier rows.
const auto link_rows = [&](Matrix& a, int k, int word, unsigned long long more) {
  more &= ~a.earlier[WORDS * k + word];
  a.earlier[WORDS * k + word] |= more;
  for (; more; more &= more - 1) {
    const int i = 64 * word + __builtin_ctzll(more);
    a.entry[NV * k + i] = a.entry[NV * i + k] = V(0.0);
  }
};
const auto link_pair = [&](Matrix& a, int i, int j) {
  const int late = i > j ? i : j, early = i > j ? j : i;
  link_rows(a, late, early / 64, 1ull << early % 64);
};
// The matrix between motions at node k (rows) and at the trial configuration (columns). Leaves in
// `blocks`, per link 6 x 6, the composites of all that a link carries.
const auto compose = [&](V* blocks, const V* motion0, const V* motion1, Matrix& a) {
#pragma clang fp contract(fast)
  for (int link = NL - 1; link >= 0; --link) {
    V* const carrier = blocks + 36 * (link_parent[link] >= 0 ? link_parent[link] : NL);
    for (int i = 0; link_parent[link] >= 0 && i < 36; ++i) carrier[i] += blocks[36 * link + i];
  }
  for (int i = 0; i < WORDS * NV; ++i) a.earlier[i] = 0;
  for (int dof = 0; dof < NV; ++dof) {
    const V* const block = blocks + 36 * dof_link[dof];
    const V* const here = motion0 + 6 * dof;
    const V* const ahead = motion1 + 6 * dof;
    V row[6], column[6];
    for (int i = 0; i < 6; ++i) {
      row[i] = block[i] * here[0];
      column[i] = block[6 * i] * ahead[0];
      for (int j = 1; j < 6; ++j) {
        row[i] += block[6 * j + i] * here[j];
        column[i] += block[6 * i + j] * ahead[j];
      }
    }
    const auto dot = [](const V* x, const V* y) __attribute__((always_inline)) -> V {
#pragma clang fp contract(fast)
      return (x[0] * y[0] + x[1] * y[1] + x[2] * y[2]) + (x[3] * y[3] + x[4] * y[4] + x[5] * y[5]);
    };
    a.entry[NV * dof + dof] = dot(here, column);
    for (int at = ancestors_start[dof]; at < ancestors_start[dof + 1]; ++at) {
      const int other = ancestors[at];
      a.earlier[WORDS * dof + other / 64] |= 1ull << other % 64;
      a.entry[NV * dof + other] = dot(row, motion1 + 6 * other);
      a.entry[NV * other + dof] = dot(motion0 + 6 * other, column);
    }
  }
};
// Factors in place: unit ones off the pivots, their reciprocals on them.
const auto factorise = [&](Matrix& a) {
#pragma clang fp contract(fast)
  int rows[NV + 1];
  for (int k = NV - 1; k >= 0; --k) {
    const int count = rows_of(a, k, rows);
    const V* const pivot_row = a.entry + NV * k;
    const V inverse = 1.0 / a.entry[NV * k + k];
    a.entry[NV * k + k] = inverse;
    for (int at = 0; at < count; ++at) {
      const int i = rows[at];
      for (int word = 0; word <= i / 64; ++word) {
        const auto below = word < i / 64 ? ~0ull : (1ull << i % 64) - 1;
        link_rows(a, i, word, a.earlier[WORDS * k + word] & below);
      }
    }
    for (int at = 0; at < count; ++at) {
      V* const row = a.entry + NV * rows[at];
      const V share = row[k] * inverse;
      row[k] = share;
      for (int other = 0; other < count; ++other)
        row[rows[other]] -= share * pivot_row[rows[other]];
    }
  }
};
const auto solve_factored = [&](const Matrix& a, V* x) {
#pragma clang fp contract(fast)
  int rows[NV + 1];
  for (int k = NV - 1; k >= 0; --k) {
    const V known = x[k];
    const int count = rows_of(a, k, rows);
    for (int at = 0; at < count; ++at) {
      const int i = rows[at];
      x[i] -= a.entry[NV * i + k] * known;
    }
  }
  for (int k = 0; k < NV; ++k) {
    V rest = x[k];
    const int count = rows_of(a, k, rows);
    for (int at = 0; at < count; ++at) {
      const int i = rows[at];
      rest -= a.entry[NV * k + i] * x[i];
    }
    x[k] = rest * a.entry[NV * k + k];
  }
};
// The same with the transposed matrix.
const auto solve_transposed = [&](const Matrix& a, V* x) {
#pragma clang fp contract(fast)
  int rows[NV + 1];
  for (int k = NV - 1; k >= 0; --k) {
    const V known = x[k] * a.entry[NV * k + k];
    x[k] = known;
    const int count = rows_of(a, k, rows);
    for (int at = 0; at < count; ++at) {
      const int i = rows[at];
      x[i] -= a.entry[NV * k + i] * known;
    }
  }
  for (int k = 0; k < NV; ++k) {
    V rest = x[k];
    const int count = rows_of(a, k, rows);
    for (int at = 0; at < count; ++at) {
      const int i = rows[at];
      rest -= a.entry[NV * i + k] * x[i];
    }
    x[k] = rest;
  }
};
