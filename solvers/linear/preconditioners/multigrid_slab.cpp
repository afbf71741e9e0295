
  // ---- one slab of a grid ----
  // The levels of a slab are windows: its own planes, the core, and a halo of planes around them. What
  // a step makes of a halo is right as far as its neighbours were, and is replaced in time.
  INLINED Range window(const Level& l) {
    const Range all = {1, l.nx};
    return all;
  }
  OUTLINED void descend(const Plan& p, const Level& l, const Level& c, bool from_zero) {
    if (l.mask) before_mask(l, c, p.scratch, window(l), p.w0, p.w1, from_zero);
    else before_general(l, c, p.scratch, window(l), p.w0, p.w1, from_zero);
  }
  // z . b of the core, if it is asked for.
  OUTLINED double ascend(const Plan& p, const Level& l, const Level& c, Range core, bool finest) {
    copy_halo(l, p.scratch, core);
    return l.mask ? after_mask(l, c, p.scratch, core, p.w0, p.w1, finest)
                  : after_general(l, c, p.scratch, core, p.w0, p.w1, finest);
  }
  // p = z + beta p on the window; p . A p of the core.
  OUTLINED double turn(const Level& l, float* p, Range core, double beta) {
    const float be = (float)beta;
    double total = 0.0;
    for (L i = 1; i <= l.nx + 1; i++) {
      if (i <= l.nx) {
        float* __restrict pp = p + i * l.PP;
        const float* __restrict z = l.x + i * l.PP;
        for (L q = l.run[2*i]; q < l.run[2*i+1]; q++) pp[q] = z[q] + be * pp[q];
      }
      const L j = i - 1;
      if (j >= core.first && j <= core.last)
        total += l.mask ? energy_plane(true, l, p, j) : energy_plane(false, l, p, j);
    }
    return total;
  }
  // The halo before, the core and the halo behind it.
  INLINED Range piece(const Level& l, Range core, int which) {
    const Range pieces[3] = {{1, core.first - 1}, core, {core.last + 1, l.nx}};
    return pieces[which];
  }
  // x += alpha / scale p, b -= alpha A p; b . b of the core.
  OUTLINED double advance_slab(const Level& l, const Fine& f, Range core, double alpha, double scale) {
    Team alone = {0, 1, nullptr, 0, nullptr, 0, nullptr};
    double square[3];
    for (int k = 0; k < 3; k++)
      square[k] = advance_of(false, l, f, alone, piece(l, core, k), alpha / scale, alpha);
    return square[1];
  }
  // x += alpha / scale p, b = scale times the true residual; b . b of the core.
  OUTLINED double renew_slab(const Level& l, const Fine& f, const View& given, Range core, double alpha,
                             double scale) {
    const double step = alpha / scale;
    for (L i = 1; i <= l.nx; i++)
      for (L q = i * l.PP + l.run[2*i]; q < i * l.PP + l.run[2*i+1]; q++) f.x[q] += step * (double)f.p[q];
    Team alone = {0, 1, nullptr, 0, nullptr, 0, nullptr};
    double square[3];
    for (int k = 0; k < 3; k++)
      square[k] = keep_residual(l, f, given, given, alone, piece(l, core, k), scale);
    return scale * scale * square[1];
  }
};

const long long* const a = (const long long*)table;
const int op = (int)a[SLOT_OP];
double* const numbers = (double*)a[SLOT_NUMBERS];
double* const out = (double*)a[SLOT_REPORT];
const double factor = numbers[NUMBER_FACTOR], scale = numbers[NUMBER_SCALE];
const long long* const rows = a + HEADER + ROW * a[SLOT_LEVEL];
const Multigrid::Level l = Multigrid::level(rows, 0), next = Multigrid::level(rows + ROW, 0);
const Multigrid::Range core = {a[SLOT_FIRST_PLANE], a[SLOT_LAST_PLANE]};
const Multigrid::Plan plan = {rows, 0, 0, 0, nullptr, (float*)a[SLOT_WORK],
                              (float)numbers[NUMBER_FIRST_STEP], (float)numbers[NUMBER_SECOND_STEP]};
const Multigrid::Fine fine = {
  (float*)a[SLOT_DIRECTIONS], (double*)a[SLOT_ITERATES], (double*)a[SLOT_DIAGONALS],
  (double*)a[SLOT_COUPLINGS_X], (double*)a[SLOT_COUPLINGS_Y], (double*)a[SLOT_COUPLINGS_Z], false};
if (op == OP_DESCEND) Multigrid::descend(plan, l, next, a[SLOT_HAS_GUESS] == 0);
else if (op == OP_ASCEND) out[0] = Multigrid::ascend(plan, l, next, core, a[SLOT_LEVEL] == 0);
else if (op == OP_TURN) out[0] = Multigrid::turn(l, fine.p, core, factor);
else if (op == OP_ADVANCE) out[0] = Multigrid::advance_slab(l, fine, core, factor, scale);
else if (op == OP_RENEW) {
  const Multigrid::View given =
    Multigrid::View::of(a + SLOT_RIGHT, 0, Multigrid::tile(plan.scratch, l, 0));
  out[0] = Multigrid::renew_slab(l, fine, given, core, factor, scale);
}
