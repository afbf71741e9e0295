
  // ---- set-up ----
  // What the caller's operator gives: couplings (one entry less along their axis), boundary, mass.
  struct Input { View c0, c1, c2, e, m; bool has_mass; };
  INLINED Input input(const L* a, L system) {
    Input in;
    in.c0 = View::of(a, system * a[4]);
    in.c1 = View::of(a + 5, system * a[9]);
    in.c2 = View::of(a + 10, system * a[14]);
    in.e = View::of(a + 15, system * a[19]);
    in.has_mass = a[20] != 0;
    in.m = View::of(a + 20, system * a[24]);
    return in;
  }
  // Largest and least number or zero, how many are positive, and the sum, which is not finite if a
  // number is not; eight of each, so that rows are looked at as vectors.
  struct Span { double most[8], least[8], sum[8], positive[8]; };
  INLINED void look(Span& s, const double* __restrict row, L n, double over) {
    double hi[8], lo[8], part[8], count[8];
    for (int c = 0; c < 8; c++) { hi[c] = s.most[c]; lo[c] = s.least[c]; }
    for (int c = 0; c < 8; c++) { part[c] = s.sum[c]; count[c] = s.positive[c]; }
    L k = 0;
    for (; k + 8 <= n; k += 8)
      for (int c = 0; c < 8; c++) {
        const double v = over * row[k + c];
        hi[c] = v > hi[c] ? v : hi[c];
        lo[c] = v < lo[c] ? v : lo[c];
        part[c] += v;
        count[c] += v > 0.0 ? 1.0 : 0.0;
      }
    for (; k < n; k++) {
      const double v = over * row[k];
      hi[0] = v > hi[0] ? v : hi[0];
      lo[0] = v < lo[0] ? v : lo[0];
      part[0] += v;
      count[0] += v > 0.0 ? 1.0 : 0.0;
    }
    for (int c = 0; c < 8; c++) { s.most[c] = hi[c]; s.least[c] = lo[c]; }
    for (int c = 0; c < 8; c++) { s.sum[c] = part[c]; s.positive[c] = count[c]; }
  }
  INLINED double total(const double* part) {
    double all = 0.0;
    for (int c = 0; c < 8; c++) all += part[c];
    return all;
  }
  // All numbers of one of the caller's arrays, planes at a time where they lie one after the other.
  static void look_all(Span& s, const View& v, L nx, L ny, L nz, double over, double* work) {
    const bool whole = v.sk == 1 && v.sj == nz;
    for (L i = 0; i < nx; i++)
      for (L j = 0; j < (whole ? 1 : ny); j++) {
        const double* from = v.data + i * v.si + j * v.sj;
        if (v.sk != 1) for (L k = 0; k < nz; k++) work[k] = from[k * v.sk];
        look(s, v.sk == 1 ? from : work, whole ? ny * nz : nz, over);
      }
  }
  // One row of a level from the caller's arrays, or from copies where entries do not lie one after
  // the other: couplings to the six neighbours, excess and mass.
  struct Rows { const double *z, *ym, *y, *xm, *x, *e, *m; };  // z[k] couples k - 1 and k
  INLINED const double* take(double* to, const double* none, const View& v, bool there, L i, L j, L n) {
    if (!there) return none;
    const double* from = v.data + i * v.si + j * v.sj;
    if (v.sk == 1) return from;
    for (L k = 0; k < n; k++) to[k] = from[k * v.sk];
    return to;
  }
  INLINED Rows read(const Input& in, double* work, L nx, L ny, L nz, L i, L j) {
    const L n = nz + 8;
    double *z = work, *none = work + n;
    const double* from = take(z + 1, none, in.c2, true, i, j, nz - 1);
    if (from != z + 1) for (L k = 0; k < nz - 1; k++) z[k + 1] = from[k];
    z[0] = z[nz] = 0.0;
    for (L k = 0; k < nz; k++) none[k] = 0.0;
    const Rows w = {z,
                    take(work + 2*n, none, in.c1, j > 0, i, j - 1, nz),
                    take(work + 3*n, none, in.c1, j + 1 < ny, i, j, nz),
                    take(work + 4*n, none, in.c0, i > 0, i - 1, j, nz),
                    take(work + 5*n, none, in.c0, i + 1 < nx, i, j, nz),
                    take(work + 6*n, none, in.e, true, i, j, nz),
                    take(work + 7*n, none, in.m, in.has_mass, i, j, nz)};
    return w;
  }
  // Some positive coupling, or one.
  static double any_coupling(const Input& in, L nx, L ny, L nz) {
    const View views[3] = {in.c0, in.c1, in.c2};
    for (int a = 0; a < 3; a++)
      for (L i = 0; i < nx - (a == 0); i++)
        for (L j = 0; j < ny - (a == 1); j++)
          for (L k = 0; k < nz - (a == 2); k++) {
            const double c = views[a].data[i * views[a].si + j * views[a].sj + k * views[a].sk];
            if (c > 0.0) return c;
          }
    return 1.0;
  }
  // Fill a mask level; whether all couplings between unknowns are `unit` and the excess a multiple.
  // `changed` is added to where a byte is not what it was.
  static bool fill_mask(const Level& l, const Input& in, double unit, double* work, double& changed) {
    const L nx = l.nx, ny = l.ny, nz = l.nz, P = l.P, PP = l.PP;
    const double over = 1.0 / unit;
    L faces = 0, pairs = 0;
    for (L i = 0; i < nx; i++)
      for (L j = 0; j < ny; j++) {
        const Rows w = read(in, work, nx, ny, nz, i, j);
        unsigned char* __restrict d8 = l.d8 + (i + 1) * PP + j * P;
        int bad = 0, count = 0, other = 0;
        for (L k = 0; k < nz; k++) {
          const double cx = over * w.x[k], cy = over * w.y[k], cz = over * w.z[k+1];
          const double excess = over * w.e[k];
          const double d = ((over * w.z[k] + cz) + (over * w.ym[k] + cy)) + (over * w.xm[k] + cx) + excess;
          const double in_range = d < 7.0 ? d : 7.0;  // six faces at most
          const int whole = (int)((in_range > 0.0 ? in_range : 0.0) + 0.5);
          const int x = cx > 0.5, y = cy > 0.5, z = cz > 0.5;
          const double gap = d - (double)whole, gx = cx - (double)x, gy = cy - (double)y;
          const double gz = cz - (double)z;
          bad |= whole > 6;
          bad |= !(gap * gap + gx * gx + gy * gy + gz * gz < 1e-24) | !(excess > -1e-12);
          count += x + y + z;
          other += d8[k] != (unsigned char)whole;
          d8[k] = (unsigned char)whole;
        }
        if (in.has_mass) for (L k = 0; k < nz; k++) bad |= w.m[k] != 0.0;
        if (bad) return false;
        faces += count;
        changed += other;
      }
    for (L i = 1; i <= nx; i++) {
      const unsigned char* d8 = l.d8 + i * PP;
      int here = 0;
      for (L q = 0; q < ny * P; q++)
        here += (d8[q] > 0) & (d8[q+1] > 0);
      for (L q = 0; q < ny * P; q++) here += (d8[q] > 0) & (d8[q+P] > 0);
      for (L q = 0; q < ny * P; q++) here += (d8[q] > 0) & (d8[q+PP] > 0);
      pairs += here;
    }
    return pairs == faces;
  }
  // Numbers of one row in both precisions; whether zeros came or went.
  INLINED bool fill_row(const Rows& w, double over, L n, double* __restrict d, double* __restrict cx,
                        double* __restrict cy, double* __restrict cz, float* __restrict di,
                        float* __restrict fx, float* __restrict fy, float* __restrict fz,
                        float* __restrict fe) {
    int changed = 0;
    for (L k = 0; k < n; k++) {
      const double x = over * w.x[k], y = over * w.y[k], z = over * w.z[k+1];
      const double excess = over * w.e[k] + over * w.m[k];
      const double all = ((over * w.z[k] + z) + (over * w.ym[k] + y)) + (over * w.xm[k] + x) + excess;
      const float one = all > 0.0 ? (float)(1.0 / all) : 0.f;
      const float sx = (float)x, sy = (float)y, sz = (float)z, se = (float)excess;
      changed |= ((fx[k] > 0.f) != (sx > 0.f)) | ((fy[k] > 0.f) != (sy > 0.f))
                 | ((fz[k] > 0.f) != (sz > 0.f)) | ((fe[k] > 0.f) != (se > 0.f));
      d[k] = all; cx[k] = x; cy[k] = y; cz[k] = z;
      di[k] = one;
      fx[k] = sx; fy[k] = sy; fz[k] = sz; fe[k] = se;
    }
    return changed != 0;
  }
  // stats: sums and numbers of the positive couplings of the axes; in how many rows zeros came or
  // went; the largest coupling (number, if there is none), the least number, the sum of all; how
  // many cells are held.
  static void fill_general(const Level& l, const Input& in, double unit, double* work, double* d,
                           double* cx, double* cy, double* cz, double* stats) {
    const L nx = l.nx, ny = l.ny, nz = l.nz;
    const double over = 1.0 / unit;
    Span axes[3] = {}, others = {};
    look_all(axes[0], in.c0, nx - 1, ny, nz, over, work);
    look_all(axes[1], in.c1, nx, ny - 1, nz, over, work);
    look_all(axes[2], in.c2, nx, ny, nz - 1, over, work);
    look_all(others, in.e, nx, ny, nz, over, work);
    if (in.has_mass) look_all(others, in.m, nx, ny, nz, over, work);
    for (L i = 0; i < nx; i++)
      for (L j = 0; j < ny; j++) {
        const Rows w = read(in, work, nx, ny, nz, i, j);
        const L at = (i + 1) * l.PP + j * l.P;
        stats[6] += fill_row(w, over, nz, d + at, cx + at, cy + at, cz + at, l.di + at, l.cx + at,
                             l.cy + at, l.cz + at, l.e + at);
        if (l.m) for (L k = 0; k < nz; k++) l.m[at+k] = (float)(over * w.m[k]);
      }
    double most = 0.0, any = 0.0, least = 0.0;
    for (int a = 0; a < 3; a++) {
      stats[a] = total(axes[a].sum);
      stats[3+a] = total(axes[a].positive);
      stats[9] += stats[a];
    }
    for (int c = 0; c < 8; c++) {
      for (int a = 0; a < 3; a++) {
        most = axes[a].most[c] > most ? axes[a].most[c] : most;
        least = axes[a].least[c] < least ? axes[a].least[c] : least;
      }
      any = others.most[c] > any ? others.most[c] : any;
      least = others.least[c] < least ? others.least[c] : least;
    }
    stats[7] = most > 0.0 ? most : any;
    stats[8] = least;
    stats[9] += total(others.sum);
    stats[10] = total(others.positive);
  }
  // First and last unknown of every plane, with zeros behind it that make up whole vectors.
  static void find_runs(const Level& l) {
    l.run[0] = l.run[1] = l.run[2 * (l.nx + 1)] = l.run[2 * (l.nx + 1) + 1] = 0;
    for (L i = 1; i <= l.nx; i++) {
      const L at = i * l.PP, n = l.ny * l.P;
      L first = 0, last = n;
      while (first < n && !(l.mask ? l.d8[at+first] > 0 : l.di[at+first] > 0.f)) first++;
      while (last > first && !(l.mask ? l.d8[at+last-1] > 0 : l.di[at+last-1] > 0.f)) last--;
      l.run[2*i] = (int)(first < n ? first : 0);
      l.run[2*i+1] = (int)(first < n ? smaller(first + (last - first + 15) / 16 * 16, n) : 0);
    }
  }
  // The coarse operator of piecewise constant transfer: couplings of the fine faces between two
  // coarse cells, halved where the distance doubles; conductance to known values times `wall`.
  static void coarsen(const Level& l, const Level& c, double wall, float* work, double* stats) {
    const L P = l.P, PP = l.PP, nz = l.nz, n = nz + 16;
    const int X = l.axes & 1, Y = (l.axes >> 1) & 1, Z = (l.axes >> 2) & 1;
    float *tx = work, *ty = tx + n, *tz = ty + n, *te = tz + n, *tm = te + n;
    for (L I = 1; I <= c.nx; I++)
      for (L J = 0; J < c.ny; J++) {
        clear(work, 5 * n);
        for (int a = 0; a <= X; a++)
          for (int b = 0; b <= Y; b++) {
            const L i = X ? 2*I - 1 + a : I, j = Y ? 2*J + b : J;
            if (i > l.nx || j >= l.ny) continue;
            add_row(l, i * PP + j * P, a == X, b == Y, tx, ty, tz, te, tm);
          }
        const L at = I * c.PP + J * c.P;
        const float fx = X ? .5f : 1.f, fy = Y ? .5f : 1.f, fz = Z ? .5f : 1.f, we = (float)wall;
        float* const rows[3] = {c.cx + at, c.cy + at, c.cz + at};
        if (Z) merge_row(true, c.nz, tx, ty, tz, te, tm, fx, fy, fz, we, rows[0], rows[1], rows[2],
                         c.e + at);
        else merge_row(false, c.nz, tx, ty, tz, te, tm, fx, fy, fz, we, rows[0], rows[1], rows[2],
                       c.e + at);
        if (c.m) for (L K = 0; K < c.nz; K++) c.m[at+K] = Z ? tm[2*K] + tm[2*K+1] : tm[K];
        for (int a = 0; a < 3; a++) {
          double sum[8] = {}, positive[8] = {};
          L K = 0;
          for (; K + 8 <= c.nz; K += 8)
            for (int k = 0; k < 8; k++) {
              const float v = rows[a][K+k];
              sum[k] += (double)v;
              positive[k] += v > 0.f ? 1.0 : 0.0;
            }
          for (; K < c.nz; K++) {
            sum[0] += (double)rows[a][K];
            positive[0] += rows[a][K] > 0.f ? 1.0 : 0.0;
          }
          stats[a] += total(sum);
          stats[3+a] += total(positive);
        }
      }
    join_chain(l, c);
    for (L I = 1; I <= c.nx; I++)
      for (L J = 0; J < c.ny; J++) {
        const L at = I * c.PP + J * c.P;
        for (L q = at; q < at + c.nz; q++) {
          const float d = c.e[q] + ((c.cx[q] + c.cx[q-c.PP]) + (c.cy[q] + c.cy[q-c.P]) + (c.cz[q] + c.cz[q-1]));
          // A closed region within one coarse cell is no unknown there: its constant needs no
          // correction, and one would be too large where the cell merges with others.
          c.di[q] = d > 0.f ? 1.f / d : 0.f;
        }
      }
  }
  // Where more than one cell lies along one axis only, couplings of the faces and half of those
  // within the pairs conduct one after the other; half of the first is the least (_cycle.py).
  static void join_chain(const Level& l, const Level& c) {
    const L n = l.nx * l.ny * l.nz;
    if (n < 3 || larger(larger(l.nx, l.ny), l.nz) != n) return;
    const int axis = l.nx == n ? 0 : l.ny == n ? 1 : 2;
    const L step = step_along(l, axis), coarse_step = step_along(c, axis);
    float* const to = along(c, axis) + c.PP;
    for (L k = 1; k + 1 < n; k += 2) {
      const L q = l.PP + k * step;
      const float between = coupling(l, axis, q);
      const float resistance = 1.f / coupling(l, axis, q - step)
                               + (k + 2 < n ? 1.f / coupling(l, axis, q + step) : 0.f);
      const float joined = between / (1.f + .5f * between * resistance);
      to[k / 2 * coarse_step] = joined > .5f * between ? joined : .5f * between;
    }
  }
  INLINED L step_along(const Level& l, int axis) { return axis == 0 ? l.PP : axis == 1 ? l.P : 1; }
  INLINED float* along(const Level& l, int axis) { return axis == 0 ? l.cx : axis == 1 ? l.cy : l.cz; }
  INLINED float coupling(const Level& l, int axis, L q) {
    if (l.mask) return l.d8[q] > 0 && l.d8[q + step_along(l, axis)] > 0 ? 1.f : 0.f;
    return along(l, axis)[q];
  }
  // A row of the coarse operator from sums of fine rows; past the end of these there are zeros.
  INLINED void merge_row(bool pairs, L n, const float* __restrict tx, const float* __restrict ty,
                         const float* __restrict tz, const float* __restrict te,
                         const float* __restrict tm, float fx, float fy, float fz, float wall,
                         float* __restrict cx, float* __restrict cy, float* __restrict cz,
                         float* __restrict e) {
    for (L K = 0; K < n; K++) {
      const L k = pairs ? 2*K : K, k1 = pairs ? 2*K + 1 : K;
      const float other = pairs ? 1.f : 0.f;
      cx[K] = fx * (tx[k] + other * tx[k1]);
      cy[K] = fy * (ty[k] + other * ty[k1]);
      cz[K] = fz * tz[k1];
      e[K] = wall * (te[k] + other * te[k1]) + (tm[k] + other * tm[k1]);
    }
  }
  INLINED void add_row(const Level& l, L at, bool last_x, bool last_y, float* __restrict tx,
                       float* __restrict ty, float* __restrict tz, float* __restrict te,
                       float* __restrict tm) {
    const L P = l.P, PP = l.PP, nz = l.nz;
    const float wx = last_x ? 1.f : 0.f, wy = last_y ? 1.f : 0.f;
    if (l.mask) {
      const unsigned char *d0 = l.d8 + at;
      for (L k = 0; k < nz; k++) {
        const float on = d0[k] > 0 ? 1.f : 0.f;
        const float xp = d0[k+PP] > 0 ? on : 0.f, xm = d0[k-PP] > 0 ? on : 0.f;
        const float yp = d0[k+P] > 0 ? on : 0.f, ym = d0[k-P] > 0 ? on : 0.f;
        const float zp = d0[k+1] > 0 ? on : 0.f, zm = d0[k-1] > 0 ? on : 0.f;
        tx[k] += wx * xp; ty[k] += wy * yp; tz[k] += zp;
        te[k] += (float)d0[k] - ((xp + xm) + (yp + ym) + (zp + zm));
      }
    } else {
      const float *cx = l.cx + at, *cy = l.cy + at, *cz = l.cz + at, *e = l.e + at;
      const float* m = l.m ? l.m + at : nullptr;
      for (L k = 0; k < nz; k++) {
        tx[k] += wx * cx[k]; ty[k] += wy * cy[k]; tz[k] += cz[k];
        te[k] += e[k];
      }
      if (m) for (L k = 0; k < nz; k++) { te[k] -= m[k]; tm[k] += m[k]; }
    }
  }

  // ---- is every unknown connected to a known value or to mass? ----
  struct Runs { int *start, *stop, *parent, *held, *row; };  // row: first run of every row of cells
  INLINED int root(const Runs& u, int a) {
    while (u.parent[a] != a) a = u.parent[a] = u.parent[u.parent[a]];
    return a;
  }
  INLINED void unite(const Runs& u, int a, int b) {
    a = root(u, a);
    b = root(u, b);
    if (a == b) return;
    u.parent[b] = a;
    u.held[a] |= u.held[b];
  }
  // Runs of two rows that touch; couplings between them, or null where all neighbours couple.
  INLINED void unite_rows(const Runs& u, int row, int other, const float* c) {
    int a = u.row[row], b = u.row[other];
    while (a < u.row[row + 1] && b < u.row[other + 1]) {
      const int low = u.start[a] > u.start[b] ? u.start[a] : u.start[b];
      const int high = u.stop[a] < u.stop[b] ? u.stop[a] : u.stop[b];
      bool joined = !c && low < high;
      for (int k = low; c && !joined && k < high; k++) joined = c[k] > 0.f;
      if (joined) unite(u, a, b);
      if (u.stop[a] < u.stop[b]) a++; else b++;
    }
  }
  static bool is_held(const Level& l, int* memory, L most) {
    const L P = l.P, PP = l.PP;
    const Runs u = {memory, memory + most, memory + 2 * most, memory + 3 * most, memory + 4 * most};
    int count = 0, row = 0;
    u.row[0] = 0;
    for (L i = 1; i <= l.nx; i++)
      for (L j = 0; j < l.ny; j++, row++) {
        const L at = i * PP + j * P;
        const unsigned char* d8 = l.d8 + at;
        const float *cz = l.cz + at, *e = l.e + at;
        for (L k = 0; k < l.nz;) {
          if (!is_unknown(l.mask, l, at + k)) { k++; continue; }
          L end = k + 1;
          if (l.mask) while (d8[end] > 0) end++;
          else while (cz[end-1] > 0.f) end++;
          int excess = 0;
          if (l.mask)
            for (L q = k; q < end; q++)
              excess += d8[q] - ((d8[q-1] > 0) + (d8[q+1] > 0) + (d8[q-P] > 0) + (d8[q+P] > 0)
                                 + (d8[q-PP] > 0) + (d8[q+PP] > 0));
          else
            for (L q = k; q < end; q++) excess |= e[q] > 0.f;
          u.start[count] = (int)k;
          u.stop[count] = (int)end;
          u.parent[count] = count;
          u.held[count++] = excess > 0;
          k = end;
        }
        u.row[row + 1] = count;
        if (j > 0) unite_rows(u, row, row - 1, l.mask ? nullptr : l.cy + at - P);
        if (i > 1) unite_rows(u, row, row - (int)l.ny, l.mask ? nullptr : l.cx + at - PP);
      }
    for (int q = 0; q < count; q++) if (!u.held[root(u, q)]) return false;
    return true;
  }
};

const long long* const a = (const long long*)table;
const long long* const rows = a + HEADER;
const int op = (int)a[SLOT_OP];
double* const numbers = (double*)a[SLOT_NUMBERS];
// A team works on one system; otherwise a block is a system with a thread of its own.
const int team_size = op == OP_SOLVE ? (int)a[SLOT_TEAM] : 1;
const long long system = team_size > 1 ? 0 : block;
double* const work = (double*)a[SLOT_WORK] + a[SLOT_WORK_STEP] * block;
const long long part = a[SLOT_CELLS] * system;
const Multigrid::Plan plan = {rows, (int)a[SLOT_LEVELS], (int)a[SLOT_VISITS], system,
                              (const double*)a[SLOT_INVERSE] + a[SLOT_INVERSE_STEP] * system,
                              (float*)work, (float)numbers[NUMBER_FIRST_STEP],
                              (float)numbers[NUMBER_SECOND_STEP]};
const Multigrid::Aggregates aggregates = {
  (const long long*)a[SLOT_AGGREGATES], (int)a[SLOT_AGGREGATE_LEVELS], (int)a[SLOT_VISITS],
  (int)a[SLOT_FIRST_VISITS], (const double*)a[SLOT_INVERSE], (const int*)a[SLOT_PARENT]};
const Multigrid::Recycled recycled = {
  a[SLOT_RECYCLED], a[SLOT_TRAIL_MOST], a[SLOT_CELLS], (const short*)a[SLOT_RECYCLED_DIRECTIONS],
  (const double*)a[SLOT_RECYCLED_WEIGHTS], (float*)a[SLOT_TRAIL], (double*)a[SLOT_TRAIL_NUMBERS]};
const long long place = a[SLOT_ITERATES_STEP] * system;
const Multigrid::Fine fine = {
  (float*)a[SLOT_DIRECTIONS] + place, (double*)a[SLOT_ITERATES] + place,
  (double*)a[SLOT_DIAGONALS] + part, (double*)a[SLOT_COUPLINGS_X] + part,
  (double*)a[SLOT_COUPLINGS_Y] + part, (double*)a[SLOT_COUPLINGS_Z] + part,
  a[SLOT_ITERATES_STEP] == 0};
double& unit = ((double*)a[SLOT_UNITS])[system];
const Multigrid::Input in = Multigrid::input(a + SLOT_INPUTS, system);
const Multigrid::Level l = Multigrid::level(rows + ROW * a[SLOT_LEVEL], system);
const Multigrid::Level next = Multigrid::level(rows + ROW * (a[SLOT_LEVEL] + 1), system);
double* const out = (double*)a[SLOT_REPORT] + 16 * system;
if (op == OP_SOLVE) {
  Multigrid::Team team = {team_size > 1 ? block : 0, team_size, (long long*)a[SLOT_COUNTER], 0,
                          (double*)a[SLOT_SUMS], 0, (Multigrid::Rest)a[SLOT_REST]};
  const Multigrid::Level finest = Multigrid::level(rows, system);
  const long long count = a[SLOT_COUNT];
  for (long long i = 0; i < count; i++) {
    const long long *right = a + SLOT_RIGHT, *solution = a + SLOT_SOLUTION;
    const Multigrid::View b = Multigrid::View::of(
      right, system * right[4] + i * right[5], Multigrid::tile(plan.scratch, finest, 0));
    const Multigrid::View x = Multigrid::View::of(
      solution, system * solution[4] + i * solution[5], Multigrid::tile(plan.scratch, finest, 1));
    Multigrid::solve(plan, aggregates, recycled, team, fine, b, x, a[SLOT_HAS_GUESS] != 0, unit,
                     numbers[NUMBER_RTOL], (int)a[SLOT_LIMIT], numbers[NUMBER_PATIENCE], numbers[NUMBER_GROWTH],
                     (double*)a[SLOT_REPORT] + 4 * (system * count + i));
  }
} else if (op == OP_CYCLE) {
  Multigrid::Team alone = {0, 1, nullptr, 0, nullptr, 0, nullptr};
  Multigrid::precondition(plan, aggregates, recycled, alone);
} else if (op == OP_VISIT) {
  Multigrid::Team alone = {0, 1, nullptr, 0, nullptr, 0, nullptr};
  Multigrid::cycle(plan, alone, (int)a[SLOT_LEVEL], a[SLOT_HAS_GUESS] == 0);
} else if (op == OP_ENERGIES) {
  Multigrid::energies(l, recycled, fine.p, (double*)a[SLOT_RECYCLED_WEIGHTS]);
} else if (op == OP_FILL_MASK) {
  unit = Multigrid::any_coupling(in, l.nx, l.ny, l.nz);
  out[0] = Multigrid::fill_mask(l, in, unit, work, out[1]);
} else if (op == OP_FILL) {
  Multigrid::fill_general(l, in, unit, work, fine.d, fine.cx, fine.cy, fine.cz, out);
} else if (op == OP_FIND_RUNS) {
  Multigrid::find_runs(l);
} else if (op == OP_COARSEN) {
  Multigrid::coarsen(l, next, numbers[NUMBER_WALL], (float*)work, out);
  Multigrid::find_runs(next);
} else if (op == OP_INVERT) {
  out[0] = Multigrid::invert(l, (double*)a[SLOT_INVERSE] + a[SLOT_INVERSE_STEP] * system,
                             numbers[NUMBER_LEAST_PIVOT]);
} else if (op == OP_IS_HELD) {
  int* const memory = (int*)a[SLOT_RUNS] + a[SLOT_RUNS_STEP] * system;
  out[0] = Multigrid::is_held(l, memory, a[SLOT_MOST_RUNS]);
}
