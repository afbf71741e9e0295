// The step of one block of environments, one environment a lane, by a path-following interior point:
// the algorithm of _reference.py around the traced phases (names between at-signs). Lanes outside
// `wanted` are left alone. Writes the end point for each of the `stages` path parameters, the
// impulses of the last one, and the report.
V pose0[12 * (NL + 1)], pose1[12 * (NL + 1)], motion0[6 * NV + 1], motion1[6 * NV + 1];
V center0[3 * NL + 1], carrier[9 * NL + 1], impulse[NV + 1], x[NQ + 1];
V wrench[6 * (NL + 1)], spatial[36 * (NL + 1)], push[6 * (NL + 1)], twist[6 * (NL + 1)];
Matrix matrix;
V balance[NV + 1], dv[NV + 1];
V limit[4 * LIMITS + 1], dlimit[4 * LIMITS + 1], limit_affine[4 * LIMITS + 1];
V limit_velocity[2 * LIMITS + 1];
V rub[3 * RUBS + 1], drub[3 * RUBS + 1], rub_affine[3 * RUBS + 1], slip[RUBS + 1];
V kappa[1], target[1], second[1], err[2], total[1], inverse_step[1], ahead[2];
V far[1], slowest[1], alpha[1], go[1];
@RECORDS@

for (int i = 0; i < 12; ++i) {
  const V one = V(i == 0 || i == 4 || i == 8 ? 1.0 : 0.0);
  pose0[12 * NL + i] = one;
  pose1[12 * NL + i] = one;
}
for (int i = 0; i < 6; ++i) twist[6 * NL + i] = V(0.0);

@NODE@
@APPROACH@
V count = V(2.0 * LIMITS + RUBS);
@CONTACTS:NODE@

far[0] = V(START[0]);
slowest[0] = V(SLOWEST[0]);
@GUESS@
@JOINT_START@
@CONTACTS:START@

const V zero = V(0.0), one = V(1.0);
V fail = wanted ? zero : one, iterations = zero, restarts = zero, fraction = V(FRACTION[0]) + zero;
for (int stage = 0; stage < stages; ++stage) {
  kappa[0] = kappas[stage];
  V again = one;
  for (int round = 0; round < ROUNDS; ++round) {
    V done = again > 0.5 ? fail : one;
    V passed = done;
    for (int iteration = 0; vany(done < 0.5); ++iteration) {
      err[0] = err[1] = total[0] = zero;
      @SWEEP@
      @CONTACTS:LINEARISE@
      @ASSEMBLE@
      passed = ((err[0] < TOLERANCE) & (err[1] < PATH_TOLERANCE)) ? one : passed;
      if (iteration == MAX_ITERATIONS) break;
      // What passes takes the step of this iteration all the same: Newton squares its error.
      const M running = done < 0.5;
      const int attempt = iteration / ATTEMPT_ITERATIONS;
      if (attempt > 0 && iteration % ATTEMPT_ITERATIONS == 0 && stage == 0) {
        const M chosen = running & (passed < 0.5);
        restarts = chosen ? restarts + 1.0 : restarts;
        fraction = chosen ? V(FRACTION[attempt]) : fraction;
        far[0] = V(START[attempt]);
        slowest[0] = V(SLOWEST[attempt]);
        @RESET@
        continue;
      }
      @CONTACTS:COUPLE@
      @FACTOR@
      target[0] = kappa[0];
      second[0] = zero;
      for (int i = 0; i < 4 * LIMITS; ++i) limit_affine[i] = zero;
      for (int i = 0; i < 3 * RUBS; ++i) rub_affine[i] = zero;
      @CONTACTS:CLEAR@
      // Predictor, then corrector, with the same factors.
      V step = zero;
      for (int pass = 0; pass < 2; ++pass) {
        for (int i = 0; i < 6 * (NL + 1); ++i) push[i] = zero;
        @CONTACTS:PUSH@
        @SOLVE@
        inverse_step[0] = ahead[0] = ahead[1] = zero;
        @CONTACTS:INCREMENT@
        @JOINT_STEP@
        step = fraction / vmax(inverse_step[0], fraction);
        if (pass == 1) break;
        const V pairs = vmax(count, one);
        const V mean = total[0] / pairs;
        const V mean_ahead = (total[0] + step * (ahead[0] + step * ahead[1])) / pairs;
        V sigma = vmin(vmax(mean_ahead / mean, zero), one);
        const V rest = one - step;
        sigma = vmax(sigma * sigma * sigma, rest * rest * rest);
        const V wanted = vmax(sigma * mean, vmin(mean, 0.1 * ENERGY * err[0]));
        const M aims = (count > 0.5) & (passed < 0.5);
        target[0] = aims ? vmax(kappa[0], wanted) : kappa[0];
        second[0] = step * step;
        for (int i = 0; i < 4 * LIMITS; ++i) limit_affine[i] = dlimit[i];
        for (int i = 0; i < 3 * RUBS; ++i) rub_affine[i] = drub[i];
        @CONTACTS:KEEP@
      }
      alpha[0] = count > 0.5 ? step : one;
      go[0] = running ? one : zero;
      @ADVANCE@
      for (int i = 0; i < 4 * LIMITS; ++i)
        limit[i] = running ? limit[i] + alpha[0] * dlimit[i] : limit[i];
      for (int i = 0; i < 3 * RUBS; ++i)
        rub[i] = running ? rub[i] + alpha[0] * drub[i] : rub[i];
      @CONTACTS:ADVANCE@
      iterations = iterations + go[0];
      done = passed;
    }
    fail = passed < 0.5 ? one : fail;
    again = zero;
    const V reach = PRUNING * steps[1];
    @CONTACTS:RECHECK@
    if (!vany(again > 0.5)) break;
    far[0] = V(START[0]);
    slowest[0] = V(SLOWEST[0]);
    const M chosen = again > 0.5;
    @RESET@
  }
  for (int i = 0; i < NQ; ++i) x_out[stage * NQ + i] = x[i];
}
V lowest = V(__builtin_inf());
V touching = zero;
@CONTACTS:FINISH@
for (int i = 0; i < 2 * LIMITS; ++i) limit_out[i] = limit[i];
for (int i = 0; i < RUBS; ++i) rub_out[i] = rub[3 * i];
report[0] = iterations;
report[1] = err[0];
report[2] = err[1];
report[3] = fail;
report[4] = restarts;
report[5] = lowest;
report[6] = touching;
