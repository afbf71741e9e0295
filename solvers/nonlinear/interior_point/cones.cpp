  // ---- rows and their cones: first p equalities, then the orthant, then second-order cones ----
  struct Cones {
    L p, flat, count, rows, padded;  // equalities; end of the orthant; second-order cones
    const long long* sizes;
    double degree;
  };
  struct Work {
    E *K, *R, *Rs, *U, *inverse;                   // matrices; U'U is the factor
    E *q, *x, *dx, *rd, *Kx, *Rtz, *kx;            // unknowns
    E *h, *scale, *tolerance, *orthant, *cone, *unit;  // rows: data and masks
    E *z, *s, *dz, *ds, *rp, *t, *Rx, *kz, *ks, *kt, *lambda, *weight, *axis;
    S curvature, cost, penalty;  // largest entry of Q, one over it or over q, weight of active rows
    Turn turn;                   // transposes a square of lanes
    Mask is_bent;                // whether the cost curves downwards along a direction
    // Columns of a row of R from the first to the last that is not zero, and of the packed rows of
    // Rs. Rows from `dense` on, a multiple of four, have few; those before count as full.
    L dense, packed_dense, *low, *high, *packed_low, *packed_high;
  };
  INLINED V* vec(E* p) { return (V*)p; }
  INLINED E larger(E a, E b) { return a > b ? a : b; }
  INLINED E floor_root(E a) { return root(larger(a, E(1e-300))); }
  OUTLINED void zero(E* a, L n) { for (L i = 0; i < n / CHUNK; i++) vec(a)[i] = V(0.0); }
  OUTLINED void copy(E* a, E* b, L n) { for (L i = 0; i < n / CHUNK; i++) vec(a)[i] = vec(b)[i]; }
  OUTLINED void take(Mask m, E* a, E* b, L n) {
    for (L i = 0; i < n / CHUNK; i++) vec(a)[i] = choose(m, vec(b)[i], vec(a)[i]);
  }
  OUTLINED void add(E* a, S f, E* b, L n) {
    FUSED
    const V g = spread(f);
    for (L i = 0; i < n / CHUNK; i++) vec(a)[i] += g * vec(b)[i];
  }
  OUTLINED S max_abs(E* a, L n) {
    V m = V(0.0);
    for (L i = 0; i < n / CHUNK; i++) { const V x = __builtin_elementwise_abs(vec(a)[i]); m = x > m ? x : m; }
    return largest(m);
  }
  OUTLINED S max_abs_weighted(E* a, E* f, L n) {
    V m = V(0.0);
    for (L i = 0; i < n / CHUNK; i++) {
      const V x = __builtin_elementwise_abs(vec(a)[i]) * vec(f)[i];
      m = x > m ? x : m;
    }
    return largest(m);
  }
  OUTLINED S dot(E* a, E* b, L n) {
    FUSED
    V m = V(0.0);
    for (L i = 0; i < n / CHUNK; i++) m += vec(a)[i] * vec(b)[i];
    return sum(m);
  }
  INLINED E tail_dot(const E* a, const E* b, L k) {
    // Without a loop for the cones of contacts.
    if (k == 3) return a[1] * b[1] + a[2] * b[2];
    E d = E(0.0);
    for (L i = 1; i < k; i++) d += a[i] * b[i];
    return d;
  }
  // (a0 - |a1|)(a0 + |a1|), kept above rounding
  INLINED E determinant(const E* a, L k) {
    const E norm = floor_root(tail_dot(a, a, k));
    return larger((a[0] - norm) * (a[0] + norm), a[0] * a[0] * E(1e-15) + E(1e-290));
  }
#define SECOND_ORDER(r, k) \
  for (L r = c.flat, at_ = 0, k = 0; at_ < c.count && (k = c.sizes[at_], true); at_++, r += k)

// Vectors of columns in which row r is not zero; the first row of a cone stands for all of them.
#define EACH_VECTOR(j, r) \
  for (L j = w.low[r] / CHUNK, end_ = (w.high[r] + CHUNK - 1) / CHUNK; j < end_; j++)

  // Smallest eigenvalue of a over all cones.
  OUTLINED S smallest(const Work& w, const Cones& c, E* a) {
    V m = V(-1e300);
    for (L i = 0; i < c.padded / CHUNK; i++) {
      const V x = vec(w.orthant)[i] > 0.5 ? -vec(a)[i] : V(-1e300);
      m = x > m ? x : m;
    }
    S most = largest(m);
    SECOND_ORDER(r, k) {
      const E x = root(tail_dot(a + r, a + r, k)) - a[r];
      most = x > most ? x : most;
    }
    return -most;
  }
  // One over the longest step from lambda along d inside the cones.
  OUTLINED S inverse_step(const Work& w, const Cones& c, E* d) {
    V m = V(0.0);
    for (L i = 0; i < c.padded / CHUNK; i++) {
      const V x = -vec(d)[i] / vec(w.lambda)[i] * vec(w.orthant)[i];
      m = x > m ? x : m;
    }
    S most = largest(m);
    SECOND_ORDER(r, k) {
      const E* l = w.lambda + r;
      const E unit = E(1.0) / root(determinant(l, k));
      const E along = (l[0] * d[r] - tail_dot(l, d + r, k)) * unit;
      const E f = (along + d[r]) / (l[0] * unit + E(1.0)) * unit;
      E rest = E(0.0);
      for (L i = 1; i < k; i++) { const E u = d[r+i] - f * l[i]; rest += u * u; }
      const E x = (root(rest) - along) * unit;
      most = x > most ? x : most;
    }
    return most;
  }
  // Nesterov-Todd scaling: W z = W^-1 s = lambda. The orthant has W^-1 = weight; a second-order
  // cone has W = eta (2 v v' - J)^(1/2) with v in weight and eta in the head of axis.
  INLINED void scale_cone(const Work& w, L r, L k, const E* in, E* out, bool inverse) {
    const E *v = w.weight + r, sign = E(inverse ? -1.0 : 1.0), eta = w.axis[r];
    const E factor = inverse ? E(1.0) / eta : eta, d = tail_dot(v, in, k), head = in[0];
    const E f = sign * head + d / (E(1.0) + v[0]);
    out[0] = factor * (v[0] * head + sign * d);
    for (L i = 1; i < k; i++) out[i] = factor * (in[i] + v[i] * f);
  }
  OUTLINED void scale(const Work& w, const Cones& c, E* a, bool inverse) {
    for (L i = 0; i < c.padded / CHUNK; i++) {
      const V f = vec(w.weight)[i], x = vec(a)[i];
      vec(w.kt)[i] = inverse ? x * f : x / f;
    }
    SECOND_ORDER(r, k) scale_cone(w, r, k, a + r, w.kt + r, inverse);
    copy(a, w.kt, c.padded);
  }
  OUTLINED void scale_rows(const Work& w, const Cones& c, L n) {
    for (L r = 0; r < c.flat; r++) {
      const V f = spread(w.weight[r]);
      EACH_VECTOR(j, r) vec(w.Rs + r*n)[j] = f * vec(w.R + r*n)[j];
    }
    SECOND_ORDER(r, k) {
      const V v0 = spread(w.weight[r]), unit = V(1.0) / spread(w.axis[r]), part = V(1.0) / (V(1.0) + v0);
      EACH_VECTOR(j, r) {
        const V head = vec(w.R + r*n)[j];
        V d = V(0.0);
        for (L i = 1; i < k; i++) d += spread(w.weight[r+i]) * vec(w.R + (r+i)*n)[j];
        const V f = d * part - head;
        vec(w.Rs + r*n)[j] = unit * (v0 * head - d);
        for (L i = 1; i < k; i++)
          vec(w.Rs + (r+i)*n)[j] = unit * (vec(w.R + (r+i)*n)[j] + spread(w.weight[r+i]) * f);
      }
    }
  }
  OUTLINED void find_scaling(const Work& w, const Cones& c) {
    for (L i = 0; i < c.padded / CHUNK; i++) {
      const M on = vec(w.orthant)[i] > 0.5;
      const V s = on ? vec(w.s)[i] : V(1.0), z = on ? vec(w.z)[i] : V(1.0);
      vec(w.weight)[i] = __builtin_elementwise_sqrt(z / s);
      vec(w.lambda)[i] = __builtin_elementwise_sqrt(s * z);
    }
    for (L r = 0; r < c.p; r++) w.weight[r] = root(w.penalty);
    SECOND_ORDER(r, k) {
      const E *s = w.s + r, *z = w.z + r;
      E* v = w.weight + r;
      const E rs = root(determinant(s, k)), rz = root(determinant(z, k));
      const E is = E(1.0) / rs, iz = E(1.0) / rz;
      const E cosine = (s[0] * z[0] + tail_dot(s, z, k)) * is * iz;
      const E half = E(0.5) / root(E(0.5) * (E(1.0) + cosine));
      v[0] = (s[0] * is + z[0] * iz) * half;
      for (L i = 1; i < k; i++) v[i] = (s[i] * is - z[i] * iz) * half;
      w.axis[r] = root(rs * iz);
      scale_cone(w, r, k, z, w.lambda + r, false);
    }
  }
  // t <- lambda + lambda^-1 o (a o b - target e), rows of equalities and padding zero
  OUTLINED void complementarity(const Work& w, const Cones& c, bool corrected, S target) {
    const V goal = spread(target);
    for (L i = 0; i < c.padded / CHUNK; i++) {
      const V l = vec(w.lambda)[i], extra = (vec(w.ds)[i] * vec(w.dz)[i] - goal) / l;
      vec(w.t)[i] = vec(w.orthant)[i] * (corrected ? l + extra : l);
    }
    SECOND_ORDER(r, k) {
      const E *l = w.lambda + r, *a = w.ds + r, *b = w.dz + r;
      E* t = w.t + r;
      if (!corrected) { for (L i = 0; i < k; i++) t[i] = l[i]; continue; }
      const E head = a[0] * b[0] + tail_dot(a, b, k) + l[0] * l[0] + tail_dot(l, l, k) - E(target);
      E along = E(0.0);
      for (L i = 1; i < k; i++) {
        t[i] = a[0] * b[i] + b[0] * a[i] + E(2.0) * l[0] * l[i];
        along += l[i] * t[i];
      }
      t[0] = (l[0] * head - along) / determinant(l, k);
      for (L i = 1; i < k; i++) t[i] = (t[i] - t[0] * l[i]) / l[0];
    }
  }
  // s, z <- P(v), P(v) - v for v = s - z with the projection P on the cone; equalities: s = 0
  OUTLINED void split(const Cones& c, const Work& w, E* s, E* z) {
    for (L i = 0; i < c.padded / CHUNK; i++) {
      const V v = vec(s)[i] - vec(z)[i], up = vec(w.orthant)[i] * (v > 0.0 ? v : V(0.0));
      vec(s)[i] = up;
      vec(z)[i] = up - v;
    }
    SECOND_ORDER(r, k) {
      // The loop above has left s = 0 and z = -v here.
      const E head = -z[r], norm = root(tail_dot(z + r, z + r, k));
      const E low = larger(head - norm, E(0.0)), high = larger(head + norm, E(0.0));
      const E f = E(0.5) * (high - low) / larger(norm, E(1e-290));
      s[r] = E(0.5) * (low + high);
      for (L i = 1; i < k; i++) s[r+i] = -f * z[r+i];
      for (L i = 0; i < k; i++) z[r+i] += s[r+i];
    }
  }
  // D = (I - P') P'^-1 at v = s - z, at most w.penalty. Orthant and equalities:
  // weight. Second order: weight of (1, -u), weight of (1, u), their common normal space in the
  // head of axis, u in its tail. True where D differs from before.
  OUTLINED bool find_active(const Work& w, const Cones& c, E* s, E* z) {
    V changed = V(0.0);
    const V penalty = spread(w.penalty);
    for (L i = 0; i < c.padded / CHUNK; i++) {
      const V on = vec(w.orthant)[i] * (vec(z)[i] > vec(s)[i] ? penalty : V(0.0));
      const V d = on + (V(1.0) - vec(w.cone)[i]) * vec(w.weight)[i];
      changed += __builtin_elementwise_abs(d - vec(w.weight)[i]) * vec(w.orthant)[i];
      vec(w.weight)[i] = d;
    }
    for (L r = 0; r < c.p; r++) w.weight[r] = w.penalty;
    for (L r = c.rows; r < c.padded; r++) w.weight[r] = E(0.0);
    SECOND_ORDER(r, k) {
      E norm = E(0.0);
      for (L i = 1; i < k; i++) {
        const E v = s[r+i] - z[r+i];
        w.axis[r+i] = v;
        norm += v * v;
      }
      norm = root(norm);
      const E unit = E(1.0) / larger(norm, E(1e-290));
      for (L i = 1; i < k; i++) w.axis[r+i] *= unit;
      const E low = s[r] - z[r] - norm, high = s[r] - z[r] + norm, none = E(0.0), most = w.penalty;
      E side = -low / larger(high, E(1e-290));
      side = side < most ? side : most;
      w.weight[r] = low < none ? most : none;
      w.weight[r+1] = high < none ? most : none;
      w.axis[r] = low < none ? (high < none ? most : side) : none;
    }
    return c.count > 0 || any(sum(changed) > 0.0);
  }
  INLINED V block_apply(V below, V above, V side, V head, V d, V& f) {
    const V a = below * 0.5 * (head - d), b = above * 0.5 * (head + d);
    f = b - a - side * d;
    return a + b;
  }
  // a <- D a
  OUTLINED void weigh(const Work& w, const Cones& c, E* a) {
    SECOND_ORDER(r, k) {
      const E head = a[r], d = tail_dot(w.axis + r, a + r, k), side = w.axis[r];
      const E low = w.weight[r] * E(0.5) * (head - d), high = w.weight[r+1] * E(0.5) * (head + d);
      a[r] = low + high;
      for (L i = 1; i < k; i++) a[r+i] = w.axis[r+i] * (high - low - side * d) + side * a[r+i];
    }
    if (c.count) { for (L r = 0; r < c.flat; r++) a[r] *= w.weight[r]; }
    else for (L i = 0; i < c.padded / CHUNK; i++) vec(a)[i] *= vec(w.weight)[i];
  }
  INLINED void pack_span(Work& w, L r, L rows) {
    w.packed_low[rows] = w.low[r];
    w.packed_high[rows] = w.high[r];
    w.packed_dense += r < w.dense;
  }
  // Rs <- D^(1/2) R without the rows that are zero in every lane; the number of rows
  OUTLINED L weigh_rows(Work& w, const Cones& c, L n) {
    L rows = 0;
    w.packed_dense = 0;
    for (L r = 0; r < c.flat; r++) {
      if (!any(w.weight[r] > 0.0)) continue;
      const V f = spread(root(w.weight[r]));
      EACH_VECTOR(j, r) vec(w.Rs + rows*n)[j] = f * vec(w.R + r*n)[j];
      pack_span(w, r, rows++);
    }
    SECOND_ORDER(r, k) {
      const V below = spread(root(w.weight[r])), above = spread(root(w.weight[r+1]));
      const V side = spread(root(w.axis[r]));
      EACH_VECTOR(j, r) {
        const V head = vec(w.R + r*n)[j];
        V d = V(0.0), f;
        for (L i = 1; i < k; i++) d += spread(w.axis[r+i]) * vec(w.R + (r+i)*n)[j];
        vec(w.Rs + rows*n)[j] = block_apply(below, above, side, head, d, f);
        for (L i = 1; i < k; i++)
          vec(w.Rs + (rows+i)*n)[j] = spread(w.axis[r+i]) * f + side * vec(w.R + (r+i)*n)[j];
      }
      for (L i = 0; i < k; i++) pack_span(w, r + i, rows++);
    }
    return rows;
  }
