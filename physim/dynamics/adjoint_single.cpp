// One step of every block of environments, arguments in rows.
const int first = block * LANES;
const auto gather = [&](const double* source, int width, V* target) {
  const double* rows[LANES];
  for (int l = 0; l < LANES; ++l)
    rows[l] = source + (size_t)(first + l < batch ? first + l : batch - 1) * width;
  vgather_rows(rows, width, target);
};
const auto scatter = [&](const V* source, int width, double* target) {
  double* rows[LANES];
  const int count = batch - first < LANES ? batch - first : LANES;
  for (int l = 0; l < count; ++l) rows[l] = target + (size_t)(first + l) * width;
  vscatter_rows(source, width, rows, count);
};
constexpr int PRIMALS = 2 * LIMITS + RUBS + 3 * CONTACTS;
V given[NQ + 1], q[NQ + 1], v[NV + 1], control[NU + 1], external[NV + 1], steps[2], kappa[1];
V q_next[NQ + 1], x[NQ + 1], impulses[PRIMALS + 1], gq[NQ + 1], gv[NV + 1];
V bar_q[NQ + 1], bar_v[NV + 1], bar_control[NU + 1], bar_external[NV + 1], bar_steps[2];
V bar_num[WITH_NUMBERS ? NUMBERS : 1];
const V* const num = numbers_in + (size_t)block * number_stride;
gather(q_in, NQ, given);
for (int i = 0; i < NQ; ++i) q[i] = given[i];
@NORMALISE@
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
pull_back_step(q, v, control, external, steps, num, q_next, x, kappa, impulses, gq, gv, bar_q,
               bar_v, bar_control, bar_external, bar_steps, bar_num);
@DENORMALISE@
scatter(bar_q, NQ, bar_q_out);
scatter(bar_v, NV, bar_v_out);
scatter(bar_control, NU, bar_control_out);
scatter(bar_external, NV, bar_external_out);
scatter(bar_steps, 1, bar_interval_out);
scatter(bar_steps + 1, 1, bar_timestep_out);
if (WITH_NUMBERS) scatter(bar_num, NUMBERS, bar_num_out);
