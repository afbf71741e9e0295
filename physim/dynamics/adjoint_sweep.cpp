// Adjoint of many steps of a team of environments in one call, from the last step to the first.
// Cotangents of the state stay in lanes. A step that was taken in parts is pulled back through its
// parts, whose inputs and solutions stand in rows of their own.
constexpr int WARM = 2 * LIMITS + RUBS + 3 * CONTACTS;
const int begin = block * team * LANES;
const int end = batch < begin + team * LANES ? batch : begin + team * LANES;
const V none = V(0.0), unit = V(1.0);
const auto normalise = [&](V* q) {
  @NORMALISE@
};
for (int first = begin; first < end; first += LANES) {
  const Seats at = consecutive(first, end);
  V real = none;
  for (int l = 0; l < LANES; ++l) vput(real, l, l < at.real ? 1.0 : 0.0);
  const V* const num = numbers_in + (size_t)(first / LANES) * number_stride;
  V* const sum_num = bar_num_out + (size_t)(first / LANES) * (WITH_NUMBERS ? NUMBERS : 0);
  V bar_q[NQ + 1], bar_v[NV + 1], bar_interval[1], bar_timestep[1], bar_external[NV + 1];
  V timestep[1], external[NV + 1];
  gather(bar_q_out, NQ, at, bar_q);
  gather(bar_v_out, NV, at, bar_v);
  gather(bar_interval_out, 1, at, bar_interval);
  gather(bar_timestep_out, 1, at, bar_timestep);
  gather(bar_external_out, NV, at, bar_external);
  gather(timestep_in, 1, at, timestep);
  gather(external_in, NV, at, external);

  for (int step = steps_count - 1; step >= 0; --step) {
    const size_t now = (size_t)step * batch, next = now + batch;
    const auto add = [&](const double* source, int width, V* sum) {
      V extra[NQ + NV + NU + 1];
      gather(source, width, at, extra);
      for (int i = 0; i < width; ++i) sum[i] = sum[i] + extra[i];
    };
    if (reads & 1) add(gq_in + next * NQ, NQ, bar_q);
    if (reads & 2) add(gv_in + next * NV, NV, bar_v);
    if (reads & 4) add(g_interval_in + next, 1, bar_interval);
    if (want_states) {
      scatter(bar_q, NQ, at, state_q_out + next * NQ);
      scatter(bar_v, NV, at, state_v_out + next * NV);
    }
    if (step > 0) {
      // The rows of the step before lie a batch away, where no hardware looks ahead.
      const auto fetch = [&](const double* source, int width) {
        const double* const row = source + (now - batch + first) * width;
        for (int i = 0; i < at.real * width; i += 8) __builtin_prefetch(row + i);
      };
      fetch(q_in, NQ);
      fetch(v_in, NV);
      fetch(soft_in, NQ);
      fetch(control_in, NU);
      fetch(outcome_in, 3);
      fetch(interval_in, 1);
      if (reads & 1) fetch(gq_in + (size_t)batch * NQ, NQ);
      if (reads & 2) fetch(gv_in + (size_t)batch * NV, NV);
    }
    V outcome[3], q0[NQ + 1], v0[NV + 1], control[NU + 1], bar_control[NU + 1];
    gather(outcome_in + now * 3, 3, at, outcome);
    gather(q_in + now * NQ, NQ, at, q0);
    gather(v_in + now * NV, NV, at, v0);
    gather(control_in + now * NU, NU, at, control);
    for (int i = 0; i < NU; ++i) bar_control[i] = none;
    if (reads & 8) add(g_control_in + now * NU, NU, bar_control);
    normalise(q0);
    const V parts = outcome[1];
    const M whole = (outcome[0] < 0.5) & (parts < 1.5) & (outcome[2] > 0.5);
    bar_timestep[0] = bar_timestep[0] + bar_interval[0] / parts;
    int most = 1;
    if (has_parts)
      for (int l = 0; l < LANES; ++l) {
        const int count = (int)vlane(parts, l);
        if (place_in[now + at.item[l]] >= 0 && count > most) most = count;
      }
    for (int part = most - 1; part >= 0; --part) {
      V q[NQ + 1], v[NV + 1], after[NQ + 1], x[NQ + 1], steps[2], kappa[1], impulses[WARM + 1];
      V flags = none, alive = none;
      if (part == 0) {
        for (int i = 0; i < NQ; ++i) q[i] = q0[i];
        for (int i = 0; i < NV; ++i) v[i] = v0[i];
        gather(q_in + next * NQ, NQ, at, after);
        gather(soft_in + now * NQ, NQ, at, x);
        if (EXACT) gather(impulses_in + now * WARM, WARM, at, impulses);
        flags = vbool(whole);
        alive = unit;
      } else {
        for (int i = 0; i < NQ; ++i) q[i] = after[i] = x[i] = q0[i];
        for (int i = 0; i < NV; ++i) v[i] = v0[i];
        for (int i = 0; i < WARM; ++i) impulses[i] = none;
      }
      gather(interval_in + now, 1, at, steps);
      for (int l = 0; has_parts && l < LANES; ++l) {
        const int place = place_in[now + at.item[l]];
        if (place < 0 || part >= (int)vlane(parts, l)) continue;
        const size_t row = place + part;
        for (int i = 0; i < NQ; ++i) vput(q[i], l, part_q_in[row * NQ + i]);
        for (int i = 0; i < NV; ++i) vput(v[i], l, part_v_in[row * NV + i]);
        for (int i = 0; i < NQ; ++i) vput(after[i], l, part_after_in[row * NQ + i]);
        for (int i = 0; i < NQ; ++i) vput(x[i], l, part_soft_in[row * NQ + i]);
        for (int i = 0; EXACT && i < WARM; ++i)
          vput(impulses[i], l, part_impulses_in[row * WARM + i]);
        vput(flags, l, part_solved_in[row]);
        vput(alive, l, 1.0);
      }
      steps[1] = timestep[0] / parts;
      if (part > 0) steps[0] = steps[1];
      kappa[0] = gradient_kappa / parts;
      const M good = flags > 0.5, reached = alive > 0.5;
      V gq[NQ + 1], gv[NV + 1], new_q[NQ + 1], new_v[NV + 1], new_control[NU + 1];
      V new_external[NV + 1], new_steps[2], new_num[WITH_NUMBERS ? NUMBERS : 1];
      for (int i = 0; i < NQ; ++i) gq[i] = good ? bar_q[i] : none;
      for (int i = 0; i < NV; ++i) gv[i] = good ? bar_v[i] : none;
      pull_back_step(q, v, control, external, steps, num, after, x, kappa, impulses, gq, gv, new_q,
                     new_v, new_control, new_external, new_steps, new_num);
      for (int i = 0; i < NQ; ++i) bar_q[i] = reached ? (good ? new_q[i] : none) : bar_q[i];
      for (int i = 0; i < NV; ++i) bar_v[i] = reached ? (good ? new_v[i] : none) : bar_v[i];
      for (int i = 0; i < NU; ++i) bar_control[i] = bar_control[i] + (good ? new_control[i] : none);
      for (int i = 0; i < NV; ++i)
        bar_external[i] = bar_external[i] + (good ? new_external[i] : none);
      if (WITH_NUMBERS)
        for (int i = 0; i < NUMBERS; ++i) sum_num[i] = sum_num[i] + (good ? new_num[i] : none);
      const V past = good ? new_steps[0] : none, ahead = good ? new_steps[1] : none;
      bar_timestep[0] = bar_timestep[0] + (part ? past + ahead : ahead) / parts;
      bar_interval[0] = past;
    }
    scatter(bar_control, NU, at, bar_control_out + now * NU);
    @PULL_BACK_POLICY@
  }
  scatter(bar_q, NQ, at, bar_q_out);
  scatter(bar_v, NV, at, bar_v_out);
  scatter(bar_interval, 1, at, bar_interval_out);
  scatter(bar_timestep, 1, at, bar_timestep_out);
  scatter(bar_external, NV, at, bar_external_out);
}
