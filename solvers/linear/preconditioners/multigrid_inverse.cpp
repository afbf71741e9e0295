
  // ---- the inverse of the coarsest level ----
  // Two rows of a symmetric matrix minus sums of four pivot rows, from a column on.
  INLINED void subtract_four(double* __restrict row, double* __restrict next, L from, L n,
                             const double* u, const double* v, const double* __restrict pivots) {
    FUSED
    const double *p = pivots, *q = p + n, *r = q + n, *s = r + n;
    const double a = u[0], b = u[1], c = u[2], d = u[3], e = v[0], f = v[1], g = v[2], h = v[3];
    for (L j = from; j < n; j++) {
      row[j] -= (a * p[j] + b * q[j]) + (c * r[j] + d * s[j]);
      next[j] -= (e * p[j] + f * q[j]) + (g * r[j] + h * s[j]);
    }
  }
  // The inverse of four by four by elimination; false if a pivot is too small.
  INLINED bool invert_four(double m[4][4], double least) {
    for (int k = 0; k < 4; k++) {
      if (!(m[k][k] > least)) return false;
      const double over = 1.0 / m[k][k];
      m[k][k] = 1.0;
      for (int j = 0; j < 4; j++) m[k][j] *= over;
      for (int i = 0; i < 4; i++) {
        if (i == k) continue;
        const double factor = m[i][k];
        m[i][k] = 0.0;
        for (int j = 0; j < 4; j++) m[i][j] -= factor * m[k][j];
      }
    }
    return true;
  }
  // Sweep four rows and columns of a symmetric matrix, of which the upper half is kept; after all
  // sweeps it is minus its inverse. False if a pivot is too small.
  INLINED bool sweep_four(double* a, L n, L first, double least) {
    const L count = smaller(4, n - first);
    double pivots[4 * 128], columns[128 * 4], m[4][4];
    for (L j = 0; j < first; j++)
      for (L k = 0; k < 4; k++) columns[4*j+k] = k < count ? a[j * n + first + k] : 0.0;
    for (L j = first; j < n; j++)
      for (L k = 0; k < 4; k++)
        columns[4*j+k] = k >= count ? 0.0 : j < first + k ? a[j * n + first + k] : a[(first + k) * n + j];
    for (L i = 0; i < 4; i++)
      for (L k = 0; k < 4; k++) m[i][k] = i < count && k < count ? columns[4 * (first + i) + k] : i == k;
    if (!invert_four(m, least)) return false;
    for (L k = 0; k < 4; k++) {
      const double c = m[k][0], d = m[k][1], e = m[k][2], f = m[k][3];
      for (L j = 0; j < n; j++)
        pivots[k * n + j] = (c * columns[4*j] + d * columns[4*j+1]) + (e * columns[4*j+2] + f * columns[4*j+3]);
    }
    for (L i = 0; i + 1 < n; i += 2)
      subtract_four(a + i * n, a + (i + 1) * n, i, n, columns + 4 * i, columns + 4 * (i + 1), pivots);
    if (n % 2)
      for (L k = 0; k < 4; k++) a[n * n - 1] -= columns[4 * (n - 1) + k] * pivots[k * n + n - 1];
    for (L k = 0; k < count; k++) {
      for (L j = 0; j < first; j++) a[j * n + first + k] = pivots[k * n + j];
      for (L j = first + count; j < n; j++) a[(first + k) * n + j] = pivots[k * n + j];
      for (L j = k; j < count; j++) a[(first + k) * n + first + j] = -m[k][j];
    }
    return true;
  }
  // Of one cell, within rounding of doubles: closed regions stay singular.
  INLINED double diagonal(const Level& l, L q) {
    if (l.mask) return (double)l.d8[q];
    return (double)l.e[q] + (((double)l.cx[q] + (double)l.cx[q-l.PP]) + ((double)l.cy[q] + (double)l.cy[q-l.P])
                             + ((double)l.cz[q] + (double)l.cz[q-1]));
  }
  // The inverse of the coarsest level by elimination, scaled to a diagonal of one so that pivots say
  // how nearly singular it is; rows without an unknown are zero. False if a pivot is too small.
  static bool invert(const Level& l, double* a, double least) {
    const L P = l.P, PP = l.PP, n = l.nx * l.ny * l.nz;
    double scale[128];
    for (L q = 0; q < n * n; q++) a[q] = 0.0;
    for (L i = 1, m = 0; i <= l.nx; i++)
      for (L j = 0; j < l.ny; j++)
        for (L k = 0; k < l.nz; k++, m++) {
          const L q = i * PP + j * P + k;
          const double d = diagonal(l, q);
          scale[m] = d > 0.0 ? __builtin_sqrt(1.0 / d) : 0.0;
          a[m * n + m] = 1.0;
          const L at[3] = {q + PP, q + P, q + 1}, next[3] = {m + l.ny * l.nz, m + l.nz, m + 1};
          const bool there[3] = {i < l.nx, j + 1 < l.ny, k + 1 < l.nz};
          for (int f = 0; f < 3; f++) {
            if (!there[f]) continue;
            const double c = l.mask ? (double)(l.d8[q] > 0 && l.d8[at[f]] > 0)
                                    : (double)(f == 0 ? l.cx : f == 1 ? l.cy : l.cz)[q];
            a[m * n + next[f]] = -c;
          }
        }
    for (L i = 0; i < n; i++)
      for (L j = i + 1; j < n; j++) a[i * n + j] *= scale[i] * scale[j];
    for (L first = 0; first < n; first += 4)
      if (!sweep_four(a, n, first, least)) return false;
    for (L i = 0; i < n; i++)
      for (L j = i; j < n; j++) a[j * n + i] = a[i * n + j] *= -scale[i] * scale[j];
    return true;
  }
