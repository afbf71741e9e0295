  // ---- one problem across the lanes: vectors lie as they are, padded to whole lanes ----
  typedef double E;     // element of a vector
  typedef double S;     // number of a problem
  typedef bool Mask;
  enum { CHUNK = LANES, SIDE = LANES, GROUP = 1 };
  INLINED V spread(double a) { return V(a); }
  INLINED double sum(V a) { return halve_sum(a); }
  INLINED double largest(V a) { return halve_max(a); }
  INLINED double root(double a) { return __builtin_elementwise_sqrt(a); }
  INLINED bool any(bool a) { return a; }
  INLINED bool all(bool a) { return a; }
  INLINED V choose(bool m, V a, V b) { return m ? a : b; }
  INLINED double choose(bool m, double a, double b) { return m ? a : b; }
  INLINED bool yes(bool m) { return m; }
  INLINED bool neither(bool a) { return !a; }
  INLINED void put(E* p, int, double a) { *p = a; }
  INLINED double lane(double a, int) { return a; }
  OUTLINED void gather(Turn, E* to, const double* const* item, L size) {
    for (L i = 0; i < size; i++) to[i] = item[0][i];
  }
  OUTLINED void scatter(Turn, const E* from, double* to, L size, L) {
    for (L i = 0; i < size; i++) to[i] = from[i];
  }

  // y = M x; rows a multiple of 4
  OUTLINED void times(const E* __restrict M, L rows, L n, const E* __restrict x, E* __restrict y) {
    FUSED
    for (L r = 0; r < rows; r += 4) {
      V a = V(0.0), b = a, c = a, d = a;
      const double* p = M + r * n;
      for (L j = 0; j < n; j += LANES) {
        const V u = *(V*)(x + j);
        a += *(V*)(p + j) * u;
        b += *(V*)(p + n + j) * u;
        c += *(V*)(p + 2*n + j) * u;
        d += *(V*)(p + 3*n + j) * u;
      }
      y[r] = sum(a); y[r+1] = sum(b); y[r+2] = sum(c); y[r+3] = sum(d);
    }
  }
  // y += M' z
  OUTLINED void add_transposed(const E* __restrict M, L rows, L n, const E* __restrict z,
                               E* __restrict y) {
    FUSED
    for (L r = 0; r < rows; r += 4) {
      const double* p = M + r * n;
      const double a = z[r], b = z[r+1], c = z[r+2], d = z[r+3];
      for (L j = 0; j < n; j += LANES)
        *(V*)(y + j) += (*(V*)(p + j) * a + *(V*)(p + n + j) * b)
                      + (*(V*)(p + 2*n + j) * c + *(V*)(p + 3*n + j) * d);
    }
  }
  // One tile of U: LANES rows, one or two vectors of columns; `first` is the diagonal tile.
  INLINED void tile(bool first, bool two, L i, L j, L n, const E* K,
                    const E* __restrict G, L rows, E* __restrict U, E* __restrict inverse,
                    double* corner, double shift) {
    FUSED
    V c[LANES], d[LANES];
    UNROLL
    for (int r = 0; r < LANES; r++) {
      c[r] = *(V*)(K + (i + r) * n + j);
      if (two) d[r] = *(V*)(K + (i + r) * n + j + LANES);
      if (first) c[r][r] += shift;
    }
    for (L k = 0; k < rows; k++) {
      const double* g = G + k * n;
      const V u = *(V*)(g + j), v = two ? *(V*)(g + j + LANES) : u;
      UNROLL
      for (int r = 0; r < LANES; r++) { c[r] += g[i+r] * u; if (two) d[r] += g[i+r] * v; }
    }
    for (L k = 0; k < i; k++) {
      const double* g = U + k * n;
      const V u = *(V*)(g + j), v = two ? *(V*)(g + j + LANES) : u;
      UNROLL
      for (int r = 0; r < LANES; r++) { c[r] -= g[i+r] * u; if (two) d[r] -= g[i+r] * v; }
    }
    UNROLL
    for (int r = 0; r < LANES; r++) {
      if (first) {
        const double pivot = c[r][r];
        inverse[i+r] = 1.0 / root(pivot > TINY_PIVOT ? pivot : HUGE_PIVOT);
      }
      V u = c[r] * inverse[i+r];
      if (first) {
        UNROLL
        for (int q = 0; q < LANES; q++) if (q < r) u[q] = 0.0;
        *(V*)(corner + LANES * r) = u;
      }
      *(V*)(U + (i + r) * n + j) = u;
      UNROLL
      for (int q = 0; q < LANES; q++) if (q > r) c[q] -= corner[LANES * r + q] * u;
      if (two) {
        const V v = d[r] * inverse[i+r];
        *(V*)(U + (i + r) * n + j + LANES) = v;
        UNROLL
        for (int q = 0; q < LANES; q++) if (q > r) d[q] -= corner[LANES * r + q] * v;
      }
    }
  }
  // U'U = K + shift I + G'G
  OUTLINED void factor(const E* K, L n, const E* __restrict G, L rows,
                       E* __restrict U, E* __restrict inverse, double shift) {
    for (L i = 0; i < n; i += LANES) {
      double corner[LANES * LANES] __attribute__((aligned(64)));
      tile(true, false, i, i, n, K, G, rows, U, inverse, corner, shift);
      L j = i + LANES;
      for (; j + 2 * LANES <= n; j += 2 * LANES)
        tile(false, true, i, j, n, K, G, rows, U, inverse, corner, shift);
      if (j < n) tile(false, false, i, j, n, K, G, rows, U, inverse, corner, shift);
    }
  }
  // r <- (U'U)^-1 r
  OUTLINED void substitute(const E* __restrict U, const E* __restrict inverse, L n,
                           E* __restrict r) {
    FUSED
    for (L i = 0; i < n; i += LANES) {
      const double* u = U + i * n;
      V a = *(V*)(r + i), w = V(0.0);
      UNROLL
      for (int q = 0; q < LANES; q++) {
        w[q] = a[q] * inverse[i+q];
        a -= *(V*)(u + q*n + i) * w[q];
      }
      *(V*)(r + i) = w;
      for (L j = i + LANES; j < n; j += LANES) {
        V t = *(V*)(r + j);
        UNROLL
        for (int q = 0; q < LANES; q++) t -= *(V*)(u + q*n + j) * w[q];
        *(V*)(r + j) = t;
      }
    }
    for (L i = n - LANES; i >= 0; i -= LANES) {
      const double* u = U + i * n;
      V s[LANES];
      UNROLL
      for (int q = 0; q < LANES; q++) s[q] = V(0.0);
      for (L j = i + LANES; j < n; j += LANES) {
        const V v = *(V*)(r + j);
        UNROLL
        for (int q = 0; q < LANES; q++) s[q] += *(V*)(u + q*n + j) * v;
      }
      double t[LANES];
      for (int q = 0; q < LANES; q++) t[q] = r[i+q] - sum(s[q]);
      UNROLL
      for (int q = LANES - 1; q >= 0; q--) {
        const double v = t[q] * inverse[i+q];
        r[i+q] = v;
        UNROLL
        for (int p = 0; p < LANES; p++) if (p < q) t[p] -= u[p*n + i + q] * v;
      }
    }
  }
