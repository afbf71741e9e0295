// Adjoint of one step of one block of environments: names between at-signs are traced phases.
const int first = block * LANES;
const auto gather = [&](const double* source, int width, V* target) {
  for (int l = 0; l < LANES; ++l) {
    const int item = first + l < batch ? first + l : batch - 1;
    for (int i = 0; i < width; ++i) vput(target[i], l, source[(size_t)item * width + i]);
  }
};
const auto scatter = [&](const V* source, int width, double* target) {
  for (int l = 0; l < LANES && first + l < batch; ++l)
    for (int i = 0; i < width; ++i) target[(size_t)(first + l) * width + i] = vlane(source[i], l);
};
constexpr int PRIMALS = 2 * LIMITS + RUBS + 3 * CONTACTS;
V q[NQ + 1], v[NV + 1], control[NU + 1], external[NV + 1], steps[2], kappa[1];
V q_next[NQ + 1], x[NQ + 1], impulses[PRIMALS + 1], gq[NQ + 1], gv[NV + 1];
V bar_q[NQ + 1], bar_v[NV + 1], bar_control[NU + 1], bar_external[NV + 1], bar_steps[2];
V bar_num[WITH_NUMBERS ? NUMBERS : 1];
const V* const num = numbers_in + (size_t)block * number_stride;
gather(q_in, NQ, q);
gather(v_in, NV, v);
gather(control_in, NU, control);
gather(external_in, NV, external);
gather(interval_in, 1, steps);
gather(timestep_in, 1, steps + 1);
gather(q_next_in, NQ, q_next);
gather(x_in, NQ, x);
if (EXACT) gather(impulses_in, PRIMALS, impulses);
gather(gq_in, NQ, gq);
gather(gv_in, NV, gv);
kappa[0] = V(kappa_in);

V pose0[12 * (NL + 1)], pose1[12 * (NL + 1)], motion0[6 * NV + 1], motion1[6 * NV + 1];
V force[NV + 1], center0[3 * NL + 1], carrier[9 * NL + 1], impulse[NV + 1];
V wrench[6 * (NL + 1)], spatial[36 * (NL + 1)], push[6 * (NL + 1)], twist[6 * (NL + 1)];
V pair_gain[2 * LIMITS + RUBS + 1], pair_bound[RUBS + 1];
V matrix[NV * NV + 1], right[NV + 1], y[NV + 1];
V bar_pose0[12 * (NL + 1)], bar_pose1[12 * (NL + 1)], bar_twist[6 * (NL + 1)];
@RECORDS@

for (int i = 0; i < 12; ++i) {
  const V unit = V(i == 0 || i == 4 || i == 8 ? 1.0 : 0.0);
  pose0[12 * NL + i] = unit;
  pose1[12 * NL + i] = unit;
}
for (int i = 0; i < 6; ++i) twist[6 * NL + i] = V(0.0);
for (int i = 0; i < 12 * (NL + 1); ++i) bar_pose0[i] = bar_pose1[i] = V(0.0);
for (int i = 0; i < 6 * (NL + 1); ++i) bar_twist[i] = V(0.0);
bar_steps[0] = bar_steps[1] = V(0.0);
if (WITH_NUMBERS)
  for (int i = 0; i < NUMBERS; ++i) bar_num[i] = V(0.0);

V count = V(0.0);
const V fail = V(0.0), reach = PRUNING * steps[1];
V again = V(0.0);
@FORCE@
@NODE@
@APPROACH@
@CONTACTS:NODE@
@SWEEP@
@CONTACTS:RECHECK@
@CONTACTS:CENTRAL@
@MATRIX@
@CONTACTS:COUPLE@
@FACTOR@
@TRANSPOSED@
@CONTACTS:PULL@
@REVERSE@
scatter(bar_q, NQ, bar_q_out);
scatter(bar_v, NV, bar_v_out);
scatter(bar_control, NU, bar_control_out);
scatter(bar_external, NV, bar_external_out);
scatter(bar_steps, 1, bar_interval_out);
scatter(bar_steps + 1, 1, bar_timestep_out);
if (WITH_NUMBERS) scatter(bar_num, NUMBERS, bar_num_out);
