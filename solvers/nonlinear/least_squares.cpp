  // The iteration of Levenberg and Marquardt, on top of the sums of `pointwise_sums.cpp`.
  if (operation == OPERATION_SOLVE) {
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
    const double tolerance = numbers[NUMBER_TOLERANCE];
    const int limit = (int)numbers[NUMBER_LIMIT];
    double lambda = numbers[NUMBER_FIRST], growth = 2.0, error = __builtin_inf();
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
    result[4] = refused; result[5] = is_exact;
    give();
  }
