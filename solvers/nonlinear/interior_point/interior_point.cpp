  // ---- memory ----
  INLINED L up(L a, L k) { return (a + k - 1) / k * k; }
  INLINED S bigger(S a, S b) { return a > b ? a : b; }
  INLINED const double* reals(const long long* t, int slot) { return (const double*)t[slot]; }
  struct Results {
    double *x, *y, *z, *s, *residual;
    long long *status, *iterations;
    Results(const long long* t) {
      x = (double*)t[SLOT_X]; y = (double*)t[SLOT_Y]; z = (double*)t[SLOT_Z]; s = (double*)t[SLOT_S];
      status = (long long*)t[SLOT_STATUS]; iterations = (long long*)t[SLOT_ITERATIONS];
      residual = (double*)t[SLOT_RESIDUAL];
    }
  };
  static void carve(Work& w, E* p, L n, L rows) {
    E** squares[] = {&w.K, &w.U};
    for (E** a : squares) { *a = p; p += n * n; }
    E** tall[] = {&w.R, &w.Rs};
    for (E** a : tall) { *a = p; p += rows * n; }
    E** wide[] = {&w.inverse, &w.q, &w.x, &w.dx, &w.rd, &w.Kx, &w.Rtz, &w.kx};
    for (E** a : wide) { *a = p; p += n; }
    E** high[] = {&w.h, &w.scale, &w.tolerance, &w.orthant, &w.cone, &w.unit, &w.z, &w.s, &w.dz,
                  &w.ds, &w.rp, &w.t, &w.Rx, &w.kz, &w.ks, &w.kt, &w.lambda, &w.weight, &w.axis};
    for (E** a : high) { *a = p; p += rows; }
    L** spans[] = {&w.low, &w.high, &w.packed_low, &w.packed_high};
    for (L** a : spans) { *a = (L*)p; p += rows; }
  }
  static Cones describe(const long long* t) {
    Cones c;
    c.p = t[SLOT_P]; c.rows = t[SLOT_P] + t[SLOT_M]; c.count = t[SLOT_CONES]; c.sizes = (const long long*)t[SLOT_SIZES];
    c.flat = c.rows;
    for (L i = 0; i < c.count; i++) c.flat -= c.sizes[i];
    c.padded = up(c.rows, LANES > 4 ? LANES : 4);
    c.degree = c.flat - c.p + c.count;
    return c;
  }
  // ---- data: rows to length one (a cone keeps one length), cost to a Hessian of size one ----
  static void load(const Work& w, E* to, const double* from, L step, L size, const long long* t,
                   L first) {
    const double* item[GROUP];
    for (int l = 0; l < GROUP; l++)
      item[l] = from + (first + l < t[SLOT_BATCH] ? first + l : t[SLOT_BATCH] - 1) * step;
    gather(w.turn, to, item, size);
  }
  // k rows from r on, by one factor.
  INLINED void normalize(Work& w, L n, L r, L k) {
    S square = S(0.0);
    for (L i = r; i < r + k; i++) square = bigger(dot(w.R + i*n, w.R + i*n, n), square);
    const S f = square > 0.0 ? 1.0 / root(square) : S(1.0);
    for (L i = r; i < r + k; i++) {
      w.scale[i] = f;
      for (L j = 0; j < n / CHUNK; j++) vec(w.R + i*n)[j] *= spread(f);
    }
  }
  static void load_cost(Work& w, const long long* t, L n, L first) {
    const L d = t[SLOT_N], numbers = up(d * d, CHUNK);
    for (L i = d * d; i < numbers; i++) w.U[i] = E(0.0);
    load(w, w.U, reals(t, SLOT_Q), t[SLOT_Q_STEP], d * d, t, first);
    w.curvature = max_abs(w.U, numbers);
    const E half = 0.5 * (w.curvature > 0.0 ? 1.0 / w.curvature : S(1.0));
    if (d < n) zero(w.K, n * n);
    for (L i = 0; i < d; i++)
      for (L j = i; j < d; j++)
        w.K[i*n + j] = w.K[j*n + i] = half * (w.U[i*d + j] + w.U[j*d + i]);
    for (L i = d; i < n; i++) w.K[i*n + i] = E(1.0);
  }
  static void load_rows(Work& w, const long long* t, const Cones& c, L n, L first) {
    const L d = t[SLOT_N];
    // Without padded columns the rows can go where they belong.
    E* to = d < n ? w.Rs : w.R;
    load(w, to, reals(t, SLOT_A), t[SLOT_A_STEP], c.p * d, t, first);
    load(w, to + c.p * d, reals(t, SLOT_G), t[SLOT_G_STEP], (c.rows - c.p) * d, t, first);
    if (d < n) {
      zero(w.R, c.rows * n);
      for (L r = 0; r < c.rows; r++)
        for (L j = 0; j < d; j++) w.R[r*n + j] = w.Rs[r*d + j];
    }
    // Padding stays so.
    const L start = c.rows * n, rest = (c.padded - c.rows) * n;
    zero(w.R + start, rest); zero(w.Rs + start, rest); zero(w.scale, c.padded);
    for (L r = 0; r < c.flat; r++) normalize(w, n, r, 1);
    SECOND_ORDER(r, k) normalize(w, n, r, k);
    find_spans(w, c, n);
    for (L r = 0; r < c.padded; r++) {
      w.orthant[r] = E(r >= c.p && r < c.flat ? 1.0 : 0.0);
      w.cone[r] = E(r >= c.p && r < c.rows ? 1.0 : 0.0);
      w.unit[r] = w.orthant[r];
    }
    SECOND_ORDER(r, k) w.unit[r] = E(1.0);
  }
  // A factor that met a pivot that is not positive shows it in the pivot that replaced it.
  static void find_curvature(Work& w, const long long* t, L n) {
    factor(w.K, n, w.R, 0, w.U, w.inverse, DOWNWARD * t[SLOT_N]);
    for (L i = 0; i < n / CHUNK; i++) vec(w.dx)[i] = 1.0 / vec(w.inverse)[i];
    w.is_bent = max_abs(w.dx, n) > 1e30;
  }
  static void store(const Work& w, const E* a, double* to, L size, const long long* t, L first) {
    const L left = t[SLOT_BATCH] - first;
    scatter(w.turn, a, to + first * size, size, left < GROUP ? left : GROUP);
  }
  // Rows of a back in the user's units, a / scale or a * scale / cost.
  static void store_rows(Work& w, const Cones& c, E* a, bool dual, double* y, double* z,
                         const long long* t, L first) {
    for (L r = 0; r < c.rows; r++)
      w.kt[r] = dual ? a[r] * w.scale[r] / E(w.cost) : a[r] / w.scale[r];
    if (y) store(w, w.kt, y, c.p, t, first);
    store(w, w.kt + c.p, z, c.rows - c.p, t, first);
  }
  // ---- residuals ----
  static void products(Work& w, const Cones& c, L n, E* x, E* z) {
    times(w.K, n, n, x, w.Kx);
    zero(w.Rtz, n);
    add_transposed_rows(w, c, n, w.R, z, w.Rtz);
    times_rows(w, c, n, w.R, x, w.Rx);
  }
  // Relative to what has to cancel; zero data are measured absolutely.
  static S stationarity(Work& w, L n, E* residual, S size) { return max_abs(residual, n) / size; }
  static S cost_size(Work& w, L n, E* x) {
    const S rounded = w.curvature > 0.0 ? ROUNDED * max_abs(x, n) : S(0.0);
    const S a = bigger(bigger(max_abs(w.q, n), max_abs(w.Kx, n)), rounded);
    return a > 0.0 ? a : S(1.0);
  }
  // ---- the exact active set: Newton's method on s = P(s - z) from a point near the solution ----
  // True where it succeeded; then kx, ks, kz solve the problem and U, weight, axis are the
  // derivative there.
  static Mask polish(Work& w, const Cones& c, L n, Mask wanted, S& residual) {
    FUSED
    copy(w.kx, w.x, n); copy(w.ks, w.s, c.padded); copy(w.kz, w.z, c.padded);
    S size = S(1.0), error = S(1e300), before = error;
    Mask good = yes(false);
    for (int round = 0;; round++) {
      split(c, w, w.ks, w.kz);
      products(w, c, n, w.kx, w.kz);
      if (round == 0) size = cost_size(w, n, w.kx);
      for (L i = 0; i < n / CHUNK; i++)
        vec(w.dx)[i] = -(vec(w.Kx)[i] + vec(w.Rtz)[i] + vec(w.q)[i]);
      for (L i = 0; i < c.padded / CHUNK; i++)
        vec(w.t)[i] = vec(w.h)[i] - vec(w.Rx)[i] - vec(w.ks)[i];
      error = bigger(stationarity(w, n, w.dx, size), max_abs_weighted(w.t, w.tolerance, c.padded));
      error += 0.0 * (dot(w.dx, w.dx, n) + dot(w.t, w.t, c.padded));
      good = error < POLISHED;
      const Mask idle = neither(wanted) | (error < POLISH_FLOOR);
      if (all(idle | (good & (error > 0.5 * before))) || round == POLISH_ROUNDS) break;
      before = error;
      // Where all are good, the factor of a point nearby refines as well as their own.
      const bool far = round == 0 || any(neither(idle | good));
      if (far && (find_active(w, c, w.ks, w.kz) || round == 0))
        factor_active(w, c, n);
      copy(w.kt, w.t, c.padded);
      weigh(w, c, w.kt);
      add_transposed_rows(w, c, n, w.R, w.kt, w.dx);
      substitute(w.U, w.inverse, n, w.dx);
      times_rows(w, c, n, w.R, w.dx, w.Rx);
      for (L i = 0; i < c.padded / CHUNK; i++) {
        const V g = vec(w.Rx)[i] - vec(w.t)[i];
        vec(w.Rx)[i] = g;
        vec(w.ks)[i] -= vec(w.cone)[i] * g;
      }
      weigh(w, c, w.Rx);
      for (L i = 0; i < n / CHUNK; i++) vec(w.kx)[i] += vec(w.dx)[i];
      for (L i = 0; i < c.padded / CHUNK; i++) vec(w.kz)[i] += vec(w.Rx)[i];
    }
    residual = error;
    good = good & wanted;
    if (c.count && any(good)) {
      find_active(w, c, w.ks, w.kz);
      factor_active(w, c, n);
    }
    return good;
  }
  // Factor and derivative of the cones, kept for the backward pass.
  static void keep(Work& w, const long long* t, const Cones& c, L n, L group, Mask m) {
    if (!t[SLOT_FACTOR]) return;
    E* p = (E*)t[SLOT_FACTOR] + group * (n * n + n + 2 * c.padded);
    take(m, p, w.U, n * n); p += n * n;
    take(m, p, w.inverse, n); p += n;
    take(m, p, w.weight, c.padded); p += c.padded;
    take(m, p, w.axis, c.padded);
  }
  // ---- start: least squares with all rows active, moved into the cones ----
  static void start(Work& w, const Cones& c, L n) {
    for (L r = 0; r < c.padded; r++)
      w.weight[r] = r < c.p ? root(w.penalty) : r < c.rows ? E(1.0) : E(0.0);
    for (L r = 0; r < c.rows; r++) {
      const V f = spread(w.weight[r]);
      EACH_VECTOR(j, r) vec(w.Rs + r*n)[j] = f * vec(w.R + r*n)[j];
    }
    factor_all(w, c, n);
    for (L i = 0; i < n / CHUNK; i++) vec(w.x)[i] = -vec(w.q)[i];
    for (L i = 0; i < c.padded / CHUNK; i++)
      vec(w.t)[i] = vec(w.weight)[i] * vec(w.weight)[i] * vec(w.h)[i];
    add_transposed_rows(w, c, n, w.R, w.t, w.x);
    substitute(w.U, w.inverse, n, w.x);
    times_rows(w, c, n, w.R, w.x, w.Rx);
    for (L i = 0; i < c.padded / CHUNK; i++) {
      const V f = vec(w.weight)[i], v = f * f * (vec(w.h)[i] - vec(w.Rx)[i]);
      vec(w.s)[i] = v * vec(w.cone)[i];
      vec(w.z)[i] = -v;
    }
    if (c.degree == 0) return;
    const S low = smallest(w, c, w.s), high = smallest(w, c, w.z);
    add(w.s, low > 1e-8 ? S(0.0) : 1.0 - low, w.unit, c.padded);
    add(w.z, high > 1e-8 ? S(0.0) : 1.0 - high, w.unit, c.padded);
  }
  // ---- one predictor-corrector step; the length of the step ----
  static S step(Work& w, const Cones& c, L n, S mu, Mask live, Mask& broken) {
    FUSED
    find_scaling(w, c);
    scale_rows(w, c, n);
    factor_all(w, c, n);
    scale(w, c, w.rp, true);
    S length = S(1.0), target = S(0.0);
    for (int phase = 0; phase < (c.degree > 0 ? 2 : 1); phase++) {
      complementarity(w, c, phase == 1, target);
      for (L i = 0; i < c.padded / CHUNK; i++) vec(w.Rx)[i] = vec(w.t)[i] - vec(w.rp)[i];
      for (L i = 0; i < n / CHUNK; i++) vec(w.dx)[i] = -vec(w.rd)[i];
      add_transposed_rows(w, c, n, w.Rs, w.Rx, w.dx);
      substitute(w.U, w.inverse, n, w.dx);
      times_rows(w, c, n, w.Rs, w.dx, w.dz);
      for (L i = 0; i < c.padded / CHUNK; i++) {
        const V d = vec(w.dz)[i] - vec(w.Rx)[i];
        vec(w.dz)[i] = d;
        vec(w.ds)[i] = vec(w.cone)[i] * (-vec(w.t)[i] - d);
      }
      if (c.degree == 0) break;
      const S inverse = bigger(inverse_step(w, c, w.ds), inverse_step(w, c, w.dz));
      if (phase == 0) {
        length = 1.0 / bigger(inverse, S(1.0));
        S products = S(0.0);
        for (L i = 0; i < c.padded / CHUNK; i++)
          vec(w.t)[i] = vec(w.cone)[i] * (vec(w.lambda)[i] + spread(length) * vec(w.ds)[i]);
        for (L i = 0; i < c.padded / CHUNK; i++)
          vec(w.kt)[i] = vec(w.lambda)[i] + spread(length) * vec(w.dz)[i];
        products = dot(w.t, w.kt, c.padded) / (mu * c.degree);
        const S left = products > 0.0 ? products : S(0.0);
        target = mu * left * left * left;
      } else {
        const S most = TO_THE_BOUNDARY / bigger(inverse, S(1e-30));
        length = most < 1.0 ? most : S(1.0);
      }
    }
    const S total = dot(w.dx, w.dx, n) + dot(w.ds, w.ds, c.padded) + dot(w.dz, w.dz, c.padded);
    broken = live & neither((total < 1e280) & (length > 1e-9));
    live = live & neither(broken);
    scale(w, c, w.ds, false);
    scale(w, c, w.dz, true);
    const V f = spread(choose(live, length, S(0.0)));
    for (L i = 0; i < n / CHUNK; i++)
      vec(w.x)[i] = choose(live, vec(w.x)[i] + f * vec(w.dx)[i], vec(w.x)[i]);
    for (L i = 0; i < c.padded / CHUNK; i++) {
      vec(w.s)[i] = choose(live, vec(w.s)[i] + vec(w.cone)[i] * f * vec(w.ds)[i], vec(w.s)[i]);
      vec(w.z)[i] = choose(live, vec(w.z)[i] + f * vec(w.dz)[i], vec(w.z)[i]);
    }
    return length;
  }
  // Multipliers that grow without end do so along a proof that no point satisfies all rows; it
  // shows in their last increment before it shows in themselves.
  static Mask growth_contradicts(Work& w, const Cones& c, L n) {
    for (L i = 0; i < c.padded / CHUNK; i++) {
      const V d = vec(w.dz)[i], up = vec(w.orthant)[i] * (d > 0.0 ? d : V(0.0));
      vec(w.kz)[i] = up + (V(1.0) - vec(w.cone)[i]) * d;
    }
    zero(w.kx, n);
    add_transposed_rows(w, c, n, w.R, w.kz, w.kx);
    const S gain = -dot(w.h, w.kz, c.padded);
    return (gain > 0.0) & (max_abs(w.kx, n) * FAR * (1.0 + max_abs(w.x, n)) < gain);
  }
  // ---- one group of problems ----
  static void solve(Work& w, const long long* t, const Cones& c, L n, L group) {
    const L first = group * GROUP, rest = c.rows - c.p;
    const int limit = (int)t[SLOT_LIMIT];
    zero(w.q, n); zero(w.h, c.padded); zero(w.axis, c.padded); zero(w.tolerance, c.padded);
    load(w, w.q, reals(t, SLOT_LINEAR), t[SLOT_LINEAR_STEP], t[SLOT_N], t, first);
    load(w, w.h, reals(t, SLOT_B), t[SLOT_B_STEP], c.p, t, first);
    load(w, w.h + c.p, reals(t, SLOT_H), t[SLOT_H_STEP], rest, t, first);
    // Without curvature the cost is measured by its slope.
    const S slope = max_abs(w.q, n);
    w.cost = w.curvature > 0.0 ? 1.0 / w.curvature : slope > 0.0 ? 1.0 / slope : S(1.0);
    for (L i = 0; i < n / CHUNK; i++) vec(w.q)[i] *= spread(w.cost);
    // Multipliers are of the size of the slope.
    const S steep = slope * w.cost;
    w.penalty = PENALTY * bigger(0.1 * steep, S(1.0));
    for (L i = 0; i < c.rows; i++) {
      const E h = w.h[i] * w.scale[i];
      w.h[i] = h;
      w.tolerance[i] = E(1.0) / (E(1.0) + (h > -h ? h : -h));
    }
    start(w, c, n);
    Mask done = yes(false), polished = done;
    const double near = c.count && c.flat == c.p ? NEAR_CONES : NEAR;
    S status = S(MAX_ITERATIONS), count = S(0.0), residual = S(1e300);
    for (int round = 0, next = 0;; round++) {
      products(w, c, n, w.x, w.z);
      for (L i = 0; i < n / CHUNK; i++)
        vec(w.rd)[i] = vec(w.Kx)[i] + vec(w.Rtz)[i] + vec(w.q)[i];
      for (L i = 0; i < c.padded / CHUNK; i++)
        vec(w.rp)[i] = vec(w.Rx)[i] + vec(w.s)[i] - vec(w.h)[i];
      const S size = cost_size(w, n, w.x);
      const S mu = c.degree > 0 ? dot(w.s, w.z, c.padded) / c.degree : S(0.0);
      S error = bigger(stationarity(w, n, w.rd, size), max_abs_weighted(w.rp, w.tolerance, c.padded));
      error = bigger(error, mu / size);
      Mask live = neither(done);
      residual = choose(live, error, residual);
      const Mask finite = dot(w.rd, w.rd, n) + dot(w.rp, w.rp, c.padded) + mu < 1e290;
      // A feasible point would be further than 1e8 away; a ray along which the cost falls.
      const S far = FAR * (1.0 + max_abs(w.x, n)), gain = -dot(w.h, w.z, c.padded);
      const Mask contradicts = (gain > 0.0) & (max_abs(w.Rtz, n) * far < gain);
      const S fall = -dot(w.q, w.x, n);
      for (L i = 0; i < c.padded / CHUNK; i++) {
        vec(w.t)[i] = -vec(w.Rx)[i];
        vec(w.kt)[i] = (V(1.0) - vec(w.cone)[i]) * vec(w.Rx)[i];
      }
      const S outside = bigger(-smallest(w, c, w.t), max_abs(w.kt, c.padded));
      const Mask falls = (fall > 0.0) & (FAR * bigger(steep, S(1.0)) * bigger(max_abs(w.Kx, n), outside) < fall);
      status = choose(live & falls, S(UNBOUNDED), status);
      status = choose(live & contradicts, S(INFEASIBLE), status);
      status = choose(live & neither(finite), S(NON_FINITE), status);
      done = done | falls | contradicts | neither(finite);
      status = choose(neither(done) & w.is_bent, S(BREAKDOWN), status);
      done = done | w.is_bent;
      live = neither(done);
      const Mask exact = live & (error < EXACT);
      status = choose(exact, S(STALLED), status);
      done = done | exact;
      live = neither(done);
      if (round >= limit) { done = yes(true); }
      const Mask open = live | (neither(polished) & (status == STALLED));
      const bool last = all(done);
      // Slower lanes get two more steps, then the others go ahead.
      const bool ready = all(done | (error < near)) || any(live & (error < NEARER));
      if (any(open) && (last || (round >= next && ready))) {
        S reached = residual;
        const Mask ok = polish(w, c, n, open, reached);
        take(ok, w.x, w.kx, n); take(ok, w.s, w.ks, c.padded); take(ok, w.z, w.kz, c.padded);
        status = choose(ok, S(CONVERGED), status);
        residual = choose(ok, reached, residual);
        polished = polished | ok;
        done = done | ok;
        keep(w, t, c, n, group, ok);
        next = round + 2;
        if (last || all(done)) break;
        round--;
        continue;
      }
      if (last) break;
      count = choose(live, count + 1.0, count);
      Mask broken;
      step(w, c, n, mu, live, broken);
      status = choose(broken, choose(error < CLOSE, S(STALLED), S(BREAKDOWN)), status);
      done = done | broken;
      if (round >= PATIENCE) {
        const Mask proven = neither(done) & growth_contradicts(w, c, n);
        status = choose(proven, S(INFEASIBLE), status);
        done = done | proven;
      }
    }
    const Mask lost = status == NON_FINITE;
    residual = choose(lost, S(__builtin_nan("")), residual);
    zero(w.kx, n); zero(w.kz, c.padded);
    take(lost, w.x, w.kx, n); take(lost, w.s, w.kz, c.padded); take(lost, w.z, w.kz, c.padded);
    const Results to(t);
    store(w, w.x, to.x, t[SLOT_N], t, first);
    store_rows(w, c, w.z, true, to.y, to.z, t, first);
    store_rows(w, c, w.s, false, nullptr, to.s, t, first);
    for (int l = 0; l < GROUP && first + l < t[SLOT_BATCH]; l++) {
      to.status[first + l] = (long long)lane(status, l);
      to.iterations[first + l] = (long long)lane(count, l);
      to.residual[first + l] = lane(residual, l);
      if (lane(status, l) != CONVERGED) ((long long*)t)[SLOT_FAILED] = 1;
    }
  }
  // ---- backward: the polished system once more, with the gradient on the right ----
  static void adjoint(Work& w, const long long* t, const Cones& c, L n, L group) {
    FUSED
    const L first = group * GROUP;
    E* p = (E*)t[SLOT_FACTOR] + group * (n * n + n + 2 * c.padded);
    E *U = p, *inverse = p + n * n;
    Work k = w;
    k.weight = inverse + n; k.axis = k.weight + c.padded;
    zero(w.q, n); zero(w.kx, n); zero(w.kz, c.padded); zero(w.t, c.padded);
    load(w, w.q, reals(t, SLOT_LINEAR), t[SLOT_N], t[SLOT_N], t, first);
    // Any unit of cost will do where there is no curvature.
    w.cost = w.curvature > 0.0 ? 1.0 / w.curvature : S(1.0);
    for (L i = 0; i < n / CHUNK; i++) vec(w.q)[i] *= spread(w.cost);
    for (L i = 0; i < n / CHUNK; i++) vec(w.dx)[i] = -vec(w.q)[i];
    for (int round = 0; round < 2; round++) {
      if (round) {
        products(w, c, n, w.kx, w.kz);
        for (L i = 0; i < n / CHUNK; i++)
          vec(w.dx)[i] = -(vec(w.q)[i] + vec(w.Kx)[i] + vec(w.Rtz)[i]);
        for (L i = 0; i < c.padded / CHUNK; i++)
          vec(w.t)[i] = (vec(w.orthant)[i] + (V(1.0) - vec(w.cone)[i])) * -vec(w.Rx)[i];
        copy(w.kt, w.t, c.padded);
        weigh(k, c, w.kt);
        add_transposed_rows(w, c, n, w.R, w.kt, w.dx);
      }
      substitute(U, inverse, n, w.dx);
      times_rows(w, c, n, w.R, w.dx, w.Rx);
      for (L i = 0; i < c.padded / CHUNK; i++) vec(w.Rx)[i] -= vec(w.t)[i];
      weigh(k, c, w.Rx);
      for (L i = 0; i < n / CHUNK; i++) vec(w.kx)[i] += vec(w.dx)[i];
      for (L i = 0; i < c.padded / CHUNK; i++) vec(w.kz)[i] += vec(w.Rx)[i];
    }
    const Results to(t);
    S ended = S(0.0);
    for (int l = 0; l < GROUP; l++) {
      const L item = first + l < t[SLOT_BATCH] ? first + l : t[SLOT_BATCH] - 1;
      put((E*)&ended, l, (double)to.status[item]);
    }
    const Mask good = ended < 0.5;
    zero(w.x, n); zero(w.z, c.padded);
    take(good, w.x, w.kx, n); take(good, w.z, w.kz, c.padded);
    // Right-hand sides enter the conditions with the other sign.
    for (L i = 0; i < c.padded / CHUNK; i++) vec(w.z)[i] = -vec(w.z)[i];
    store(w, w.x, to.x, t[SLOT_N], t, first);
    store_rows(w, c, w.z, true, to.y, to.z, t, first);
  }
  static void run(const long long* t, L block, Turn turn) {
    const Cones c = describe(t);
    const L n = up(t[SLOT_N], SIDE), groups = (t[SLOT_BATCH] + GROUP - 1) / GROUP;
    Work w;
    w.turn = turn;
    carve(w, (E*)(t[SLOT_WORK] + block * t[SLOT_WORK_STEP]), n, c.padded);
    const bool own_cost = t[SLOT_Q_STEP], own_rows = t[SLOT_G_STEP] || t[SLOT_A_STEP];
    const L from = groups * block / t[SLOT_BLOCKS], to = groups * (block + 1) / t[SLOT_BLOCKS];
    for (L group = from; group < to; group++) {
      const bool is_new = group == from || own_cost;
      if (is_new) load_cost(w, t, n, group * GROUP);
      if (group == from || own_rows) load_rows(w, t, c, n, group * GROUP);
      if (is_new && t[SLOT_OP] == 0) find_curvature(w, t, n);
      if (t[SLOT_OP] == 0) solve(w, t, c, n, group);
      else adjoint(w, t, c, n, group);
    }
  }
