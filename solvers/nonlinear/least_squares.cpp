  // One block is one least-squares problem. Names of operations, sizes and the cases of `terms`
  // stand above this text or in place of the mark below.
  typedef long long L;
  constexpr int WIDE = 2 * LANES, TILE = 8, CHUNK = 64;
  const int item = items[block];
  const L* const places = (const L*)table;
  const double ridge = numbers[NUMBER_RIDGE];
  const double* const scales = numbers + NUMBERS;

  struct Number1 { enum { value = 1 }; };
  struct Number2 { enum { value = 2 }; };
  const L gram = (L)PADDED * PADDED, rows_most = (L)CHUNK * ROWS_MOST;
  const L size = 3 * gram + 8 * PADDED + 2 * rows_most * PADDED + rows_most + 2 * LANES;
  char* const memory = (char*)__builtin_malloc(size * 8 + 64);
  double* next = (double*)(((L)memory + 63) / 64 * 64);
  for (L i = 0; i < size; i++) next[i] = 0.0;
  const auto take = [&](L count) -> double* { double* const p = next; next += count; return p; };
  double* const left = take(rows_most * PADDED);   // rows of one chunk: two factors
  double* const right = take(rows_most * PADDED);
  double *H = take(gram), *H_new = take(gram), *const U = take(gram);
  double *g = take(PADDED), *g_new = take(PADDED), *x = take(PADDED), *x_new = take(PADDED);
  double *const step = take(PADDED), *const damping = take(PADDED), *const v = take(PADDED);
  double* const weight = take(rows_most + PADDED);
  double* const tail = take(2 * LANES);

  const auto load = [](const double* p) __attribute__((always_inline)) -> V {
    V y; __builtin_memcpy(&y, p, sizeof(V)); return y; };
  const auto keep = [](double* p, V y) __attribute__((always_inline)) {
    __builtin_memcpy(p, &y, sizeof(V)); };

  // Columns that whole vectors do not reach are read again from the end of the row; their factors
  // in `tail` are zero where they were counted before.
  const auto set_tail = [&](const double* factors, double* ends) {
    for (int i = 0; i < LANES && UNKNOWNS >= LANES; i++) {
      const int n = UNKNOWNS - LANES + i;
      ends[i] = n < UNKNOWNS / LANES * LANES ? 0.0 : factors[n];
    }
  };
  // One feature of LANES points: Phi w.
  const auto combine = [&](const double* phi, auto family, int kk, L first, L m,
                           const double* factors, const double* ends)
      __attribute__((always_inline)) -> V {
#pragma clang fp contract(fast)
    constexpr int k = K_OF[decltype(family)::value];
    const double* row[LANES];
    for (int l = 0; l < LANES; l++)
      row[l] = phi + ((first + l < m ? first + l : m - 1) * k + kk) * UNKNOWNS;
    V z = V(0.0);
    if (UNKNOWNS < LANES) {
      for (int l = 0; l < LANES; l++) {
        double s = 0.0;
        for (int n = 0; n < UNKNOWNS; n++) s += row[l][n] * factors[n];
        vput(z, l, s);
      }
      return z;
    }
    V part[LANES];
    for (int l = 0; l < LANES; l++) part[l] = V(0.0);
    int n = 0;
    for (; n + LANES <= UNKNOWNS; n += LANES) {
      const V f = load(factors + n);
      for (int l = 0; l < LANES; l++) part[l] += load(row[l] + n) * f;
    }
    if (n < UNKNOWNS) {
      const V f = load(ends);
      for (int l = 0; l < LANES; l++) part[l] += load(row[l] + UNKNOWNS - LANES) * f;
    }
    vturn(part);
    for (int l = 0; l < LANES; l++) z += part[l];
    return z;
  };
  // target = sum over features of factor times row, for one point.
  const auto mix = [&](const double* rows, auto family, const double* factors, double* target)
      __attribute__((always_inline)) {
#pragma clang fp contract(fast)
    constexpr int k = K_OF[decltype(family)::value];
    const auto at = [&](int n) __attribute__((always_inline)) {
#pragma clang fp contract(fast)
      V s = load(rows + n) * factors[0];
      for (int kk = 1; kk < k; kk++) s += load(rows + kk * UNKNOWNS + n) * factors[kk];
      keep(target + n, s);
    };
    if (UNKNOWNS < LANES) {
      for (int n = 0; n < UNKNOWNS; n++) {
        double s = 0.0;
        for (int kk = 0; kk < k; kk++) s += rows[kk * UNKNOWNS + n] * factors[kk];
        target[n] = s;
      }
      return;
    }
    int n = 0;
    for (; n + LANES <= UNKNOWNS; n += LANES) at(n);
    if (n < UNKNOWNS) at(UNKNOWNS - LANES);
  };
  // Upper half of target += left' right, and vector += left' weight.
  const auto accumulate = [&](const double* one, const double* two, int rows, double* target,
                              double* vector) {
    const auto tile = [&](int i, int j, auto width) __attribute__((always_inline)) {
#pragma clang fp contract(fast)
      constexpr int wide = decltype(width)::value;
      V a[TILE][wide];
      for (int q = 0; q < TILE; q++)
        for (int h = 0; h < wide; h++) a[q][h] = load(target + (i + q) * PADDED + j + h * LANES);
      for (int p = 0; p < rows; p++) {
        const double* const f = one + (L)p * PADDED + i;
        V s[wide];
        for (int h = 0; h < wide; h++) s[h] = load(two + (L)p * PADDED + j + h * LANES);
        for (int q = 0; q < TILE; q++)
          for (int h = 0; h < wide; h++) a[q][h] += s[h] * f[q];
      }
      for (int q = 0; q < TILE; q++)
        for (int h = 0; h < wide; h++) keep(target + (i + q) * PADDED + j + h * LANES, a[q][h]);
    };
    for (int i = 0; i < PADDED; i += TILE) {
      int j = i / LANES * LANES;
      for (; j % WIDE; j += LANES) tile(i, j, Number1{});
      for (; j < PADDED; j += WIDE) tile(i, j, Number2{});
    }
    for (int j = 0; j < PADDED; j += LANES) {
#pragma clang fp contract(fast)
      V s = load(vector + j);
      for (int p = 0; p < rows; p++) s += load(one + (L)p * PADDED + j) * weight[p];
      keep(vector + j, s);
    }
  };

  const auto terms = [&](int which, const V* z, const V* d, const V* y, V* out) {
    switch (which) {
@CASES@
    }
  };
  // Features and data of LANES points.
  const auto read = [&](auto family, L first, const double* factors, const double* ends, V* z)
      __attribute__((always_inline)) {
    constexpr int f = decltype(family)::value, k = K_OF[f];
    const L m = places[PLACES * f + 4];
    const double* const phi = (const double*)places[PLACES * f] + (L)item * m * k * UNKNOWNS;
    for (int kk = 0; kk < k; kk++) z[kk] = combine(phi, family, kk, first, m, factors, ends);
  };
  const auto read_data = [&](auto family, L first, V* d) {
    constexpr int f = decltype(family)::value;
    const L m = places[PLACES * f + 4];
    const double* const data = (const double*)places[PLACES * f + 1] + (L)item * m * A_OF[f];
    for (int i = 0; i < A_OF[f]; i++) {
      if (first + LANES <= m) d[i] = load(data + i * m + first);
      else
        for (int l = 0; l < LANES; l++)
          vput(d[i], l, data[i * m + (first + l < m ? first + l : m - 1)]);
    }
  };

  // Cost, gradient and matrix at w: of Gauss and Newton, or exact.
  const auto assemble = [&](bool is_exact, const double* w, double* matrix, double* gradient)
      -> double {
    for (L i = 0; i < gram; i++) matrix[i] = 0.0;
    for (int i = 0; i < PADDED; i++) gradient[i] = 0.0;
    set_tail(w, tail);
    double cost = 0.0;
    V z[K_MOST], d[A_MOST], out[OUT_MOST];
    const auto add_family = [&](auto family) {
      constexpr int f = decltype(family)::value, k = K_OF[f], c = C_OF[f];
      const L m = places[PLACES * f + 4];
      const double* const phi = (const double*)places[PLACES * f] + (L)item * m * k * UNKNOWNS;
      const double scale = scales[f], root = vlane(vsqrt(V(scale)), 0);
      for (L begin = 0; begin < m; begin += CHUNK) {
        const L end = begin + CHUNK < m ? begin + CHUNK : m;
        int rows = 0;
        for (L first = begin; first < end; first += LANES) {
          read(family, first, w, tail, z);
          read_data(family, first, d);
          terms(3 * f + is_exact, z, d, z, out);
          const int valid = end - first < LANES ? (int)(end - first) : LANES;
          double factors[K_MOST];
          for (int l = 0; l < valid; l++) {
            const double* const point = phi + (first + l) * k * UNKNOWNS;
            if (is_exact) {
              cost += scale * vlane(out[k + k * k], l);
              for (int kk = 0; kk < k; kk++, rows++) {
                weight[rows] = scale * vlane(out[kk], l);
                __builtin_memcpy(left + (L)rows * PADDED, point + kk * UNKNOWNS, UNKNOWNS * 8);
                for (int q = 0; q < k; q++) factors[q] = scale * vlane(out[k + kk * k + q], l);
                mix(point, family, factors, right + (L)rows * PADDED);
              }
            } else {
              for (int e = 0; e < c; e++, rows++) {
                const double r = root * vlane(out[e], l);
                cost += 0.5 * r * r;
                weight[rows] = r;
                for (int q = 0; q < k; q++) factors[q] = root * vlane(out[c + e * k + q], l);
                mix(point, family, factors, left + (L)rows * PADDED);
              }
            }
          }
        }
        accumulate(left, is_exact ? right : left, rows, matrix, gradient);
      }
    };
    @EACH_FAMILY(add_family)@
    for (int n = 0; n < UNKNOWNS; n++) {
      cost += 0.5 * ridge * w[n] * w[n];
      gradient[n] += ridge * w[n];
      matrix[(L)n * PADDED + n] += ridge;
    }
    // An infinite slope is as bad as an infinite value.
    double slopes = 0.0;
    for (int n = 0; n < UNKNOWNS; n++) slopes += gradient[n];
    return cost + 0.0 * slopes;
  };

  // U' U = H + diag(damping); whether all pivots are positive.
  const auto factorize = [&]() -> bool {
#pragma clang fp contract(fast)
    for (int i = 0; i < UNKNOWNS; i++) {
      double* const row = U + (L)i * PADDED;
      for (int j = i; j < UNKNOWNS; j++) row[j] = H[(L)i * PADDED + j];
      row[i] += damping[i];
      for (int p = 0; p < i; p++) {
        const double* const above = U + (L)p * PADDED;
        const double f = above[i];
        for (int j = i; j < UNKNOWNS; j++) row[j] -= f * above[j];
      }
      if (!(row[i] > 0.0)) return false;
      const double f = 1.0 / vlane(vsqrt(V(row[i])), 0);
      for (int j = i; j < UNKNOWNS; j++) row[j] *= f;
    }
    return true;
  };
  const auto solve = [&]() {
    for (int i = 0; i < UNKNOWNS; i++) step[i] = -g[i];
    for (int i = 0; i < UNKNOWNS; i++) {
      step[i] /= U[(L)i * PADDED + i];
      for (int j = i + 1; j < UNKNOWNS; j++) step[j] -= U[(L)i * PADDED + j] * step[i];
    }
    for (int i = UNKNOWNS - 1; i >= 0; i--) {
      double s = step[i];
      for (int j = i + 1; j < UNKNOWNS; j++) s -= U[(L)i * PADDED + j] * step[j];
      step[i] = s / U[(L)i * PADDED + i];
    }
  };
  const auto is_finite = [](double y) -> bool { return y - y == 0.0; };
  const auto swap = [](double*& one, double*& two) { double* const t = one; one = two; two = t; };

  double* const result = report + (L)block * REPORTS;
  for (int n = 0; n < UNKNOWNS; n++) x[n] = w[(L)item * UNKNOWNS + n];
  if (operation == OPERATION_PULL) {
    for (int n = 0; n < UNKNOWNS; n++) v[n] = vector[(L)block * UNKNOWNS + n];
    set_tail(x, tail);
    set_tail(v, tail + LANES);
    V z[K_MOST], y[K_MOST], d[A_MOST], out[OUT_MOST];
    const auto pull_family = [&](auto family) {
      constexpr int f = decltype(family)::value, k = K_OF[f];
      const L m = places[PLACES * f + 4];
      double* const features = (double*)places[PLACES * f + 2] + (L)item * m * k * UNKNOWNS;
      double* const data = (double*)places[PLACES * f + 3] + (L)item * m * A_OF[f];
      for (L first = 0; first < m; first += LANES) {
        read(family, first, x, tail, z);
        read(family, first, v, tail + LANES, y);
        read_data(family, first, d);
        terms(3 * f + 2, z, d, y, out);
        const int valid = m - first < LANES ? (int)(m - first) : LANES;
        for (int l = 0; l < valid; l++) {
          for (int kk = 0; kk < k; kk++) {
            const double a = scales[f] * vlane(out[kk], l), b = scales[f] * vlane(out[k + kk], l);
            double* const row = features + ((first + l) * k + kk) * UNKNOWNS;
            int n = 0;
            for (; n + LANES <= UNKNOWNS; n += LANES) keep(row + n, load(v + n) * a + load(x + n) * b);
            for (; n < UNKNOWNS; n++) row[n] = a * v[n] + b * x[n];
          }
          for (int i = 0; i < A_OF[f]; i++)
            data[i * m + first + l] = scales[f] * vlane(out[2 * k + i], l);
        }
      }
    };
    @EACH_FAMILY(pull_family)@
  } else if (operation == OPERATION_SOLVE) {
    const double tolerance = numbers[NUMBER_TOLERANCE];
    const int limit = (int)numbers[NUMBER_LIMIT];
    double lambda = numbers[NUMBER_FIRST], growth = 2.0, error = 0.0;
    double cost = assemble(false, x, H, g);
    int status = is_finite(cost) ? -1 : STATUS_NON_FINITE, iteration = 0, refused = 0, tiny = 0;
    bool is_exact = false, may_be_exact = true;
    while (status < 0) {
      double largest = 0.0;
      for (int n = 0; n < UNKNOWNS; n++) {
        const double own = H[(L)n * PADDED + n];
        largest = own > largest ? own : largest;
      }
      for (int n = 0; n < UNKNOWNS; n++) {
        const double own = H[(L)n * PADDED + n], least = 1e-30 * largest;
        damping[n] = lambda * (own > least ? own : least > 0.0 ? least : 1.0);
      }
      double decrement = 0.0, energy = 0.0, curvature = 0.0;
      const bool is_definite = factorize();
      if (is_definite) {
        solve();
        for (int n = 0; n < UNKNOWNS; n++) {
          decrement -= g[n] * step[n];
          curvature += damping[n] * step[n] * step[n];
          double s = H[(L)n * PADDED + n] * x[n];
          for (int j = n + 1; j < UNKNOWNS; j++) s += 2.0 * H[(L)n * PADDED + j] * x[j];
          energy += x[n] * s;
        }
        const double scale = 2.0 * cost > energy ? 2.0 * cost : energy;
        const double square = (1.0 + lambda) * decrement;
        error = scale > 0.0 ? vlane(vsqrt(V(square > 0.0 ? square / scale : 0.0)), 0) : 0.0;
        if (error <= tolerance) { status = STATUS_CONVERGED; break; }
        if (iteration == limit) { status = STATUS_MAX_ITERATIONS; break; }
        for (int n = 0; n < UNKNOWNS; n++) x_new[n] = x[n] + step[n];
        const bool is_near = may_be_exact && error < NEWTON_FROM;
        const double cost_new = assemble(is_near, x_new, H_new, g_new);
        const double predicted = 0.5 * (decrement + curvature);
        const bool is_tiny = predicted <= NOISE * scale;
        tiny += is_tiny;
        const double ratio = is_tiny ? 1.0 : (cost - cost_new) / predicted;
        iteration++;
        if (is_finite(cost_new) && ratio > 0.0) {
          swap(x, x_new); swap(H, H_new); swap(g, g_new);
          cost = cost_new;
          is_exact = is_near;
          const double t = 2.0 * ratio - 1.0, shrink = 1.0 - t * t * t;
          lambda *= shrink > 1.0 / 3.0 ? shrink : 1.0 / 3.0;
          lambda = lambda > LAMBDA_LEAST ? lambda : LAMBDA_LEAST;
          growth = 2.0;
          if (tiny > TINY_MOST) status = STATUS_STALLED;
          continue;
        }
      } else {
        if (iteration == limit) { status = STATUS_MAX_ITERATIONS; break; }
        iteration++;
        if (is_exact) {
          is_exact = may_be_exact = false;
          assemble(false, x, H, g);
          continue;
        }
      }
      refused++;
      lambda *= growth; growth *= 2.0;
      if (lambda > LAMBDA_MOST || !is_finite(lambda)) status = STATUS_STALLED;
    }
    for (int n = 0; n < UNKNOWNS; n++) w[(L)item * UNKNOWNS + n] = x[n];
    result[0] = status; result[1] = iteration; result[2] = error; result[3] = cost;
    result[4] = refused;
  } else {
    result[3] = assemble(operation == OPERATION_EXACT, x, H, g);
    for (int i = 0; i < UNKNOWNS; i++) {
      vector[(L)block * UNKNOWNS + i] = g[i];
      for (int j = i; j < UNKNOWNS; j++)
        matrix[((L)block * UNKNOWNS + i) * UNKNOWNS + j] =
            matrix[((L)block * UNKNOWNS + j) * UNKNOWNS + i] = H[(L)i * PADDED + j];
    }
  }
  __builtin_free(memory);
