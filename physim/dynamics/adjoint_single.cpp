// One step of every block of environments, arguments in rows.
const Seats at = consecutive(block * LANES, batch);
constexpr int PRIMALS = 2 * LIMITS + RUBS + 3 * CONTACTS;
V given[NQ + 1], q[NQ + 1], v[NV + 1], control[NU + 1], external[NV + 1], steps[2], kappa[1];
V q_next[NQ + 1], x[NQ + 1], impulses[PRIMALS + 1], gq[NQ + 1], gv[NV + 1];
V bar_q[NQ + 1], bar_v[NV + 1], bar_control[NU + 1], bar_external[NV + 1], bar_steps[2];
V bar_num[WITH_NUMBERS ? NUMBERS : 1];
const V* const num = numbers_in + (size_t)block * number_stride;
gather(q_in, NQ, at, given);
for (int i = 0; i < NQ; ++i) q[i] = given[i];
@NORMALISE@
gather(v_in, NV, at, v);
gather(control_in, NU, at, control);
gather(external_in, NV, at, external);
gather(interval_in, 1, at, steps);
gather(timestep_in, 1, at, steps + 1);
gather(q_next_in, NQ, at, q_next);
gather(x_in, NQ, at, x);
if (EXACT) gather(impulses_in, PRIMALS, at, impulses);
gather(gq_in, NQ, at, gq);
gather(gv_in, NV, at, gv);
kappa[0] = V(kappa_in);
pull_back_step(q, v, control, external, steps, num, q_next, x, kappa, impulses, gq, gv, bar_q,
               bar_v, bar_control, bar_external, bar_steps, bar_num);
@DENORMALISE@
scatter(bar_q, NQ, at, bar_q_out);
scatter(bar_v, NV, at, bar_v_out);
scatter(bar_control, NU, at, bar_control_out);
scatter(bar_external, NV, at, bar_external_out);
scatter(bar_steps, 1, at, bar_interval_out);
scatter(bar_steps + 1, 1, at, bar_timestep_out);
if (WITH_NUMBERS) scatter(bar_num, NUMBERS, at, bar_num_out);
