
  // ---- levels without a grid: aggregates of cells (_aggregated.py makes them) ----
  // Rows stand in slices of 16, entry by entry, so that 16 rows are one vector. Rows beyond the n
  // of the level have no entries; row n takes what cells without an aggregate give.
  struct Sparse {
    L n, rows;
    const int *slice, *to, *parent;  // start of every slice; columns; row of the next level
    const float *c, *e, *di;
    float *x, *y, *b;  // y ends as the iterate
  };
  INLINED Sparse sparse(const L* row) {
    Sparse s = {row[0], row[1], (const int*)row[2], (const int*)row[3], (const int*)row[4],
                (const float*)row[5], (const float*)row[6], (const float*)row[7],
                (float*)row[8], (float*)row[9], (float*)row[10]};
    return s;
  }
  // b - A x of 16 rows as differences, which stay small inside stiff aggregates.
  INLINED void rest_of_slice(const Sparse& s, const float* x, L i, float* rest) {
    const float *b = s.b + i, *e = s.e + i, *own = x + i;
    for (int k = 0; k < 16; k++) rest[k] = b[k] - e[k] * own[k];
    for (L q = s.slice[i / 16]; q < s.slice[i / 16 + 1]; q += 16)
      for (int k = 0; k < 16; k++) rest[k] += s.c[q + k] * (x[s.to[q + k]] - own[k]);
  }
  OUTLINED void sparse_sweep(const Sparse& s, const float* __restrict x, float* __restrict y, float w) {
    for (L i = 0; i < s.rows; i += 16) {
      float rest[16];
      rest_of_slice(s, x, i, rest);
      for (int k = 0; k < 16; k++) y[i + k] = x[i + k] + w * s.di[i + k] * rest[k];
    }
  }
  OUTLINED void sparse_restrict(const Sparse& s, const float* x, float* __restrict coarse) {
    for (L i = 0; i < s.rows; i += 16) {
      float rest[16];
      rest_of_slice(s, x, i, rest);
      for (int k = 0; k < 16; k++) coarse[s.parent[i + k]] += rest[k];
    }
  }
  struct Aggregates {
    const L* rows;  // one row of 12 numbers a level
    int count, visits, first_visits;
    const double* inverse;
    const int* parent;  // row of the first level for every cell of the grid
  };
  static void sparse_cycle(const Aggregates& g, int k, float w0, float w1, bool from_zero) {
    const Sparse s = sparse(g.rows + 12 * k);
    if (k == g.count - 1) {
      for (L i = 0; i < s.n; i++) {
        const double* row = g.inverse + i * s.n;
        double x = 0.0;
        for (L j = 0; j < s.n; j++) x += row[j] * (double)s.b[j];
        s.y[i] = (float)x;
      }
      s.y[s.n] = 0.f;
      return;
    }
    if (from_zero) for (L i = 0; i < s.rows; i++) s.x[i] = w0 * s.di[i] * s.b[i];
    else sparse_sweep(s, s.y, s.x, w0);
    sparse_sweep(s, s.x, s.y, w1);
    const Sparse next = sparse(g.rows + 12 * (k + 1));
    clear(next.b, next.rows);
    sparse_restrict(s, s.y, next.b);
    const bool small = next.n <= 0.45 * (double)s.n;
    const int visits = k + 1 < g.count - 1 && small ? g.visits : 1;
    for (int v = 0; v < visits; v++) sparse_cycle(g, k + 1, w0, w1, v == 0);
    for (L i = 0; i < s.rows; i++) s.y[i] += next.y[s.parent[i]];
    sparse_sweep(s, s.y, s.x, w1);
    sparse_sweep(s, s.x, s.y, w0);
  }
  // o = b - A x as differences; o = x + w (b - A x) / d if `step`.
  INLINED void difference(bool step, const Level& l, L plane, float* __restrict o, const float* xm,
                          const float* x0, const float* xp, L q0, L q1, float w) {
    FUSED
    const L P = l.P, at = plane * l.PP;
    const float *b = l.b + at, *e = l.e + at, *di = l.di + at;
    const float *cx = l.cx + at, *cxm = cx - l.PP, *cy = l.cy + at, *cz = l.cz + at;
    for (L q = q0; q < q1; q++) {
      const float v = x0[q];
      const float s = b[q] - e[q] * v
                      + ((cz[q-1] * (x0[q-1] - v) + cz[q] * (x0[q+1] - v))
                         + (cy[q-P] * (x0[q-P] - v) + cy[q] * (x0[q+P] - v)))
                      + (cxm[q] * (xm[q] - v) + cx[q] * (xp[q] - v));
      o[q] = step ? v + w * di[q] * s : (di[q] > 0.f ? s : 0.f);
    }
  }
  INLINED void sweep_cells(bool M, const Level& l, L plane, float* o, const float* xm, const float* x0,
                           const float* xp, L q0, L q1, float w) {
    if (M) sweep(true, l, plane, o, xm, x0, xp, q0, q1, w);
    else difference(true, l, plane, o, xm, x0, xp, q0, q1, w);
  }
  // As `before`, for one thread, with sums over aggregates.
  INLINED void gather_cells(bool M, const Level& l, const Aggregates& g, float* scratch, float w0, float w1) {
    const L PP = l.PP;
    const Sparse next = sparse(g.rows);
    float *A = stack(l, scratch, 0), *R = stack(l, scratch, 2);
    clear(A - guard(l), guard(l) + 3 * PP);
    clear(next.b, next.rows);
    for (L i = 1; i <= l.nx + 2; i++) {
      float* a = A + (i % 3) * PP;
      forget(l, a, i - 3, i);
      if (i <= l.nx) first_sweep(M, l, i, a, l.run[2*i], l.run[2*i+1], w0);
      L j = i - 1;
      if (j >= 1 && j <= l.nx)
        sweep_cells(M, l, j, l.x + j * PP, A + ((j + 2) % 3) * PP, A + (j % 3) * PP,
                    A + ((j + 1) % 3) * PP, l.run[2*j], l.run[2*j+1], w1);
      j = i - 2;
      if (j < 1) continue;
      const float *xm = l.x + (j - 1) * PP, *x0 = xm + PP, *xp = x0 + PP;
      const L q0 = l.run[2*j], q1 = l.run[2*j+1];
      if (M) residual(true, l, j, R, xm, x0, xp, q0, q1);
      else difference(false, l, j, R, xm, x0, xp, q0, q1, 0.f);
      const int* parent = g.parent + j * PP;
      for (L q = q0; q < q1; q++) next.b[parent[q]] += R[q];
    }
  }
  // As `after`, for one thread.
  INLINED double spread_cells(bool M, const Level& l, const Aggregates& g, float* scratch, float w0, float w1) {
    const L PP = l.PP;
    const float* coarse = sparse(g.rows).y;
    float *A = stack(l, scratch, 0), *B = stack(l, scratch, 1);
    clear(A - guard(l), guard(l) + 3 * PP);
    clear(B - guard(l), guard(l) + 3 * PP);
    double total = 0.0;
    for (L i = 1; i <= l.nx + 2; i++) {
      float* a = A + (i % 3) * PP;
      forget(l, a, i - 3, i);
      if (i <= l.nx) {
        const float* x = l.x + i * PP;
        const int* parent = g.parent + i * PP;
        for (L q = l.run[2*i]; q < l.run[2*i+1]; q++) a[q] = x[q] + coarse[parent[q]];
      }
      L j = i - 1;
      if (j >= 1) {
        float* bj = B + (j % 3) * PP;
        forget(l, bj, j - 3, j);
        if (j <= l.nx)
          sweep_cells(M, l, j, bj, A + ((j + 2) % 3) * PP, A + (j % 3) * PP, A + ((j + 1) % 3) * PP,
                      l.run[2*j], l.run[2*j+1], w1);
      }
      j = i - 2;
      if (j < 1) continue;
      float* o = l.x + j * PP;
      for (L qa = l.run[2*j]; qa < l.run[2*j+1]; qa += 2048) {
        const L qb = smaller(qa + 2048, l.run[2*j+1]);
        sweep_cells(M, l, j, o, B + ((j + 2) % 3) * PP, B + (j % 3) * PP, B + ((j + 1) % 3) * PP, qa, qb, w0);
        total += dot(o + qa, l.b + j * PP + qa, qb - qa);
      }
    }
    return total;
  }
  OUTLINED double aggregate_cycle(const Level& l, const Aggregates& g, float* scratch, float w0, float w1) {
    if (l.mask) gather_cells(true, l, g, scratch, w0, w1);
    else gather_cells(false, l, g, scratch, w0, w1);
    for (int v = 0; v < g.first_visits; v++) sparse_cycle(g, 0, w0, w1, v == 0);
    return l.mask ? spread_cells(true, l, g, scratch, w0, w1)
                  : spread_cells(false, l, g, scratch, w0, w1);
  }
  // Directions of earlier solves, and the memory for those of this one.
  struct Recycled {
    L count, most, step;  // step: distance of two directions
    const short* directions;  // whole numbers, whose unit is in the weights
    const double* weights;
    float* trail;  // may be null
    double* numbers;  // three a step: its length, what it takes of the last direction, z . b
  };
  // Four directions from a cell on; the last of all stands in for those there are not.
  struct Four { const short *a, *b, *c, *d; };
  INLINED Four four(const Recycled& u, L i, L q) {
    const short* p[4];
    for (L k = 0; k < 4; k++) p[k] = u.directions + smaller(i + k, u.count - 1) * u.step + q;
    const Four f = {p[0], p[1], p[2], p[3]};
    return f;
  }
  INLINED void four_dots(const Four& f, const float* __restrict v, L n, double* out) {
    FUSED
    const short *pa = f.a, *pb = f.b, *pc = f.c, *pd = f.d;
    float a[16], b[16], c[16], d[16];
    for (int k = 0; k < 16; k++) a[k] = b[k] = c[k] = d[k] = 0.f;
    L q = 0;
#define TERM(k) { const float w = v[q+k]; \
      a[k] += (float)pa[q+k] * w; b[k] += (float)pb[q+k] * w; \
      c[k] += (float)pc[q+k] * w; d[k] += (float)pd[q+k] * w; }
    for (; q + 16 <= n; q += 16) for (int k = 0; k < 16; k++) TERM(k)
    for (; q < n; q++) TERM(0)
#undef TERM
    for (int k = 0; k < 16; k++) { out[0] += a[k]; out[1] += b[k]; out[2] += c[k]; out[3] += d[k]; }
  }
  INLINED void add_four(const Four& f, const float* w, float* __restrict z, L n) {
    FUSED
    const short *pa = f.a, *pb = f.b, *pc = f.c, *pd = f.d;
    const float a = w[0], b = w[1], c = w[2], d = w[3];
    for (L k = 0; k < n; k++)
      z[k] += (a * (float)pa[k] + b * (float)pb[k]) + (c * (float)pc[k] + d * (float)pd[k]);
  }
  // z += sum of weight (direction . b) direction; what that adds to z . b
  OUTLINED double recycle(const Recycled& u, const Level& l) {
    double total = 0.0, part[67];
    float factors[67];
    const L first = l.PP, last = (l.nx + 1) * l.PP, block = 2048;
    for (L i = 0; i < u.count + 3; i++) part[i] = 0.0;
    for (L q = first; q < last; q += block)
      for (L i = 0; i < u.count; i += 4)
        four_dots(four(u, i, q), l.b + q, smaller(block, last - q), part + i);
    for (L i = 0; i < u.count + 3; i++) factors[i] = 0.f;
    for (L i = 0; i < u.count; i++) {
      factors[i] = (float)(u.weights[i] * part[i]);
      total += u.weights[i] * part[i] * part[i];
    }
    for (L q = first; q < last; q += block)
      for (L i = 0; i < u.count; i += 4)
        add_four(four(u, i, q), factors + i, l.x + q, smaller(block, last - q));
    return total;
  }
  // z = B b on the finest level; z . b
  OUTLINED double precondition(const Plan& p, const Aggregates& g, const Recycled& u, Team& t) {
    const Level l = level(p.rows, p.system);
    double overlap = g.count > 0 ? aggregate_cycle(l, g, p.scratch, p.w0, p.w1)
                                 : sum(t, cycle(p, t, 0, true));
    if (u.count > 0) overlap += recycle(u, l);
    return overlap;
  }
