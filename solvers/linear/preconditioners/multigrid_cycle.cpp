// Conjugate gradients with one geometric multigrid cycle a step, as one call (_compiled.py packs the
// arguments; _cycle.py is the same mathematics on tensors).
//
// Cell (i, j, k) of a level stands at (i + 1) PP + j P + k with P = nz + 1, PP = (ny + 1) P: a column,
// a row and two planes of zeros around the cells let every neighbour be read without a test. Each
// plane has one run [first, last) of cells that matter. The cycle and the residual are in
// single precision. The solution is double, and so are the products with the directions, so that the
// residual loses no more than its rounding; from time to time it is computed anew.
//
// A mask level has equal couplings between all neighbours: only the diagonal is kept, one byte a
// cell, zero where there is no unknown.
struct Multigrid {
  typedef long long L;
  struct Level {
    L nx, ny, nz, P, PP;
    int mask, axes;  // axes: bits of the axes that the transfer to the next level halves
    float *x, *b, *di, *cx, *cy, *cz, *e, *m;  // iterate, right-hand side, 1/diagonal, couplings ...
    unsigned char* d8;
    int* run;
  };
  typedef signed (*Rest)();
  // One thread of a team that works on one system.
  struct Team {
    int rank, size;
    L* counter;
    L epoch;
    double* slots;
    L turn;
    Rest rest;  // lets other programs run; may be null
  };
  struct Range { L first, last; };

#define INLINED static inline __attribute__((always_inline))
#define OUTLINED static __attribute__((noinline))
// Products and sums may be one instruction.
#if defined(__clang__)
#define FUSED _Pragma("clang fp contract(fast)")
#else
#define FUSED
#endif
  INLINED L smaller(L a, L b) { return a < b ? a : b; }
  INLINED L larger(L a, L b) { return a > b ? a : b; }
  INLINED void clear(float* p, L count) { if (count > 0) __builtin_memset(p, 0, count * sizeof(float)); }
  INLINED void copy(float* to, const float* from, L count) {
    __builtin_memcpy(to, from, count * sizeof(float));
  }

  INLINED Level level(const L* row, L system) {
    Level l;
    l.nx = row[0]; l.ny = row[1]; l.nz = row[2]; l.P = row[3]; l.PP = row[4];
    l.mask = (int)row[5]; l.axes = (int)row[6];
    float* base = (float*)row[7] + system * row[8];
    l.x = base + row[9]; l.b = base + row[10]; l.di = base + row[11];
    l.cx = base + row[12]; l.cy = base + row[13]; l.cz = base + row[14];
    l.e = base + row[15]; l.m = row[16] < 0 ? nullptr : base + row[16];
    l.d8 = (unsigned char*)(base + row[17]);
    l.run = (int*)(base + row[18]);
    return l;
  }

  // ---- team ----
  OUTLINED void wait(Team& t) {
    if (t.size == 1) return;
    t.epoch += t.size;
    __atomic_fetch_add(t.counter, 1, __ATOMIC_ACQ_REL);
    for (int spins = 1; __atomic_load_n(t.counter, __ATOMIC_ACQUIRE) < t.epoch; spins++) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
      // The thread waited for may be without a processor.
      if (t.rest && spins % 512 == 0) t.rest();
    }
  }
  // Sum over the team in the order of the ranks: the same bits in every thread.
  static double sum(Team& t, double part) {
    if (t.size == 1) return part;
    double* slots = t.slots + (t.turn++ & 1) * 64;
    slots[t.rank] = part;
    wait(t);
    double total = 0.0;
    for (int i = 0; i < t.size; i++) total += slots[i];
    return total;
  }
  // Planes of a thread, an even number so that pairs of planes stay together.
  INLINED Range share(const Team& t, L nx) {
    const L pairs = (nx + 1) / 2;
    Range r;
    r.first = 2 * (pairs * t.rank / t.size) + 1;
    r.last = smaller(2 * (pairs * (t.rank + 1) / t.size), nx);
    return r;
  }

  // One over d for d from 1 to 6, within rounding: the polynomial through six points is cheaper than
  // a division. What it gives elsewhere is not used.
  INLINED float reciprocal(float d) {
    const float t = d - 3.5f;
    return ((((-0.00138888889f * t + 0.00486111111f) * t + -0.00486111111f) * t + 0.0170138889f) * t + -0.08203125f) * t + 0.287109375f;
  }

  // ---- one plane ----
  // o = x + w (b - A x) / d
  INLINED void sweep(bool M, const Level& l, L plane, float* __restrict o, const float* xm,
                     const float* x0, const float* xp, L q0, L q1, float w) {
    FUSED
    const L P = l.P, at = plane * l.PP;
    const float* b = l.b + at;
    const float stay = 1.f - w;
    if (M) {
      const unsigned char* d8 = l.d8 + at;
      for (L q = q0; q < q1; q++) {
        const float s = b[q] + ((x0[q-1] + x0[q+1]) + (x0[q-P] + x0[q+P])) + (xm[q] + xp[q]);
        const float d = (float)d8[q];
        const float v = stay * x0[q] + (w * s) * reciprocal(d);
        o[q] = d > 0.f ? v : 0.f;
      }
    } else {
      const float *di = l.di + at, *cx = l.cx + at, *cxm = cx - l.PP, *cy = l.cy + at, *cz = l.cz + at;
      for (L q = q0; q < q1; q++) {
        const float s = b[q] + ((cz[q-1] * x0[q-1] + cz[q] * x0[q+1])
                                + (cy[q-P] * x0[q-P] + cy[q] * x0[q+P]))
                        + (cxm[q] * xm[q] + cx[q] * xp[q]);
        o[q] = stay * x0[q] + w * di[q] * s;
      }
    }
  }
  // o = w b / d, the sweep from zero
  INLINED void first_sweep(bool M, const Level& l, L plane, float* __restrict o, L q0, L q1, float w) {
    const float* b = l.b + plane * l.PP;
    if (M) {
      const unsigned char* d8 = l.d8 + plane * l.PP;
      for (L q = q0; q < q1; q++) {
        const float d = (float)d8[q];
        const float v = (w * b[q]) * reciprocal(d);
        o[q] = d > 0.f ? v : 0.f;
      }
    } else {
      const float* di = l.di + plane * l.PP;
      for (L q = q0; q < q1; q++) o[q] = w * di[q] * b[q];
    }
  }
  // o = b - A x
  INLINED void residual(bool M, const Level& l, L plane, float* __restrict o, const float* xm,
                        const float* x0, const float* xp, L q0, L q1) {
    FUSED
    const L P = l.P, at = plane * l.PP;
    const float* b = l.b + at;
    if (M) {
      const unsigned char* d8 = l.d8 + at;
      for (L q = q0; q < q1; q++) {
        const float s = b[q] + ((x0[q-1] + x0[q+1]) + (x0[q-P] + x0[q+P])) + (xm[q] + xp[q]);
        const float d = (float)d8[q];
        const float v = s - d * x0[q];
        o[q] = d > 0.f ? v : 0.f;
      }
    } else {
      const float *di = l.di + at, *cx = l.cx + at, *cxm = cx - l.PP, *cy = l.cy + at, *cz = l.cz + at;
      for (L q = q0; q < q1; q++) {
        const float s = b[q] + ((cz[q-1] * x0[q-1] + cz[q] * x0[q+1])
                                + (cy[q-P] * x0[q-P] + cy[q] * x0[q+P]))
                        + (cxm[q] * xm[q] + cx[q] * xp[q]);
        const float v = s - x0[q] / (di[q] > 0.f ? di[q] : 1.f);
        o[q] = di[q] > 0.f ? v : 0.f;
      }
    }
  }
  // The sum of 64 parts.
  INLINED double total(const float* part) {
    double eight[8] = {0, 0, 0, 0, 0, 0, 0, 0}, sum = 0.0;
    for (int h = 0; h < 64; h += 8) for (int k = 0; k < 8; k++) eight[k] += (double)part[h+k];
    for (int k = 0; k < 8; k++) sum += eight[k];
    return sum;
  }
  INLINED float dot(const float* __restrict a, const float* __restrict b, L n) {
    float part[64];
    for (int k = 0; k < 64; k++) part[k] = 0.f;
    L q = 0;
    for (; q + 64 <= n; q += 64) for (int k = 0; k < 64; k++) part[k] += a[q+k] * b[q+k];
    for (; q + 8 <= n; q += 8) for (int k = 0; k < 8; k++) part[k] += a[q+k] * b[q+k];
    for (; q < n; q++) part[0] += a[q] * b[q];
    return (float)total(part);
  }

  // ---- scratch of a thread: six stacks of three planes and two rows ----
  INLINED L guard(const Level& l) { return l.P + 64; }
  INLINED float* stack(const Level& l, float* scratch, int which) {
    return scratch + which * (guard(l) + 3 * l.PP) + guard(l);
  }
  // A row of zeros, and P + 16 behind it a row to write.
  INLINED float* rows(const Level& l, float* scratch) { return stack(l, scratch, 6); }
  // A buffer that held the run of plane `old` is about to hold that of plane `now`.
  INLINED void forget(const Level& l, float* buffer, L old, L now) {
    if (old < 1 || old > l.nx) return;
    const int *was = l.run + 2 * old, *is = l.run + 2 * now;
    if (now < 1 || now > l.nx || was[0] < is[0] || was[1] > is[1])
      clear(buffer + was[0], was[1] - was[0]);
  }
  // Old iterates of the planes next to a thread's share, before its neighbours overwrite them.
  OUTLINED void copy_halo(const Level& l, float* scratch, Range r) {
    float *low = stack(l, scratch, 3), *high = stack(l, scratch, 4);
    clear(low - guard(l), guard(l));
    clear(high - guard(l), guard(l));
    for (L q = 1; q <= 3; q++) {
      if (r.first - q >= 1) copy(low + (3 - q) * l.PP, l.x + (r.first - q) * l.PP, l.PP);
      if (r.last + q <= l.nx) copy(high + (q - 1) * l.PP, l.x + (r.last + q) * l.PP, l.PP);
    }
  }
  INLINED const float* old_plane(const Level& l, float* scratch, Range r, L i) {
    if (i >= 1 && i < r.first) return stack(l, scratch, 3) + (i - (r.first - 3)) * l.PP;
    if (i <= l.nx && i > r.last) return stack(l, scratch, 4) + (i - (r.last + 1)) * l.PP;
    return l.x + i * l.PP;
  }
  INLINED float* new_plane(const Level& l, float* scratch, Range r, L i) {
    if (i >= 1 && i < r.first) return stack(l, scratch, 5);
    if (i <= l.nx && i > r.last) return stack(l, scratch, 5) + l.PP;
    return l.x + i * l.PP;
  }

  // Two sweeps, residual and restriction in one pass over the planes.
  INLINED void before(bool M, const Level& l, const Level& c, float* scratch, Range r, float w0,
                      float w1, bool from_zero) {
    const L PP = l.PP;
    float *A = stack(l, scratch, 0), *R = stack(l, scratch, 2);
    clear(A - guard(l), guard(l) + 3 * PP);
    clear(R - guard(l), guard(l) + 3 * PP);
    clear(stack(l, scratch, 5) - guard(l), guard(l) + 2 * PP);
    clear(rows(l, scratch), l.P + 16);
    const bool halve = l.axes & 1;
    const L begin = larger(r.first - 2, 1), end = smaller(r.last + 2, l.nx);
    for (L i = begin; i <= r.last + 2; i++) {
      float* a = A + (i % 3) * PP;
      forget(l, a, i - 3 < begin ? 0 : i - 3, i);
      if (i <= end) {
        const L q0 = l.run[2*i], q1 = l.run[2*i+1];
        if (from_zero) first_sweep(M, l, i, a, q0, q1, w0);
        else sweep(M, l, i, a, old_plane(l, scratch, r, i - 1), old_plane(l, scratch, r, i),
                   old_plane(l, scratch, r, i + 1), q0, q1, w0);
      }
      L j = i - 1;
      if (j >= larger(r.first - 1, 1) && j <= smaller(r.last + 1, l.nx))
        sweep(M, l, j, new_plane(l, scratch, r, j), A + ((j + 2) % 3) * PP, A + (j % 3) * PP,
              A + ((j + 1) % 3) * PP, l.run[2*j], l.run[2*j+1], w1);
      j = i - 2;
      if (j < r.first || j > r.last) continue;
      const bool second = halve && !(j & 1);
      float* rj = R + (second ? PP : 0);
      forget(l, rj, halve ? j - 2 : j - 1, j);
      residual(M, l, j, rj, new_plane(l, scratch, r, j - 1), new_plane(l, scratch, r, j),
               new_plane(l, scratch, r, j + 1), l.run[2*j], l.run[2*j+1]);
      if (!halve) restrict_plane(l, c, j, R, nullptr, j, j, scratch);
      else if (second) restrict_plane(l, c, j / 2, R, R + PP, j - 1, j, scratch);
      else if (j == l.nx) restrict_plane(l, c, (j + 1) / 2, R, nullptr, j, j, scratch);
    }
  }
  INLINED void restrict_plane(const Level& l, const Level& c, L I, const float* r0, const float* r1,
                              L j0, L j1, float* scratch) {
    const L P = l.P, n = c.nz;
    const bool hy = l.axes & 2, hz = l.axes & 4;
    const L q0 = smaller(l.run[2*j0], l.run[2*j1]), q1 = larger(l.run[2*j0+1], l.run[2*j1+1]);
    if (q0 >= q1) return;
    const L f0 = q0 / P, f1 = smaller((q1 + P - 1) / P, l.ny);
    const float* none = rows(l, scratch);
    float* __restrict t = (float*)none + P + 16;
    for (L J = hy ? f0 / 2 : f0; J < (hy ? (f1 + 1) / 2 : f1); J++) {
      const L f = hy ? 2 * J : J;
      const bool pair = hy && f + 1 < l.ny;
      const float *p0 = r0 + f * P, *p1 = pair ? p0 + P : none;
      const float *p2 = r1 ? r1 + f * P : none, *p3 = r1 && pair ? p2 + P : none;
      float* __restrict g = c.b + I * c.PP + J * c.P;
      if (hz) {
        const L m = l.nz;
        for (L k = 0; k < m; k++) t[k] = (p0[k] + p1[k]) + (p2[k] + p3[k]);
        t[m] = 0.f;
        for (L k = 0; k < n; k++) g[k] = t[2*k] + t[2*k+1];
      } else {
        for (L k = 0; k < n; k++) g[k] = (p0[k] + p1[k]) + (p2[k] + p3[k]);
      }
    }
  }
  // Prolongation, two sweeps and, if it is asked for, z . b in one pass.
  INLINED double after(bool M, const Level& l, const Level& c, float* scratch, Range r, float w0,
                       float w1, bool finest) {
    const L PP = l.PP;
    float *A = stack(l, scratch, 0), *B = stack(l, scratch, 1);
    clear(A - guard(l), guard(l) + 3 * PP);
    clear(B - guard(l), guard(l) + 3 * PP);
    double total = 0.0;
    const L begin = larger(r.first - 2, 1), end = smaller(r.last + 2, l.nx);
    for (L i = begin; i <= r.last + 2; i++) {
      float* a = A + (i % 3) * PP;
      forget(l, a, i - 3 < begin ? 0 : i - 3, i);
      if (i <= end) prolong_plane(M, l, c, i, a, old_plane(l, scratch, r, i), scratch);
      L j = i - 1;
      if (j >= larger(r.first - 1, 1)) {
        float* bj = B + (j % 3) * PP;
        forget(l, bj, j - 3 < r.first - 1 ? 0 : j - 3, j);
        if (j <= smaller(r.last + 1, l.nx))
          sweep(M, l, j, bj, A + ((j + 2) % 3) * PP, A + (j % 3) * PP, A + ((j + 1) % 3) * PP,
                l.run[2*j], l.run[2*j+1], w1);
      }
      j = i - 2;
      if (j < r.first || j > r.last) continue;
      float* o = l.x + j * PP;
      for (L qa = l.run[2*j]; qa < l.run[2*j+1]; qa += 2048) {
        const L qb = smaller(qa + 2048, l.run[2*j+1]);
        sweep(M, l, j, o, B + ((j + 2) % 3) * PP, B + (j % 3) * PP, B + ((j + 1) % 3) * PP, qa, qb, w0);
        if (finest) total += dot(o + qa, l.b + j * PP + qa, qb - qa);
      }
    }
    return total;
  }
  INLINED void prolong_plane(bool M, const Level& l, const Level& c, L i, float* a, const float* x,
                             float* scratch) {
    const L P = l.P, q0 = l.run[2*i], q1 = l.run[2*i+1];
    if (q0 >= q1) return;
    const bool hy = l.axes & 2, hz = l.axes & 4;
    const float* plane = c.x + ((l.axes & 1) ? (i + 1) / 2 : i) * c.PP;
    float* t = rows(l, scratch) + P + 16;
    L ready = -1;
    for (L f = q0 / P; f < smaller((q1 + P - 1) / P, l.ny); f++) {
      const L J = hy ? f / 2 : f;
      const float* g = plane + J * c.P;
      if (hz && J != ready) {
        float* __restrict tt = t;
        for (L k = 0; k < c.nz; k++) { tt[2*k] = g[k]; tt[2*k+1] = g[k]; }
        ready = J;
      }
      const float* __restrict s = hz ? t : g;
      const float* __restrict xx = x + f * P;
      float* __restrict aa = a + f * P;
      const unsigned char* d8 = l.d8 + i * l.PP + f * P;
      const float* di = l.di + i * l.PP + f * P;
      if (M) for (L k = 0; k < l.nz; k++) aa[k] = xx[k] + (d8[k] ? s[k] : 0.f);
      else for (L k = 0; k < l.nz; k++) aa[k] = xx[k] + (di[k] > 0.f ? s[k] : 0.f);
    }
  }
  OUTLINED void before_mask(const Level& l, const Level& c, float* s, Range r, float w0, float w1, bool z) {
    before(true, l, c, s, r, w0, w1, z);
  }
  OUTLINED void before_general(const Level& l, const Level& c, float* s, Range r, float w0, float w1, bool z) {
    before(false, l, c, s, r, w0, w1, z);
  }
  OUTLINED double after_mask(const Level& l, const Level& c, float* s, Range r, float w0, float w1, bool f) {
    return after(true, l, c, s, r, w0, w1, f);
  }
  OUTLINED double after_general(const Level& l, const Level& c, float* s, Range r, float w0, float w1, bool f) {
    return after(false, l, c, s, r, w0, w1, f);
  }

  // x += four rows of a symmetric matrix times four numbers
  INLINED void add_rows(double* __restrict x, L n, const double* __restrict rows, const double* v) {
    FUSED
    const double a = v[0], b = v[1], c = v[2], d = v[3];
    const double *p = rows, *q = p + n, *r = q + n, *s = r + n;
    for (L k = 0; k < n; k++) x[k] += (a * p[k] + b * q[k]) + (c * r[k] + d * s[k]);
  }
  // x = A^-1 b on the coarsest level, by the rows of the inverse, which is symmetric; x . b
  OUTLINED double coarsest(const Level& l, const double* inverse, double* v) {
    const L n = l.nx * l.ny * l.nz;
    double* x = v + n;
    L m = 0;
    for (L i = 1; i <= l.nx; i++)
      for (L j = 0; j < l.ny; j++)
        for (L k = 0; k < l.nz; k++) v[m++] = l.b[i*l.PP + j*l.P + k];
    for (L q = 0; q < n; q++) x[q] = 0.0;
    for (m = 0; m + 4 <= n; m += 4) add_rows(x, n, inverse + m * n, v + m);
    for (; m < n; m++) for (L q = 0; q < n; q++) x[q] += v[m] * inverse[m * n + q];
    m = 0;
    for (L i = 1; i <= l.nx; i++)
      for (L j = 0; j < l.ny; j++)
        for (L k = 0; k < l.nz; k++) l.x[i*l.PP + j*l.P + k] = (float)x[m++];
    double zb = 0.0;
    for (L q = 0; q < n; q++) zb += x[q] * v[q];
    return zb;
  }

  struct Plan {
    const L* rows;  // one row of the table a level
    int count, gamma;
    L system;
    const double* inverse;
    float* scratch;
    float w0, w1;
  };
  // One cycle from level k down; on the finest one z . b of the thread's planes.
  static double cycle(const Plan& p, Team& t, int k, bool from_zero) {
    const Level l = level(p.rows + ROW * k, p.system);
    if (t.size > 1 && (k == p.count - 1 || l.nx < 8 * t.size)) {
      Team alone = {0, 1, nullptr, 0, nullptr, 0, nullptr};
      const double zb = t.rank == 0 ? cycle(p, alone, k, from_zero) : 0.0;
      wait(t);
      return zb;
    }
    if (k == p.count - 1) return coarsest(l, p.inverse, (double*)p.scratch);
    const Level c = level(p.rows + ROW * (k + 1), p.system);
    const Range r = share(t, l.nx);
    if (t.size > 1 && !from_zero) { copy_halo(l, p.scratch, r); wait(t); }
    if (l.mask) before_mask(l, c, p.scratch, r, p.w0, p.w1, from_zero);
    else before_general(l, c, p.scratch, r, p.w0, p.w1, from_zero);
    wait(t);
    const bool small = c.nx * c.ny * c.nz <= 0.45 * (double)(l.nx * l.ny * l.nz);
    const int visits = k + 1 < p.count - 1 && small ? p.gamma : 1;
    for (int v = 0; v < visits; v++) cycle(p, t, k + 1, v == 0);
    if (t.size > 1) { copy_halo(l, p.scratch, r); wait(t); }
    const double zb = l.mask ? after_mask(l, c, p.scratch, r, p.w0, p.w1, k == 0)
                             : after_general(l, c, p.scratch, r, p.w0, p.w1, k == 0);
    wait(t);
    return zb;
  }
