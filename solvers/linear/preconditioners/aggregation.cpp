// Set-up of multigrid on aggregates: the graph of a grid, pairs of strongly coupled rows, and the
// graph of the pairs (_aggregated.py calls, _aggregation.py is the same mathematics in Python).
struct Aggregation {
  typedef long long L;
  struct Graph {
    int n;
    const int *start, *to;  // entries of every row; columns
    const float *c, *whole, *e;  // couplings, their Galerkin values, excess
    const float* inside;         // largest coupling inside every row; may be null
  };
  struct Gate { float s, far, diagonal, imbalance, size, excess, least; };

  // Rows are cells with a positive diagonal in the order of their positions; row[q] is -1 elsewhere.
  static void from_grid(const L* size, const float* const* cell, const unsigned char* d8, int* row,
                        int* start, int* to, float* c, float* e, L* out) {
    const L nx = size[0], P = size[3], PP = size[4], n = (nx + 2) * PP;
    const float *di = cell[0], *cx = cell[1], *cy = cell[2], *cz = cell[3], *ex = cell[4];
    int count = 0;
    for (L q = 0; q < n; q++) row[q] = (d8 ? d8[q] > 0 : di[q] > 0.f) ? count++ : -1;
    L k = 0;
    start[0] = 0;
    for (L q = PP; q < n - PP; q++) {
      const int i = row[q];
      if (i < 0) continue;
      const L at[6] = {q - PP, q - P, q - 1, q + 1, q + P, q + PP};
      float rest = d8 ? (float)d8[q] : ex[q];
      for (int f = 0; f < 6; f++) {
        const L b = at[f];
        if (row[b] < 0) continue;
        const L low = f < 3 ? b : q;
        const float v = d8 ? 1.f : (f == 0 || f == 5 ? cx : f == 1 || f == 4 ? cy : cz)[low];
        if (d8) rest -= 1.f;
        if (v > 0.f) { to[k] = row[b]; c[k++] = v; }
      }
      e[i] = rest;
      start[i + 1] = (int)k;
    }
    out[0] = count;
    out[1] = k;
  }

  static inline float larger(float a, float b) { return a > b ? a : b; }
  static inline float inside(const Graph& g, int i, int j) {
    return g.inside ? larger(g.inside[i], g.inside[j]) : 0.f;
  }
  // Pairs: each row in turn takes its strongest free neighbour, if the coupling is strong for both;
  // a row left over joins the pair of its strongest neighbour, if that coupling carries most of its
  // diagonal. A row without couplings is in no aggregate: -1. Neither binds a row by less than `stiff`
  // times what is inside it, nor what joins a pair by less than that part of the coupling there.
  static int match(const Graph& g, float theta, float join, float stiff, float* strongest, int* pair, int* m) {
    for (int i = 0; i < g.n; i++) {
      float s = 0.f;
      for (int q = g.start[i]; q < g.start[i+1]; q++) s = g.c[q] > s ? g.c[q] : s;
      strongest[i] = s;
      pair[i] = -1;
    }
    int count = 0;
    for (int i = 0; i < g.n; i++) {
      if (pair[i] >= 0) continue;
      float best = 0.f;
      int other = -1;
      for (int q = g.start[i]; q < g.start[i+1]; q++) {
        const int j = g.to[q];
        const float most = strongest[i] > strongest[j] ? strongest[i] : strongest[j];
        if (pair[j] < 0 && g.c[q] > best * 1.00001f && g.c[q] >= theta * most
            && g.c[q] >= stiff * inside(g, i, j)) { best = g.c[q]; other = j; }
      }
      if (other >= 0) pair[i] = pair[other] = count++;
    }
    for (int i = 0; i < g.n; i++) {
      m[i] = pair[i];
      if (pair[i] >= 0) continue;
      float sum = g.e[i], best = 0.f;
      int other = -1;
      for (int q = g.start[i]; q < g.start[i+1]; q++) {
        sum += g.c[q];
        if (g.c[q] > best * 1.00001f && pair[g.to[q]] >= 0) { best = g.c[q]; other = g.to[q]; }
      }
      if (other >= 0 && best >= join * sum && best >= stiff * larger(strongest[other], inside(g, i, other)))
        m[i] = pair[other];
      else if (g.start[i+1] > g.start[i]) m[i] = count++;
    }
    return count;
  }

  static inline float magnitude(float a) { return a < 0.f ? -a : a; }
  static inline float power(float a, float p) { return p == 1.f ? a : a > 0.f ? __builtin_powf(a, p) : 0.f; }
  // Entries of the graph of the aggregates; `share` is what a coupling has through the first member,
  // `ring` its series resistance inside the aggregate.
  static int contract(const Graph& g, const int* m, int count, const Gate& k, int* first, int* next,
                      int* place, float* diagonal, float* share, float* ring, int* start, int* to,
                      float* c, float* whole, float* e, float* held) {
    for (int I = 0; I < count; I++) first[I] = place[I] = -1;
    for (int i = g.n - 1; i >= 0; i--)
      if (m[i] >= 0) { next[i] = first[m[i]]; first[m[i]] = i; }
    int end = 0;
    start[0] = 0;
    for (int I = 0; I < count; I++) {
      const int begin = end, head = first[I];
      float own = 0.f, others = 0.f, inside = 0.f;
      for (int i = head; i >= 0; i = next[i]) {
        (i == head ? own : others) += g.e[i];
        for (int q = g.start[i]; q < g.start[i+1]; q++) {
          const int J = m[g.to[q]];
          if (J == I) { inside = larger(inside, g.c[q]); continue; }
          int p = place[J];
          if (p < begin || p >= end || to[p] != J) {
            p = place[J] = end++;
            to[p] = J; c[p] = whole[p] = share[p] = 0.f;
          }
          c[p] += g.c[q];
          whole[p] += g.whole[q];
          if (i == head) share[p] += g.c[q];
        }
      }
      const bool is_pair = next[head] >= 0 && next[next[head]] < 0;
      float most[2] = {0.f, 0.f};
      for (int p = begin; p < end; p++) {
        most[0] = larger(most[0], share[p]);
        most[1] = larger(most[1], c[p] - share[p]);
      }
      for (int p = begin; p < end; p++) {
        const float far = most[2.f * share[p] > c[p]], through = far < c[p] ? far / c[p] : 1.f;
        const float half = 0.5f * magnitude(2.f * share[p] - c[p]) / c[p];
        ring[p] = is_pair ? half / inside * power(through, k.far) : 0.f;
      }
      e[I] = own + others;
      held[I] = inside;
      if (is_pair && e[I] > 0.f && k.s * k.excess > 0.f) {
        const float far = most[own > others], through = far < e[I] ? far / e[I] : 1.f;
        e[I] /= 1.f + 0.5f * magnitude(own - others) / inside * k.s * k.excess * power(through, k.far);
      }
      start[I+1] = end;
    }
    if (k.s > 0.f) scale(count, k, start, to, c, e, ring, diagonal);
    return end;
  }
  // Couplings in series with what is inside the two aggregates.
  static void scale(int count, const Gate& k, const int* start, const int* to, float* c, const float* e,
                    const float* ring, float* diagonal) {
    for (int I = 0; I < count; I++) {
      float d = e[I];
      for (int p = start[I]; p < start[I+1]; p++) d += c[p];
      diagonal[I] = d;
    }
    const bool gated = k.diagonal > 0.f || k.imbalance > 0.f || k.size > 0.f;
    for (int I = 0; I < count; I++)
      for (int p = start[I]; p < start[I+1]; p++) {
        const int J = to[p];
        if (J < I) continue;
        int r = start[J];
        while (to[r] != I) r++;
        const float z = c[p] * (ring[p] + ring[r]);
        float weight = k.s;
        if (gated && z > 1e-3f) {
          const float uneven = __builtin_logf(diagonal[I] / diagonal[J]);
          const float apart = __builtin_logf((c[p] * ring[p] + .02f) / (c[p] * ring[r] + .02f));
          weight *= __builtin_expf(-k.diagonal * magnitude(uneven) - k.imbalance * magnitude(apart)
                                   - k.size * larger(0.f, __builtin_logf(z)));
        }
        c[p] = c[r] = c[p] * larger(k.least, 1.f / (1.f + weight * z));
      }
  }

  // Slices of 16 rows; without `to` only their starts, whose last entry is the size.
  static void slice(const Graph& g, L rows, int* starts, int* to, float* c, float* e, float* di) {
    starts[0] = 0;
    for (L i = 0; i < rows; i += 16) {
      int width = 0;
      for (L r = i; r < i + 16 && r < g.n; r++) {
        const int w = g.start[r+1] - g.start[r];
        width = w > width ? w : width;
      }
      starts[i / 16 + 1] = starts[i / 16] + 16 * width;
      if (!to) continue;
      for (L r = i; r < i + 16; r++) {
        L q = starts[i / 16] + (r - i);
        float d = r < g.n ? g.e[r] : 0.f;
        e[r] = d;
        for (int k = 0; k < width; k++, q += 16) {
          const bool there = r < g.n && g.start[r] + k < g.start[r+1];
          const int from = there ? g.start[r] + k : 0;
          to[q] = there ? g.to[from] : (int)r;
          c[q] = there ? g.c[from] : 0.f;
          d += c[q];
        }
        di[r] = d > 0.f ? 1.f / d : 0.f;
      }
    }
  }
};

const long long* const a = (const long long*)table;
const double* const n = (const double*)a[AT_NUMBERS];
const Aggregation::Graph g = {(int)a[AT_ROWS], (const int*)a[AT_START], (const int*)a[AT_TO],
                              (const float*)a[AT_COUPLING], (const float*)a[AT_WHOLE],
                              (const float*)a[AT_EXCESS], (const float*)a[AT_INSIDE]};
long long* const out = (long long*)a[AT_RESULT];
int* const start = (int*)a[AT_NEW_START];
int* const to = (int*)a[AT_NEW_TO];
float* const c = (float*)a[AT_NEW_COUPLING];
float* const e = (float*)a[AT_NEW_EXCESS];
int* const ints = (int*)a[AT_INTEGERS];
float* const reals = (float*)a[AT_REALS];
int* const parent = (int*)a[AT_PARENT];
if (a[AT_OP] == STEP_GRID) {
  const long long* row = (const long long*)a[AT_LEVEL];
  const float* base = (const float*)row[7];
  const float* cell[5] = {base + row[11], base + row[12], base + row[13], base + row[14], base + row[15]};
  const unsigned char* d8 = row[5] ? (const unsigned char*)(base + row[17]) : nullptr;
  Aggregation::from_grid(row, cell, d8, parent, start, to, c, e, out);
} else if (a[AT_OP] == STEP_MATCH) {
  out[0] = Aggregation::match(g, (float)n[0], (float)n[1], (float)n[2], reals, ints, parent);
} else if (a[AT_OP] == STEP_CONTRACT) {
  const int count = (int)a[AT_COUNT];
  const long long entries = a[AT_ENTRIES];
  const Aggregation::Gate gate = {(float)n[0], (float)n[1], (float)n[2], (float)n[3], (float)n[4],
                                  (float)n[5], (float)n[6]};
  out[0] = Aggregation::contract(g, parent, count, gate, ints, ints + count, ints + count + g.n, reals,
                                 reals + count, reals + count + entries, start, to, c,
                                 (float*)a[AT_NEW_WHOLE], e, (float*)a[AT_NEW_INSIDE]);
} else {
  Aggregation::slice(g, a[AT_COUNT], start, to, c, e, reals);
}
