  // ---- rows of few entries: their columns from the first to the last that is not zero ----
  static void find_spans(Work& w, const Cones& c, L n) {
    for (L r = 0; r < c.padded; r++) {
      L low = 0, high = n;
      while (low < n && !any(w.R[r*n + low] != 0.0)) low++;
      while (high > low && !any(w.R[r*n + high-1] != 0.0)) high--;
      w.low[r] = low; w.high[r] = high;
    }
    SECOND_ORDER(r, k) {
      L low = n, high = 0;
      for (L i = r; i < r + k; i++) {
        if (w.low[i] == n) continue;
        low = w.low[i] < low ? w.low[i] : low;
        high = w.high[i] > high ? w.high[i] : high;
      }
      for (L i = r; i < r + k; i++) { w.low[i] = low; w.high[i] = high; }
    }
    w.dense = c.padded;
    while (w.dense > 0 && FEW * (w.high[w.dense-1] - w.low[w.dense-1]) <= n) w.dense--;
    w.dense = up(w.dense, 4);
    for (L r = 0; r < w.dense; r++) { w.low[r] = 0; w.high[r] = n; }
  }
  // ---- products with the rows ----
  // y = M x
  static void times_rows(const Work& w, const Cones& c, L n, const E* M_, const E* x, E* y) {
    FUSED
    times(M_, w.dense, n, x, y);
    for (L r = w.dense; r < c.padded; r++) {
      E a = E(0.0);
      for (L j = w.low[r]; j < w.high[r]; j++) a += M_[r*n + j] * x[j];
      y[r] = a;
    }
  }
  // y += M' z
  static void add_transposed_rows(const Work& w, const Cones& c, L n, const E* M_, const E* z,
                                  E* y) {
    FUSED
    add_transposed(M_, w.dense, n, z, y);
    for (L r = w.dense; r < c.padded; r++)
      for (L j = w.low[r]; j < w.high[r]; j++) y[j] += M_[r*n + j] * z[r];
  }
  // U'U = K + shift I + Rs'Rs
  static void factor_rows(Work& w, L n, L dense, L rows, const L* low, const L* high) {
    FUSED
    if (dense >= rows) {
      factor(w.K, n, w.Rs, rows, w.U, w.inverse, SHIFT);
      return;
    }
    copy(w.U, w.K, n * n);
    for (L r = dense; r < rows; r++) {
      const E* g = w.Rs + r * n;
      for (L i = low[r]; i < high[r]; i++)
        for (L j = i; j < high[r]; j++) w.U[i*n + j] += g[i] * g[j];
    }
    factor(w.U, n, w.Rs, dense, w.U, w.inverse, SHIFT);
  }
  static void factor_all(Work& w, const Cones& c, L n) {
    factor_rows(w, n, w.dense, c.rows, w.low, w.high);
  }
  static void factor_active(Work& w, const Cones& c, L n) {
    const L rows = weigh_rows(w, c, n);
    factor_rows(w, n, w.packed_dense, rows, w.packed_low, w.packed_high);
  }
