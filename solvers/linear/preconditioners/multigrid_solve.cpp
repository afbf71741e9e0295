
  // ---- conjugate gradients ----
  struct Fine {  // what the outer iteration has beyond the finest level
    float* p;
    double* x;
    double *d, *cx, *cy, *cz;  // couplings in double; unused on a mask level
    bool shared;               // whether other systems use the direction and the iterate too
  };
  // Zeros where a solve does not write, in memory that another system has used.
  OUTLINED void clear_around(const Level& l, const Fine& f) {
    for (L i = 1; i <= l.nx; i++) {
      const L at = i * l.PP, before = l.run[2*i], end = at + l.run[2*i+1], behind = at + l.PP - end;
      clear(f.p + at, before);
      clear(f.p + end, behind);
      clear((float*)(f.x + at), 2 * before);
      clear((float*)(f.x + end), 2 * behind);
    }
  }
  // p . A p of one plane.
  INLINED double energy_plane(bool M, const Level& l, const float* p, L j) {
    FUSED
    const L P = l.P, PP = l.PP, at = j * PP, q0 = l.run[2*j], q1 = l.run[2*j+1];
    const float *x0 = p + at, *xm = x0 - PP, *xp = x0 + PP;
    double sum = 0.0;
    if (M) {
      const unsigned char* d8 = l.d8 + at;
      for (L q = q0; q < q1; q += 2048) {
        const L end = smaller(q + 2048, q1);
        float part[64];
        for (int k = 0; k < 64; k++) part[k] = 0.f;
        L u = q;
#define TERM(k) { \
          const L g = u + k; \
          const float s = ((x0[g-1] + x0[g+1]) + (x0[g-P] + x0[g+P])) + (xm[g] + xp[g]); \
          part[k] += x0[g] * ((float)d8[g] * x0[g] - s); }
        for (; u + 64 <= end; u += 64) for (int k = 0; k < 64; k++) TERM(k)
        for (; u + 16 <= end; u += 16) for (int k = 0; k < 16; k++) TERM(k)
        for (; u < end; u++) TERM(0)
#undef TERM
        sum += total(part);
      }
      return sum;
    }
    // Squares of differences: every term is positive, so single precision loses nothing to
    // cancellation however large the contrast is.
    const float *e = l.e + at, *cx = l.cx + at, *cy = l.cy + at, *cz = l.cz + at;
    for (L q = q0; q < q1; q += 1024) {
      const L end = smaller(q + 1024, q1);
      float part[64];
      for (int k = 0; k < 64; k++) part[k] = 0.f;
      L u = q;
#define TERM(k) { \
        const L g = u + k; \
        const float v = x0[g], dx = xp[g] - v, dy = x0[g+P] - v, dz = x0[g+1] - v; \
        part[k] += e[g] * v * v + cx[g] * dx * dx + cy[g] * dy * dy + cz[g] * dz * dz; }
      for (; u + 64 <= end; u += 64) for (int k = 0; k < 64; k++) TERM(k)
      for (; u + 16 <= end; u += 16) for (int k = 0; k < 16; k++) TERM(k)
      for (; u < end; u++) TERM(0)
#undef TERM
      sum += total(part);
    }
    return sum;
  }
  // p = z + beta p and p . A p; planes at the cuts of the team wait for the neighbours.
  INLINED double direction(bool M, const Level& l, float* p, Team& t, Range r, bool fresh, double beta) {
    const L PP = l.PP;
    const float be = (float)beta;
    const L first = t.size > 1 && M ? r.first + 1 : r.first, last = t.size > 1 ? r.last - 1 : r.last;
    double total = 0.0;
    for (L i = r.first; i <= r.last + 1; i++) {
      if (i <= r.last) {
        float* __restrict pp = p + i * PP;
        const float* __restrict z = l.x + i * PP;
        const L q0 = l.run[2*i], q1 = l.run[2*i+1];
        if (fresh) copy(pp + q0, z + q0, q1 - q0);
        else for (L q = q0; q < q1; q++) pp[q] = z[q] + be * pp[q];
      }
      const L j = i - 1;
      if (j >= first && j <= last) total += energy_plane(M, l, p, j);
    }
    if (t.size > 1) {
      wait(t);
      if (M) total += energy_plane(M, l, p, r.first);
      total += energy_plane(M, l, p, r.last);
    }
    return sum(t, total);
  }
  // u . A u of every recycled direction.
  OUTLINED void energies(const Level& l, const Recycled& u, float* p, double* out) {
    for (L i = 0; i < u.count; i++) {
      const short* from = u.directions + i * u.step;
      for (L q = 0; q < (l.nx + 2) * l.PP; q++) p[q] = (float)from[q];
      out[i] = 0.0;
      for (L j = 1; j <= l.nx; j++)
        out[i] += l.mask ? energy_plane(true, l, p, j) : energy_plane(false, l, p, j);
    }
  }
  // x += alpha p, b -= change A p with the product in double; b . b
  INLINED double advance(bool M, bool fresh, const Level& l, const Fine& f, Team& t, Range r,
                         double alpha, double change) {
    FUSED
    const L P = l.P, PP = l.PP;
    double total = 0.0;
    for (L j = r.first; j <= r.last; j++) {
      const L at = j * PP;
      const float *x0 = f.p + at, *xm = x0 - PP, *xp = x0 + PP;
      const unsigned char* d8 = l.d8 + at;
      const double *d = f.d + at, *cx = f.cx + at, *cxm = cx - PP, *cy = f.cy + at, *cz = f.cz + at;
      double* __restrict X = f.x + at;
      float* __restrict b = l.b + at;
      double part[16];
      for (int k = 0; k < 16; k++) part[k] = 0.0;
      const L q0 = l.run[2*j], q1 = l.run[2*j+1];
#define STEP(k) { \
        const L u = q + k; \
        const double v = (double)x0[u]; \
        X[u] = fresh ? alpha * v : X[u] + alpha * v; \
        double n; \
        if (M) { \
          const double s = ((double)x0[u-1] + (double)x0[u+1]) + ((double)x0[u-P] + (double)x0[u+P]) \
                           + ((double)xm[u] + (double)xp[u]); \
          const double c = (double)d8[u]; \
          n = (double)b[u] - (c > 0.0 ? change * (c * v - s) : 0.0); \
        } else { \
          const double s = (cz[u-1]*x0[u-1] + cz[u]*x0[u+1]) + (cy[u-P]*x0[u-P] + cy[u]*x0[u+P]) \
                           + (cxm[u]*xm[u] + cx[u]*xp[u]); \
          n = (double)b[u] - change * (d[u] * v - s); \
        } \
        b[u] = (float)n; part[k] += n * n; }
      L q = q0;
      for (; q + 16 <= q1; q += 16) for (int k = 0; k < 16; k++) STEP(k)
      for (; q < q1; q++) STEP(0)
#undef STEP
      for (int k = 0; k < 16; k++) total += part[k];
    }
    return sum(t, total);
  }
  // Right-hand side and iterates of the caller, with any strides.
  struct View {
    double* data;
    L si, sj, sk;
    double* tile;
    INLINED View of(const L* a, L offset, double* room = nullptr) {
      View v = {(double*)a[0] + offset, a[1], a[2], a[3], room};
      return v;
    }
  };
  // Row j of some planes. Numbers of the caller that do not stand in rows pass through a tile, eight
  // planes at a time, and j counts slowest: where its unit step leads from plane to plane, its memory
  // is then read in order.
  struct Strip { L first, last, j; };
  enum { TOGETHER = 8 };
  INLINED L strips(const Level& l, Range r, bool rows) {
    const L planes = r.last - r.first + 1;
    return l.ny * (rows ? planes : (planes + TOGETHER - 1) / TOGETHER);
  }
  INLINED Strip strip(const Level& l, Range r, bool rows, L n) {
    const L groups = (r.last - r.first + TOGETHER) / TOGETHER;
    const L first = rows ? r.first + n / l.ny : r.first + n % groups * TOGETHER;
    const Strip s = {first, rows ? first : smaller(first + TOGETHER - 1, r.last),
                     rows ? n % l.ny : n / groups};
    return s;
  }
  INLINED bool is_empty(const Level& l, const Strip& s) {
    for (L i = s.first; i <= s.last; i++) if (l.run[2*i] < l.run[2*i+1]) return false;
    return true;
  }
  INLINED L tile_pitch(const Level& l) { return l.nz + 8; }
  INLINED double* tile(float* scratch, const Level& l, int which) {
    return (double*)scratch + which * TOGETHER * tile_pitch(l);
  }
  INLINED double* row(const Level& l, const View& v, const Strip& s, L i) {
    return v.sk == 1 ? v.data + (i - 1) * v.si + s.j * v.sj : v.tile + (i - s.first) * tile_pitch(l);
  }
  OUTLINED void gather(const Level& l, const View& v, const Strip& s) {
    const L pitch = tile_pitch(l), count = s.last - s.first + 1;
    const double* from = v.data + (s.first - 1) * v.si + s.j * v.sj;
    double* __restrict to = v.tile;
    if (v.si == 1 && count == TOGETHER) {
      for (L k = 0; k < l.nz; k++)
        for (int g = 0; g < TOGETHER; g++) to[g * pitch + k] = from[k * v.sk + g];
    } else {
      for (L g = 0; g < count; g++)
        for (L k = 0; k < l.nz; k++) to[g * pitch + k] = from[g * v.si + k * v.sk];
    }
  }
  OUTLINED void scatter(const Level& l, const View& v, const Strip& s) {
    const L pitch = tile_pitch(l), count = s.last - s.first + 1;
    const double* from = v.tile;
    double* __restrict to = v.data + (s.first - 1) * v.si + s.j * v.sj;
    if (v.si == 1 && count == TOGETHER) {
      for (L k = 0; k < l.nz; k++)
        for (int g = 0; g < TOGETHER; g++) to[k * v.sk + g] = from[g * pitch + k];
    } else {
      for (L g = 0; g < count; g++)
        for (L k = 0; k < l.nz; k++) to[g * v.si + k * v.sk] = from[g * pitch + k];
    }
  }
  INLINED bool is_unknown(bool M, const Level& l, L q) { return M ? l.d8[q] > 0 : l.di[q] > 0.f; }
  INLINED double square_row(bool M, const Level& l, L at, const double* __restrict from) {
    double part[8] = {0, 0, 0, 0, 0, 0, 0, 0}, total = 0.0;
    L k = 0;
#define TAKE(c) { const double n = is_unknown(M, l, at + k + c) ? from[k + c] : 0.0; part[c] += n * n; }
    for (; k + 8 <= l.nz; k += 8) for (int c = 0; c < 8; c++) TAKE(c)
    for (; k < l.nz; k++) TAKE(0)
#undef TAKE
    for (int c = 0; c < 8; c++) total += part[c];
    return total;
  }
  // Sum of the squares of the caller's numbers at the unknowns.
  OUTLINED double square(const Level& l, const View& v, Team& t, Range r) {
    double total = 0.0;
    for (L n = 0; n < strips(l, r, v.sk == 1); n++) {
      const Strip s = strip(l, r, v.sk == 1, n);
      if (is_empty(l, s)) continue;
      if (v.sk != 1) gather(l, v, s);
      for (L i = s.first; i <= s.last; i++) {
        const L at = i * l.PP + s.j * l.P;
        total += l.mask ? square_row(true, l, at, row(l, v, s, i)) : square_row(false, l, at, row(l, v, s, i));
      }
    }
    return sum(t, total);
  }
  // to = scale times the caller's numbers at the unknowns, b = single * to; either may be null
  INLINED void load_row(bool M, const Level& l, L at, const double* __restrict from,
                        double* __restrict to, float* __restrict b, double scale, double single) {
    if (to) for (L k = 0; k < l.nz; k++) to[at+k] = is_unknown(M, l, at + k) ? scale * from[k] : 0.0;
    if (b)
      for (L k = 0; k < l.nz; k++)
        b[at+k] = is_unknown(M, l, at + k) ? (float)(single * scale * from[k]) : 0.f;
  }
  OUTLINED void load(const Level& l, const View& v, double* to, float* b, Range r, double scale,
                     double single) {
    for (L n = 0; n < strips(l, r, v.sk == 1); n++) {
      const Strip s = strip(l, r, v.sk == 1, n);
      if (is_empty(l, s)) continue;
      if (v.sk != 1) gather(l, v, s);
      for (L i = s.first; i <= s.last; i++) {
        const L at = i * l.PP + s.j * l.P;
        if (l.mask) load_row(true, l, at, row(l, v, s, i), to, b, scale, single);
        else load_row(false, l, at, row(l, v, s, i), to, b, scale, single);
      }
    }
  }
  // One row of b - A x from the double iterate: its square; `b` takes it, scaled and in single
  // precision, or `to` takes the iterate.
  INLINED double residual_row(bool M, bool keep, L n, L P, L PP, const double* __restrict from,
                              const double* __restrict x, const double* __restrict d,
                              const double* __restrict cx, const double* __restrict cy,
                              const double* __restrict cz, const unsigned char* __restrict d8,
                              const float* __restrict di, float* __restrict b, double* __restrict to,
                              double scale, double unit) {
    double part[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    L k = 0;
#define TAKE(c) { const L u = k + c; const double given = from[u]; double a; bool on; \
      if (M) { on = d8[u] > 0; \
        a = (double)d8[u] * x[u] - (((x[u-1] + x[u+1]) + (x[u-P] + x[u+P])) + (x[u-PP] + x[u+PP])); \
      } else { on = di[u] > 0.f; \
        a = d[u] * x[u] - ((cz[u-1]*x[u-1] + cz[u]*x[u+1]) + (cy[u-P]*x[u-P] + cy[u]*x[u+P]) \
                           + (cx[u-PP]*x[u-PP] + cx[u]*x[u+PP])); } \
      const double n = on ? given - a : 0.0; \
      if (keep) b[u] = (float)(scale * n); else to[u] = unit * x[u]; \
      part[c] += n * n; }
    for (; k + 8 <= n; k += 8) for (int c = 0; c < 8; c++) TAKE(c)
    for (; k < n; k++) TAKE(0)
#undef TAKE
    double sum = 0.0;
    for (int c = 0; c < 8; c++) sum += part[c];
    return sum;
  }
  // The true residual of the double iterate: its square, and on request itself, scaled and in single
  // precision, or the iterate for the caller.
  INLINED double true_residual(bool M, bool keep, const Level& l, const Fine& f, const View& v,
                               const View& out, Team& t, Range r, double scale, double unit) {
    const bool to_tile = !keep && out.sk != 1, rows = v.sk == 1 && !to_tile;
    double total = 0.0;
    for (L n = 0; n < strips(l, r, rows); n++) {
      const Strip s = strip(l, r, rows, n);
      const bool empty = is_empty(l, s);
      if (empty && keep) continue;
      if (v.sk != 1 && !empty) gather(l, v, s);
      for (L i = s.first; i <= s.last; i++) {
        const L at = i * l.PP + s.j * l.P;
        double* to = row(l, out, s, i);
        if (empty) clear((float*)to, 2 * l.nz);
        else
          total += residual_row(M, keep, l.nz, l.P, l.PP, row(l, v, s, i), f.x + at, f.d + at, f.cx + at,
                                f.cy + at, f.cz + at, l.d8 + at, l.di + at, l.b + at, to, scale, unit);
      }
      if (to_tile) scatter(l, out, s);
    }
    return sum(t, total);
  }
  OUTLINED double direction_of(const Level& l, float* p, Team& t, Range r, bool fresh, double beta) {
    return l.mask ? direction(true, l, p, t, r, fresh, beta) : direction(false, l, p, t, r, fresh, beta);
  }
  OUTLINED double advance_of(bool fresh, const Level& l, const Fine& f, Team& t, Range r, double alpha,
                             double change) {
    if (fresh)
      return l.mask ? advance(true, true, l, f, t, r, alpha, change)
                    : advance(false, true, l, f, t, r, alpha, change);
    return l.mask ? advance(true, false, l, f, t, r, alpha, change)
                  : advance(false, false, l, f, t, r, alpha, change);
  }
  OUTLINED double keep_residual(const Level& l, const Fine& f, const View& v, const View& out, Team& t,
                                Range r, double scale) {
    return l.mask ? true_residual(true, true, l, f, v, out, t, r, scale, 1.0)
                  : true_residual(false, true, l, f, v, out, t, r, scale, 1.0);
  }
  OUTLINED double store_iterate(const Level& l, const Fine& f, const View& v, const View& out, Team& t,
                                Range r, double unit) {
    return l.mask ? true_residual(true, false, l, f, v, out, t, r, 1.0, unit)
                  : true_residual(false, false, l, f, v, out, t, r, 1.0, unit);
  }

  // Statuses as in solvers.core.Status.
  enum { CONVERGED = 0, MAX_ITERATIONS = 1, STALLED = 2, NON_FINITE = 3, BREAKDOWN = 6 };
  // Solve for one right-hand side; report: status, iterations, relative residual, refreshes.
  // unit: what the couplings were divided by.
  // patience: end as soon as the rate of the last steps foresees more than so many; 0 for none.
  // growth: end where the square of the residual is so many times the least one; 0 for never.
  static void solve(const Plan& plan, const Aggregates& aggregates, const Recycled& recycled, Team& t, const Fine& f, const View& b,
                    const View& x, bool guess, double unit, double rtol, int limit, double patience,
                    double growth, double* report) {
    const Level l = level(plan.rows, plan.system);
    const Range r = share(t, l.nx);
    const double bb = square(l, b, t, r);
    if (f.shared) clear_around(l, f);
    double status = MAX_ITERATIONS, refreshes = 0.0, rr = bb, zr = 1.0, renewed = bb;
    int iteration = 0;
    const bool finite = bb < __builtin_inf(), trivial = bb == 0.0 || !finite;
    // Entries of about one keep single precision away from its limits.
    const double scale = trivial ? 1.0 : __builtin_sqrt((double)(l.nx * l.ny * l.nz) / bb);
    const double goal = rtol * rtol * bb;
    bool first = !guess;  // the iterate is zero, whatever stands in its memory
    if (guess && !trivial) {
      load(l, x, f.x, nullptr, r, unit, 0.0);
      wait(t);
      rr = renewed = keep_residual(l, f, b, x, t, r, scale);
      if (rr <= goal) status = CONVERGED;
    } else if (!trivial) {
      load(l, b, nullptr, l.b, r, 1.0, scale);
      wait(t);
    } else {
      status = finite ? CONVERGED : NON_FINITE;
      for (L i = r.first; i <= r.last; i++) clear((float*)(f.x + i * l.PP), 2 * l.PP);
      wait(t);
    }
    bool restart = true;
    double least[RATE_STEPS];  // of the last steps, the least square of the residual until then
    for (int k = 0; k < RATE_STEPS; k++) least[k] = rr;
    while (status == MAX_ITERATIONS && iteration < limit) {
      iteration++;
      const double overlap = precondition(plan, aggregates, recycled, t);
      if (!(overlap > 0.0)) { status = overlap <= 0.0 ? BREAKDOWN : NON_FINITE; break; }
      const double energy = direction_of(l, f.p, t, r, restart, restart ? 0.0 : overlap / zr);
      if (!(energy > 0.0)) { status = energy <= 0.0 ? BREAKDOWN : NON_FINITE; break; }
      // The direction is that of the scaled residual.
      const double change = overlap / energy;
      if (iteration <= recycled.most) {
        const L at = iteration - 1;
        if (recycled.trail) copy(recycled.trail + at * recycled.step, l.x, (l.nx + 2) * l.PP);
        recycled.numbers[3*at] = change;
        recycled.numbers[3*at+1] = restart ? 0.0 : overlap / zr;
        recycled.numbers[3*at+2] = overlap;
      }
      rr = advance_of(first, l, f, t, r, change / scale, change) / (scale * scale);
      zr = overlap;
      restart = first = false;
      if (!(rr < __builtin_inf())) { status = NON_FINITE; break; }
      if (rr <= goal) {
        rr = store_iterate(l, f, b, x, t, r, 1.0 / unit);
        if (rr <= goal) { status = CONVERGED; break; }
        refreshes += 1.0;
        restart = true;
      } else {
        double& before = least[iteration % RATE_STEPS];
        const double earlier = before, last = least[(iteration + RATE_STEPS - 1) % RATE_STEPS];
        before = rr < last ? rr : last;
        if (growth > 0.0 && rr > growth * before) { status = STALLED; break; }
        if (patience > 0.0 && iteration >= 2 * RATE_STEPS) {
          const double fall = __builtin_log(earlier / before), rest = __builtin_log(before / goal);
          if (iteration * fall + RATE_STEPS * rest > patience * fall) break;
        }
        if (rr > 1e-6 * renewed) continue;
      }
      // Rounding of the residual has gathered to about 1e-4 of it.
      rr = keep_residual(l, f, b, x, t, r, scale);
      if (rr > 0.25 * renewed) { status = STALLED; break; }
      renewed = rr;
    }
    if (first) for (L i = r.first; i <= r.last; i++) clear((float*)(f.x + i * l.PP), 2 * l.PP);
    if (iteration == 0 || status != CONVERGED) {
      wait(t);
      rr = store_iterate(l, f, b, x, t, r, 1.0 / unit);
    }
    if (t.rank == 0) {
      report[0] = status;
      report[1] = iteration;
      report[2] = bb == 0.0 ? 0.0 : __builtin_sqrt(rr / bb);
      report[3] = refreshes;
    }
    wait(t);
  }
