  // Sums over the points of one least-squares problem, which is one block. Names of operations,
  // sizes and the cases of `terms` stand above this text or in place of the marks below. The values
  // of residuals are computed here (lanes are points), or given: then `terms` reads them.
  typedef long long L;
  // A tile of sums fits the registers: 32 of them where vectors have eight lanes, else 16.
  constexpr int WIDE = 2 * LANES, TILE = LANES < 8 ? 4 : 8, CHUNK = 64;
  const int item = items[block];
  const L* const places = (const L*)table;
  const double ridge = numbers[NUMBER_RIDGE];
  const double* const scales = numbers + NUMBERS;

  struct Number1 { enum { value = 1 }; };
  struct Number2 { enum { value = 2 }; };
  const L gram = (L)PADDED * PADDED, rows_most = (L)CHUNK * ROWS_MOST;
  const L size = 3 * gram + 8 * PADDED + 2 * rows_most * PADDED + rows_most + 2 * LANES
                 + OUT_MOST * CHUNK;
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
  double* const values = take(OUT_MOST * CHUNK);  // of one chunk, point after point

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
  // target = sum over features of factor times row, for one point of a chunk.
  const auto mix = [&](const double* rows, auto family, const double* factors, double* target)
      __attribute__((always_inline)) {
#pragma clang fp contract(fast)
    constexpr int k = K_OF[decltype(family)::value];
    const auto at = [&](int n) __attribute__((always_inline)) {
#pragma clang fp contract(fast)
      V s = load(rows + n) * factors[0];
      for (int kk = 1; kk < k; kk++) s += load(rows + kk * UNKNOWNS + n) * factors[kk * CHUNK];
      keep(target + n, s);
    };
    if (UNKNOWNS < LANES) {
      for (int n = 0; n < UNKNOWNS; n++) {
        double s = 0.0;
        for (int kk = 0; kk < k; kk++) s += rows[kk * UNKNOWNS + n] * factors[kk * CHUNK];
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
      // Four sums, so that one does not wait for the other.
      V s[4] = {load(vector + j), V(0.0), V(0.0), V(0.0)};
      int p = 0;
      for (; p + 4 <= rows; p += 4)
        for (int q = 0; q < 4; q++) s[q] += load(one + (L)(p + q) * PADDED + j) * weight[p + q];
      for (; p < rows; p++) s[0] += load(one + (L)p * PADDED + j) * weight[p];
      keep(vector + j, (s[0] + s[1]) + (s[2] + s[3]));
    }
  };

  // LANES points of an array that has `m` for each of `count` numbers; the last point repeats.
  const auto gather = [&](const double* from, int count, L first, L m, V* target)
      __attribute__((always_inline)) {
    for (int i = 0; i < count; i++) {
      if (first + LANES <= m) target[i] = load(from + i * m + first);
      else
        for (int l = 0; l < LANES; l++)
          vput(target[i], l, from[i * m + (first + l < m ? first + l : m - 1)]);
    }
  };
  // Features and data of LANES points.
  const auto read = [&](auto family, L first, const double* factors, const double* ends, V* z)
      __attribute__((always_inline)) {
    constexpr int f = decltype(family)::value, k = K_OF[f];
    const L m = places[PLACES * f + 4];
    const double* const phi = (const double*)places[PLACES * f] + (L)item * m * k * UNKNOWNS;
    // Rows are read in an order that the machine does not foresee: fetch two groups ahead.
    const double* const ahead = phi + (first + 2 * LANES) * k * UNKNOWNS;
    for (int n = 0; n < LANES * k * UNKNOWNS; n += 8) __builtin_prefetch(ahead + n);
    for (int kk = 0; kk < k; kk++) z[kk] = combine(phi, family, kk, first, m, factors, ends);
  };
  // Values of LANES points: rows and slopes; slopes, curvature and cost; or slopes, what is pulled
  // back to features along y, and to data.
  const auto terms = [&](auto family, int mode, L first, const V* z, const V* y, V* out)
      __attribute__((always_inline)) {
    constexpr int f = decltype(family)::value, k = K_OF[f], c = C_OF[f];
    const L m = places[PLACES * f + 4];
    const double* const data = (const double*)places[PLACES * f + 1];
    if (IS_GIVEN) {
      const int count = mode == 0 ? c + c * k : mode == 1 ? k + k * k + 1 : 2 * k;
      gather(data + (L)block * m * count, count, first, m, out);
      return;
    }
    V d[A_MOST];
    gather(data + (L)item * m * A_OF[f], A_OF[f], first, m, d);
    switch (3 * f + mode) {
@CASES@
    }
  };

  // Cost, gradient and matrix at w: of Gauss and Newton, or exact.
  const auto assemble = [&](bool is_exact, const double* w, double* matrix, double* gradient)
      -> double {
    for (L i = 0; i < gram; i++) matrix[i] = 0.0;
    for (int i = 0; i < PADDED; i++) gradient[i] = 0.0;
    set_tail(w, tail);
    double cost = 0.0;
    V z[K_MOST], out[OUT_MOST];
    const auto add_family = [&](auto family) {
      constexpr int f = decltype(family)::value, k = K_OF[f], c = C_OF[f];
      constexpr bool is_dense = PADDED == UNKNOWNS;
      const L m = places[PLACES * f + 4];
      const double* const phi = (const double*)places[PLACES * f] + (L)item * m * k * UNKNOWNS;
      const double scale = scales[f], root = vlane(vsqrt(V(scale)), 0);
      const int count = is_exact ? k + k * k + 1 : c + c * k;
      const V factor = V(is_exact ? scale : root);
      for (L begin = 0; begin < m; begin += CHUNK) {
        const int points = m - begin < CHUNK ? (int)(m - begin) : CHUNK;
        for (int p = 0; p < points; p += LANES) {
          if (!IS_GIVEN) read(family, begin + p, w, tail, z);
          terms(family, is_exact, begin + p, z, z, out);
          for (int i = 0; i < count; i++) keep(values + i * CHUNK + p, out[i] * factor);
        }
        const double* const chunk = phi + begin * k * UNKNOWNS;
        const double* rows = left;
        if (is_exact) {
          for (int p = 0; p < points; p++) {
            cost += values[(k + k * k) * CHUNK + p];
            const double* const point = chunk + (L)p * k * UNKNOWNS;
            for (int kk = 0; kk < k; kk++) {
              const L row = (L)p * k + kk;
              weight[row] = values[kk * CHUNK + p];
              if (!is_dense)
                __builtin_memcpy(left + row * PADDED, point + kk * UNKNOWNS, UNKNOWNS * 8);
              mix(point, family, values + (k + kk * k) * CHUNK + p, right + row * PADDED);
            }
          }
          if (is_dense) rows = chunk;
        } else {
          for (int p = 0; p < points; p++)
            for (int e = 0; e < c; e++) {
              const L row = (L)p * c + e;
              const double r = weight[row] = values[e * CHUNK + p];
              cost += 0.5 * r * r;
              mix(chunk + (L)p * k * UNKNOWNS, family, values + (c + e * k) * CHUNK + p,
                  left + row * PADDED);
            }
        }
        accumulate(rows, is_exact ? right : left, points * (is_exact ? k : c), matrix, gradient);
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

  // Gradient and both halves of the matrix to the caller.
  const auto give = [&]() {
    for (int i = 0; i < UNKNOWNS; i++) {
      vector[(L)block * UNKNOWNS + i] = g[i];
      for (int j = i; j < UNKNOWNS; j++)
        matrix[((L)block * UNKNOWNS + i) * UNKNOWNS + j] =
            matrix[((L)block * UNKNOWNS + j) * UNKNOWNS + i] = H[(L)i * PADDED + j];
    }
  };

  double* const result = report + (L)block * REPORTS;
  for (int n = 0; n < UNKNOWNS; n++) x[n] = w[(L)item * UNKNOWNS + n];
  if (operation == OPERATION_COMBINE) {
    set_tail(x, tail);
    V z[K_MOST];
    const auto combine_family = [&](auto family) {
      constexpr int f = decltype(family)::value, k = K_OF[f];
      const L m = places[PLACES * f + 4];
      double* const target = (double*)places[PLACES * f + 3] + (L)block * m * k;
      for (L first = 0; first < m; first += LANES) {
        read(family, first, x, tail, z);
        for (int kk = 0; kk < k; kk++)
          for (int l = 0; l < LANES && first + l < m; l++)
            target[kk * m + first + l] = vlane(z[kk], l);
      }
    };
    @EACH_FAMILY(combine_family)@
  } else if (operation == OPERATION_PULL) {
    for (int n = 0; n < UNKNOWNS; n++) v[n] = vector[(L)block * UNKNOWNS + n];
    set_tail(x, tail);
    set_tail(v, tail + LANES);
    V z[K_MOST], y[K_MOST], out[OUT_MOST];
    const auto pull_family = [&](auto family) {
      constexpr int f = decltype(family)::value, k = K_OF[f];
      const L m = places[PLACES * f + 4];
      double* const features = (double*)places[PLACES * f + 2] + (L)item * m * k * UNKNOWNS;
      double* const data = (double*)places[PLACES * f + 3] + (L)item * m * A_OF[f];
      for (L first = 0; first < m; first += LANES) {
        if (!IS_GIVEN) {
          read(family, first, x, tail, z);
          read(family, first, v, tail + LANES, y);
        }
        terms(family, 2, first, z, y, out);
        const int valid = m - first < LANES ? (int)(m - first) : LANES;
        for (int l = 0; l < valid; l++) {
          for (int kk = 0; kk < k; kk++) {
            const double a = scales[f] * vlane(out[kk], l), b = scales[f] * vlane(out[k + kk], l);
            double* const row = features + ((first + l) * k + kk) * UNKNOWNS;
            int n = 0;
            for (; n + LANES <= UNKNOWNS; n += LANES) keep(row + n, load(v + n) * a + load(x + n) * b);
            for (; n < UNKNOWNS; n++) row[n] = a * v[n] + b * x[n];
          }
          for (int i = 0; i < A_OF[f] && !IS_GIVEN; i++)
            data[i * m + first + l] = scales[f] * vlane(out[2 * k + i], l);
        }
      }
    };
    @EACH_FAMILY(pull_family)@
  } else if (operation != OPERATION_SOLVE) {
    result[3] = assemble(operation == OPERATION_EXACT, x, H, g);
    give();
  }
