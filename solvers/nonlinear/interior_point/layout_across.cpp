  // ---- one problem in each lane: element i of all of them is one vector ----
  typedef V E;          // element of a vector
  typedef V S;          // number of a problem
  typedef M Mask;
  enum { CHUNK = 1, SIDE = 4, GROUP = LANES };
  INLINED V spread(V a) { return a; }
  INLINED V sum(V a) { return a; }
  INLINED V largest(V a) { return a; }
  INLINED V root(V a) { return __builtin_elementwise_sqrt(a); }
  INLINED bool any(Mask a) { return __builtin_reduce_or(a) != 0; }
  INLINED bool all(Mask a) { return __builtin_reduce_and(a) != 0; }
  INLINED V choose(Mask m, V a, V b) { return m ? a : b; }
  INLINED Mask yes(bool m) { return Mask(m ? -1 : 0); }
  INLINED Mask neither(Mask a) { return ~a; }
  INLINED void put(E* p, int l, double a) { ((double*)p)[l] = a; }
  INLINED double lane(V a, int l) { return a[l]; }

  // to[i] = element i of each problem
  OUTLINED void gather(Turn turn, E* to, const double* const* item, L size) {
    L i = 0;
    for (; i + LANES <= size; i += LANES) {
      V a[LANES];
      UNROLL
      for (int l = 0; l < LANES; l++) __builtin_memcpy(&a[l], item[l] + i, sizeof(V));
      turn(a);
      UNROLL
      for (int l = 0; l < LANES; l++) to[i+l] = a[l];
    }
    for (; i < size; i++)
      for (int l = 0; l < LANES; l++) put(to + i, l, item[l][i]);
  }
  // The reverse, for the first problems.
  OUTLINED void scatter(Turn turn, const E* from, double* to, L size, L problems) {
    L i = 0;
    for (; i + LANES <= size; i += LANES) {
      V a[LANES];
      UNROLL
      for (int l = 0; l < LANES; l++) a[l] = from[i+l];
      turn(a);
      for (L l = 0; l < problems; l++) __builtin_memcpy(to + l*size + i, &a[l], sizeof(V));
    }
    for (; i < size; i++)
      for (L l = 0; l < problems; l++) to[l*size + i] = from[i][l];
  }

  // y = M x
  OUTLINED void times(const E* __restrict M_, L rows, L n, const E* __restrict x, E* __restrict y) {
    FUSED
    for (L r = 0; r < rows; r += 4) {
      V a = V(0.0), b = a, c = a, d = a;
      const V* p = M_ + r * n;
      for (L j = 0; j < n; j++) {
        const V u = x[j];
        a += p[j] * u; b += p[n+j] * u; c += p[2*n+j] * u; d += p[3*n+j] * u;
      }
      y[r] = a; y[r+1] = b; y[r+2] = c; y[r+3] = d;
    }
  }
  // y += M' z
  OUTLINED void add_transposed(const E* __restrict M_, L rows, L n, const E* __restrict z,
                               E* __restrict y) {
    FUSED
    for (L r = 0; r < rows; r += 4) {
      const V* p = M_ + r * n;
      const V a = z[r], b = z[r+1], c = z[r+2], d = z[r+3];
      for (L j = 0; j < n; j++)
        y[j] += (p[j] * a + p[n+j] * b) + (p[2*n+j] * c + p[3*n+j] * d);
    }
  }
  // 4 rows and 4 columns of K + G'G - U'U, as many columns at once as the registers hold sums of.
  enum { COLUMNS = LANES < 8 ? 2 : 4 };
  INLINED void accumulate(L i, L j, L n, const E* K, const E* __restrict G, L rows,
                          const E* __restrict U, V* c) {
    FUSED
    UNROLL
    for (int h = 0; h < 4; h += COLUMNS) {
      V s[4 * COLUMNS];
      UNROLL
      for (int r = 0; r < 4; r++) {
        UNROLL
        for (int q = 0; q < COLUMNS; q++) s[COLUMNS*r+q] = K[(i+r)*n + j+h+q];
      }
      for (L k = 0; k < rows; k++) {
        const V* g = G + k * n;
        UNROLL
        for (int r = 0; r < 4; r++) {
          UNROLL
          for (int q = 0; q < COLUMNS; q++) s[COLUMNS*r+q] += g[i+r] * g[j+h+q];
        }
      }
      for (L k = 0; k < i; k++) {
        const V* g = U + k * n;
        UNROLL
        for (int r = 0; r < 4; r++) {
          UNROLL
          for (int q = 0; q < COLUMNS; q++) s[COLUMNS*r+q] -= g[i+r] * g[j+h+q];
        }
      }
      UNROLL
      for (int r = 0; r < 4; r++) {
        UNROLL
        for (int q = 0; q < COLUMNS; q++) c[4*r+h+q] = s[COLUMNS*r+q];
      }
    }
  }
  // One tile of U, 4 rows and 4 columns; `first` is the diagonal tile.
  INLINED void tile(bool first, L i, L j, L n, const E* K, const E* __restrict G,
                    L rows, E* __restrict U, E* __restrict inverse, V* corner, double shift) {
    FUSED
    V c[16];
    accumulate(i, j, n, K, G, rows, U, c);
    if (first) {
      UNROLL
      for (int r = 0; r < 4; r++) c[5*r] += V(shift);
    }
    UNROLL
    for (int r = 0; r < 4; r++) {
      if (first) {
        const V pivot = c[5*r];
        inverse[i+r] = 1.0 / root(pivot > TINY_PIVOT ? pivot : V(HUGE_PIVOT));
      }
      const V scale = inverse[i+r];
      UNROLL
      for (int q = 0; q < 4; q++) {
        const V u = first && q < r ? V(0.0) : c[4*r+q] * scale;
        c[4*r+q] = u;
        if (first) corner[4*r+q] = u;
        U[(i+r)*n + j+q] = u;
      }
      UNROLL
      for (int a = 0; a < 4; a++) {
        if (a <= r) continue;
        UNROLL
        for (int q = 0; q < 4; q++) c[4*a+q] -= corner[4*r+a] * c[4*r+q];
      }
    }
  }
  // U'U = K + shift I + G'G
  OUTLINED void factor(const E* K, L n, const E* __restrict G, L rows,
                       E* __restrict U, E* __restrict inverse, double shift) {
    for (L i = 0; i < n; i += 4) {
      V corner[16];
      tile(true, i, i, n, K, G, rows, U, inverse, corner, shift);
      for (L j = i + 4; j < n; j += 4)
        tile(false, i, j, n, K, G, rows, U, inverse, corner, shift);
    }
  }
  // r <- (U'U)^-1 r
  OUTLINED void substitute(const E* __restrict U, const E* __restrict inverse, L n,
                           E* __restrict r) {
    FUSED
    for (L i = 0; i < n; i += 4) {
      const V* u = U + i * n;
      V w[4];
      UNROLL
      for (int q = 0; q < 4; q++) {
        V a = r[i+q];
        UNROLL
        for (int p = 0; p < 4; p++) if (p < q) a -= u[p*n + i + q] * w[p];
        w[q] = a * inverse[i+q];
        r[i+q] = w[q];
      }
      for (L j = i + 4; j < n; j++) {
        V t = r[j];
        UNROLL
        for (int q = 0; q < 4; q++) t -= u[q*n + j] * w[q];
        r[j] = t;
      }
    }
    for (L i = n - 4; i >= 0; i -= 4) {
      const V* u = U + i * n;
      V s[4];
      UNROLL
      for (int q = 0; q < 4; q++) s[q] = r[i+q];
      for (L j = i + 4; j < n; j++) {
        const V v = r[j];
        UNROLL
        for (int q = 0; q < 4; q++) s[q] -= u[q*n + j] * v;
      }
      UNROLL
      for (int q = 3; q >= 0; q--) {
        const V v = s[q] * inverse[i+q];
        r[i+q] = v;
        UNROLL
        for (int p = 0; p < 4; p++) if (p < q) s[p] -= u[p*n + i + q] * v;
      }
    }
  }
